"""Folder of a run: its lock, its status, its metrics."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from fusion_core import training
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.io.files import write_whole

CONFIG, METRICS, STATUS = "config.yaml", "metrics.jsonl", "status.json"
LOCK, STOP, PID, LOG = ".lock", ".stop", ".pid", "worker.log"
LIVE = ("starting", "preparing", "training")
STATES = (*LIVE, "finished", "stopped", "failed", "interrupted")
GLANCE = 0.05
"""Seconds after which a lock is a worker's; whoever only looks holds it for an instant."""


@dataclass(frozen=True)
class RunStatus:
    """Status of a run.

    Attributes:
        state: "starting", "preparing" (reading, writing and fusing the text), "training",
            "finished", "stopped", "failed", or "interrupted": its worker is gone.
        stage: what is being done, in words.
        share: of the stage that is behind, 0 to 1.
        step: optimiser steps that are behind.
        max_steps: of the whole run; 0 while it is not known.
        seconds_left: of the steps that are ahead; None while it is not known.
        message: why it failed; while it goes on, what was passed over.
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


def status(folder: str | Path) -> RunStatus:
    """Return the status of a run, whoever started it.

    Raises:
        InputError: there is no run in the folder, or its status cannot be read.
    """
    folder = Path(folder)
    # The lock first: a worker that ends in between has written its last word by then.
    held = is_held(folder)
    found = read_status(folder)
    if found is None:
        raise InputError(f"There is no run at {folder}: name the folder of one.")
    if found.live and not held:
        young = found.state == "starting" and starts(folder)
        found = read_status(folder) or found
        if found.live and not young and not is_held(folder):
            return replace(found, state="interrupted", message="Its worker is gone: resume it.")
    return found


class Tail:
    """Reader of a growing file of JSON lines, each read once.

    Attributes:
        lines: all that have been read of the file that is there now.
    """

    def __init__(self, path: Path) -> None:
        """Begin at the start of a file, which need not be there yet."""
        self._path = path
        self._file = self._read = 0
        self.lines: list[dict[str, Any]] = []

    def new(self) -> list[dict[str, Any]]:
        """Return the whole lines since the last look; a file that was replaced is read anew."""
        try:
            with self._path.open("rb") as stream:
                now = os.fstat(stream.fileno())
                if now.st_ino != self._file or now.st_size < self._read:
                    self._file, self._read, self.lines = now.st_ino, 0, []
                stream.seek(self._read)
                data = stream.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        found = []
        for part in whole.splitlines():
            with suppress(ValueError, TypeError, KeyError, RecursionError):  # a damaged line
                if isinstance(values := json.loads(part), dict) and values["step"] >= 0:
                    found.append(values)
        self.lines += found
        return found

    def more(self) -> list[dict[str, Any]]:
        """Return all whole lines."""
        self.new()
        return self.lines


def metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read a run's metrics; a line that is still being written is left out."""
    return Tail(Path(folder) / METRICS).more()


def follow(folder: str | Path, every: float = 0.2) -> Iterator[dict[str, Any]]:
    """Give a run's metrics as they come, from the first one on, until it has ended.

    Args:
        folder: of the run.
        every: seconds between two looks.
    """
    folder, tail = Path(folder), Tail(Path(folder) / METRICS)
    given: set[tuple[int, bool]] = set()
    while True:
        live = status(folder).live
        for values in tail.new():
            what = (values["step"], "loss" in values)
            if what not in given:  # a resumed run writes some once more
                given.add(what)
                yield values
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


# Writing ---------------------------------------------------------------------------------------


def claim(folder: Path, config: RunConfig, *, fresh: bool) -> None:
    """Make a folder a run's.

    Args:
        folder: new, empty, or one in which a run failed before it had made anything.
        config: the run's settings.
        fresh: take no other folder.

    Raises:
        InputError: it is another folder, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = sorted(f.name for f in folder.iterdir())
        worthless = set(other) <= {CONFIG, METRICS, STATUS, LOCK, STOP, PID, LOG}
        worthless &= not metrics(folder) and (CONFIG in other) <= (STATUS in other)
        if not worthless and (fresh or CONFIG not in other):
            raise InputError(
                f"{folder} holds {other[-1]}: choose an empty folder"
                + (", or resume the run in it." if CONFIG in other else ".")
            )
        write_whole(folder / CONFIG, config.to_yaml(training.versions()).encode())
        write_status(folder, RunStatus(stage="starting"))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder."
        ) from error


def compare(folder: Path, config: RunConfig) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        InputError: a setting differs.
    """
    before, now = RunConfig.read(folder / CONFIG).to_mapping(), config.to_mapping()
    changed = [f"{k}: {before[k]!r}, not {now[k]!r}" for k in now if before[k] != now[k]]
    if changed:
        raise InputError(
            f"The run at {folder} has other settings ({changed[0]}): choose another folder, or the "
            "settings in its config.yaml."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder against every other worker."""
    foreign = folder.is_dir() and not (folder / STATUS).exists()
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
        if foreign and not (folder / STATUS).exists():
            (folder / LOCK).unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
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


def starts(folder: Path) -> bool:
    """Tell whether a process was started that may not have come as far as to hold the folder."""
    try:
        file = folder / PID
        pid, written = int(file.read_text()), file.stat().st_mtime
        if not pid:
            return time.time() - written < 10
        worker = psutil.Process(pid)
        return worker.status() != psutil.STATUS_ZOMBIE and worker.create_time() <= written + 1
    except (OSError, ValueError, psutil.Error):
        return False


def read_status(folder: Path) -> RunStatus | None:
    """Read what the worker wrote last, whether it lives or not; None where nothing is.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return RunStatus(**json.loads((folder / STATUS).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder / STATUS} cannot be read ({error}): delete this file and resume the run."
        ) from error


def write_status(folder: Path, now: RunStatus) -> None:
    """Write the status of a run."""
    write_whole(folder / STATUS, json.dumps(asdict(replace(now, updated=time.time()))).encode())


def line(values: dict[str, Any]) -> bytes:
    """Write a line of metrics."""
    return json.dumps(values).encode() + b"\n"
