"""Control of workers: start, resume, stop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.io.files import write_whole

from .folder import (
    CONFIG,
    LOG,
    PID,
    STOP,
    RunStatus,
    claim,
    locked,
    read_status,
    starts,
    status,
    write_status,
)


def start(config: RunConfig, folder: str | Path) -> RunStatus:
    """Begin a run in a process of its own, which outlives this one.

    Args:
        config: its settings.
        folder: new or empty.

    Raises:
        InputError: there is something in the folder, or it cannot be written.
    """
    folder = Path(folder)
    with locked(folder):
        now = read_status(folder)
        if now is not None and now.state == "starting" and starts(folder):
            raise InputError(f"The run at {folder} is live: stop it first, or wait for it.")
        claim(folder, config, fresh=True)
        _announce(folder)
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
    with locked(folder):
        _announce(folder)
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


def _announce(folder: Path) -> None:
    """Say that a worker is about to start."""
    (folder / STOP).unlink(missing_ok=True)
    write_whole(folder / PID, b"0")
    write_status(folder, RunStatus(stage="starting a process"))


def _spawn(folder: Path) -> RunStatus:
    command = [sys.executable, "-m", "fusion_core", "train"]
    command += ["--config", str(folder / CONFIG), "--out", str(folder), "--resume"]
    # Threads that spin while they wait take the cores from the page that looks on.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ
    package = str(Path(__file__).resolve().parents[2])
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
