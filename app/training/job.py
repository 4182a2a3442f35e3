"""One training of a visitor, as it lies in its folder."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.errors import InputError
from fusion_core.runs import RunStatus
from fusion_core.runs.folder import PID, STOP, starts

PARTS = {"fused": "fused", "twin": "text alone"}
ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Job:
    """A training of one visitor.

    Attributes:
        id: its name in links between page and server.
        folder: where it lies.
        name: what the page calls it.
        created: seconds since 1970.
        parts: keys of `PARTS`, in their order.
        about: the form's values, as plain data.
    """

    id: str
    folder: Path
    name: str
    created: float
    parts: tuple[str, ...]
    about: dict[str, Any]

    def config(self, part: str) -> RunConfig:
        """Return the settings of a part."""
        return RunConfig.read(self.folder / f"{part}.yaml")

    def status(self, part: str) -> RunStatus:
        """Say where a part stands; beside the states of a run there is "waiting"."""
        if waits(self.folder / part):
            return RunStatus(state="waiting", stage="waiting for its turn")
        try:
            now = runs.status(self.folder / part)
        except InputError:
            return RunStatus(state="stopped")
        if now.state == "interrupted" and (self.folder / part / STOP).exists():
            return replace(now, state="stopped", message="")
        return now

    def statuses(self) -> dict[str, RunStatus]:
        """Say where every part row_bytes."""
        return {part: self.status(part) for part in self.parts}


def active(statuses: dict[str, RunStatus]) -> bool:
    """Tell whether any part waits or is being worked at."""
    return any(s.live or s.state == "waiting" for s in statuses.values())


def jobs_in(visitor: Path) -> list[Job]:
    """Return the trainings in a visitor's folder."""
    with suppress(OSError):
        return [job for job in map(read, list(visitor.iterdir())) if job]
    return []


def read(folder: Path) -> Job | None:
    """Return the training in a folder, if there is one."""
    if not ID.fullmatch(folder.name):
        return None
    try:
        words = json.loads((folder / "job.json").read_bytes())
        parts = tuple(p for p in words["parts"] if p in PARTS)
        return Job(folder.name, folder, words["name"], words["created"], parts, words["about"])
    except (OSError, ValueError, KeyError):
        return None


def waits(folder: Path) -> bool:
    """Tell whether a part waits for its turn."""
    return folder.with_name(f"{folder.name}.wait").exists()


def is_live(folder: Path) -> bool:
    """Tell whether a part is being worked at."""
    try:
        return runs.status(folder).live
    except InputError:
        return False


def stop(folder: Path) -> None:
    """Stop a run; a process that is still starting has nothing to write down, and is ended."""
    with suppress(InputError):
        now = runs.status(folder)
        if not now.live:
            return
        runs.stop(folder)
        if now.state == "starting" and starts(folder):
            with suppress(OSError, ValueError, psutil.Error):
                pid = int((folder / PID).read_text())
                if pid and pid != os.getpid():
                    os.kill(pid, signal.SIGTERM)
