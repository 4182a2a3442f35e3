"""A whole training: documents and rows, steps, the trained model in a folder of its own."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PrinterCallback, TrainingArguments

from fusion_core import __version__, build, documents, models, pipeline
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.models import LoadedModel

from .blocks import Blocks, Collator
from .export import export
from .lessons import Lessons
from .packing import reads_packed
from .prepare import SAMPLE_BYTES, Prepared, prepare
from .trainer import WHOLE, FusionTrainer, last_checkpoint, step_of
from .watch import BEST, Metrics, Watch

CHECKPOINTS, MODEL = "checkpoints", "model"
DEFAULT_BLOCK = 2048
TRAINING_TEXT = "training text"
"""What the text is called on which bits per byte are measured where no eval_data is given."""


class StoppedError(Exception):
    """The run was asked to stop before its first step."""


@dataclass(frozen=True)
class Observer:
    """Who looks on.

    Attributes:
        stage: told what is being done, and the share of it that is behind.
        metrics: told the figures of every step and evaluation.
        stop: asked whether to stop.
    """

    stage: Callable[[str, float], None] = lambda *_: None
    metrics: Callable[[Metrics], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False

    def progress(self, stage: str, share: float) -> None:
        """Pass a stage's progress on, and end there if asked to.

        Raises:
            StoppedError: the run is to stop.
        """
        if self.stop():
            raise StoppedError
        self.stage(stage, share)


def versions() -> dict[str, str]:
    """Return the versions that decide a run's numbers."""
    names = (*build.LIBRARIES, "accelerate", "peft")
    return {"fusion_core": __version__} | {n: importlib.metadata.version(n) for n in names}


def teach(config: RunConfig, folder: Path, observer: Observer | None = None) -> dict[str, Any]:
    """Train, or go on from the last whole checkpoint in the folder, and export the model.

    Args:
        config: the settings.
        folder: of the run; rows, checkpoints and the model are written into it.
        observer: who looks on.

    Returns:
        What it came to: bits per byte before and after by text, steps, tokens, seconds; with
        ``stopped`` true, where it was asked to stop, and no model.

    Raises:
        FusionError: something that was given cannot be used, the disk is full, or the loss is no
            number.
        StoppedError: it was asked to stop before the first step.
    """
    observer = observer or Observer()
    began = time.monotonic()
    group = build.Processes()
    _check_device(config)
    observer.progress("loading the target", 0)
    target = models.load(config.target, device=config.device, dtype=_dtype(config))
    block_size = _block_size(config, target)
    per_step = config.batch_size * config.gradient_accumulation * group.number
    positions = config.max_steps * per_step * block_size if config.max_steps else None
    prepared = prepare(config, target, folder, positions, observer.progress)
    blocks = Blocks(
        prepared.lessons,
        block_size,
        start_id=target.tokenizer.start_id,
        end_id=target.tokenizer.eos_id,
        seed=config.seed,
        weigh_by_kept=config.objective.weigh_by_kept,
    )
    if not len(blocks):
        raise InputError("The documents hold no token to predict: give longer ones.")
    texts = _eval_texts(config, prepared.lessons, target)
    observer.progress("measuring the target", 0)
    score = _scorer(target, texts)
    before = score(target.network)
    checkpoint = last_checkpoint(folder / CHECKPOINTS)
    if group.first:
        _tidy(folder)
    trainer, watch = _trainer(config, folder, target, blocks, prepared, score, observer)
    observer.stage("training", 0)
    trainer.tokens = _tokens_at(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    result = {
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens,
        "stopped": watch.stopped and trainer.state.global_step < trainer.state.max_steps,
        "sources": list(prepared.sources),
        "data": prepared.about,
        "device": str(trainer.args.device),
        "best_step": trainer.state.best_global_step if config.keep == "best" else None,
        "versions": versions(),
    }
    if result["stopped"]:
        return result
    observer.stage("writing the model", 0)
    _finish(config, folder, target, trainer, score, before, result, began)
    return result


def _finish(
    config: RunConfig,
    folder: Path,
    target: LoadedModel,
    trainer: FusionTrainer,
    score: Callable[[Any], dict[str, float]],
    before: dict[str, float],
    result: dict[str, Any],
    began: float,
) -> None:
    """Choose the weights, measure them, and write them down."""
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    network = trainer.accelerator.unwrap_model(trainer.model)
    if result["best_step"]:
        _take(network, folder / BEST)
    if config.lora:
        network = network.merge_and_unload()
    network.eval()
    after = score(trainer.model_wrapped if sharded else network)
    result["texts"] = {k: {"before": before[k], "after": after[k]} for k in before}
    result["bits_per_byte"] = {
        when: sum(x[when] for x in result["texts"].values()) / len(before)
        for when in ("before", "after")
    }
    result["seconds"] = time.monotonic() - began
    if sharded and not config.lora:
        trainer.save_model(str(folder / f".{MODEL}.sharded"))  # every process takes part
    if not trainer.args.should_save:
        return

    def save(part: Path) -> None:
        if sharded and not config.lora:
            shutil.rmtree(part)
            (folder / f".{MODEL}.sharded").rename(part)
        else:
            network.save_pretrained(part)

    export(target, save, folder / MODEL, config, result)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()


def _trainer(
    config: RunConfig,
    folder: Path,
    target: LoadedModel,
    blocks: Blocks,
    prepared: Prepared,
    score: Callable[[Any], dict[str, float]],
    observer: Observer,
) -> tuple[FusionTrainer, Watch]:
    """Put the trainer together."""
    packed = reads_packed(target)
    network = target.network
    if config.lora:
        network = _with_adapters(config, network)
    else:
        network.requires_grad_(True)
    end, start = target.tokenizer.eos_id, target.tokenizer.start_id
    pad = end if end is not None else start if start is not None else 0
    trainer = FusionTrainer(
        model=network,
        args=_arguments(config, folder, len(blocks)),
        objective=config.objective,
        temperature=prepared.temperature,
        score=score,
        train_dataset=blocks,
        data_collator=Collator(blocks.block_size, pad, packed),
    )
    trainer.remove_callback(PrinterCallback)  # the observer is told instead
    watch = Watch(trainer, config, folder, observer.metrics, observer.stop)
    trainer.add_callback(watch)
    return trainer, watch


OWN_ARGUMENTS = {
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
}
"""Arguments of the trainer that a run sets by other names, or that would break it."""


def _arguments(config: RunConfig, folder: Path, blocks: int) -> TrainingArguments:
    taken = OWN_ARGUMENTS & set(config.arguments)
    if taken:
        raise InputError(
            f"arguments must not hold {sorted(taken)[0]}: a run sets it itself, or has a setting of "
            "its own for it."
        )
    scheduler = {"constant": "constant_with_warmup"}.get(config.scheduler, config.scheduler)
    per_step = config.batch_size * build.Processes().number
    options: dict[str, Any] = {
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "adam_beta2": 0.95,
        "bf16": _mixed(config),
        "dataloader_drop_last": blocks >= per_step,
    }
    try:
        args = TrainingArguments(
            output_dir=str(folder / CHECKPOINTS),
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.gradient_accumulation,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            lr_scheduler_type=scheduler,
            warmup_steps=config.warmup,  # below 1 it is a share
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            save_strategy="no",  # `Watch` asks for checkpoints
            eval_strategy="steps" if config.eval_every else "no",
            eval_steps=config.eval_every,
            remove_unused_columns=False,
            seed=config.seed,
            use_cpu=torch.device(_plain(config.device)).type == "cpu",
            **options | config.arguments,
        )
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"The trainer does not take these arguments ({error}).") from error
    args._n_gpu = min(args.n_gpu, 1)  # several devices are for accelerate, not for DataParallel
    return args


