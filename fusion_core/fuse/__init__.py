"""Rows of several sources -> one fused row a position.

The fused row is the weighted sum of the carried-over rows, or for `product` their weighted
geometric mean. Two rooms:

    operators  how much each source counts
    laid_out   carried-over rows side by side
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fusion_core.errors import InputError
from fusion_core.numerics import index_sum
from fusion_core.records import FusedRows, NextTokenRows, ProjectedRows, RowKind, SparseRows

from .laid_out import Union, Whole, largest
from .operators import LABEL_FREE, LEVELS, OPERATORS, Operator, check

__all__ = [
    "LABEL_FREE",
    "LEVELS",
    "OPERATORS",
    "Operator",
    "carried_ce",
    "check",
    "entropies",
    "fuse",
    "fuse_sparse",
    "top_rows",
]

PART_CELLS = 1 << 25
"""Rows times vocabulary that are fused at once, where rows are laid out over it: several copies."""

WHOLE_CELLS = 1 << 21
"""Rows times vocabulary up to which sparse rows are laid out: sorting them takes longer."""

FLOOR = 1e-9
"""What a probability of zero counts as in a cross-entropy."""


def carried_ce(projected: ProjectedRows, target: NextTokenRows) -> tuple[torch.Tensor, int]:
    """Score carried-over rows on the tokens that followed, without laying them out.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.

    Returns:
        (m,) cross-entropies in nats, and how many probabilities were zero and floored at 1e-9.
    """
    carried = projected.carried
    observed = target.observed[: len(projected.kept)]
    if carried.is_sparse:
        (row, token), mass = carried._indices(), carried._values()
        hits = torch.nonzero(token == observed.index_select(0, row))[:, 0]
        p = index_sum(len(projected.kept), row[hits], mass[hits])
    else:
        p = carried.gather(1, observed[:, None])[:, 0]
    own = target.dense.at(torch.arange(len(observed), device=observed.device), observed)
    p = p + projected.own_share * own
    return _nats(p)


def _nats(p: torch.Tensor) -> tuple[torch.Tensor, int]:
    return -torch.where(p > 0, p, FLOOR).log(), int((p <= 0).sum())


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
    by_text = sequence_ce if chosen.score == "ce" and level == "sequence" else None
    return FusedRows.joined(
        [
            _fused(some, own, chosen, by_text, top_k, operator_temperature, entropy)
            for some, own in _parts(projected, target)
        ]
    )


def _parts(
    projected: Sequence[ProjectedRows], target: NextTokenRows
) -> Iterator[tuple[Sequence[ProjectedRows], NextTokenRows]]:
    """Cut rows that will be laid out into parts of which memory can hold several copies."""
    m, step = len(projected[0].kept), max(1, PART_CELLS // target.rows.vocab_size)
    if m <= step or all(p.carried.is_sparse for p in projected):
        yield projected, target
        return
    for first in range(0, m, step):
        last = min(first + step, m)
        yield [p.part(first, last) for p in projected], target.part(first, last + 1)


def _fused(
    projected: Sequence[ProjectedRows],
    target: NextTokenRows,
    chosen: Operator,
    sequence_ce: Sequence[float] | None,
    top_k: int,
    operator_temperature: float,
    entropy: bool,
) -> FusedRows:
    m = len(projected[0].kept)
    rows = _laid_out(projected, target, top_k)
    ce = torch.stack([carried_ce(p, target)[0] for p in projected], dim=1)
    if sequence_ce is not None:
        scores = ce.new_tensor(list(sequence_ce)).expand(m, -1)
    else:
        scores = rows.entropies() if chosen.score == "entropy" else ce
    weights = chosen.weigh(scores / operator_temperature)
    kept, p = rows.combine(weights, chosen.geometric and len(projected) > 1)
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
    parts = _parts(projected, target)
    return torch.cat([_laid_out(some, own, 1).entropies() for some, own in parts])


def top_rows(projected: ProjectedRows, target: NextTokenRows, k: int) -> SparseRows:
    """Keep the k most probable tokens of carried-over rows.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.
        k: tokens to keep.
    """
    return SparseRows.joined(
        [
            _laid_out(some, own, k).combine(some[0].kept.new_ones(len(some[0].kept), 1), False)[0]
            for some, own in _parts([projected], target)
        ]
    )


def _laid_out(
    projected: Sequence[ProjectedRows], target: NextTokenRows, top_k: int
) -> Union | Whole:
    sparse = all(p.carried.is_sparse for p in projected)
    few = len(projected[0].kept) * target.rows.vocab_size <= WHOLE_CELLS
    return (Union if sparse and not few else Whole)(projected, target, top_k)


def _winner(weights: torch.Tensor, projected: Sequence[ProjectedRows]) -> torch.Tensor:
    """Name the source with the largest weight, where it is alone and has a row."""
    winner = weights.argmax(dim=1)
    alone = (weights == weights.max(dim=1, keepdim=True).values).sum(dim=1) == 1
    spoke = torch.as_tensor(
        np.stack([p.kind != RowKind.NONE for p in projected], axis=1), device=winner.device
    )
    return torch.where(alone & spoke.gather(1, winner[:, None])[:, 0], winner, -1)


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
        room = 1 - index_sum(m, row, torch.where(known, prior, 0))
        share = torch.where(room > 0, part.tail / room.clamp(min=1e-9), 0).clamp(max=1)
        least = part.probs.amin(1)  # what is not listed is not more probable than what is
        guess = torch.minimum(share[row] * prior, least[row])
        q = torch.where(known, 0, guess).index_copy(0, at, probs)
        columns.append(q)
        tails.append((1 - index_sum(m, row, q)).clamp(min=0))
    q, tail = torch.stack(columns, dim=1), torch.stack(tails, dim=1)
    fused = (weights[row] * q).sum(1)
    if OPERATORS[operator].geometric:
        product = (weights[row] * q.log()).sum(1).exp()
        bucket = (weights * tail.log()).sum(1).exp()
        total = bucket + index_sum(m, row, product)
        agree = total > 0
        fused = torch.where(agree[row], product / total[row].clamp(min=1e-30), fused)
    top, ids = largest(row, token, fused, m, min(top_k, size))
    tail_of = (1 - top.sum(1)).clamp(min=0)
    return SparseRows(ids, top, tail_of, size, own.temperature), weights
