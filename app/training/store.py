"""The trainings of all visitors: ``<root>/<hash of the visitor's key>/<job>/`` for each.

A key comes from the page and is hostile: no path is made of it, and a listing of folders gives none
away.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from fusion_core.errors import InputError
from fusion_core.io.files import folder_whole, write_whole

from ..compute import train
from ..limits import Limits, runs_root
from . import data
from . import job as job_
from .downloads import Downloads
from .job import FORMER_PARTS, PARTS, Job, active, part_of
from .plan import Plan
from .queue import JobQueue

SWEEP_SECONDS = 60
_log = logging.getLogger(__name__)
Names = list[tuple[str, str]]
_KEY = re.compile(r"[A-Za-z0-9_-]{32}")
_TRAINED = re.compile(
    rf"run:([A-Za-z0-9_-]{{32}})/([0-9a-f]{{16}})/({'|'.join([*PARTS, *FORMER_PARTS])})"
)


def new_key() -> str:
    """Make a visitor's key."""
    return secrets.token_urlsafe(24)


def is_key(key: Any) -> bool:
    """Tell whether this may be a key that `new_key` made."""
    return isinstance(key, str) and bool(_KEY.fullmatch(key))


class JobStore:
    """The trainings of all visitors."""

    def __init__(self, limits: Limits | None = None, root: Path | None = None) -> None:
        """Find the trainings that are there, and go on with what waits.

        Args:
            limits: those of this place by default.
            root: folder of all trainings; `runs_root` by default.
        """
        self.limits = limits or Limits.here()
        self.root = (root or runs_root()).absolute()
        self._queue = JobQueue(self.root, self.limits)
        if self.limits.in_event:  # the events that would have come to them are gone
            for wait in self._queue.waiting():
                wait.unlink(missing_ok=True)
        self._queue.wake()
        self.downloads = Downloads()
        self._uploads: dict[str, Path] = {}
        self._addresses: dict[str, str] = {}
        if self.limits.kept_seconds is not None:
            threading.Thread(target=self._sweep_on, daemon=True).start()

    # What a visitor asks ----------------------------------------------------------------------

    def create(self, key: str, plan: Plan, device: str, address: str = "") -> Job:
        """Keep a training; its parts wait for their turn.

        Args:
            key: the visitor's.
            plan: what is trained.
            device: that trains.
            address: the visitor's, from which there may be other keys.

        Raises:
            FusionError: the visitor has too many, or it cannot be written.
        """
        visitor = self._visitor(key)
        id_ = secrets.token_hex(8)
        with self._queue.lock:
            self.check_room(key, address)
            number = 1 + max((job.about.get("number", 0) for job in self.list(key)), default=0)
            try:
                with folder_whole(visitor / id_) as part:
                    self._write(part, visitor / id_, plan, device, number)
            except OSError as error:
                raise InputError(
                    f"The run cannot be written ({error.strerror or error}): make room on the "
                    "server's disk."
                ) from error
        if plan.form.file:
            self._uploads[id_] = Path(plan.form.file)
        self._addresses[id_] = address
        self._queue.wake()
        return self.get(key, id_)

    def check_room(self, key: str, address: str = "") -> None:
        """Refuse another training where there are as many as are allowed.

        Args:
            key: the visitor's, who may have some.
            address: the visitor's, from which some may wait or run, as of all others.

        Raises:
            InputError: there are, or this is no visitor's key.
        """
        self._visitor(key)
        limits = self.limits
        limited = (limits.trainings_by_address, limits.trainings_in_all) != (None, None)
        visitors = self.root.glob("*") if limited else ()
        jobs = (job for visitor in visitors for job in job_.jobs_in(visitor))
        going = {job.id for job in jobs if active(job.statuses())}
        theirs = sum(self._addresses.get(id_) == address for id_ in going)
        for most, number, whose in (
            (limits.trainings_by_address, theirs, "from your address"),
            (limits.trainings_in_all, len(going), "of all visitors"),
        ):
            if most is not None and number >= most:
                raise InputError(
                    f"{number} trainings {whose} wait or run, which is the limit: try again when "
                    "one of them has ended."
                )
        most = limits.trainings
        if len(self.list(key)) >= most:
            raise InputError(f"You have {most} runs, which is the limit: delete one of them first.")

    @staticmethod
    def _write(folder: Path, place: Path, plan: Plan, device: str, number: int) -> None:
        data.write(plan.texts, folder)
        fused = plan.config(place, device)
        for part in plan.parts:
            config = fused if part == "fused" else fused.baseline()
            write_whole(folder / f"{part}.yaml", config.to_yaml().encode())
            write_whole(folder / f"{part}.wait", b"")
        about = asdict(plan.form) | {"text": "", "file": None, "number": number}
        words = {
            "name": f"#{number} · {plan.title}",
            "created": time.time(),
            "parts": plan.parts,
            "about": about,
        }
        write_whole(folder / "job.json", json.dumps(words).encode())

    def list(self, key: str) -> list[Job]:
        """Return a visitor's trainings, the newest first."""
        if not is_key(key):
            return []
        return sorted(job_.jobs_in(self._visitor(key)), key=lambda j: j.created, reverse=True)

    def get(self, key: str, id_: Any) -> Job:
        """Return a training.

        Raises:
            InputError: the visitor has none of this name.
        """
        if isinstance(id_, str) and job_.ID.fullmatch(id_):
            found = job_.read(self._visitor(key) / id_)
            if found:
                return found
        raise InputError("There is no such run: it may have been deleted; choose another one.")

    def stop(self, key: str, id_: Any) -> None:
        """Stop a training after its present step; parts that wait begin no more.

        Raises:
            InputError: there is no such training, or nothing to stop.
        """
        job = self.get(key, id_)
        with self._queue.lock:
            if not active(job.statuses()):
                raise InputError("This run is not running: there is nothing to stop.")
            for part in job.parts:
                job.wait(part).unlink(missing_ok=True)
                job_.stop(job.run(part))

    def resume(self, key: str, id_: Any) -> None:
        """Let the parts go on that were stopped, killed, or failed.

        Raises:
            InputError: there is no such training, or all of it is live or finished.
        """
        job = self.get(key, id_)
        with self._queue.lock:
            idle = [
                part
                for part, now in job.statuses().items()
                if not now.live and now.state not in ("finished", "waiting")
            ]
            if not idle:
                raise InputError("This run is going on or finished: there is nothing to resume.")
            for part in idle:
                write_whole(job.wait(part), b"")
        self._queue.wake()

    def delete(self, key: str, id_: Any) -> None:
        """Delete a training with its models, its text, the upload that it came of, its downloads.

        Raises:
            InputError: there is no such training, or it is going on.
        """
        job = self.get(key, id_)
        with self._queue.lock:
            if active(job.statuses()):
                raise InputError("This run is going on: stop it first.")
            self._remove(job)

    def _remove(self, job: Job) -> None:
        self._addresses.pop(job.id, None)
        gone = job.folder.with_name(f".{job.id}.gone")
        job.folder.rename(gone)
        self.downloads.forget(job.id)
        upload = self._uploads.pop(job.id, None)
        if upload is not None:
            upload.unlink(missing_ok=True)
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Delete the trainings that ended so long ago that nobody may expect them any more."""
        most = self.limits.kept_seconds
        if most is None:
            return
        self.downloads.forget_older(most)
        for visitor in self.root.glob("*"):
            for job in job_.jobs_in(visitor):
                with suppress(OSError), self._queue.lock:
                    if time.time() - job_.last_change(job) > most and not active(job.statuses()):
                        self._remove(job)
            with suppress(OSError), self._queue.lock:  # others are not empty
                visitor.rmdir()

    def _sweep_on(self) -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            try:
                self.sweep()
            except Exception:  # the next sweep may find another disk
                _log.exception("old trainings could not be deleted")

    def work(self, key: str, id_: str) -> Iterator[None]:
        """Train the parts that wait inside the visitor's event, one after another (ZeroGPU)."""
        job = self.get(key, id_)
        for part in job.parts:
            wait = job.wait(part)
            if not wait.exists():
                continue
            config = job.settings(part).read_text("utf-8")
            seconds = self.limits.train_seconds or 3600
            try:
                for _ in train.train(str(job.run(part)), config, seconds):
                    wait.unlink(missing_ok=True)
                    yield
            finally:
                wait.unlink(missing_ok=True)
            if job.status(part).state != "finished":
                return

    # Models -----------------------------------------------------------------------------------

    def model_folder(self, key: str, id_: Any, part: str) -> Path:
        """Return the folder of a trained model.

        Raises:
            InputError: there is none.
        """
        job = self.get(key, id_)
        if part in job.parts and job.status(part).state == "finished":
            return job.run(part) / "model"
        raise InputError("This run has no such model yet: wait until it is finished.")

    def trained(self, key: str) -> Names:
        """Return a visitor's trained models, as (label, name for `resolve`)."""
        return [
            (f"{job.name} · {PARTS[part]}", f"run:{key}/{job.id}/{part}")
            for job in self.list(key)
            for part, now in job.statuses().items()
            if now.state == "finished"
        ]

    def resolve(self, name: Any) -> Path:
        """Return the folder of a model that `trained` named.

        Raises:
            InputError: there is none.
        """
        return self.model_folder(*self._parts(name))

    def label(self, name: Any) -> str:
        """Return the title of a model that `trained` named, above its text.

        Raises:
            InputError: there is none.
        """
        key, id_, part = self._parts(name)
        return f"{self.get(key, id_).name.split(' · ')[0]} {PARTS[part]}"

    @staticmethod
    def _parts(name: Any) -> tuple[str, str, str]:
        found = _TRAINED.fullmatch(name) if isinstance(name, str) else None
        if not found:
            raise InputError("There is no such trained model: choose another one.")
        key, id_, part = found.groups()
        return key, id_, part_of(part)

    def _visitor(self, key: str) -> Path:
        if not is_key(key):
            raise InputError("This page has lost its key to your runs: reload it.")
        return self.root / sha256(key.encode()).hexdigest()[:32]
