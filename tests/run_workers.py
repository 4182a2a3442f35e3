"""Runs in processes of their own, looked at until they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusion_core import runs
from fusion_core.runs import folder as folders

WAIT = 120


def watched(first: runs.RunStatus, folder: Path) -> list[runs.RunStatus]:
    """Look at a run until it ends."""
    seen, end = [first], time.monotonic() + WAIT
    while seen[-1].live and time.monotonic() < end:
        time.sleep(0.02)
        seen.append(runs.status(folder))
    return seen


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def timeless(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics but for the time that they took."""
    return [
        {k: v for k, v in line.items() if not k.startswith("seconds")}
        for line in runs.metrics(folder)
    ]


def worker_of(folder: Path) -> int:
    return int((folder / folders.PID).read_text())


def checkpoint_model(checkpoint: Path, scratch: Path) -> Path:
    """Put a checkpoint's weights beside a tokenizer, so that it can be loaded."""
    from fusion_core import zoo

    folder = scratch / checkpoint.name
    folder.mkdir()
    for file in [*zoo.path("llama").glob("tokenizer*"), *checkpoint.glob("*.safetensors")]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    return folder
