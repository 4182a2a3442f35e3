"""Worker of a run: trains in this process, and writes metrics and status as it goes on."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion_core import training
from fusion_core.cache.distributed import Processes
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError, InputError, TooLargeError, is_out_of_memory
from fusion_core.io.files import write_whole
from fusion_core.records import Progress

from .folder import (
    CONFIG,
    METRICS,
    STOP,
    RunStatus,
    claim,
    compare,
    line,
    locked,
    metrics,
    read_status,
    write_status,
)

STATUS_SECONDS = 0.3
"""Seconds between two writings of the status, where nothing but its numbers changes."""


def train(
    config: RunConfig | str | Path,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train in this process, by settings or by the YAML file that holds them; see `run`."""
    settings = config if isinstance(config, RunConfig) else RunConfig.read(config)
    return run(settings, folder, resume=resume, progress=progress)


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train in this process.

    Args:
        config: the settings.
        folder: new or empty, or with ``resume`` that of a run with these settings.
        resume: go on from the last complete checkpoint, if there is one; give the result of a run
            that is finished.
        progress: called with what is being done.

    Returns:
        The last step's metrics and what the run came to.

    Raises:
        FusionError: something that was given cannot be used, the run is live elsewhere, the disk is
            full, or the loss is no number. The status says so, too.
    """
    folder, group = Path(folder), Processes()
    if not group.first:
        if not group.broadcast():
            return {}
        with _signals(threading.Event()):  # the first process is asked, and tells
            return _train_by(config)(config, folder, training.Callbacks())
    goes = False
    try:
        with locked(folder):
            now = read_status(folder) or RunStatus(state="interrupted")
            if resume and (folder / CONFIG).is_file():
                compare(folder, config)
                if now.state == "finished" and now.result is not None:
                    return now.result
            else:
                claim(folder, config, fresh=not resume)
            if now.state != "starting":  # else it is meant for this worker
                (folder / STOP).unlink(missing_ok=True)
            goes = group.broadcast(True)
            return _Worker(folder, progress).work(config)
    finally:
        if not goes:
            group.broadcast(False)


class _Worker:
    """Worker that keeps status and metrics while a run is trained."""

    def __init__(self, folder: Path, progress: Progress | None) -> None:
        self._folder, self._progress = folder, progress
        self._status = RunStatus(state="preparing")
        self._written = 0.0
        self._asked = threading.Event()
        self._last: dict[str, Any] = {}

    def work(self, config: RunConfig) -> dict[str, Any]:
        callbacks = training.Callbacks(stage=self._stage, metrics=self._metrics, stop=self._stop)
        try:
            self._forget_later_steps()
            self._update(state="preparing", stage="starting", now=True)
            with _signals(self._asked):
                result = _train_by(config)(config, self._folder, callbacks)
            result = self._last | result
        except training.StoppedError:
            result = {"stopped": True}
        except KeyboardInterrupt:
            self._update(state="stopped", stage="", message="It was interrupted.", now=True)
            raise
        except FusionError as error:
            raise self._failed(error) from None
        except BaseException as error:
            if known := self._known(error):
                raise self._failed(known) from error
            kind = type(error).__name__
            self._update(state="failed", message=f"An internal fault ({kind}: {error}).", now=True)
            raise
        if result["stopped"]:
            self._update(state="stopped", stage="", seconds_left=None, result=result, now=True)
        else:
            self._update(
                state="finished", stage="", share=1.0, seconds_left=0.0, result=result, now=True
            )
        return result

    def _known(self, error: BaseException) -> FusionError | None:
        """Say what a person can mend: a device or disk that is full, a folder that is gone."""
        if is_out_of_memory(error):
            return TooLargeError(
                "The training does not fit into the memory of the device: choose lora, or a "
                "smaller batch_size or block_size."
            )
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            return InputError(
                f"The run at {self._folder} cannot go on ({error.strerror or error}): "
                f"{'make room on the disk' if full else 'mend that'} and resume it."
            )
        return None

    def _failed(self, error: FusionError) -> FusionError:
        self._update(state="failed", message=str(error), now=True)
        return error

    def _forget_later_steps(self) -> None:
        """Drop metrics of steps after the checkpoint that is gone on from."""
        said = training.check_checkpoints(self._folder)
        if said:
            self._update(message=said, now=True)
        step = training.steps_done(self._folder)
        kept = [x for x in metrics(self._folder) if x["step"] <= step]
        self._status = replace(self._status, step=step)
        write_whole(self._folder / METRICS, b"".join(map(line, kept)))
        self._last = next((x for x in reversed(kept) if "loss" in x), {})

    def _stop(self) -> bool:
        return self._asked.is_set() or (self._folder / STOP).exists()

    def _stage(self, stage: str, share: float) -> None:
        trains = stage.endswith(("training", "writing the model", "merging the models"))
        state = "training" if trains else "preparing"
        self._update(state=state, stage=stage, share=share, now=stage != self._status.stage)
        if self._progress:
            self._progress(stage, share)

    def _metrics(self, values: dict[str, Any]) -> None:
        with (self._folder / METRICS).open("ab") as stream:
            stream.write(line(values))
        if "loss" not in values:
            return
        self._last = values
        step, steps, left = values["step"], values["max_steps"], values["seconds_left"]
        self._update(
            state="training",
            stage="training",
            share=step / steps,
            step=step,
            max_steps=steps,
            seconds_left=left,
        )
        if self._progress:
            shown = f"step {step} of {steps}, loss {values['loss']:.3f}, about {left:.0f} s left"
            self._progress(shown, step / steps)

    def _update(self, *, now: bool = False, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        if now or time.monotonic() - self._written > STATUS_SECONDS:
            self._written = time.monotonic()
            with suppress(OSError):  # a full disk must not hide what is to be said
                write_status(self._folder, self._status)


@contextmanager
def _signals(asked: threading.Event) -> Iterator[None]:
    """Take SIGTERM, which schedulers send before they kill, and Ctrl-C as requests to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, _: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {s: signal.signal(s, handler) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _train_by(config: RunConfig) -> Callable[..., dict[str, Any]]:
    return training.train_pairwise if config.pairwise else training.train
