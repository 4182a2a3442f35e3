"""Records of a text's windows, worked out when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_BYTES = 1 << 28
"""Memory of the windows of one text that are kept; others are worked out again when asked for. A
window that is all of its text is kept whatever it takes: nothing else is worked out beside it."""


class Windows(Generic[T]):
    """Records of a text's windows, worked out when asked for; the first of them are kept."""

    def __init__(
        self,
        number: int,
        make: Callable[[int], Sequence[T]],
        nbytes: Callable[[T], int],
        kept: Sequence[T] = (),
    ) -> None:
        """Keep what is there already; nothing else is worked out yet.

        Args:
            number: of windows.
            make: works out some windows from one on, in order and at least one.
            nbytes: memory that a record takes.
            kept: records of the first windows.
        """
        self._number, self._make, self._nbytes = number, make, nbytes
        self._kept, self._lock = list(kept), threading.Lock()
        self.nbytes = sum(map(nbytes, kept))

    def __len__(self) -> int:
        """Return the number of windows."""
        return self._number

    def __iter__(self) -> Iterator[T]:
        """Go through all windows in order."""
        at = 0
        while at < self._number:
            some = self.some(at)
            yield from some
            at += len(some)

    def some(self, at: int) -> Sequence[T]:
        """Return records of one window, and of those after it that come with it."""
        if at < len(self._kept):
            return [self._kept[at]]
        some = self._make(at)
        with self._lock:
            for i, record in enumerate(some, start=at):
                size = self._nbytes(record)
                fits = self._number == 1 or self.nbytes + size <= KEPT_BYTES
                if i == len(self._kept) and fits:
                    self._kept.append(record)
                    self.nbytes += size
        return some

    def closed(self) -> Windows[T]:
        """Return the same windows, all of them kept, without what makes them and its models."""
        return Windows(self._number, lambda _: [], self._nbytes, self._kept)

    @property
    def complete(self) -> bool:
        """Whether every window is kept, so that nothing will be worked out again."""
        return len(self._kept) == self._number
