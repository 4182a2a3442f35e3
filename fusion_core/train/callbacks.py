"""What happens between two steps: metrics, checkpoints, the best weights, stopping."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusion_core.config import RunConfig

from .trainer import FusionTrainer

BEST = "best"
Metrics = dict[str, Any]


def best_folder(folder: Path, step: int | None) -> Path:
    """Say where a run keeps the weights of a step that was the best so far."""
    return folder / f"{BEST}-{step}"


class RunCallback(TrainerCallback):
    """Reports every step, and decides when to write a checkpoint and when to stop.

    Args:
        trainer: whose steps these are.
        config: how often checkpoints are written, and which weights are kept.
        folder: of the run.
        report: told the metrics of every step and evaluation.
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

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the wait for the next checkpoint, and drop what only older ones refer to."""
        self._saved = time.monotonic()
        for folder in self._folder.glob(f"{BEST}-*") if args.should_save else ():
            if folder != best_folder(self._folder, state.best_global_step):
                shutil.rmtree(folder, ignore_errors=True)

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
        with trainer.writing(part):
            trainer.save_model(str(part), _internal_call=True)
            if trainer.args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)

    def _agreed(self, *flags: bool) -> tuple[bool, ...]:
        """Let all processes do what the first one has decided."""
        if self._trainer.accelerator.num_processes == 1:
            return flags
        from accelerate.utils import broadcast

        sent = torch.tensor(flags, device=self._trainer.accelerator.device, dtype=torch.int32)
        return tuple(bool(x) for x in broadcast(sent).tolist())
