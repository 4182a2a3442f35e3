"""The queue of all visitors' trainings: they wait on disk, and run a few at a time."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fusion_core import runs
from fusion_core.config import RunConfig
from fusion_core.errors import FusionError, InputError
from fusion_core.runs.folder import PID

from ..limits import Limits
from .job import ID, PARTS, is_live, jobs_in, part_of

TICK_SECONDS = 0.4
_log = logging.getLogger(__name__)


class JobQueue:
    """A queue that lies on disk, and a thread that is there while something is in it."""

    def __init__(self, root: Path, limits: Limits) -> None:
        """Find what waits and what runs.

        Args:
            root: folder of all trainings.
            limits: how many run at a time, and how long.
        """
        self.root, self.limits = root, limits
        self.lock = threading.RLock()
        self._scheduler: threading.Thread | None = None
        self._live = self._running()

    def _running(self) -> set[Path]:
        """Return the parts that are being worked at, whoever started them."""
        jobs = (job for visitor in self.root.glob("*") for job in jobs_in(visitor))
        return {job.run(p) for job in jobs for p in job.parts if is_live(job.run(p))}

    def waiting(self) -> list[Path]:
        """Return the parts that wait, those first that have waited longest."""
        found = []
        for wait in self.root.glob("*/*/*.wait"):
            part = part_of(wait.stem)
            if ID.fullmatch(wait.parent.name) and part in PARTS:
                with suppress(OSError):
                    order = list(PARTS).index(part)
                    found.append((wait.stat().st_mtime_ns, order, wait))
        return [wait for _, _, wait in sorted(found)]

    def tick(self) -> bool:
        """Start what may start and stop what has had its time.

        Returns:
            Whether there is anything left to look after.
        """
        # Another process may look after the same folder.
        other = FileLock(self.root / ".scheduler.lock", timeout=0)
        with self.lock, suppress(Timeout, OSError), other:
            waiting = self.waiting()
            # Another app on this folder may have started some.
            self._live = self._running() if waiting else set(filter(is_live, self._live))
            for folder in self._live:
                self._stop_late(folder)
            for wait in waiting[: max(0, self.limits.trainings_at_once - len(self._live))]:
                self._start(wait)
            return bool(waiting) or (bool(self._live) and self.limits.train_seconds is not None)
        return True

    def _start(self, wait: Path) -> None:
        folder = wait.with_suffix("")
        try:
            known = (folder / "config.yaml").exists()
            if known:
                runs.resume(folder)
            else:
                runs.start(RunConfig.read(wait.with_suffix(".yaml")), folder)
            self._live.add(folder)
        except FusionError as error:
            _log.warning("a run could not start: %s", error)
        finally:
            wait.unlink(missing_ok=True)

    def _stop_late(self, folder: Path) -> None:
        most = self.limits.train_seconds
        with suppress(OSError, InputError):
            if most is not None and time.time() - (folder / PID).stat().st_mtime > most:
                runs.stop(folder)

    def wake(self) -> None:
        """Let a thread look after the queue, as long as there is something in it."""
        if self.limits.in_event:
            return
        with self.lock:
            if self._scheduler is None and (self.waiting() or self._live):
                self._scheduler = threading.Thread(target=self._look_after, daemon=True)
                self._scheduler.start()

    def _look_after(self) -> None:
        while True:
            with self.lock:
                try:
                    goes_on = self.tick()
                except Exception:  # the queue must outlive any one run
                    _log.exception("the queue of trainings stumbled")
                    goes_on = True
                if not goes_on:
                    self._scheduler = None
                    return
            time.sleep(TICK_SECONDS)
