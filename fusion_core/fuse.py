"""Rows of several sources -> one fused row a position.

An operator says how much each source counts at each position. The fused row is the weighted sum of
the carried-over rows, or for `product` their weighted geometric mean. Operators are looked up by
name in `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .errors import InputError
from .records import FusedRows, NextTokenRows, ProjectedRows, RowKind, SparseRows

LEVELS = ("sequence", "token")
WHOLE_CELLS = 1 << 21
"""Rows times vocabulary up to which sparse rows are laid out: sorting them takes longer."""

FLOOR = 1e-9
"""What a probability of zero counts as in a cross-entropy."""


@dataclass(frozen=True)
class Operator:
    """A way to weigh sources.

    Attributes:
        reference: where it comes from.
        weigh: (m, S) scores, lower is better -> (m, S) weights that sum to 1.
        score: what the scores are: "ce", the cross-entropy; "entropy" of the carried-over rows in
            nats; or "" where they do not matter.
        geometric: the fused row is the geometric mean, not the sum.
    """

    reference: str
    weigh: Callable[[torch.Tensor], torch.Tensor]
    score: str = ""
    geometric: bool = False

    @property
    def label_free(self) -> bool:
        """It does not look at the token that followed, so that it can generate text."""
        return self.score != "ce"


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Give all weight to the source with the lowest score; ties go to the earlier one."""
    best = torch.as_tensor(np.argmin(scores.cpu().numpy(), axis=1), device=scores.device)
    return torch.nn.functional.one_hot(best, scores.shape[1]).to(scores.dtype)


def soft(scores: torch.Tensor) -> torch.Tensor:
    """Weigh sources by softmax(-score)."""
    return torch.softmax(-scores, dim=1)


def even(scores: torch.Tensor) -> torch.Tensor:
    """Give every source the same weight."""
    return torch.full_like(scores, 1 / scores.shape[1])


OPERATORS: dict[str, Operator] = {
    "min_ce": Operator("MinCE of FuseLLM, arXiv 2401.10491", lowest, "ce"),
    "avg_ce": Operator("AvgCE of FuseLLM, arXiv 2401.10491, with one softmax", soft, "ce"),
    "confidence": Operator("softmax of the negative entropy, FuseLab", soft, "entropy"),
    "mean": Operator("linear opinion pool", even),
    "product": Operator("product of experts, Hinton 2002, normalised", even, geometric=True),
}
"""Fusion operators by name.

Cross-entropies are bits per byte of the whole document at level "sequence", nats of the
carried-over row on the token that followed at level "token"; the other operators have no level.
"""

LABEL_FREE = tuple(name for name, operator in OPERATORS.items() if operator.label_free)
"""Operators that can generate text."""


