"""Loaded models, and what they have read, shared by all visitors."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from cachetools import LRUCache, cached

from fusion_core import models
from fusion_core.errors import FusionError, size_of

from . import progress
from .reading_cache import ReadingCache


class ModelCache:
    """Loaded models, the most recently used ones within a limit of memory.

    A worker on a lent device is a fork of this process and cannot be handed a model; it finds the
    cache by its `key`.
    """

    _known: ClassVar[WeakValueDictionary[str, ModelCache]] = WeakValueDictionary()

    def __init__(self, limit: int, load: Callable[[str], Any], rows_limit: int = 0) -> None:
        """Start empty.

        Args:
            limit: bytes of all models together; one that is larger is kept alone.
            load: turns a name into a model with a ``size_bytes``.
            rows_limit: bytes of the rows that are kept of texts, all together.
        """
        self._loaded: LRUCache[str, Any] = LRUCache(
            limit, getsizeof=lambda model: min(model.size_bytes, limit)
        )
        self.readings = ReadingCache(rows_limit)
        self._changed = threading.Condition()
        # A model is loaded once, however many visitors ask for it at a time.
        self._get = cached(self._loaded, key=str, condition=self._changed)(load)
        self.key = secrets.token_hex(8)
        self._known[self.key] = self

    @classmethod
    def at(cls, key: str) -> ModelCache:
        """Return the cache with a key, in this process or in a fork of it."""
        return cls._known[key]

    def has(self, name: str) -> bool:
        """Tell whether a model can be had at once."""
        with self._changed:
            return name in self._loaded

    def get(self, name: str) -> Any:
        """Return a model, loading it where it is not there."""
        return self._get(name)

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
                yield from self._report_loading(name, f"{i + 1} of {len(names)}")
            found[name] = self.get(name)
        return found

    def _report_loading(self, name: str, place: str) -> Generator[str, None, None]:
        size = 0
        with suppress(FusionError):  # loading says it better
            size = models.weights_bytes(name)
        what = f"{name} ({size_of(size)}; {place})" if size else f"{name} ({place})"
        yield f"Loading {what} …"
        with ThreadPoolExecutor(max_workers=1) as pool:
            job: Future[Any] = pool.submit(self.get, name)
            while not wait([job], progress.INTERVAL_SECONDS).done:
                if came := _fetched(name):
                    yield f"Loading {what}: {size_of(came)} have come …"
            job.result()


def _fetched(name: str) -> int:
    """Return how many bytes of a hub model lie in the hub's cache; 0 for other models."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    with suppress(OSError):
        return sum(f.stat().st_size for f in blobs.iterdir())
    return 0
