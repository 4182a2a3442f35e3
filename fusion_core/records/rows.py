"""Next-token distributions: of a model, projected, fused.

*Rows.* A model reads a start token and then the text's n tokens, and gives n + 1 next-token rows:
row i is the distribution of what follows input token i (row 0: what follows the start token), so it
predicts text token i. Row i stands at the byte where input token i ends; row 0 stands at byte 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from fusion_core.errors import FusionError

from .text import Record, check

ENTROPY_CELLS = 1 << 18
"""Rows times vocabulary whose entropy is summed at once: about what a processor's cache holds."""


def scattered(rows: torch.Tensor, where: np.ndarray, n: int, fill: float = 0) -> torch.Tensor:
    """Return (n, …) on the CPU with rows (r, …) at their places; others are filled."""
    out = torch.full((n, *rows.shape[1:]), fill, dtype=rows.dtype)
    out[torch.as_tensor(where)] = rows.cpu()
    return out


@dataclass(frozen=True, eq=False, repr=False)
class DenseRows(Record):
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

    def summary(self) -> str:
        """Return the shape."""
        return f"{len(self):,} rows over {self.vocab_size:,} ids"

    @property
    def vocab_size(self) -> int:
        """Number of ids of the vocabulary."""
        return self.logprobs.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return self.logprobs.nbytes

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


@dataclass(frozen=True, eq=False, repr=False)
class SparseRows(Record):
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

    def summary(self) -> str:
        """Return the shape."""
        return f"top {self.ids.shape[1]} of {len(self):,} rows over {self.vocab_size:,} ids"

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return self.ids.nbytes + self.probs.nbytes

    def top(self, k: int) -> SparseRows:
        """Return the k most probable tokens of each row; the others join its tail."""
        tail = self.tail + self.probs[:, k:].sum(1)
        return replace(self, ids=self.ids[:, :k], probs=self.probs[:, :k], tail=tail)

    def at(self, pick: torch.Tensor) -> SparseRows:
        """Return the rows (r,) that are picked."""
        return replace(self, ids=self.ids[pick], probs=self.probs[pick], tail=self.tail[pick])

    def part(self, first: int, last: int) -> SparseRows:
        """Return rows [first, last), without a copy."""
        some = slice(first, last)
        return replace(self, ids=self.ids[some], probs=self.probs[some], tail=self.tail[some])

    def scattered(self, where: np.ndarray, n: int) -> SparseRows:
        """Return n rows on the CPU, these (r,) at their places; the others are all tail."""
        ids, probs, tail = (
            scattered(x, where, n, fill)
            for x, fill in ((self.ids, -1), (self.probs, 0), (self.tail, 1))
        )
        return replace(self, ids=ids, probs=probs, tail=tail)

    @staticmethod
    def concat(parts: Sequence[SparseRows]) -> SparseRows:
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


@dataclass(frozen=True, eq=False, repr=False)
class NextTokenRows(Record):
    """A model's next-token distributions along a text.

    Attributes:
        model: name of the model.
        rows: n + 1 rows, whole or cut.
        observed: (n + 1,) int64, the token that followed; -1 in the last row.
        observed_logprob: (n + 1,) float32 nats, of the whole row at temperature 1; nan in the last.
        boundary: (n + 1,) int64, byte at which each row stands.
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

    def summary(self) -> str:
        """Return the model and the rows' shape."""
        return f"{self.model}: {self.rows.summary()}"

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return self.rows.nbytes

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
        some = slice(first, last)
        return NextTokenRows(
            self.model,
            self.dense.part(first, last),
            self.observed[some],
            self.observed_logprob[some],
            self.boundary[some],
        )


@dataclass(frozen=True, eq=False, repr=False)
class ProjectedRows(Record):
    """One source's rows, projected to the target's rows and vocabulary.

    A row is what was mapped and, for what was not, a share of the target's native row p:
    ``q = mapped + target_share * p``, which sums to 1. Row i predicts target text token i.

    Attributes:
        source: name of the source.
        mapped: (m, target vocabulary) float32; a sparse COO tensor, with entries that may repeat,
            where the source's rows were truncated. An entry may be negative where it lessens p's
            share.
        target_share: (m,) float32.
        kept: (m,) float32, the share of the source's mass that was mapped.
        kind: (m,) int64 of `RowKind`; rows of kind NONE are the target's native rows.
        total: (m,) float32, mass of the source's row that agrees with what is known of its next
            token, over which the row was normalised; 1 at shared boundaries.
    """

    source: str
    mapped: torch.Tensor
    target_share: torch.Tensor
    kept: torch.Tensor
    kind: np.ndarray
    total: torch.Tensor

    def __post_init__(self) -> None:
        """Check that every field has one entry a row."""
        m = len(self.mapped)
        fields = (self.target_share, self.kept, self.kind, self.total)
        check(
            self.mapped.ndim == 2 and all(len(x) == m for x in fields),
            f"ProjectedRows of {self.source}: {tuple(self.mapped.shape)=} but fields of "
            f"{[len(x) for x in fields]}",
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.kept)

    def summary(self) -> str:
        """Return the source, the shape and the mean mass that was mapped."""
        kept = float(self.kept.mean()) if len(self) else 0.0
        return f"{self.source}: {len(self):,} rows, kept mass {kept:.3f}"

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        if self.mapped.is_sparse:
            return self.mapped._indices().nbytes + self.mapped._values().nbytes
        return self.mapped.nbytes

    def part(self, first: int, last: int) -> ProjectedRows:
        """Return rows [first, last)."""
        some, mapped = slice(first, last), self.mapped
        if mapped.is_sparse:
            (row, token), mass = mapped._indices(), mapped._values()
            here = (row >= first) & (row < last)
            mapped = torch.sparse_coo_tensor(
                torch.stack([row[here] - first, token[here]]),
                mass[here],
                (last - first, mapped.shape[1]),
                check_invariants=False,
            )
        else:
            mapped = mapped[some]
        share, kept, kind, total = self.target_share, self.kept, self.kind, self.total
        return ProjectedRows(self.source, mapped, share[some], kept[some], kind[some], total[some])

    def probs(self, native: torch.Tensor) -> torch.Tensor:
        """Return (m, target vocabulary) float32, the whole rows.

        Args:
            native: (m, target vocabulary), the target's native rows.
        """
        if self.mapped.is_sparse:
            row, token = self.mapped._indices()
            probs = native * self.target_share[:, None]  # (m, V)
            flat = row * native.shape[1] + token
            probs.view(-1).index_add_(0, flat, self.mapped._values())  # to_dense would sort first
        else:
            probs = torch.addcmul(self.mapped, native, self.target_share[:, None])
        # What an entry takes away exactly may leave a trace of rounding below zero.
        return probs.clamp_(min=0)
