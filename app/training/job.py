"""One training of a visitor, as it lies in its folder.

job.json                    what it is called, and its parts
data.jsonl, held-out-…      its text
fused.yaml, baseline.yaml   settings of its parts
fused.wait, …               there while a part waits to be started
fused/, baseline/           runs of `fusion_core.runs`
"""

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
from fusion_core.runs.folder import PID, STATUS, STOP, starts

PARTS = {"fused": "fused", "baseline": "text alone"}
"""Runs of a training, and what the page calls their models."""

FORMER_PARTS = {"twin": "baseline"}
"""What parts, their folders and files were called in trainings that people still have."""

ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Job:
    """A training of one visitor.

    Attributes:
        id: its name in links between page and server.
        folder: where it lies.
        name: what the page calls it.
        created: seconds since 1970.
        stems: keys are those of `PARTS`, in their order; values what the part's folder and files
            are called.
        about: the form's values, as plain data.
    """

    id: str
    folder: Path
    name: str
    created: float
    stems: dict[str, str]
    about: dict[str, Any]

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the keys of `PARTS` that it has, in their order."""
        return tuple(self.stems)

    def run(self, part: str) -> Path:
        """Return the folder of a part's run."""
        return self.folder / self.stems[part]

    def settings(self, part: str) -> Path:
        """Return the file of a part's settings."""
        return self.run(part).with_suffix(".yaml")

    def wait(self, part: str) -> Path:
        """Return the file that is there while a part waits."""
        return self.run(part).with_suffix(".wait")

    def config(self, part: str) -> RunConfig:
        """Return the settings of a part."""
        return RunConfig.read(self.settings(part))

    def status(self, part: str) -> RunStatus:
        """Return the status of a part; beside the states of a run there is "waiting"."""
        if self.wait(part).exists():
            return RunStatus(state="waiting", stage="waiting for its turn")
        try:
            now = runs.status(self.run(part))
        except InputError:
            return RunStatus(state="stopped")
        if now.state == "interrupted" and (self.run(part) / STOP).exists():
            return replace(now, state="stopped", message="")
        return now

    def statuses(self) -> dict[str, RunStatus]:
        """Return the status of every part."""
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
        stems = {part: stem for stem in words["parts"] if (part := part_of(stem)) in PARTS}
        return Job(folder.name, folder, words["name"], words["created"], stems, words["about"])
    except (OSError, ValueError, KeyError):
        return None


def part_of(stem: str) -> str:
    """Return the part whose folder and files have a name; the name itself where there is none."""
    return FORMER_PARTS.get(stem, stem)


def last_change(job: Job) -> float:
    """Return when, in seconds since 1970, a training was made or its status changed."""
    seen = [job.created]
    for part in job.parts:
        with suppress(OSError):
            seen.append((job.run(part) / STATUS).stat().st_mtime)
    return max(seen)


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
