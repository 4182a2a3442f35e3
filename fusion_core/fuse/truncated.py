"""Rows of which only the top is known, fused again without any model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.numerics import index_sum
from fusion_core.records import SparseRows

from .operators import Measures, operator_of
from .sparse import largest


def fuse_truncated(
    rows: Sequence[SparseRows],
    native: SparseRows,
    measures: Measures,
    *,
    operator: str,
    level: str,
    top_k: int,
    operator_temperature: float = 1.0,
) -> tuple[SparseRows, torch.Tensor]:
    """Fuse rows of which only the top is known.

    A token that a source does not list has of its tail what the target's row would give it, and
    nothing where the target does not list it either.

    Args:
        rows: S sources' m projected rows.
        native: the target's own m rows.
        measures: what the sources can be weighed by.
        operator: name in `OPERATORS`.
        level: "sequence" or "token".
        top_k: tokens kept of a fused row.
        operator_temperature: what scores are divided by before a softmax.

    Returns:
        m fused rows, and (m, S) weights.
    """
    m, size = len(native), native.vocab_size
    listed = []
    for part in (native, *rows):
        at = torch.nonzero(part.ids >= 0).T
        listed.append((at[0] * size + part.ids[at[0], at[1]], part.probs[at[0], at[1]]))
    key, place = torch.cat([k for k, _ in listed]).unique(return_inverse=True)  # (n,), (all,)
    places = place.split([len(k) for k, _ in listed])
    row, token = key // size, key % size
    prior = native.probs.new_zeros(len(key)).index_copy_(0, places[0], listed[0][1])
    chosen = operator_of(operator, level)
    weights = chosen.weights(measures, level, operator_temperature)  # (m, S)
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
    fused = (weights[row] * q).sum(1)  # (n,)
    if chosen.combine:
        mean = chosen.combine.mean(weights[row], q)
        total = chosen.combine.mean(weights, tail) + index_sum(m, row, mean)
        fused = torch.where(total[row] > 0, mean / total[row].clamp(min=1e-30), fused)
    top, ids = largest(row, token, fused, m, min(top_k, size))
    tail_of = (1 - top.sum(1)).clamp(min=0)
    return SparseRows(ids, top, tail_of, size, native.temperature), weights
