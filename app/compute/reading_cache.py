"""Readings of texts and their projections, shared by all visitors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from cachetools import LRUCache

from fusion_core.records import Projection, TextReading

T = TypeVar("T", TextReading, Projection)


class _TextRows:
    """The reading of one text, and its projections."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.records: dict[Hashable, TextReading | Projection] = {}

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return sum(record.windows.nbytes for record in self.records.values())


class ReadingCache:
    """The rows of the most recently used texts, within a limit of memory.

    A record whose windows are not all kept is not kept either: it would hold on to its models, and
    works out the others anew in any case.
    """

    def __init__(self, limit: int) -> None:
        """Start empty; ``limit`` is in bytes of all texts; a larger one is kept alone."""
        self._kept: LRUCache[Hashable, _TextRows] = LRUCache(
            limit, getsizeof=lambda text: min(limit, text.nbytes)
        )
        self._making: dict[Hashable, _TextRows] = {}
        self._lock = threading.Lock()

    def get(self, text: Hashable, way: Hashable, make: Callable[[], T]) -> T:
        """Return a record of a text, or make it, once however many ask for it at a time.

        Args:
            text: all that the reading depends on.
            way: how it was projected; None for the reading itself.
            make: makes the record.
        """
        with self._lock:
            rows = self._kept.get(text) or self._making.setdefault(text, _TextRows())
        with rows.lock:
            if way in rows.records:
                return cast(T, rows.records[way])
            try:
                record = make()
                if record.windows.complete:
                    rows.records[way] = record
                    with self._lock:
                        self._kept[text] = rows  # anew: it has grown
            finally:
                with self._lock:
                    self._making.pop(text, None)
            return record