def cross_entropy(probs: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Score rows on the tokens that followed.

    Args:
        probs: (m, vocabulary) probabilities.
        observed: (m,) int64 token ids.

    Returns:
        (m,) cross-entropies in nats, and how many probabilities were zero and floored at 1e-9.
    """
    return _nats(probs.gather(1, observed[:, None])[:, 0])


def carried_ce(projected: ProjectedRows, target: NextTokenRows) -> tuple[torch.Tensor, int]:
    """Score carried-over rows as `cross_entropy` does, without laying them out.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.
    """
    carried = projected.carried
    observed = target.observed[: len(projected.kept)]
    if carried.is_sparse:
        (row, token), mass = carried._indices(), carried._values()
        hits = token == observed[row]
        p = torch.zeros_like(projected.kept).index_add_(0, row[hits], mass[hits])
    else:
        p = carried.gather(1, observed[:, None])[:, 0]
    own = target.dense.at(torch.arange(len(observed), device=observed.device), observed)
    p = p + projected.own_share * own
    return _nats(p)


def _nats(p: torch.Tensor) -> tuple[torch.Tensor, int]:
    return -torch.where(p > 0, p, FLOOR).log(), int((p <= 0).sum())


def sparsify(probs: torch.Tensor, k: int, temperature: float = 1.0) -> SparseRows:
    """Keep the k most probable tokens of each row of (m, vocabulary), the rest as one bucket."""
    size = probs.shape[1]
    top, ids = probs.topk(min(k, size), dim=1)
    tail = (1 - top.sum(1)).clamp(min=0) if k < size else top.new_zeros(len(top))
    return SparseRows(ids, top, tail, size, temperature)


def check(operator: str, level: str) -> None:
    """Check the names of an operator and a level.

    Raises:
        InputError: there is no such operator or level.
    """
    if operator not in OPERATORS:
        raise InputError(
            f"There is no operator called {operator!r}: choose one of {', '.join(OPERATORS)}."
        )
    if level not in LEVELS:
        raise InputError(f"There is no level called {level!r}: choose one of {', '.join(LEVELS)}.")


def fuse(
    projected: Sequence[ProjectedRows],
    target: NextTokenRows,
    sequence_ce: Sequence[float],
    *,
    operator: str = "min_ce",
    level: str = "sequence",
    top_k: int = 10,
    operator_temperature: float = 1.0,
    entropy: bool = True,
) -> FusedRows:
    """Fuse the carried-over rows of S sources.

    Args:
        projected: S sources' rows on the same m positions of the target.
        target: the target's own m + 1 rows.
        sequence_ce: S native bits per byte on the document; used at level "sequence".
        operator: name in `OPERATORS`.
        level: "sequence" or "token".
        top_k: tokens kept of a fused row.
        operator_temperature: what scores are divided by before a softmax.
        entropy: work out the entropy of the fused rows.

    Returns:
        m fused rows; each sums to 1 with its tail.

    Raises:
        InputError: there is no such operator or level, or no source.
    """
    check(operator, level)
    if not projected:
        raise InputError("There is nothing to fuse: name at least one source.")
    chosen = OPERATORS[operator]
    m = len(projected[0].kept)
    rows = _laid_out(projected, target, top_k)
    ce = torch.stack([carried_ce(p, target)[0] for p in projected], dim=1)
    if chosen.score == "ce" and level == "sequence":
        scores = ce.new_tensor(list(sequence_ce)).expand(m, -1)
    else:
        scores = rows.entropies() if chosen.score == "entropy" else ce
    weights = chosen.weigh(scores / operator_temperature)
    kept, p = rows.combine(weights, chosen.geometric)
    return FusedRows(
        rows=kept,
        sources=tuple(p.source for p in projected),
        weights=weights,
        winner=_winner(weights, projected),
        kept=torch.stack([p.kept for p in projected], dim=1),
        ce=ce,
        entropy=rows.entropy() if entropy else torch.full_like(p, torch.nan),
        observed_logprob=-_nats(p)[0],
    )


def entropies(projected: Sequence[ProjectedRows], target: NextTokenRows) -> torch.Tensor:
    """Return (m, S) nats, the entropies of S sources' carried-over rows."""
    return _laid_out(projected, target, 1).entropies()


def fuse_sparse(
    rows: Sequence[SparseRows],
    own: SparseRows,
    scores: np.ndarray,
    *,
    operator: str,
    top_k: int,
) -> tuple[SparseRows, torch.Tensor]:
    """Fuse rows of which only the top is known.

    A token that a source does not list has of its tail what the target's own row would give it, and
    nothing where the target does not list it either.

    Args:
        rows: S sources' m carried-over rows.
        own: the target's own m rows.
        scores: (m, S), what the operator weighs sources by, lower is better.
        operator: name in `OPERATORS`.
        top_k: tokens kept of a fused row.

    Returns:
        m fused rows, and (m, S) weights.
    """
    m, size = len(own), own.vocab_size
    listed = []
    for part in (own, *rows):
        at = torch.nonzero(part.ids >= 0).T
        listed.append((at[0] * size + part.ids[at[0], at[1]], part.probs[at[0], at[1]]))
    key, place = torch.cat([k for k, _ in listed]).unique(return_inverse=True)
    places = place.split([len(k) for k, _ in listed])
    row, token = key // size, key % size
    prior = own.probs.new_zeros(len(key)).index_copy_(0, places[0], listed[0][1])
    weights = OPERATORS[operator].weigh(torch.as_tensor(scores))
    columns, tails = [], []
    for part, at, (_, probs) in zip(rows, places[1:], listed[1:], strict=True):
        known = torch.zeros_like(row, dtype=torch.bool).index_fill_(0, at, True)
        room = 1 - prior.new_zeros(m).index_add_(0, row, torch.where(known, prior, 0))
        share = torch.where(room > 0, part.tail / room.clamp(min=1e-9), 0).clamp(max=1)
        least = part.probs.amin(1)  # what is not listed is not more probable than what is
        guess = torch.minimum(share[row] * prior, least[row])
        q = torch.where(known, 0, guess).index_copy(0, at, probs)
        columns.append(q)
        tails.append((1 - prior.new_zeros(m).index_add_(0, row, q)).clamp(min=0))
    q, tail = torch.stack(columns, dim=1), torch.stack(tails, dim=1)
    fused = (weights[row] * q).sum(1)
    if OPERATORS[operator].geometric:
        product = (weights[row] * q.log()).sum(1).exp()
        bucket = (weights * tail.log()).sum(1).exp()
        total = bucket + prior.new_zeros(m).index_add_(0, row, product)
        agree = total > 0
        fused = torch.where(agree[row], product / total[row].clamp(min=1e-30), fused)
    top, ids = _top(row, token, fused, m, min(top_k, size))
    tail_of = (1 - top.sum(1)).clamp(min=0)
    return SparseRows(ids, top, tail_of, size, own.temperature), weights


def top_rows(projected: ProjectedRows, target: NextTokenRows, k: int) -> SparseRows:
    """Keep the k most probable tokens of carried-over rows.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.
        k: tokens to keep.
    """
    ones = projected.kept.new_ones(len(projected.kept), 1)
    return _laid_out([projected], target, k).combine(ones, False)[0]


def _laid_out(
    projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
) -> _Union | _Whole:
    sparse = all(p.carried.is_sparse for p in projected)
    few = len(projected[0].kept) * target.rows.vocab_size <= WHOLE_CELLS
    return (_Union if sparse and not few else _Whole)(projected, target, top_k)


def _winner(weights: torch.Tensor, projected: Sequence[ProjectedRows]) -> torch.Tensor:
    """Name the source with the largest weight, where it is alone and has a row."""
    winner = weights.argmax(dim=1)
    alone = (weights == weights.max(dim=1, keepdim=True).values).sum(dim=1) == 1
    spoke = torch.as_tensor(
        np.stack([p.kind != RowKind.NONE for p in projected], axis=1), device=winner.device
    )
    return torch.where(alone & spoke.gather(1, winner[:, None])[:, 0], winner, -1)


def _top(
    row: torch.Tensor, token: torch.Tensor, values: torch.Tensor, m: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the k largest of the values listed for each of m rows, in order of rows.

    Returns:
        (m, k) values, 0 where there are fewer, and (m, k) tokens, -1 there.
    """
    counts = row.bincount(minlength=m)
    column = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    grid = values.new_zeros(m, max(k, int(counts.max()) if m else 0))
    tokens = torch.full(grid.shape, -1, device=row.device)
    grid[row, column], tokens[row, column] = values, token
    top, at = grid.topk(k, dim=1)
    return top, tokens.gather(1, at)


class _Whole:
    """Rows laid out over the whole vocabulary."""

    def __init__(
        self, projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
    ) -> None:
        m = len(projected[0].kept)
        self._projected, self._top_k = projected, top_k
        self._own, self._observed = target.dense.probs[:m], target.observed[:m]
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
        fused = torch.zeros_like(self._own)
        logs = torch.zeros_like(self._own) if geometric else None
        for j, rows in enumerate(self._projected):
            weight = weights[:, j : j + 1]
            if len(self._projected) == 1:
                fused = rows.probs(self._own)
            elif rows.carried.is_sparse:
                fused += weight * rows.probs(self._own)
            else:
                fused.addcmul_(weight, rows.carried)
                fused.addcmul_(weight * rows.own_share[:, None], self._own)
            if logs is not None:
                logs += weight * rows.probs(self._own).log()
        if logs is not None:
            agree = logs.amax(dim=1, keepdim=True) > -torch.inf
            fused = torch.where(agree, torch.softmax(logs, dim=1), fused)
        self._fused = fused.clamp_(min=0)
        p = fused.gather(1, self._observed[:, None])[:, 0]
        return sparsify(fused, self._top_k, self._temperature), p


class _Union:
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
            own.new_zeros(len(self._key)).index_add_(0, at, values)
            for at, (_, values) in zip(places, parts, strict=True)
        ]
        self._prior = own.reshape(-1)[self._key].exp()
        self._share = torch.stack([p.own_share for p in projected], dim=1)
        q = torch.stack(mass, dim=1) + self._share[self._row] * self._prior[:, None]
        self._q = q.clamp(min=0)
        self._rest = (1 - self._sums(self._prior)).clamp(min=0)
        self._own_entropy: torch.Tensor | None = None

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up values (n, …) a row: (m, …)."""
        return values.new_zeros(self._m, *values.shape[1:]).index_add_(0, self._row, values)

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
        fused = (weights[self._row] * self._q).sum(1)
        share = (weights * self._share).sum(1)
        if geometric:
            fused, share = self._geometric(weights, fused, share)
        self._fused, self._fused_share = fused, share
        m, row = self._m, self._row
        top, ids = _top(row, self._token, fused, m, self._top_k)
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
        fused = (weights[self._row] * self._q.log()).sum(1).exp()
        share = (weights * self._share.log()).sum(1).exp()
        total = self._sums(fused) + share * self._rest
        agree = total > 0
        total = torch.where(agree, total, 1.0)
        fused = torch.where(agree[self._row], fused / total[self._row], mean)
        return fused, torch.where(agree, share / total, mean_share)
