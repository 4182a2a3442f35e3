"""Carried-over rows side by side: over the whole vocabulary, or on the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.numerics import index_sum, log_softmax
from fusion_core.records import NextTokenRows, ProjectedRows, SparseRows


def sparsify(probs: torch.Tensor, k: int, temperature: float = 1.0) -> SparseRows:
    """Keep the k most probable tokens of each row of (m, vocabulary), the rest as one bucket."""
    size = probs.shape[1]
    top, ids = probs.topk(min(k, size), dim=1)
    tail = (1 - top.sum(1)).clamp(min=0) if k < size else top.new_zeros(len(top))
    return SparseRows(ids, top, tail, size, temperature)


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


class Whole:
    """Rows laid out over the whole vocabulary."""

    def __init__(
        self, projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
    ) -> None:
        m = len(projected[0].kept)
        self._projected, self._top_k = projected, top_k
        self._own, self._observed = target.dense.logprobs[:m].exp(), target.observed[:m]
        self._temperature = target.dense.temperature
        self._fused = self._own

    def entropies(self) -> torch.Tensor:
        """(m, S) nats."""
        every = [torch.special.entr(p.probs(self._own)).sum(1) for p in self._projected]
        return torch.stack(every, dim=1)

    def entropy(self) -> torch.Tensor:
        """(m,) nats, of the rows that were combined."""
        return torch.special.entr(self._fused).sum(1)

    def combine(self, weights: torch.Tensor, geometric: bool) -> tuple[SparseRows, torch.Tensor]:
        """Return the top of the fused rows, and (m,) what they give the observed token."""
        shares = torch.stack([rows.own_share for rows in self._projected], dim=1)
        fused = self._own * (weights * shares).sum(1, keepdim=True)
        for j, rows in enumerate(self._projected):
            if rows.carried.is_sparse:
                row, token = rows.carried._indices()
                mass = weights[:, j].index_select(0, row) * rows.carried._values()
                fused.view(-1).index_add_(0, row * fused.shape[1] + token, mass)
            else:
                fused.addcmul_(weights[:, j : j + 1], rows.carried)
        if geometric:
            logs = torch.zeros_like(self._own)
            for j, rows in enumerate(self._projected):
                logs.addcmul_(weights[:, j : j + 1], rows.probs(self._own).log())
            agree = logs.amax(dim=1, keepdim=True) > -torch.inf
            fused = torch.where(agree, log_softmax(logs).exp_(), fused)
        self._fused = fused.clamp_(min=0)
        p = fused.gather(1, self._observed[:, None])[:, 0]
        return sparsify(fused, self._top_k, self._temperature), p


class Union:
    """Rows on those tokens that any source has something to say about.

    At every other token v source j has ``own_share_j * own(v)``; the fused row has the same form
    there, a share of the target's own row, so that nothing is laid out over the vocabulary.
    """

    def __init__(
        self, projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
    ) -> None:
        m = len(projected[0].kept)
        self._target, self._observed = target.dense, target.observed[:m]
        own = target.dense.logprobs[:m]
        self._m, self._size = own.shape
        self._top_k = min(top_k, self._size)
        parts = [(p.carried._indices(), p.carried._values()) for p in projected]
        lessened = max(
            (int(i[0][v < 0].bincount().max()) for i, v in parts if bool((v < 0).any())), default=0
        )
        # A token that no source names can only be in the top behind less than top_k others of the
        # target's own row, those apart whose share an entry lessens.
        ahead = min(self._top_k + lessened, self._size)
        mine = own.topk(ahead, dim=1).indices
        first = torch.arange(m, device=own.device)[:, None] * self._size
        keys = torch.cat(
            [(first + mine).reshape(-1), *(i[0] * self._size + i[1] for i, _ in parts)]
        )
        self._key, place = keys.unique(return_inverse=True)
        self._row, self._token = self._key // self._size, self._key % self._size
        places = place[m * ahead :].split([len(v) for _, v in parts])
        mass = [
            index_sum(len(self._key), at, values)
            for at, (_, values) in zip(places, parts, strict=True)
        ]
        self._prior = own.reshape(-1).index_select(0, self._key).exp()
        self._share = torch.stack([p.own_share for p in projected], dim=1)
        q = torch.stack(mass, dim=1) + self._share.index_select(0, self._row) * self._prior[:, None]
        self._q = q.clamp(min=0)
        self._rest = (1 - self._sums(self._prior)).clamp(min=0)
        self._own_entropy: torch.Tensor | None = None

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up values (n, …) a row: (m, …)."""
        return index_sum(self._m, self._row, values)

    def entropies(self) -> torch.Tensor:
        """(m, S) nats."""
        return self._sums(torch.special.entr(self._q)) + self._elsewhere(self._share)

    def _elsewhere(self, share: torch.Tensor) -> torch.Tensor:
        """Entropy (m, S) of the tokens at which shares (m, S) of the target's own row stand."""
        if self._own_entropy is None:
            whole = self._target.entropy[: self._m]
            self._own_entropy = whole - self._sums(torch.special.entr(self._prior))
        return torch.special.entr(share) * self._rest[:, None] + share * self._own_entropy[:, None]

    def entropy(self) -> torch.Tensor:
        """(m,) nats, of the rows that were combined."""
        elsewhere = self._elsewhere(self._fused_share[:, None])[:, 0]
        return self._sums(torch.special.entr(self._fused)) + elsewhere

    def combine(self, weights: torch.Tensor, geometric: bool) -> tuple[SparseRows, torch.Tensor]:
        """Return the top of the fused rows, and (m,) what they give the observed token."""
        fused = (weights.index_select(0, self._row) * self._q).sum(1)
        share = (weights * self._share).sum(1)
        if geometric:
            fused, share = self._geometric(weights, fused, share)
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
        own = self._target.at(rows, self._observed)
        return kept, torch.where(listed, fused[place], share * own)

    def _geometric(
        self, weights: torch.Tensor, mean: torch.Tensor, mean_share: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (n,) the normalised geometric mean, and (m,) the share that it has elsewhere.

        Rows that contradict one another at every token keep their sum.
        """
        fused = (weights.index_select(0, self._row) * self._q.log()).sum(1).exp()
        share = (weights * self._share.log()).sum(1).exp()
        total = self._sums(fused) + share * self._rest
        agree = total > 0
        total = torch.where(agree, total, 1.0)
        fused = torch.where(agree[self._row], fused / total[self._row], mean)
        return fused, torch.where(agree, share / total, mean_share)
