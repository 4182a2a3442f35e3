"""Training runs: a folder each, a worker process of its own, one view of it for everybody.

    config.yaml     everything that is needed to repeat the run
    metrics.jsonl   one line a step and evaluation
    status.json     what is being done, renamed into its place
    worker.log      what the worker printed
    cache/          rows that the run made, where it was not given any
    checkpoints/    each whole only with its `whole.json`
    model/          the result, with its card; there whole or not at all

A worker holds a lock on its folder for as long as it lives, however it ends. What is written as
running without that lock was killed, and can be resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from . import build, train
from .config import RunConfig
from .errors import FusionError, InputError
from .files import write_whole

CONFIG, METRICS, STATUS = "config.yaml", "metrics.jsonl", "status.json"
LOCK, STOP, PID, LOG = ".lock", ".stop", ".pid", "worker.log"
LIVE = ("starting", "preparing", "training")
STATES = (*LIVE, "finished", "stopped", "failed", "interrupted")
TOLD_EVERY = 0.3
"""Seconds between two writings of the status, where nothing but its numbers changes."""

GLANCE = 0.05
"""Seconds after which a lock is a worker's; whoever only looks holds it for an instant."""


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Attributes:
        state: "starting", "preparing" (reading, writing and fusing the text), "training",
            "finished", "stopped", "failed", or "interrupted": its worker is gone.
        stage: what is being done, in words.
        share: of the stage that is behind, 0 to 1.
        step: optimiser steps that are behind.
        max_steps: of the whole run; 0 while it is not known.
        seconds_left: of the steps that are ahead; None while it is not known.
        message: why it failed.
        updated: seconds since 1970, when this was written.
        result: what it came to, once it is finished.
    """

    state: str = "starting"
    stage: str = ""
    share: float = 0.0
    step: int = 0
    max_steps: int = 0
    seconds_left: float | None = None
    message: str = ""
    updated: float = 0.0
    result: dict[str, Any] | None = None

    @property
    def live(self) -> bool:
        """Whether a worker is at it."""
        return self.state in LIVE


# Looking --------------------------------------------------------------------------------------


def status(folder: str | Path) -> RunStatus:
    """Say where a run stands, whoever started it.

    Raises:
        InputError: there is no run in the folder, or its status cannot be read.
    """
    folder = Path(folder)
    # The lock first: a worker that ends in between has written its last word by then.
    held = _held(folder)
    found = _read_status(folder)
    if found is None:
        raise InputError(f"There is no run at {folder}: name the folder of one.")
    if found.live and not held:
        young = found.state == "starting" and _starts(folder)
        found = _read_status(folder) or found
        if found.live and not young and not _held(folder):
            return replace(found, state="interrupted", message="Its worker is gone: resume it.")
    return found


def metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read a run's metrics; a line that is still being written is left out."""
    return list(_lines(Path(folder) / METRICS))


def follow(folder: str | Path, every: float = 0.2) -> Iterator[dict[str, Any]]:
    """Give a run's metrics as they come, from the first one on, until it has ended.

    Args:
        folder: of the run.
        every: seconds between two looks.
    """
    folder, given = Path(folder), 0
    while True:
        live = status(folder).live
        lines = metrics(folder)
        if len(lines) < given:  # resumed from an earlier step
            given = sum(line["step"] <= lines[-1]["step"] for line in lines) if lines else 0
        yield from lines[given:]
        given = len(lines)
        if not live:
            return
        time.sleep(every)


def list_runs(root: str | Path) -> dict[Path, RunStatus]:
    """Find the runs whose folders lie in a folder, by name."""
    found = {}
    with suppress(OSError):
        for folder in sorted(Path(root).iterdir()):
            if (folder / STATUS).is_file():
                with suppress(InputError):
                    found[folder] = status(folder)
    return found


# Acting ---------------------------------------------------------------------------------------


def start(config: RunConfig, folder: str | Path) -> RunStatus:
    """Begin a run in a process of its own, which outlives this one.

    Args:
        config: its settings.
        folder: new or empty.

    Raises:
        InputError: there is something in the folder, or it cannot be written.
    """
    folder = Path(folder)
    _claim(folder, config, fresh=True)
    return _spawn(folder)


