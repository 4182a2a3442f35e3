"""Projected rows side by side over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.records import NextTokenRows, ProjectedRows, SparseRows

from .operators import Combination

TINY = torch.finfo(torch.float32).tiny


def sparsify(probs: torch.Tensor, k: int, temperature: float = 1.0) -> SparseRows:
    """Keep the k most probable tokens of each row of (m, vocabulary), the rest as one bucket."""
    size = probs.shape[1]
    top, ids = probs.topk(min(k, size), dim=1)
    tail = (1 - top.sum(1)).clamp(min=0) if k < size else top.new_zeros(len(top))
    return SparseRows(ids, top, tail, size, temperature)


class DenseLayout:
    """Rows laid out over the whole vocabulary."""

    def __init__(
        self, projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
    ) -> None:
        m = len(projected[0])
        self._projected, self._top_k = projected, top_k
        self._native = target.dense.logprobs[:m].exp()  # (m, V)
        self._observed, self._temperature = target.observed[:m], target.dense.temperature
        self._fused = self._native

    def entropies(self) -> torch.Tensor:
        """(m, S) nats."""
        every = [torch.special.entr(p.probs(self._native)).sum(1) for p in self._projected]
        return torch.stack(every, dim=1)

    def tops(self) -> torch.Tensor:
        """(m, S) largest probabilities."""
        return torch.stack([p.probs(self._native).amax(1) for p in self._projected], dim=1)

    def entropy(self) -> torch.Tensor:
        """(m,) nats, of the rows that were combined."""
        return torch.special.entr(self._fused).sum(1)

    def combine(
        self, weights: torch.Tensor, combination: Combination | None
    ) -> tuple[SparseRows, torch.Tensor]:
        """Return the top of the fused rows, and (m,) what they give the observed token."""
        shares = torch.stack([rows.target_share for rows in self._projected], dim=1)  # (m, S)
        fused = self._native * (weights * shares).sum(1, keepdim=True)  # (m, V)
        for j, rows in enumerate(self._projected):
            if rows.mapped.is_sparse:
                row, token = rows.mapped._indices()
                mass = weights[:, j].index_select(0, row) * rows.mapped._values()
                fused.view(-1).index_add_(0, row * fused.shape[1] + token, mass)
            else:
                fused.addcmul_(weights[:, j : j + 1], rows.mapped)
        if combination:
            terms = torch.zeros_like(self._native)
            for j, rows in enumerate(self._projected):
                terms += combination.terms(weights[:, j : j + 1], rows.probs(self._native))
            mean = combination.inverse(terms)
            total = mean.sum(1, keepdim=True)
            # Rows that contradict one another at every token keep their sum.
            fused = torch.where(total > 0, mean / total.clamp(min=TINY), fused)
        self._fused = fused.clamp_(min=0)
        p = fused.gather(1, self._observed[:, None])[:, 0]
        return sparsify(fused, self._top_k, self._temperature), p
