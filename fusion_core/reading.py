"""A text as several models read it together, window by window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import evaluate as scoring
from . import models
from .errors import InputError
from .models import LoadedModel
from .records import Encoding, NextTokenRows, SparseRows
from .windows import Window, cut, windows

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
    """

    window: Window
    encodings: list[Encoding]
    rows: list[NextTokenRows]
    before: list[int]

    def stands(self, model: int) -> np.ndarray:
        """(n + 1,) bytes of the whole text at which a model's rows stand."""
        return self.rows[model].boundary + self.window.start

    def owned(self, model: int) -> np.ndarray:
        """(n + 1,) bool, rows that are taken from this window."""
        at = self.stands(model)
        return (at >= self.window.own) & (at < self.window.own_end)


class JointText:
    """A text as several models read it, window by window.

    Attributes:
        readers: the models, the target first.
        encodings: the whole text in each model's tokens.
        data: the text in UTF-8.
        windows: stretches that every model can read at once.
        scored: for each window, the range of bytes at which its scored rows stand.
        scored_bytes: bytes over which bits per byte are taken, the same for every model.
    """

    def __init__(self, readers: Sequence[LoadedModel], text: str, overlap: float) -> None:
        """Encode the text and cut it into windows; nothing is read yet.

        Raises:
            InputError: the text is empty, a tokenizer makes nothing of it, or no byte of it is
                predicted by all models.
        """
        self.readers = readers
        self.encodings = [m.tokenizer.encode(text) for m in readers]
        self.data = self.encodings[0].data
        for model, encoding in zip(readers, self.encodings, strict=True):
            if not len(encoding.text_tokens):
                raise InputError(
                    f"The tokenizer of {model.name} makes no token of this text: give another text."
                )
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
            for model, encoding in zip(self.readers, self.encodings, strict=True):
                own = encoding.text_tokens
                after = own[encoding.start[own] >= low]
                if model.tokenizer.start_id is None and len(after):
                    low = max(low, int(encoding.end[after[0]]))
        ends = [set(e.end[e.text_tokens].tolist()) for e in self.encodings]
        common = {0, len(self.data)} | set.intersection(*ends)
        low = min(b for b in common if b >= low)
        high = max(b for b in common if b <= window.end)
        if high <= low:
            return low, low
        return low, window.own_end if high == len(self.data) else high

    def readings(self) -> Iterator[Reading]:
        """Read every window; what is read is kept for the next time, unless it is too much."""
        yield from self._kept
        for window in self.windows[len(self._kept) :]:
            parts = [cut(e, window) for e in self.encodings]
            rows = [models.rows(m, e) for m, (e, _) in zip(self.readers, parts, strict=True)]
            reading = Reading(window, [e for e, _ in parts], rows, [n for _, n in parts])
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


class RowStore:
    """Collects per-row tensors from windows into tensors over a whole text of n rows."""

    def __init__(self, n: int) -> None:
        """Start with nothing put."""
        self.n = n
        self._parts: dict[str, torch.Tensor] = {}

    def put(self, where: np.ndarray, rows: torch.Tensor, name: str) -> None:
        """Store rows (r, …) under a name, at the positions (r,) ``where``."""
        index = torch.as_tensor(where)
        if name not in self._parts:
            # What is never put is a row without ids, all of it tail.
            fill = {"ids": -1, "tail": 1}.get(name.rpartition(".")[2], 0)
            self._parts[name] = torch.full((self.n, *rows.shape[1:]), fill, dtype=rows.dtype)
        self._parts[name][index] = rows.cpu()

    def put_sparse(self, where: np.ndarray, rows: SparseRows, name: str) -> None:
        """Store sparse rows under a name."""
        for part in ("ids", "probs", "tail"):
            self.put(where, getattr(rows, part), f"{name}.{part}")

    def get(self, name: str) -> torch.Tensor:
        """Return (n, …) what was put under a name."""
        return self._parts[name]

    def get_sparse(self, name: str, vocab_size: int) -> SparseRows:
        """Return n sparse rows."""
        parts = [self.get(f"{name}.{part}") for part in ("ids", "probs", "tail")]
        return SparseRows(parts[0], parts[1], parts[2], vocab_size)