def resume(folder: str | Path) -> RunStatus:
    """Go on with a run that was stopped or killed, or that failed.

    Raises:
        InputError: there is no such run, or it is live or finished.
    """
    folder = Path(folder)
    now = status(folder)
    if now.live or now.state == "finished":
        raise InputError(f"The run at {folder} is {now.state}: there is nothing to resume.")
    return _spawn(folder)


def stop(folder: str | Path) -> None:
    """Ask a run to write a checkpoint after its present step, and end.

    Raises:
        InputError: there is no such run, or it has ended.
    """
    folder = Path(folder)
    if not status(folder).live:
        raise InputError(f"The run at {folder} is not running: there is nothing to stop.")
    (folder / STOP).touch()


def _spawn(folder: Path) -> RunStatus:
    (folder / STOP).unlink(missing_ok=True)
    write_whole(folder / PID, b"0")
    _write_status(folder, RunStatus(stage="starting a process"))
    command = [sys.executable, "-m", "fusion_core", "train"]
    command += ["--config", str(folder / CONFIG), "--out", str(folder), "--resume"]
    # Threads that spin while they wait take the cores from the page that looks on.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ
    package = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package, os.environ.get("PYTHONPATH")])
    )
    with (folder / LOG).open("ab") as log:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    threading.Thread(target=worker.wait, daemon=True).start()  # leaves no zombie behind
    write_whole(folder / PID, str(worker.pid).encode())
    return status(folder)


# Working --------------------------------------------------------------------------------------


