"""Where tokens stand, how they share bytes, and how vocabularies map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from fusion_core.errors import FusionError

if TYPE_CHECKING:
    import pandas as pd


class Record:
    """What all records have: a representation of one line, without their arrays."""

    def summary(self) -> str:
        """Return what the line says of this record."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"


def check(condition: bool, message: str) -> None:
    """Refuse a record whose fields do not agree."""
    if not condition:
        raise FusionError(message)


@dataclass(frozen=True, eq=False, repr=False)
class Encoding(Record):
    r"""One model's reading of a text: token ids with the bytes that each of them covers.

    Attributes:
        model: name of the model, as the caller gave it.
        data: the text as UTF-8 bytes.
        ids: (n,) int64, token ids, those that the post-processor inserted included.
        start: (n,) int64, first byte of each token.
        end: (n,) int64, one past the last byte; ``start <= end``, both never decrease.
        special: (n,) bool, inserted by the post-processor (BOS, EOS); these have no width.
        pieces: the n tokens as readable text; bytes that are no text stand as ``\xNN``.
        lost: byte ranges of the text that the ids do not reproduce, in order.
        lossless: the tokens' own bytes, without dummy prefixes, are exactly the text.
        dummy_prefix: the first token carries a space that is not in the text.
        published: the n tokens as their vocabulary writes them, without word-start markers, which
            is what the published alignment compares; empty where it is not known.
    """

    model: str
    data: bytes
    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray
    special: np.ndarray
    pieces: Sequence[str]
    lost: tuple[tuple[int, int], ...] = ()
    lossless: bool = True
    dummy_prefix: bool = False
    published: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check that the fields agree in length and the spans lie in order inside the text."""
        n = len(self.ids)
        same = all(len(x) == n for x in (self.start, self.end, self.special, self.pieces))
        check(same, f"Encoding of {self.model}: fields differ in length from ids {n=}")
        if n:
            check(
                bool(
                    (self.start <= self.end).all()
                    and (np.diff(self.start) >= 0).all()
                    and (np.diff(self.end) >= 0).all()
                    and self.start[0] >= 0
                    and self.end[-1] <= len(self.data)
                ),
                f"Encoding of {self.model}: spans are not in order inside the text",
            )

    def __len__(self) -> int:
        """Return the number of tokens, special ones included."""
        return len(self.ids)

    def summary(self) -> str:
        """Return the model, and how many tokens cover how many bytes."""
        losses = "" if self.lossless else f", {self.lost_bytes:,} lost"
        return f"{self.model}: {len(self):,} tokens, {len(self.data):,} bytes{losses}"

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the tokens: ``id``, ``token``, ``start``, ``end``, ``special``."""
        import pandas as pd

        columns = {"id": self.ids, "token": list(self.pieces), "start": self.start}
        return pd.DataFrame(columns | {"end": self.end, "special": self.special})

    @property
    def lost_bytes(self) -> int:
        """Number of the text's bytes that the ids do not reproduce."""
        return sum(end - start for start, end in self.lost)

    @property
    def lost_before(self) -> np.ndarray:
        """(bytes + 1,) int64, number of lost bytes before each byte, and before the text's end."""
        marks = np.zeros(len(self.data) + 1, np.int64)
        for start, end in self.lost:
            marks[start + 1 : end + 1] = 1
        return np.cumsum(marks)

    @property
    def text_tokens(self) -> np.ndarray:
        """(m,) int64, indices of the tokens that are not special."""
        return np.flatnonzero(~self.special)

    @property
    def row_bytes(self) -> np.ndarray:
        """(m + 1,) int64, the byte at which each row stands.

        Row 0 stands at 0, or at -1 where a dummy prefix is still to come: the prefix counts as a
        byte before the text.
        """
        first = -1 if self.dummy_prefix else 0
        return np.concatenate([[first], self.end[self.text_tokens]]).astype(np.int64)


