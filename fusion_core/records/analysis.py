"""Fused rows, where their mass came from, and all of a text that a view shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from .rows import SparseRows, scattered
from .text import Alignment, Encoding, Record, check


def leaks(sees_token: bool, rows: str) -> tuple[str, ...]:
    """Name what fused rows know that could not be known before the text went on.

    Args:
        sees_token: whether the operator looked at each token before it chose.
        rows: "exact" or "boundary", as of a `TextReading`.
    """
    words = {
        "chosen knowing each token": sees_token,
        "knows the source's boundaries": rows == "boundary",
    }
    return tuple(leak for leak, known in words.items() if known)


@dataclass(frozen=True, eq=False, repr=False)
class FusedRows(Record):
    """The distributions that the target is taught, and who they came from.

    Attributes:
        rows: m fused rows on the target's vocabulary; row i predicts target text token i.
        sources: names of the S sources, in the order of `weights`.
        weights: (m, S) float32, share of each source in the row; rows sum to 1.
        winner: (m,) int64, index of the source with the largest weight, or -1 where several share
            it, or where that source has no row at this position, so that the target's native row
            stands in.
        kept: (m, S) float32, kept mass of each source's projected row.
        ce: (m, S) float32 nats, of each projected row on the token that follows.
        entropy: (m,) float32 nats, of the full fused row; nan where it was not asked for.
        observed_logprob: (m,) float32 nats, of the token that follows, in the full fused row.
    """

    rows: SparseRows
    sources: tuple[str, ...]
    weights: torch.Tensor
    winner: torch.Tensor
    kept: torch.Tensor
    ce: torch.Tensor
    entropy: torch.Tensor
    observed_logprob: torch.Tensor

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        m = len(self.rows)
        fields = [getattr(self, name) for name in _BY_ROW]
        check(
            all(len(x) == m for x in fields) and self.weights.shape[1] == len(self.sources),
            f"FusedRows: {m=} rows but fields of {[len(x) for x in fields]}",
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def summary(self) -> str:
        """Return the rows' shape and the sources."""
        return f"{self.rows.summary()}, of {', '.join(self.sources)}"

    def at(self, pick: torch.Tensor) -> FusedRows:
        """Return the rows (r,) that are picked."""
        fields = {name: getattr(self, name)[pick] for name in _BY_ROW}
        return FusedRows(self.rows.at(pick), self.sources, **fields)

    def scattered(self, where: np.ndarray, n: int) -> FusedRows:
        """Return n rows on the CPU, these (r,) at their places; the others are all tail."""
        fields = {name: scattered(getattr(self, name), where, n) for name in _BY_ROW}
        return FusedRows(self.rows.scattered(where, n), self.sources, **fields)

    @staticmethod
    def concat(parts: Sequence[FusedRows]) -> FusedRows:
        """Put the rows of several, at least one, one after another."""
        fields = {name: torch.cat([getattr(p, name) for p in parts]) for name in _BY_ROW}
        return FusedRows(SparseRows.concat([p.rows for p in parts]), parts[0].sources, **fields)


_BY_ROW = ("weights", "winner", "kept", "ce", "entropy", "observed_logprob")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(Record):
    """Where the probability of fused tokens came from.

    Attributes:
        token: (m, k, S, n) int64, for each of the k tokens of a fused row and each source its n
            tokens that gave most; -1 where there are fewer.
        mass: (m, k, S, n) float32, what each gave to the fused probability.
        target: (m, k, S) float32, what the target's native row gave in place of the source, where
            the source had nothing that could be mapped.
        other: (m, k, S) float32, what further tokens of the source gave.
    """

    token: torch.Tensor
    mass: torch.Tensor
    target: torch.Tensor
    other: torch.Tensor

    def at(self, pick: torch.Tensor) -> Attribution:
        """Return what is said of the rows (r,) that are picked."""
        return Attribution(*(getattr(self, f.name)[pick] for f in fields(self)))

    def scattered(self, where: np.ndarray, n: int) -> Attribution:
        """Return n rows on the CPU, these (r,) at their places; of the others nothing is said."""
        fills = (-1, 0, 0, 0)
        parts = (getattr(self, f.name) for f in fields(self))
        return Attribution(
            *(scattered(x, where, n, fill) for x, fill in zip(parts, fills, strict=True))
        )

    @staticmethod
    def concat(parts: Sequence[Attribution]) -> Attribution:
        """Put what is said of several windows, at least one, one after another."""
        names = [f.name for f in fields(Attribution)]
        return Attribution(*(torch.cat([getattr(p, n) for p in parts]) for n in names))


@dataclass(frozen=True, eq=False, repr=False)
class SourceAnalysis(Record):
    """All that one source contributed to a text, small enough to keep for a view.

    Attributes:
        alignment: the target's tokens and rows against the source's.
        native: top rows on the source's vocabulary, one for each of its rows.
        projected: top rows on the target's vocabulary, one for each target row.
        kind: (m,) int64 of `RowKind`, of each projected row: NONE where the mapping has nothing to
            say, whatever the alignment offers, and the target's native row stands in.
        kept: (m,) float32, kept mass of each projected row.
        ce: (m,) float32 nats, cross-entropy of each projected row on the token that follows.
        bits_per_byte: of the source's own predictions over the whole text.
    """

    alignment: Alignment
    native: SparseRows
    projected: SparseRows
    kind: torch.Tensor
    kept: torch.Tensor
    ce: torch.Tensor
    bits_per_byte: float

    @property
    def encoding(self) -> Encoding:
        """The source's tokens."""
        return self.alignment.source

    def summary(self) -> str:
        """Return the source and its bits per byte."""
        return f"{self.encoding.model}: {self.bits_per_byte:.3f} bits per byte"


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(Record):
    """A text, read by a target and its sources, aligned, projected and fused.

    Attributes:
        target: the target's tokens; its text token i is predicted by row i.
        native: top rows of the target itself, m of them.
        target_ce: (m,) float32 nats, the target's native cross-entropy on the token that follows.
        target_bits_per_byte: of the target's own predictions.
        sources: one record a source, in the order given.
        fused: the fused rows.
        attribution: where the mass of each fused token came from.
        fused_bits_per_byte: of the full fused rows.
        scored_bytes: bytes over which all bits per byte were taken.
        details: operator, level ("" where the operator has none), strategy, rows, top_k, windows,
            whether the operator saw each token before it chose, and what each model reads around
            documents.
    """

    target: Encoding
    native: SparseRows
    target_ce: torch.Tensor
    target_bits_per_byte: float
    sources: tuple[SourceAnalysis, ...]
    fused: FusedRows
    attribution: Attribution
    fused_bits_per_byte: float
    scored_bytes: int
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def leaks(self) -> tuple[str, ...]:
        """What the fused rows know that could not be known before; see `leaks`."""
        return leaks(self.details["sees_token"], self.details["rows"])

    def summary(self) -> str:
        """Return the models and the fused rows' bits per byte."""
        models = ", ".join(s.encoding.model for s in self.sources)
        bits = f"{self.fused_bits_per_byte:.3f} bits per byte over {self.scored_bytes:,}"
        return ", ".join([f"{self.target.model} <- {models}: {bits}", *self.leaks])