def run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Train in this process.

    Args:
        config: the settings.
        folder: new or empty, or with ``resume`` that of a run with these settings.
        resume: go on from the last whole checkpoint, if there is one; give the result of a run that
            is finished.
        progress: told what is being done.

    Returns:
        The last step's metrics and what the run came to.

    Raises:
        FusionError: something that was given cannot be used, the run is live elsewhere, the disk is
            full, or the loss is no number. The status says so, too.
    """
    folder = Path(folder)
    if not build.Processes().first:
        return _course(config)(config, folder, train.Observer())
    with _locked(folder):
        now = _read_status(folder)
        if resume and now is not None and (folder / CONFIG).is_file():
            _compare(folder, config)
            if now.state == "finished" and now.result is not None:
                return now.result
        else:
            _claim(folder, config, fresh=not resume)
        (folder / STOP).unlink(missing_ok=True)
        return _Worker(folder, progress).work(config)


class _Worker:
    """Keeps status and metrics while a run is trained."""

    def __init__(self, folder: Path, progress: Callable[[str, float], None] | None) -> None:
        self._folder, self._progress = folder, progress
        self._status = RunStatus(state="preparing")
        self._told = 0.0
        self._asked = threading.Event()
        self._last: dict[str, Any] = {}

    def work(self, config: RunConfig) -> dict[str, Any]:
        self._forget_later_steps()
        self._tell(state="preparing", stage="starting", now=True)
        observer = train.Observer(stage=self._stage, metrics=self._metrics, stop=self._stop)
        try:
            with _signals(self._asked):
                result = _course(config)(config, self._folder, observer)
            result = self._last | result
        except train.StoppedError:
            result = {"stopped": True}
        except KeyboardInterrupt:
            self._tell(state="stopped", stage="", message="It was interrupted.", now=True)
            raise
        except OSError as error:
            failure = InputError(
                f"The run at {self._folder} cannot be written ({error.strerror or error}): make "
                "room and resume it."
            )
            self._tell(state="failed", message=str(failure), now=True)
            raise failure from error
        except FusionError as error:
            self._tell(state="failed", message=str(error), now=True)
            raise
        except BaseException as error:
            kind = type(error).__name__
            self._tell(state="failed", message=f"An internal fault ({kind}: {error}).", now=True)
            raise
        if result["stopped"]:
            self._tell(state="stopped", stage="", seconds_left=None, result=result, now=True)
        else:
            self._tell(
                state="finished", stage="", share=1.0, seconds_left=0.0, result=result, now=True
            )
        return result

    def _forget_later_steps(self) -> None:
        """Drop metrics of steps after the checkpoint that is gone on from."""
        step = train.steps_done(self._folder)
        kept = [line for line in metrics(self._folder) if line["step"] <= step]
        self._status = replace(self._status, step=step)
        write_whole(self._folder / METRICS, b"".join(map(_line, kept)))
        self._last = next((line for line in reversed(kept) if "loss" in line), {})

    def _stop(self) -> bool:
        return self._asked.is_set() or (self._folder / STOP).exists()

    def _stage(self, stage: str, share: float) -> None:
        trains = stage.endswith(("training", "writing the model", "merging the models"))
        state = "training" if trains else "preparing"
        self._tell(state=state, stage=stage, share=share, now=stage != self._status.stage)
        if self._progress:
            self._progress(stage, share)

    def _metrics(self, line: dict[str, Any]) -> None:
        with (self._folder / METRICS).open("ab") as stream:
            stream.write(_line(line))
        if "loss" not in line:
            return
        self._last = line
        step, steps, left = line["step"], line["max_steps"], line["seconds_left"]
        self._tell(
            state="training",
            stage="training",
            share=step / steps,
            step=step,
            max_steps=steps,
            seconds_left=left,
        )
        if self._progress:
            told = f"step {step} of {steps}, loss {line['loss']:.3f}, about {left:.0f} s left"
            self._progress(told, step / steps)

    def _tell(self, *, now: bool = False, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        if now or time.monotonic() - self._told > TOLD_EVERY:
            self._told = time.monotonic()
            with suppress(OSError):  # a full disk must not hide what is to be said
                _write_status(self._folder, self._status)


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


def _course(config: RunConfig) -> Callable[..., dict[str, Any]]:
    return train.teach_pairs if config.pairwise else train.teach


# Files ----------------------------------------------------------------------------------------


def _claim(folder: Path, config: RunConfig, *, fresh: bool) -> None:
    """Make a folder a run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = sorted(f.name for f in folder.iterdir() if f.name != LOCK)
        if other and (fresh or CONFIG not in other):
            raise InputError(
                f"{folder} holds {other[0]}: choose an empty folder"
                + (", or resume the run in it." if CONFIG in other else ".")
            )
        write_whole(folder / CONFIG, config.to_yaml(train.versions()).encode())
        _write_status(folder, RunStatus(stage="starting"))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder."
        ) from error


def _compare(folder: Path, config: RunConfig) -> None:
    before, now = RunConfig.read(folder / CONFIG).to_mapping(), config.to_mapping()
    changed = [f"{k}: {before[k]!r}, not {now[k]!r}" for k in now if before[k] != now[k]]
    if changed:
        raise InputError(
            f"The run at {folder} has other settings ({changed[0]}): choose another folder, or the "
            "settings in its config.yaml."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder against every other worker."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=1)  # whoever only looks holds it for an instant
    except Timeout:
        raise InputError(f"The run at {folder} is live: stop it first, or wait for it.") from None
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _held(folder: Path) -> bool:
    """Tell whether a worker holds the folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=GLANCE, poll_interval=GLANCE / 5):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _starts(folder: Path) -> bool:
    """Tell whether a process was started that may not have come as far as to hold the folder."""
    try:
        file = folder / PID
        pid, age = int(file.read_text()), time.time() - file.stat().st_mtime
        if not pid:
            return age < 10
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, psutil.Error):
        return False


def _read_status(folder: Path) -> RunStatus | None:
    try:
        return RunStatus(**json.loads((folder / STATUS).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder / STATUS} cannot be read ({error}): delete this file and resume the run."
        ) from error


def _write_status(folder: Path, now: RunStatus) -> None:
    write_whole(folder / STATUS, json.dumps(asdict(replace(now, updated=time.time()))).encode())


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError:
        return
    for line in data.split(b"\n")[:-1]:
        with suppress(ValueError):
            yield json.loads(line)
