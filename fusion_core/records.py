"""What passes between the stages: frozen data with its shapes checked, and nothing that computes.

Units: positions are indices of tokens; offsets are bytes of the text in UTF-8, half-open;
log-probabilities and cross-entropies are nats. Arrays are numpy for positions and torch for
probabilities.

*Rows.* A model reads a start token and then the text's n tokens, and gives n + 1 next-token rows:
row i is the distribution of what follows input token i (row 0: what follows the start token), so it
predicts text token i. Row i stands at the byte where input token i ends; row 0 stands at byte 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import torch

from .errors import FusionError


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise FusionError(message)


@dataclass(frozen=True, eq=False)
class Encoding:
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
        _check(same, f"Encoding of {self.model}: fields differ in length from ids {n=}")
        if n:
            _check(
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

    @property
    def text_tokens(self) -> np.ndarray:
        """(m,) int64, indices of the tokens that are not special."""
        return np.flatnonzero(~self.special)

    @property
    def stands(self) -> np.ndarray:
        """(m + 1,) int64, the byte at which each row stands.

        Row 0 stands at 0, or at -1 where a dummy prefix is still to come: the prefix counts as a
        byte before the text.
        """
        first = -1 if self.dummy_prefix else 0
        return np.concatenate([[first], self.end[self.text_tokens]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a target's tokens and a source's tokens share the bytes of one text.

    Attributes:
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

    groups: np.ndarray
    boundary: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    at_boundary: np.ndarray
    target_to_source: tuple[tuple[int, ...], ...] | None = None
    cost: int | None = None

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
    """Its target tokens stand where it stands, in a corpus."""
    RESPELLED = 4
    """The target spells it in several tokens, of which the first ones take its mass."""
    EXTENDED = 5
    """Only longer target tokens begin with it."""
    CONTROL = 6
    """End of text goes to end of text."""


@dataclass(frozen=True, eq=False)
class VocabMap:
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
        _check(
            len(self.indptr) == rows + 1
            and bool((np.diff(self.indptr) >= 0).all())
            and len(self.indices) == len(self.weights) == self.indptr[-1]
            and len(self.confidence) == len(self.reason) == rows
            and bool(((self.indices >= 0) & (self.indices < columns)).all()),
            f"VocabMap {self.strategy}: {len(self.indptr)=}, {len(self.indices)=}, {self.shape=}",
        )

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


@dataclass(frozen=True, eq=False)
class NextTokenRows:
    """A model's next-token distributions along a text.

    Attributes:
        model: name of the model.
        logprobs: (n + 1, vocabulary) float32 nats; -inf where an id has no token or was cut off.
        tail: (n + 1,) float32, probability that was cut off by a top-k; zeros for full rows.
        observed: (n + 1,) int64, the token that followed; -1 in the last row.
        observed_logprob: (n + 1,) float32 nats, of the *full* row; nan in the last.
        boundary: (n + 1,) int64, byte at which each row stands.
        temperature: what the logits were divided by.
    """

    model: str
    logprobs: torch.Tensor
    tail: torch.Tensor
    observed: torch.Tensor
    observed_logprob: torch.Tensor
    boundary: np.ndarray
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        n = len(self.logprobs)
        fields = (self.tail, self.observed, self.observed_logprob, self.boundary)
        _check(
            self.logprobs.ndim == 2 and all(len(x) == n for x in fields),
            f"NextTokenRows of {self.model}: {tuple(self.logprobs.shape)=} but fields of "
            f"{[len(x) for x in fields]}",
        )


@dataclass(frozen=True, eq=False)
class ProjectedRows:
    """One source's rows, carried to the target's rows and vocabulary.

    Attributes:
        source: name of the source.
        probs: (m, target vocabulary) float32, rows sum to 1; row i predicts target text token i.
        kept: (m,) float32, the share of the source's mass that was mapped; the rest went to the
            target's own row.
        kind: (m,) int64 of `RowKind`.
    """

    source: str
    probs: torch.Tensor
    kept: torch.Tensor
    kind: np.ndarray

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        m = len(self.probs)
        _check(
            self.probs.ndim == 2 and len(self.kept) == m and len(self.kind) == m,
            f"ProjectedRows of {self.source}: {tuple(self.probs.shape)=}, {len(self.kept)=}",
        )


@dataclass(frozen=True, eq=False)
class SparseRows:
    """The k most probable tokens of each row, and the rest as one bucket.

    Attributes:
        ids: (m, k) int64, by falling probability; -1 in rows that no window holds.
        probs: (m, k) float32.
        tail: (m,) float32; ``probs.sum(1) + tail == 1``.
        vocab_size: number of ids of the vocabulary.
        temperature: what the logits were divided by.
    """

    ids: torch.Tensor
    probs: torch.Tensor
    tail: torch.Tensor
    vocab_size: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check that ids, probabilities and tails agree in shape."""
        _check(
            self.ids.shape == self.probs.shape and self.tail.shape == self.ids.shape[:1],
            f"SparseRows: {tuple(self.ids.shape)=}, {tuple(self.probs.shape)=}, "
            f"{tuple(self.tail.shape)=}",
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class FusedRows:
    """The distributions that the target is taught, and who they came from.

    Attributes:
        rows: m fused rows on the target's vocabulary; row i predicts target text token i.
        sources: names of the S sources, in the order of `weights`.
        weights: (m, S) float32, share of each source in the row; rows sum to 1.
        winner: (m,) int64, index of the source with the largest weight, or -1 where several share
            it, or where that source has no row at this position, so that the target's own stands
            in.
        entropy: (m,) float32 nats, of the full fused row.
        observed_logprob: (m,) float32 nats, of the token that follows, in the full fused row.
    """

    rows: SparseRows
    sources: tuple[str, ...]
    weights: torch.Tensor
    winner: torch.Tensor
    entropy: torch.Tensor
    observed_logprob: torch.Tensor

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        m = len(self.rows)
        fields = (self.weights, self.winner, self.entropy, self.observed_logprob)
        _check(
            all(len(x) == m for x in fields) and self.weights.shape[1] == len(self.sources),
            f"FusedRows: {m=} rows but fields of {[len(x) for x in fields]}",
        )


@dataclass(frozen=True, eq=False)
class SourceReading:
    """All that one source contributed to a text, small enough to keep for a view.

    Attributes:
        encoding: the source's tokens.
        alignment: the target's tokens and rows against the source's.
        own: top rows on the source's own vocabulary, one for each of its rows.
        carried: top rows on the target's vocabulary, one for each target row.
        kind: (m,) int64 of `RowKind`, of each carried row: NONE where the strategy has nothing to
            say, whatever the alignment offers, and the target's own row stands in.
        kept: (m,) float32, kept mass of each carried row.
        ce: (m,) float32 nats, cross-entropy of each carried row on the token that follows.
        bits_per_byte: of the source's own predictions over the whole text.
    """

    encoding: Encoding
    alignment: Alignment
    own: SparseRows
    carried: SparseRows
    kind: torch.Tensor
    kept: torch.Tensor
    ce: torch.Tensor
    bits_per_byte: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """A text, read by a target and its sources, aligned, carried over and fused.

    Attributes:
        target: the target's tokens; its text token i is predicted by row i.
        own: top rows of the target itself, m of them.
        target_ce: (m,) float32 nats, the target's own cross-entropy on the token that follows.
        target_bits_per_byte: of the target's own predictions.
        sources: one reading a source, in the order given.
        fused: the fused rows.
        fused_bits_per_byte: of the full fused rows.
        scored_bytes: bytes over which all bits per byte were taken.
        details: what it took: operator, level, strategy, top_k, seconds a stage.
    """

    target: Encoding
    own: SparseRows
    target_ce: torch.Tensor
    target_bits_per_byte: float
    sources: tuple[SourceReading, ...]
    fused: FusedRows
    fused_bits_per_byte: float
    scored_bytes: int
    details: dict[str, Any] = field(default_factory=dict)
