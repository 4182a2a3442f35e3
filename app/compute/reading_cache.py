"""Readings of texts and their projections, shared by all visitors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from cachetools import LRUCache

from fusion_core.records import Projection, TextReading

T = TypeVar("T", TextReading, Projection)


class _Slot(Generic[T]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: T | None = None


class ReadingCache:
    """The most recently used readings and projections, within a limit of memory.

    One whose windows are not all kept is not kept either: it would hold on to its models, and it
    works out the others anew in any case. Nor is one that is larger than the limit.
    """

    def __init__(self, limit: int) -> None:
        """Start empty; ``limit`` is in bytes, of all together."""
        self._kept: LRUCache[Hashable, TextReading | Projection] = LRUCache(
            limit, getsizeof=lambda record: record.windows.nbytes
        )
        self._making: dict[Hashable, _Slot] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept under a key, or make it, once however many ask for it at a time.

        Args:
            key: all that the record depends on.
            make: makes the record.
        """
        with self._lock:
            if key in self._kept:
                return cast(T, self._kept[key])
            slot: _Slot[T] = self._making.setdefault(key, _Slot())
        with slot.lock:
            if slot.value is None:
                try:
                    slot.value = make()
                finally:
                    with self._lock:
                        self._making.pop(key, None)
                with self._lock, suppress(ValueError):  # too large
                    if slot.value.windows.complete:
                        self._kept[key] = slot.value
            return slot.value
