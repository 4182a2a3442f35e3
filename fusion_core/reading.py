"""Texts as several models read them together, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from . import evaluate as scoring
from . import models
from .align import by_bytes
from .align.windows import Window, cut, windows
from .config import FusionConfig
from .errors import InputError
from .models import LoadedModel
from .records import Alignment, Encoding, NextTokenRows

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of it that is behind."""

KEPT_CELLS = 1 << 26
"""Rows times vocabulary, of all models, up to which the rows of texts are kept in memory."""

DOCUMENTS_AT_ONCE = 256
"""Documents that are encoded together."""


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

    def row_bytes(self, model: int) -> np.ndarray:
        """(n + 1,) bytes of the whole text at which a model's rows stand."""
        return self.rows[model].boundary + self.window.start

    def align(self, source: int) -> Alignment:
        """Align the target with a source within the window."""
        target, encoding = self.encodings[0], self.encodings[source]
        return by_bytes(target, encoding, source_start=self.has_start[source])

    def owned(self, model: int) -> np.ndarray:
        """(n + 1,) bool, rows that are taken from this window."""
        at = self.row_bytes(model)
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
        cells: rows times vocabulary of all models.
    """

    def __init__(
        self, readers: Sequence[LoadedModel], encodings: Sequence[Encoding], config: FusionConfig
    ) -> None:
        """Cut a text into windows; nothing is read yet.

        Args:
            readers: the models, the target first.
            encodings: the text in each model's tokens.
            config: overlap of windows, temperature, and what is kept of the sources' rows.

        Raises:
            InputError: a tokenizer makes nothing of the text, or no byte of it is predicted by all
                models.
        """
        self.readers, self.encodings = list(readers), list(encodings)
        self._config = config
        self.data = self.encodings[0].data
        for model, encoding in zip(readers, self.encodings, strict=True):
            if not len(encoding.text_tokens):
                raise InputError(
                    f"The tokenizer of {model.name} makes no token of this text: give another text."
                )
        self.has_start = [m.tokenizer.start_id is not None for m in readers]
        ends = [e.end[e.text_tokens] for e in self.encodings]
        self._common = np.union1d(reduce(np.intersect1d, ends), [0, len(self.data)])
        self.windows = windows(self.encodings, [m.window for m in readers], config.overlap)
        self.scored = [self._scored(w) for w in self.windows]
        self.scored_bytes = sum(min(high, len(self.data)) - low for low, high in self.scored)
        if self.scored_bytes <= 0:
            raise InputError(
                "There is no stretch of this text that every model predicts (one has no start "
                "token, or their tokens nowhere meet): give another or a longer text."
            )
        self.cells = sum(
            len(e.text_tokens) * m.tokenizer.size
            for m, e in zip(self.readers, self.encodings, strict=True)
        )
        self._kept: list[Reading] = []

    @staticmethod
    def of(readers: Sequence[LoadedModel], text: str, config: FusionConfig) -> JointText:
        """Encode a text and cut it into windows; errors also those of an empty text."""
        return JointText(readers, [m.tokenizer.encode(text) for m in readers], config)

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
                after = own[encoding.end[own] > window.start]  # those without width apart
                if not has_start and len(after):
                    low = max(low, int(encoding.end[after[0]]))
        low = int(self._common[np.searchsorted(self._common, low)])
        high = int(self._common[np.searchsorted(self._common, window.end, side="right") - 1])
        if high <= low:
            return low, low
        return low, window.own_end if high == len(self.data) else high

    def readings(self, progress: Progress | None = None) -> Iterator[Reading]:
        """Read every window; what is read is kept for the next time, unless it is too much.

        Args:
            progress: told of every window that is read.
        """
        yield from self._kept
        at = len(self._kept)
        while at < len(self.windows):
            if progress:
                progress(f"reading window {at + 1} of {len(self.windows)}", at / len(self.windows))
            read = read_windows([(self, w) for w in self.windows[at : at + self._at_once()]])
            if self.cells <= KEPT_CELLS:
                self._kept += read
            yield from read
            at += len(read)

    def _at_once(self) -> int:
        """Tell how many windows are read together: as many as make one batch."""
        return min(
            max(1, models.batch_tokens(model) * len(self.windows) // len(encoding.text_tokens))
            for model, encoding in zip(self.readers, self.encodings, strict=True)
        )

    def keep(self, readings: Sequence[Reading]) -> None:
        """Take the readings of all windows, read elsewhere."""
        self._kept = list(readings)

    def nats(self, progress: Progress | None = None) -> list[float]:
        """Sum every model's own cross-entropy over the scored bytes."""
        totals = [0.0] * len(self.readers)
        for reading, (low, high) in zip(self.readings(progress), self.scored, strict=True):
            for j in range(len(self.readers)):
                totals[j] += scoring.native_nats(reading.rows[j], reading.row_bytes(j), low, high)
        return totals

    def part(self, window: Window) -> list[tuple[Encoding, int]]:
        """Cut a window out of every encoding, with the number of text tokens before it."""
        return [cut(e, window) for e in self.encodings]

    def cut_of(self, model: int) -> dict:
        """Return how a model's rows are to be read: the target's whole, a source's cut."""
        kept = self._config.source_truncation if model else None
        return {"temperature": self._config.temperature, "cut": kept}


