"""A text as several models read it together, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from . import evaluate as scoring
from . import models
from .align import by_bytes
from .errors import InputError
from .models import LoadedModel
from .records import Alignment, Encoding, NextTokenRows
from .windows import Window, cut, windows

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of it that is behind."""

KEPT_CELLS = 1 << 26
"""Rows times vocabulary, of all models, up to which the rows of a text of many windows are kept."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What several models read in one window.

    Attributes:
        window: the stretch of the text.
        encodings: the window in each model's tokens, offsets from its start.
        rows: each model's next-token rows.
        before: each model's number of text tokens before the window.
        has_start: whether each model has a start token.
    """

    window: Window
    encodings: list[Encoding]
    rows: list[NextTokenRows]
    before: list[int]
    has_start: list[bool]

    def stands(self, model: int) -> np.ndarray:
        """(n + 1,) bytes of the whole text at which a model's rows stand."""
        return self.rows[model].boundary + self.window.start

    def align(self, source: int) -> Alignment:
        """Align the target with a source within the window."""
        target, encoding = self.encodings[0], self.encodings[source]
        return by_bytes(target, encoding, source_start=self.has_start[source])

    def owned(self, model: int) -> np.ndarray:
        """(n + 1,) bool, rows that are taken from this window."""
        at = self.stands(model)
        return (at >= self.window.own) & (at < self.window.own_end)


class JointText:
    """A text as several models read it, window by window.

    Attributes:
        readers: the models, the target first.
        has_start: whether each model has a start token.
        encodings: the whole text in each model's tokens.
        data: the text in UTF-8.
        windows: stretches that every model can read at once.
        scored: for each window, the range of bytes at which its scored rows stand.
        scored_bytes: bytes over which bits per byte are taken, the same for every model.
    """

    def __init__(
        self,
        readers: Sequence[LoadedModel],
        text: str,
        overlap: float,
        progress: Progress | None = None,
    ) -> None:
        """Encode the text and cut it into windows; nothing is read yet.

        Args:
            readers: the models, the target first.
            text: the text.
            overlap: share of a window that the next one reads again.
            progress: told of every window that is read.

        Raises:
            InputError: the text is empty, a tokenizer makes nothing of it, or no byte of it is
                predicted by all models.
        """
        self.readers = readers
        self._tell = progress or (lambda stage, share: None)
        self.encodings = [m.tokenizer.encode(text) for m in readers]
        self.data = self.encodings[0].data
        for model, encoding in zip(readers, self.encodings, strict=True):
            if not len(encoding.text_tokens):
                raise InputError(
                    f"The tokenizer of {model.name} makes no token of this text: give another text."
                )
        self.has_start = [m.tokenizer.start_id is not None for m in readers]
        ends = [e.end[e.text_tokens] for e in self.encodings]
        self._common = np.union1d(reduce(np.intersect1d, ends), [0, len(self.data)])
        self.windows = windows(self.encodings, [m.context for m in readers], overlap)
        self.scored = [self._scored(w) for w in self.windows]
        self.scored_bytes = sum(min(high, len(self.data)) - low for low, high in self.scored)
        if self.scored_bytes <= 0:
            raise InputError(
                "There is no stretch of this text that every model predicts (one has no start "
                "token, or their tokens nowhere meet): give another or a longer text."
            )
        cells = sum(
            len(e.text_tokens) * m.tokenizer.size
            for m, e in zip(self.readers, self.encodings, strict=True)
        )
        self._keep = len(self.windows) == 1 or cells <= KEPT_CELLS
        self._kept: list[Reading] = []

    def _scored(self, window: Window) -> tuple[int, int]:
        """Find the bytes of a window on which all models are scored.

        They begin and end where all models have a boundary. A model without a start token says
        nothing about the first token that it reads; those bytes are left out for all.

        Returns:
            A half-open range of bytes at which scored rows stand; it reaches beyond the text's end
            where that is included.
        """
        low = window.own
        if low == window.start:
            for encoding, has_start in zip(self.encodings, self.has_start, strict=True):
                own = encoding.text_tokens
                after = own[encoding.start[own] >= window.start]
                if not has_start and len(after):
                    low = max(low, int(encoding.end[after[0]]))
        low = int(self._common[np.searchsorted(self._common, low)])
        high = int(self._common[np.searchsorted(self._common, window.end, side="right") - 1])
        if high <= low:
            return low, low
        return low, window.own_end if high == len(self.data) else high

    def readings(self) -> Iterator[Reading]:
        """Read every window; what is read is kept for the next time, unless it is too much."""
        yield from self._kept
        for n, window in enumerate(self.windows[len(self._kept) :], len(self._kept)):
            self._tell(f"reading window {n + 1} of {len(self.windows)}", n / len(self.windows))
            parts = [cut(e, window) for e in self.encodings]
            rows = [models.rows(m, e) for m, (e, _) in zip(self.readers, parts, strict=True)]
            reading = Reading(
                window, [e for e, _ in parts], rows, [n for _, n in parts], self.has_start
            )
            if self._keep:
                self._kept.append(reading)
            yield reading

    def nats(self) -> list[float]:
        """Sum every model's own cross-entropy over the scored bytes."""
        totals = [0.0] * len(self.readers)
        for reading, (low, high) in zip(self.readings(), self.scored, strict=True):
            for j in range(len(self.readers)):
                totals[j] += scoring.native_nats(reading.rows[j], reading.stands(j), low, high)
        return totals
