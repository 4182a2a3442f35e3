"""Trainings of many: two apps on one folder, and one client who wants everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from trainings import planned

from app.limits import Limits
from app.training import queue, store
from app.training.store import JobStore
from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.runs import RunStatus, folder


@pytest.mark.parametrize("most", [1, 2])
def test_two_apps_on_one_folder_share_its_limit(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counted what it had started by itself, so that two trainings ran where one may."""
    started: list[Path] = []
    held: list[FileLock] = []

    def start(config: RunConfig, place: Path) -> RunStatus:
        """Hold the folder as a worker does."""
        place.mkdir()
        folder.write_status(place, RunStatus(state="training"))
        held.append(FileLock(place / folder.LOCK))
        held[-1].acquire()
        started.append(place)
        return RunStatus(state="training")

    monkeypatch.setattr(runs, "start", start)
    monkeypatch.setattr(queue.JobQueue, "wake", lambda self: None)
    limits = Limits(trainings_at_once=most)
    apps = [JobStore(limits, tmp_path) for _ in range(3)]
    for app in apps:
        for _ in range(2):
            app.create(store.new_key(), planned(), "cpu")
    for _ in range(3):
        for app in apps:
            app._queue.tick()
    assert len(started) == most
    held[0].release()
    folder.write_status(started[0], RunStatus(state="finished"))
    for app in apps:
        app._queue.tick()
    assert len(started) == most + 1
    for lock in held:
        lock.release()