@dataclass(frozen=True)
class Window:
    """A stretch of a text that all models read at once, after their start tokens.

    Attributes:
        start: first byte.
        end: one past the last byte.
        owned_from: rows that stand in ``[owned_from, owned_to)`` are taken from this window; what
            comes before is read for its context.
        last: the text ends with it.
    """

    start: int
    end: int
    owned_from: int
    last: bool = False

    @property
    def owned_to(self) -> int:
        """End of the rows that are taken from this window; the last one has those at its end."""
        return self.end + self.last


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Record):
    """How a target's tokens and a source's tokens share the bytes of one text.

    Attributes:
        target: the target's tokens.
        source: the source's tokens.
        groups: (g, 4) int64, ``[t0, t1, s0, s1]``: half-open ranges of token indices that close at
            the same byte; together they cover every non-special token of both sides once.
        boundary: (n_target,) int64, last source token that ends where the target token ends, or
            -1; all tokens count, special ones included.
        row: (m,) int64, for target row i (of the m that predict a text token) the source's row that
            stands at the same byte, or at the last boundary before it; -1 where there is none.
        kind: (m,) int64 of `RowKind`, what that source row is to the target row.
        at_boundary: (m,) bool, the target row stands at a byte where a source row stands. At byte 0
            the kind may yet be INSIDE: the source spells a space there that the text has not.
        offset: (m,) int64, bytes between the source row's boundary and the target row's; 0 where
            the boundary is shared. It counts the source's dummy prefix as a byte, where the target
            has none or has spelt its own.
        target_to_source: for `dtw`, for each of the n_target tokens the source tokens that the
            warping pairs it with, in order; else None.
        cost: for `dtw`, sum of the edit distances along the path.
    """

    target: Encoding
    source: Encoding
    groups: np.ndarray
    boundary: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    at_boundary: np.ndarray
    target_to_source: tuple[tuple[int, ...], ...] | None = None
    cost: int | None = None

    def summary(self) -> str:
        """Return the models, the number of groups and the coverage."""
        return (
            f"{self.target.model} <- {self.source.model}: {len(self.groups):,} groups, "
            f"{self.coverage:.1%} of rows at shared boundaries"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the groups: ``kind`` (1:2 is one target token), bytes, tokens."""
        import pandas as pd

        rows = []
        for t0, t1, s0, s1 in self.groups.tolist():
            ends = [*self.target.end[t0:t1], *self.source.end[s0:s1]]
            starts = [*self.target.start[t0:t1], *self.source.start[s0:s1]]
            sides = "|".join(self.target.pieces[t0:t1]), "|".join(self.source.pieces[s0:s1])
            rows.append([f"{t1 - t0}:{s1 - s0}", min(starts), max(ends), *sides])
        return pd.DataFrame(rows, columns=["kind", "start", "end", "target", "source"])

    @property
    def coverage(self) -> float:
        """Share of the target's rows at a byte that is a boundary of the source."""
        return float(self.at_boundary.mean()) if len(self.row) else 0.0

    @property
    def coverage_with_prefix(self) -> float:
        """Share of the target's rows at a boundary of the source or inside one of its tokens."""
        usable = self.at_boundary | (self.kind != RowKind.NONE)
        return float(usable.mean()) if len(usable) else 0.0


class RowKind(IntEnum):
    """What a source can say at a target row."""

    NONE = 0
    """Nothing: the target's own row stands in."""
    SHARED = 1
    """The source has a boundary at the same byte."""
    INSIDE = 2
    """The target's boundary lies inside a source token whose first bytes are known."""


class MapReason(IntEnum):
    """Why a source token is mapped as it is."""

    UNMAPPED = 0
    """It is not: its mass stays with the target's own row."""
    SAME = 1
    """Its target token is the same, by the strategy's own measure (bytes or strings)."""
    NEAREST = 2
    """Its target token is the nearest by spelling."""
    COUNTED = 3
    """Its target tokens stand where it row_bytes, in a corpus."""
    RESPELLED = 4
    """The target spells it in several tokens, of which the first ones take its mass."""
    EXTENDED = 5
    """Only longer target tokens begin with it."""
    CONTROL = 6
    """End of text goes to end of text."""


@dataclass(frozen=True, eq=False, repr=False)
class VocabMap(Record):
    """A sparse matrix from a source's vocabulary to a target's, in CSR form.

    Attributes:
        strategy: name of the strategy that made it.
        indptr: (source size + 1,) int64.
        indices: (entries,) int64, target ids.
        weights: (entries,) float32, share of the source token's mass; a row sums to 1, or to 0
            where the source token is not mapped.
        shape: (source size, target size).
        confidence: (source size,) float32 in [0, 1], how far the row is to be relied on, by the
            strategy's own measure; 1 for the same token, 0 where there is none.
        reason: (source size,) uint8 of `MapReason`.
        distance: (source size,) int64, for `mined`: the edit distance; -1 where an id has no token.
    """

    strategy: str
    indptr: np.ndarray
    indices: np.ndarray
    weights: np.ndarray
    shape: tuple[int, int]
    confidence: np.ndarray
    reason: np.ndarray
    distance: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check that the arrays form a CSR matrix of the stated shape."""
        rows, columns = self.shape
        check(
            len(self.indptr) == rows + 1
            and bool((np.diff(self.indptr) >= 0).all())
            and len(self.indices) == len(self.weights) == self.indptr[-1]
            and len(self.confidence) == len(self.reason) == rows
            and bool(((self.indices >= 0) & (self.indices < columns)).all()),
            f"VocabMap {self.strategy}: {len(self.indptr)=}, {len(self.indices)=}, {self.shape=}",
        )

    def summary(self) -> str:
        """Return the strategy, and how many source ids are mapped."""
        return f"{self.strategy}: {self.rows_mapped:,} of {self.shape[0]:,} source tokens mapped"

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, the shape apart."""
        names = ("indptr", "indices", "weights", "confidence", "reason", "distance")
        return {n: a for n in names if (a := getattr(self, n)) is not None}

    @property
    def exact(self) -> int:
        """Number of source tokens whose target token is the same by the strategy's own measure."""
        return int((self.reason == MapReason.SAME).sum())

    @property
    def source_ids(self) -> np.ndarray:
        """(entries,) int64, the source id of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @property
    def rows_mapped(self) -> int:
        """Number of source ids with an entry."""
        return int((np.diff(self.indptr) > 0).sum())