def read_windows(jobs: Sequence[tuple[JointText, Window]]) -> list[Reading]:
    """Read windows of texts that have the same readers and settings, many at once."""
    if not jobs:
        return []
    parts = [text.part(window) for text, window in jobs]
    first = jobs[0][0]
    rows = [
        models.read_rows_batch(model, [p[j][0] for p in parts], **first.cut_of(j))
        for j, model in enumerate(first.readers)
    ]
    return [
        Reading(
            window,
            [e for e, _ in part],
            [of_model[n] for of_model in rows],
            [before for _, before in part],
            text.has_start,
        )
        for n, ((text, window), part) in enumerate(zip(jobs, parts, strict=True))
    ]


def joint_texts(
    readers: Sequence[LoadedModel],
    documents: Sequence[str],
    config: FusionConfig,
    progress: Progress | None = None,
    before: int | None = None,
) -> Iterator[JointText]:
    """Read documents, as many at once as memory is meant for, and give them one after another.

    Args:
        readers: the models, the target first.
        documents: texts that are not empty.
        config: as for `JointText`.
        progress: told how many documents have been read.
        before: number of documents that stand before these, where they are some of many.

    Raises:
        InputError: a document is of no use; the error says which.
    """
    waiting: list[JointText] = []

    def flush(done: int) -> Iterator[JointText]:
        if progress:
            progress(f"reading document {done} of {len(documents)}", done / len(documents))
        small = [t for t in waiting if t.cells <= KEPT_CELLS]
        read = iter(read_windows([(t, w) for t in small for w in t.windows]))
        for text in small:
            text.keep([next(read) for _ in text.windows])
        yield from waiting
        waiting.clear()

    for n, encodings in enumerate(_encoded(readers, documents)):
        try:
            text = JointText(readers, encodings, config)
        except InputError as error:
            if len(documents) == 1 and before is None:
                raise
            raise InputError(f"Document {(before or 0) + n + 1}: {error}") from error
        if waiting and sum(t.cells for t in waiting) + text.cells > KEPT_CELLS:
            yield from flush(n)
        waiting.append(text)
    yield from flush(len(documents))


def _encoded(
    readers: Sequence[LoadedModel], documents: Sequence[str]
) -> Iterator[tuple[Encoding, ...]]:
    for first in range(0, len(documents), DOCUMENTS_AT_ONCE):
        some = documents[first : first + DOCUMENTS_AT_ONCE]
        yield from zip(*(m.tokenizer.encode_batch(some) for m in readers), strict=True)
