"""Loaded models, shared by all visitors."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from fusion_core import models
from fusion_core.errors import FusionError, size_of

PROGRESS_SECONDS = 0.5
"""How often a visitor is told what is being done."""


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    model: Any = None


class Shelf:
    """Loaded models, the most recently used ones within a limit of memory.

    A worker on a lent device is a fork of this process and cannot be handed a model; it finds the
    shelf by its `key`.
    """

    _known: ClassVar[WeakValueDictionary[str, Shelf]] = WeakValueDictionary()

    def __init__(self, limit: int, load: Callable[[str], Any]) -> None:
        """Start empty; ``load`` turns a name into a model with a ``size_bytes``."""
        self._limit, self._load = limit, load
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self.key = secrets.token_hex(8)
        self._known[self.key] = self

    @classmethod
    def at(cls, key: str) -> Shelf:
        """Return the shelf with a key, in this process or in a fork of it."""
        return cls._known[key]

    def has(self, name: str) -> bool:
        """Tell whether a model can be had at once."""
        with self._lock:
            slot = self._slots.get(name)
            return slot is not None and slot.model is not None

    def get(self, name: str) -> Any:
        """Return a model, loading it once however many visitors ask for it at a time."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
        with slot.lock:
            if slot.model is None:
                try:
                    slot.model = self._load(name)
                except BaseException:
                    with self._lock:
                        if self._slots.get(name) is slot:
                            del self._slots[name]
                    raise
        self._evict(keep=name)
        return slot.model

    def loading(self, names: Sequence[str]) -> Generator[str, None, dict[str, Any]]:
        """Load what is missing.

        Yields:
            Sentences that say which model is loaded, how large it is, and how much has come.

        Returns:
            The models by name.

        Raises:
            FusionError: one sentence that says what was wrong with a name.
        """
        found = {}
        for i, name in enumerate(dict.fromkeys(names)):
            if not self.has(name):
                yield from self._told(name, f"{i + 1} of {len(names)}")
            found[name] = self.get(name)
        return found

    def _told(self, name: str, place: str) -> Generator[str, None, None]:
        size = 0
        with suppress(FusionError):  # loading says it better
            size = models.weights_bytes(name)
        what = f"{name} ({size_of(size)}; {place})" if size else f"{name} ({place})"
        yield f"Loading {what} …"
        with ThreadPoolExecutor(max_workers=1) as pool:
            job: Future[Any] = pool.submit(self.get, name)
            while not wait([job], PROGRESS_SECONDS).done:
                if came := _fetched(name):
                    yield f"Loading {what}: {size_of(came)} have come …"
            job.result()

    def _evict(self, keep: str) -> None:
        with self._lock:
            loaded = [
                (n, s.model.size_bytes) for n, s in self._slots.items() if s.model is not None
            ]
            total = sum(size for _, size in loaded)
            for name, size in loaded:
                if total <= self._limit:
                    return
                if name != keep:
                    del self._slots[name]
                    total -= size


def _fetched(name: str) -> int:
    """Return how many bytes of a hub model lie in the hub's cache; 0 for other models."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    with suppress(OSError):
        return sum(f.stat().st_size for f in blobs.iterdir())
    return 0


def told(work: Callable[[Callable[[str, float], None]], Any]) -> Generator[str, None, Any]:
    """Work in a thread of its own, so that progress can be told meanwhile.

    Args:
        work: is given what it tells its progress to: a sentence and the share that is behind.

    Yields:
        Sentences, at most one every `PROGRESS_SECONDS`.

    Returns:
        What the work returns; its errors are raised.
    """
    steps: SimpleQueue[str | None] = SimpleQueue()

    def progress(stage: str, share: float) -> None:
        steps.put(f"{stage.capitalize()} ({share:.0%}) …")

    with ThreadPoolExecutor(max_workers=1) as pool:
        job = pool.submit(work, progress)
        job.add_done_callback(lambda _: steps.put(None))
        last = time.monotonic()
        while (step := steps.get()) is not None:
            if time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                yield step
        return job.result()
