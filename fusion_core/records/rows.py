"""Next-token distributions: of a model, carried over, fused, and all of it for a view.

*Rows.* A model reads a start token and then the text's n tokens, and gives n + 1 next-token rows:
row i is the distribution of what follows input token i (row 0: what follows the start token), so it
predicts text token i. Row i stands at the byte where input token i ends; row 0 stands at byte 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fusion_core.errors import FusionError

from .text import Alignment, Encoding, check

ENTROPY_CELLS = 1 << 18
"""Rows times vocabulary whose entropy is summed at once: about what a processor's cache holds."""


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Whole distributions over a vocabulary.

    Attributes:
        logprobs: (n, vocabulary) float32 nats; -inf where an id has no token.
        temperature: what the logits were divided by.
    """

    logprobs: torch.Tensor
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check that there is one row a position."""
        check(self.logprobs.ndim == 2, f"DenseRows: {tuple(self.logprobs.shape)=}")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.logprobs)

    @property
    def vocab_size(self) -> int:
        """Number of ids of the vocabulary."""
        return self.logprobs.shape[1]

    @cached_property
    def probs(self) -> torch.Tensor:
        """(n, vocabulary) float32, the probabilities; worked out once."""
        return self.logprobs.exp()

    @cached_property
    def entropy(self) -> torch.Tensor:
        """(n,) float32 nats; worked out once."""
        parts = self.logprobs.split(max(1, ENTROPY_CELLS // max(1, self.vocab_size)))
        # p log p is 0 where p is.
        return -torch.cat([(x.exp() * x.clamp(min=-1e4)).sum(1) for x in parts])

    def part(self, first: int, last: int) -> DenseRows:
        """Return rows [first, last), without a copy."""
        return DenseRows(self.logprobs[first:last], self.temperature)

    def at(self, row: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """Return probabilities of tokens (…) of rows (…), without those of all others."""
        # One index is many times quicker than two.
        flat = row * self.vocab_size + token
        found = self.logprobs.reshape(-1).index_select(0, flat.reshape(-1))
        return found.exp_().view_as(flat)

    def to(self, device: torch.device) -> DenseRows:
        """Return the rows on a device."""
        if self.logprobs.device == device:
            return self
        return DenseRows(self.logprobs.to(device), self.temperature)


@dataclass(frozen=True, eq=False)
class SparseRows:
    """Some tokens of each row, and all others as one bucket.

    Attributes:
        ids: (m, k) int64, by falling probability; -1 where a row has fewer, or is in no window.
        probs: (m, k) float32; 0 where there is no id.
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
        check(
            self.ids.shape == self.probs.shape and self.tail.shape == self.ids.shape[:1],
            f"SparseRows: {tuple(self.ids.shape)=}, {tuple(self.probs.shape)=}, "
            f"{tuple(self.tail.shape)=}",
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    @staticmethod
    def joined(parts: Sequence[SparseRows]) -> SparseRows:
        """Put the rows of several, at least one, one after another."""
        width = max(p.ids.shape[1] for p in parts)
        pad = torch.nn.functional.pad
        return SparseRows(
            torch.cat([pad(p.ids, (0, width - p.ids.shape[1]), value=-1) for p in parts]),
            torch.cat([pad(p.probs, (0, width - p.probs.shape[1])) for p in parts]),
            torch.cat([p.tail for p in parts]),
            parts[0].vocab_size,
            parts[0].temperature,
        )

    def to(self, device: torch.device) -> SparseRows:
        """Return the rows on a device."""
        ids, probs, tail = (x.to(device) for x in (self.ids, self.probs, self.tail))
        return SparseRows(ids, probs, tail, self.vocab_size, self.temperature)


@dataclass(frozen=True, eq=False)
class NextTokenRows:
    """A model's next-token distributions along a text.

    Attributes:
        model: name of the model.
        rows: n + 1 rows, whole or cut.
        observed: (n + 1,) int64, the token that followed; -1 in the last row.
        observed_logprob: (n + 1,) float32 nats, of the whole row at temperature 1; nan in the last.
        boundary: (n + 1,) int64, byte at which each row row_bytes.
    """

    model: str
    rows: DenseRows | SparseRows
    observed: torch.Tensor
    observed_logprob: torch.Tensor
    boundary: np.ndarray

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        n = len(self.rows)
        fields = (self.observed, self.observed_logprob, self.boundary)
        check(
            all(len(x) == n for x in fields),
            f"NextTokenRows of {self.model}: {n} rows but fields of {[len(x) for x in fields]}",
        )

    @property
    def dense(self) -> DenseRows:
        """The rows, where they are whole.

        Raises:
            FusionError: they have been cut.
        """
        if not isinstance(self.rows, DenseRows):
            raise FusionError(f"The rows of {self.model} were cut: read whole ones here.")
        return self.rows

    @property
    def logprobs(self) -> torch.Tensor:
        """(n + 1, vocabulary) float32 nats, of whole rows; errors are those of `dense`."""
        return self.dense.logprobs

    def part(self, first: int, last: int) -> NextTokenRows:
        """Return whole rows [first, last), without a copy of them."""
        own = slice(first, last)
        return NextTokenRows(
            self.model,
            self.dense.part(first, last),
            self.observed[own],
            self.observed_logprob[own],
            self.boundary[own],
        )


@dataclass(frozen=True, eq=False)
class ProjectedRows:
    """One source's rows, carried to the target's rows and vocabulary.

    A row is what was carried over and, for what was not mapped, a share of the target's own row p:
    ``q = carried + own_share * p``, which sums to 1. Row i predicts target text token i.

    Attributes:
        source: name of the source.
        carried: (m, target vocabulary) float32; a sparse COO tensor, with entries that may repeat,
            where the source's rows were cut. An entry may be negative where it lessens p's share.
        own_share: (m,) float32.
        kept: (m,) float32, the share of the source's mass that was mapped.
        kind: (m,) int64 of `RowKind`; rows of kind NONE are the target's own.
    """

    source: str
    carried: torch.Tensor
    own_share: torch.Tensor
    kept: torch.Tensor
    kind: np.ndarray

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        m = len(self.carried)
        fields = (self.own_share, self.kept, self.kind)
        check(
            self.carried.ndim == 2 and all(len(x) == m for x in fields),
            f"ProjectedRows of {self.source}: {tuple(self.carried.shape)=} but fields of "
            f"{[len(x) for x in fields]}",
        )

    def part(self, first: int, last: int) -> ProjectedRows:
        """Return rows [first, last)."""
        own, carried = slice(first, last), self.carried
        if carried.is_sparse:
            (row, token), mass = carried._indices(), carried._values()
            here = (row >= first) & (row < last)
            carried = torch.sparse_coo_tensor(
                torch.stack([row[here] - first, token[here]]),
                mass[here],
                (last - first, carried.shape[1]),
                check_invariants=False,
            )
        else:
            carried = carried[own]
        return ProjectedRows(
            self.source, carried, self.own_share[own], self.kept[own], self.kind[own]
        )

    def probs(self, own: torch.Tensor) -> torch.Tensor:
        """Return (m, target vocabulary) float32, the whole rows.

        Args:
            own: (m, target vocabulary), the target's own rows.
        """
        if self.carried.is_sparse:
            row, token = self.carried._indices()
            probs = own * self.own_share[:, None]
            flat = row * own.shape[1] + token
            probs.view(-1).index_add_(0, flat, self.carried._values())  # to_dense would sort first
        else:
            probs = torch.addcmul(self.carried, own, self.own_share[:, None])
        # What an entry takes away exactly may leave a trace of rounding below zero.
        return probs.clamp_(min=0)


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
        kept: (m, S) float32, kept mass of each source's carried-over row.
        ce: (m, S) float32 nats, of each carried-over row on the token that follows.
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
        fields = (
            self.weights,
            self.winner,
            self.kept,
            self.ce,
            self.entropy,
            self.observed_logprob,
        )
        check(
            all(len(x) == m for x in fields) and self.weights.shape[1] == len(self.sources),
            f"FusedRows: {m=} rows but fields of {[len(x) for x in fields]}",
        )

    @staticmethod
    def joined(parts: Sequence[FusedRows]) -> FusedRows:
        """Put the rows of several, at least one, one after another."""
        names = ("weights", "winner", "kept", "ce", "entropy", "observed_logprob")
        return FusedRows(
            SparseRows.joined([p.rows for p in parts]),
            parts[0].sources,
            **{n: torch.cat([getattr(p, n) for p in parts]) for n in names},
        )


@dataclass(frozen=True, eq=False)
class Origins:
    """Where the probability of fused tokens came from.

    Attributes:
        token: (m, k, S, n) int64, for each of the k tokens of a fused row and each source its n
            tokens that gave most; -1 where there are fewer.
        mass: (m, k, S, n) float32, what each gave to the fused probability.
        own: (m, k, S) float32, what the target's own row gave in place of the source, where the
            source had nothing that could be mapped.
        other: (m, k, S) float32, what further tokens of the source gave.
    """

    token: torch.Tensor
    mass: torch.Tensor
    own: torch.Tensor
    other: torch.Tensor


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
        origins: where the mass of each fused token came from.
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
    origins: Origins
    fused_bits_per_byte: float
    scored_bytes: int
    details: dict[str, Any] = field(default_factory=dict)