def _plain(device: str) -> str:
    """Name a device of this kind."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _check_device(config: RunConfig) -> None:
    """Refuse devices that a training cannot be put on."""
    if config.device == "spread" or config.device.partition(":")[2] not in ("", "0"):
        raise InputError(
            f"A training runs on cpu, cuda, mps or auto, not on {config.device!r}: choose cards with "
            "CUDA_VISIBLE_DEVICES, and use several of them with accelerate launch."
        )


def _mixed(config: RunConfig) -> bool:
    return (
        _plain(config.device).startswith("cuda")
        and config.dtype in (None, "float32")
        and torch.cuda.is_bf16_supported()
    )


def _dtype(config: RunConfig) -> str:
    """Weights are trained in float32 unless asked otherwise; products may be narrower."""
    if config.dtype == "float16":
        raise InputError("Training in float16 overflows: choose float32 or bfloat16 as dtype.")
    return config.dtype or "float32"


def _block_size(config: RunConfig, target: LoadedModel) -> int:
    context = target.context or DEFAULT_BLOCK
    size = config.block_size or min(context, DEFAULT_BLOCK)
    if size > context:
        raise InputError(
            f"block_size must be at most {context}, the context of {target.name}, not {size}."
        )
    return size


def _with_adapters(config: RunConfig, network: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    assert config.lora is not None
    lora = config.lora
    modules = lora.target_modules
    try:
        return get_peft_model(
            network,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=modules if isinstance(modules, str) else list(modules),
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        raise InputError(f"These adapters cannot be put on the target: {error}") from error


def _take(network: Any, folder: Path) -> None:
    """Load the weights that were kept."""
    adapter = folder / "adapter_model.safetensors"
    if adapter.is_file():
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(network, load_file(adapter))
        return
    for file in sorted(folder.glob("*.safetensors")):
        network.load_state_dict(load_file(file), strict=False)  # tied weights are kept once


def _scorer(
    target: LoadedModel, texts: dict[str, list[str]]
) -> Callable[[Any], dict[str, float]]:
    def score(network: Any) -> dict[str, float]:
        reader = replace(target, network=network)
        return {
            name: pipeline.bits_per_byte([reader], some)[target.name]["bits_per_byte"]
            for name, some in texts.items()
        }

    return score


def _eval_texts(
    config: RunConfig, lessons: Lessons, target: LoadedModel
) -> dict[str, list[str]]:
    """Read what is evaluated on; without any, the first of the training text."""
    if config.eval_data:
        return {name: documents.read_documents(path) for name, path in config.eval_data.items()}
    texts: list[str] = []
    room = SAMPLE_BYTES
    for i in range(len(lessons)):
        text = target.tokenizer.text_of(lessons[i].ids.tolist())
        room -= len(text.encode())
        if texts and room < 0:
            break
        texts += [text] if text else []
    return {TRAINING_TEXT: texts}


def _tidy(folder: Path) -> None:
    """Remove checkpoints that are not whole."""
    for path in (folder / CHECKPOINTS).glob("*"):
        if path.is_dir() and not (path / WHOLE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def _tokens_at(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    return int(json.loads((checkpoint / WHOLE).read_text())["tokens"])


__all__ = ["Observer", "StoppedError", "step_of", "teach", "versions"]
