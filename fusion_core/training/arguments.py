"""Training arguments: a run's settings -> those of the trainer and of the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import is_deepspeed_available

from fusion_core import models
from fusion_core.cache.distributed import Processes
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError, InputError, is_out_of_memory
from fusion_core.models import LoadedModel

from .checkpoints import CHECKPOINTS
from .trainer import FusionTrainer

DEFAULT_BLOCK = 2048

RUN_ARGUMENTS = {
    "output_dir",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "save_strategy",
    "save_steps",
    "save_only_model",
    "eval_strategy",
    "eval_steps",
    "eval_on_start",
    "load_best_model_at_end",
    "remove_unused_columns",
    "label_names",
    "seed",
    "use_cpu",
    "resume_from_checkpoint",
    "average_tokens_across_devices",
    "auto_find_batch_size",
    "label_smoothing_factor",
    "hub_token",
    "save_total_limit",
    "fp16",
}
"""Arguments of the trainer that a run sets by other names, or that would break it."""


HUB = ("push_to_hub", "hub_model_id", "hub_private_repo")
"""Arguments for the finished model, which is uploaded by itself: checkpoints are nobody's."""


def arguments(config: RunConfig, folder: Path, blocks: int) -> TrainingArguments:
    """Translate a run's settings.

    Args:
        config: the run's.
        folder: of the run.
        blocks: of which the data consists.

    Raises:
        InputError: an argument is unknown, or has a setting of its own.
    """
    taken = RUN_ARGUMENTS & set(config.arguments)
    if taken:
        raise InputError(
            f"arguments must not hold {sorted(taken)[0]}: a run sets it itself, or has a setting "
            "of its own for it."
        )
    scheduler = {"constant": "constant_with_warmup"}.get(config.scheduler, config.scheduler)
    per_step = config.batch_size * group_size()
    options: dict[str, Any] = {
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "adam_beta2": 0.95,
        "data_seed": config.seed,
        "bf16": _mixed(config),
        "dataloader_drop_last": blocks >= per_step,
    }
    if config.text.streams:  # one pass over blocks, each of which is made in its turn
        options["train_sampling_strategy"] = "sequential"
    with sentence():
        args = TrainingArguments(
            output_dir=str(folder / CHECKPOINTS),
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            lr_scheduler_type=scheduler,
            warmup_steps=config.warmup,  # below 1 it is a share
            num_train_epochs=1 if config.text.streams else config.epochs,
            max_steps=config.max_steps or -1,
            save_total_limit=2,
            save_strategy="no",  # `RunCallback` asks for checkpoints
            eval_strategy="steps" if config.eval_every else "no",
            eval_steps=config.eval_every,
            remove_unused_columns=False,
            seed=config.seed,
            use_cpu=models.find_device(config.device).type == "cpu",
            **options | {k: v for k, v in config.arguments.items() if k not in HUB},
        )
    args._n_gpu = min(args.n_gpu, 1)  # several devices are for accelerate, not for DataParallel
    return args


def make_trainer(
    config: RunConfig, folder: Path, network: Any, blocks: Any, collator: Any, **more: Any
) -> FusionTrainer:
    """Put the trainer together.

    Args:
        config: the run's.
        folder: of the run.
        network: with what is trained of it asking for gradients.
        blocks: the dataset.
        collator: makes batches of it.
        **more: further options of `FusionTrainer`.

    Raises:
        InputError: it does not take the run's arguments.
    """
    args = arguments(config, folder, len(blocks))
    with sentence():
        trainer = FusionTrainer(
            model=network,
            args=args,
            objective=config.objective,
            train_dataset=blocks,
            data_collator=collator,
            **more,
        )
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if trainer.is_fsdp_enabled and "FULL_STATE_DICT" not in str(plugin and plugin.state_dict_type):
        raise InputError("FSDP must gather the weights: set fsdp_state_dict_type: FULL_STATE_DICT.")
    return trainer


@contextmanager
def sentence() -> Iterator[None]:
    """Say in one sentence what the library says of the trainer's arguments.

    Raises:
        InputError: whatever it says.
    """
    try:
        yield
    except FusionError:
        raise
    except Exception as error:  # of every kind: an optimizer that is not installed, a wrong name
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        said = said[:300].rstrip(".")
        raise InputError(f"The trainer does not take these arguments ({said}).") from error


def is_sharded(config: RunConfig) -> bool:
    """Tell whether the weights will lie on several devices in parts: with FSDP or DeepSpeed."""
    asked = (os.environ.get(f"ACCELERATE_USE_{name}", "") for name in ("FSDP", "DEEPSPEED"))
    return (
        any(value.lower() in ("1", "true", "yes") for value in asked)
        or bool(config.arguments.get("deepspeed"))
        or (bool(config.arguments.get("fsdp")) and group_size() > 1)
    )


def check_sharding(config: RunConfig) -> None:
    """Refuse what weights that lie on several devices do not allow.

    Raises:
        InputError: adapters, or the best weights, are asked for, or a library is not there.
    """
    if not is_sharded(config):
        return
    if config.lora or config.keep == "best":
        raise InputError(
            "With FSDP or DeepSpeed all weights are trained and the last ones kept: leave out lora "
            "and keep."
        )
    if config.arguments.get("deepspeed") and not is_deepspeed_available():
        raise InputError("DeepSpeed is not installed: leave out deepspeed, or install it.")


def check_streaming(config: RunConfig) -> None:
    """Refuse text that several processes would have to write together.

    Raises:
        InputError: there are several.
    """
    if config.text.streams and (group_size() > 1 or is_sharded(config)):
        raise InputError(
            "Text that is written while the training goes on (continuation_share, target_share) is "
            "for one process: train with one, or give generate_bytes."
        )


def check_device(config: RunConfig) -> torch.device:
    """Find the device, and refuse those that a training cannot be put on.

    Raises:
        InputError: it is one of them, or not to be had.
    """
    number = config.device.partition(":")[2]
    if config.device == "spread" or number not in ("", "0") or (number and group_size() > 1):
        raise InputError(
            f"A training runs on cpu, cuda, mps or auto, not on {config.device!r}: choose cards "
            "with CUDA_VISIBLE_DEVICES, and use several of them with accelerate launch."
        )
    return models.find_device(config.device)


def group_size() -> int:
    """Return the number of processes that train together."""
    return Processes().number


def load_target(config: RunConfig) -> LoadedModel:
    """Load the model that is taught; errors are those of `models.load`."""
    return models.load(
        config.target,
        device=config.device,
        dtype=weights_dtype(config),
        start=config.start,
        end=config.end,
    )


def weights_dtype(config: RunConfig) -> str:
    """Say what the weights are trained in: float32 unless asked otherwise.

    Raises:
        InputError: it would overflow.
    """
    if config.dtype == "float16":
        raise InputError("Training in float16 overflows: choose float32 or bfloat16 as dtype.")
    return config.dtype or "float32"


def block_size_of(config: RunConfig, context: int | None) -> int:
    """Say how many positions a block has.

    Args:
        config: the run's.
        context: most tokens that the target reads at once.

    Raises:
        InputError: a block would not fit into the context.
    """
    size = config.block_size or min(context or DEFAULT_BLOCK, DEFAULT_BLOCK)
    if context is not None and size > context:
        raise InputError(
            f"block_size must be at most {context}, the context of {config.target}, not {size}."
        )
    return size


def _mixed(config: RunConfig) -> bool:
    """Tell whether products are taken in bfloat16."""
    return (
        models.find_device(config.device).type == "cuda"
        and config.dtype in (None, "float32")
        and torch.cuda.is_bf16_supported(including_emulation=False)
    )
