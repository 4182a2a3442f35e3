"""Projected rows side by side, on the tokens that any source names."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.numerics import index_sum
from fusion_core.records import NextTokenRows, ProjectedRows, SparseRows

from .operators import Combination


def largest(
    row: torch.Tensor, token: torch.Tensor, values: torch.Tensor, m: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the k largest of the values listed for each of m rows, in order of rows.

    Returns:
        (m, k) values, 0 where there are fewer, and (m, k) tokens, -1 there.
    """
    counts = row.bincount(minlength=m)
    first = counts.cumsum(0) - counts
    column = torch.arange(len(row), device=row.device) - first.index_select(0, row)
    grid = values.new_zeros(m, max(k, int(counts.max()) if m else 0))
    tokens = torch.full(grid.shape, -1, device=row.device)
    place = row * grid.shape[1] + column
    grid.view(-1).index_copy_(0, place, values)
    tokens.view(-1).index_copy_(0, place, token)
    top, at = grid.topk(k, dim=1)
    return top, tokens.gather(1, at)


class SparseLayout:
    """Rows on those tokens that any source has something to say about.

    At every other token v source j has ``target_share_j * native(v)``; the fused row has the same
    form there, a share of the target's row, so that nothing is laid out over the vocabulary.
    """

    def __init__(
        self, projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
    ) -> None:
        m = len(projected[0])
        self._target, self._observed = target.dense, target.observed[:m]
        native = target.dense.logprobs[:m]
        self._m, self._size = native.shape
        self._top_k = min(top_k, self._size)
        parts = [(p.mapped._indices(), p.mapped._values()) for p in projected]
        lessened = max(
            (int(i[0][v < 0].bincount().max()) for i, v in parts if bool((v < 0).any())), default=0
        )
        # A token that no source names can only be in the top behind less than top_k others of the
        # target's native row, those apart whose share an entry lessens.
        ahead = min(self._top_k + lessened, self._size)
        top = native.topk(ahead, dim=1).indices
        first = torch.arange(m, device=native.device)[:, None] * self._size
        keys = torch.cat([(first + top).reshape(-1), *(i[0] * self._size + i[1] for i, _ in parts)])
        self._key, place = keys.unique(return_inverse=True)  # (n,), (all keys,)
        self._row, self._token = self._key // self._size, self._key % self._size
        places = place[m * ahead :].split([len(v) for _, v in parts])
        mass = [
            index_sum(len(self._key), at, values)
            for at, (_, values) in zip(places, parts, strict=True)
        ]
        self._prior = native.reshape(-1).index_select(0, self._key).exp()  # (n,)
        self._share = torch.stack([p.target_share for p in projected], dim=1)  # (m, S)
        q = torch.stack(mass, dim=1) + self._share.index_select(0, self._row) * self._prior[:, None]
        self._q = q.clamp(min=0)  # (n, S)
        self._rest = (1 - self._sums(self._prior)).clamp(min=0)  # (m,)
        self._native_entropy: torch.Tensor | None = None

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up values (n, …) a row: (m, …)."""
        return index_sum(self._m, self._row, values)

    def entropies(self) -> torch.Tensor:
        """(m, S) nats."""
        return self._sums(torch.special.entr(self._q)) + self._elsewhere(self._share)

    def tops(self) -> torch.Tensor:
        """(m, S) largest probabilities; a row's largest is among the tokens listed."""
        out = self._q.new_zeros(self._m, self._q.shape[1])
        where = self._row[:, None].expand_as(self._q)
        return out.scatter_reduce_(0, where, self._q, "amax")

    def _elsewhere(self, share: torch.Tensor) -> torch.Tensor:
        """Entropy (m, S) of the tokens at which shares (m, S) of the target's own row stand."""
        if self._native_entropy is None:
            whole = self._target.entropy[: self._m]
            self._native_entropy = whole - self._sums(torch.special.entr(self._prior))
        return (
            torch.special.entr(share) * self._rest[:, None] + share * self._native_entropy[:, None]
        )

    def entropy(self) -> torch.Tensor:
        """(m,) nats, of the rows that were combined."""
        elsewhere = self._elsewhere(self._fused_share[:, None])[:, 0]
        return self._sums(torch.special.entr(self._fused)) + elsewhere

    def combine(
        self, weights: torch.Tensor, combination: Combination | None
    ) -> tuple[SparseRows, torch.Tensor]:
        """Return the top of the fused rows, and (m,) what they give the observed token."""
        fused = (weights.index_select(0, self._row) * self._q).sum(1)  # (n,)
        share = (weights * self._share).sum(1)  # (m,)
        if combination:
            fused, share = self._combined(combination, weights, fused, share)
        self._fused, self._fused_share = fused, share
        m, row = self._m, self._row
        top, ids = largest(row, self._token, fused, m, self._top_k)
        tail = (1 - top.sum(1)).clamp(min=0)
        if self._top_k == self._size:
            tail = torch.zeros_like(tail)
        kept = SparseRows(ids, top, tail, self._size, self._target.temperature)
        rows = torch.arange(m, device=row.device)
        goal = rows * self._size + self._observed
        place = torch.searchsorted(self._key, goal).clamp(max=len(self._key) - 1)
        listed = self._key[place] == goal
        native = self._target.at(rows, self._observed)
        return kept, torch.where(listed, fused[place], share * native)

    def _combined(
        self,
        combination: Combination,
        weights: torch.Tensor,
        linear: torch.Tensor,
        linear_share: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n,) the normalised mean, and (m,) the share that it has elsewhere.

        Rows that contradict one another at every token keep their sum.
        """
        fused = combination.mean(weights.index_select(0, self._row), self._q)
        share = combination.mean(weights, self._share)
        total = self._sums(fused) + share * self._rest
        agree = total > 0
        total = torch.where(agree, total, 1.0)
        fused = torch.where(agree[self._row], fused / total[self._row], linear)
        return fused, torch.where(agree, share / total, linear_share)
