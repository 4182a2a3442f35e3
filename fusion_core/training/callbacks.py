"""Callback between two steps: metrics, complete checkpoints, the best weights, stopping."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import deepspeed

from fusion_core.config import RunConfig
from fusion_core.errors import InputError, is_out_of_memory

from .checkpoints import (
    BEST,
    best_folder,
    checkpoint_folder,
    fault,
    is_complete,
    last_checkpoint,
    mark_complete,
    remove_former_best,
    step_of,
)

if TYPE_CHECKING:
    from .trainer import FusionTrainer

ADAPTERS = "adapter_model.safetensors"
Metrics = dict[str, Any]


class RunCallback(TrainerCallback):
    """Trainer callback that reports every step, writes checkpoints and stops.

    Args:
        trainer: whose steps these are.
        config: how often checkpoints are written, and which weights are kept.
        folder: of the run.
        report: called with the metrics of every step and evaluation.
        stop: asked after every step whether to stop.
    """

    def __init__(
        self,
        trainer: FusionTrainer,
        config: RunConfig,
        folder: Path,
        report: Callable[[Metrics], None],
        stop: Callable[[], bool],
    ) -> None:
        self._trainer, self._config, self._folder = trainer, config, folder
        self._report, self._stop = report, stop
        self._began = self._saved = time.monotonic()
        self._first_step = self._saved_step = 0
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clocks."""
        self._began = self._saved = time.monotonic()
        self._first_step = self._saved_step = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint when both waits are over, at the end, and before stopping."""
        config, now, step = self._config, time.monotonic(), state.global_step
        due = (
            step - self._saved_step >= config.checkpoint_steps
            and now - self._saved >= config.checkpoint_seconds
        )
        due, self.stopped = self._agreed(due, self._stop())
        if due or self.stopped or step >= state.max_steps:
            control.should_save = True
            self._saved_step = step
        control.should_training_stop |= self.stopped
        # A step is logged first, and there refused where its loss is no number.
        control.should_log |= control.should_save or control.should_evaluate

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Mark the checkpoint, start the wait for the next, drop what only older ones refer to."""
        trainer = self._trainer
        trainer.accelerator.wait_for_everyone()
        self._saved = time.monotonic()
        if not args.should_save:
            return
        folder = checkpoint_folder(args, state)
        mark_complete(folder, trainer.tokens, time.monotonic() - trainer.began)
        remove_former_best(self._folder)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Metrics | None = None,
        **_: Any,
    ) -> None:
        """Report a step."""
        if logs and "loss" in logs:
            seconds = time.monotonic() - self._began
            done = max(1, state.global_step - self._first_step)
            left = seconds / done * (state.max_steps - state.global_step)
            self._report(
                {"step": state.global_step, "max_steps": state.max_steps}
                | logs
                | {"seconds": seconds, "seconds_left": left}
            )
        state.log_history.clear()  # the reports are the history; a checkpoint need not grow

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Metrics | None = None,
        **_: Any,
    ) -> None:
        """Report bits per byte, and keep the weights where they are the best so far."""
        mean = (metrics or {})["eval_bits_per_byte"]
        prefix = "eval_bits_per_byte/"
        by_text = {k.removeprefix(prefix): v for k, v in (metrics or {}).items() if prefix in k}
        self._report(
            {
                "step": state.global_step,
                "tokens": self._trainer.tokens,
                "bits_per_byte": by_text,
                "mean_bits_per_byte": mean,
            }
        )
        best = math.inf if state.best_metric is None else state.best_metric
        if self._config.keep == "best" and mean < best:
            state.best_metric, state.best_global_step = mean, state.global_step
            self._keep(best_folder(self._folder, state.global_step))

    def _keep(self, folder: Path) -> None:
        part, trainer = self._folder / f".{BEST}.part", self._trainer
        if trainer.args.should_save:
            shutil.rmtree(part, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        try:
            trainer.save_model(str(part))
            if trainer.args.should_save:
                mark_complete(part, trainer.tokens, time.monotonic() - trainer.began)
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
        except _UNWRITABLE as error:
            if is_out_of_memory(error):
                raise
            raise _unwritable(trainer, part, error) from error

    def _agreed(self, *flags: bool) -> tuple[bool, ...]:
        """Let all processes do what the first one has decided."""
        if self._trainer.accelerator.num_processes == 1:
            return flags
        from accelerate.utils import broadcast

        sent = torch.tensor(flags, device=self._trainer.accelerator.device, dtype=torch.int32)
        return tuple(bool(x) for x in broadcast(sent).tolist())


# Checkpoints ----------------------------------------------------------------------------------

_UNWRITABLE = (OSError, RuntimeError, SafetensorError)


@contextmanager
def writing_checkpoint(trainer: FusionTrainer) -> Iterator[None]:
    """Leave nothing of a checkpoint that cannot be written, and say what to do.

    Raises:
        InputError: the disk is full, or the like.
    """
    try:
        yield
    except _UNWRITABLE as error:
        folder = checkpoint_folder(trainer.args, trainer.state)
        if is_out_of_memory(error) or not folder.is_dir() or is_complete(folder):
            raise  # it is no fault of the disk
        raise _unwritable(trainer, folder, error) from error


def _unwritable(trainer: FusionTrainer, folder: Path, error: Exception) -> InputError:
    """Remove a folder that is written in part, and return what is to be raised of it."""
    with suppress(OSError):
        shutil.rmtree(folder)
    last = last_checkpoint(Path(str(trainer.args.output_dir)))
    kept = f", that of step {step_of(last)} is kept" if last else ""
    return InputError(
        f"The checkpoint of step {trainer.state.global_step} cannot be written ({error}){kept}"
        ": make room and resume the run."
    )


def read_weights(network: Any, folder: Path) -> None:
    """Put the weights of a checkpoint, or those that were kept, into a network.

    Models are read the library's way, which undoes what it does in writing: the experts of a
    mixture, say, are one tensor in memory and one each on disk.

    Args:
        network: whose weights are replaced, all of them, or those of its adapters.
        folder: that `transformers` or `peft` has written for such a network.

    Raises:
        InputError: they are gone, broken, incomplete or of another model.
    """
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"The weights in {folder} are gone: start the run again in another folder."
        )
    if is_complete(folder) and (damaged := fault(folder)):
        raise InputError(
            f"{folder / damaged} is damaged: restore it, or start the run again in another folder."
        )
    try:
        odd = (_read_adapters if (folder / ADAPTERS).is_file() else _read_model)(network, folder)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The weights in {folder} cannot be read ({str(error)[:300]}): start the run again in "
            "another folder."
        ) from error
    if odd:
        raise InputError(
            f"{folder} is of another model, or not all of it is there (see {sorted(odd)[0]}): "
            "start the run again in another folder."
        )


def _read_adapters(network: Any, folder: Path) -> set[str]:
    """Read adapters, and name what is missing or too much."""
    from peft import load_peft_weights, set_peft_model_state_dict

    read: Any = set_peft_model_state_dict(network, load_peft_weights(str(folder), device="cpu"))
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    return trained & set(read.missing_keys) | set(read.unexpected_keys)


def _read_model(network: Any, folder: Path) -> set[str]:
    """Read a whole model, and name what is missing or too much."""
    with unsharded():
        found, info = type(network).from_pretrained(
            folder, dtype=network.dtype, use_safetensors=True, output_loading_info=True
        )
    odd = {str(key) for kind in info.values() for key in kind}
    if not odd:
        network.load_state_dict(found.state_dict())
    return odd


@contextmanager
def unsharded() -> Iterator[None]:
    """Read a model whole, where DeepSpeed would have the library share it out among devices."""
    shares = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = shares
