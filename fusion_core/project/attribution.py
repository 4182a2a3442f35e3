"""Fused rows -> which source tokens gave the probability of their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.mapping.edges import expand, find
from fusion_core.numerics import index_sum
from fusion_core.records import Attribution, DenseRows, FusedRows, NextTokenRows, ProjectedRows

from .routes import Route
from .rows import TINY, Flow, agreeing, flow_of

NAMED = 3
"""Source tokens that are named for each fused token."""


def attribute(
    fused: FusedRows,
    projected: Sequence[ProjectedRows],
    routes: Sequence[Route],
    target: NextTokenRows,
) -> Attribution:
    """Trace the tokens of fused rows back to sources and their tokens.

    A fused probability is the combination of what the sources give; whatever the operator made of
    it is shared out in proportion to what they would have given to the weighted sum.

    Args:
        fused: the m fused rows.
        projected: S projected rows that were fused; after those of the routes the target's native
            rows, where they took part.
        routes: of the sources, without the target.
        target: the target's own m + 1 rows.

    Returns:
        For each fused token and source what named tokens, further tokens, and the target's native
        row in the source's place gave; they sum to the fused probability.
    """
    ids, native = fused.rows.ids, target.dense  # (m, k)
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    real = ids >= 0
    by_target, by_source, token, share = [], [], [], []
    for j, rows in enumerate(projected):
        value = rows.kept.new_zeros(ids.shape)
        value[real] = probs_at(rows, native, row[real], ids[real])
        stands_in = rows.target_share[:, None] * native.at(row, ids.clamp(min=0)) * real
        stands_in = torch.minimum(stands_in, value)  # of which some may have been taken away
        by_target.append(stands_in)
        by_source.append(value - stands_in)
        if j < len(routes):
            named = _named(routes[j], rows.total, ids, NAMED)
        else:
            none = torch.full((*ids.shape, NAMED), -1, device=ids.device)
            named = none, rows.kept.new_zeros(none.shape)
        token.append(named[0])
        share.append(named[1])
    weights = fused.weights[:, None]  # (m, 1, S)
    of_target, of_source = (torch.stack(x, dim=2) * weights for x in (by_target, by_source))
    total = (of_target + of_source).sum(2)  # (m, k)
    scale = torch.where(total > 0, fused.rows.probs / total.clamp(min=1e-30), 0)[..., None]
    of_target, of_source = of_target * scale, of_source * scale
    mass = torch.stack(share, dim=2) * of_source[..., None]  # (m, k, S, n)
    return Attribution(torch.stack(token, dim=2), mass, of_target, of_source - mass.sum(3))


def _named(
    route: Route, total: torch.Tensor, ids: torch.Tensor, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Name the source tokens that gave target tokens most of what was mapped to them.

    Args:
        route: of the source's rows.
        total: (m,) `ProjectedRows.total`.
        ids: (m, k) target tokens of each row, none twice; -1 for none.
        n: source tokens named for each.

    Returns:
        (m, k, n) int64 source tokens by falling mass, -1 where there are fewer, and (m, k, n)
        float32 the share of each in what was mapped to the target token.
    """
    m, k = ids.shape
    flow = _towards(route, total, ids)
    size = route.native.vocab_size
    first = torch.arange(m, device=ids.device)[:, None] * size
    keys, order = (first + ids).masked_fill(ids < 0, -1).reshape(-1).sort()
    place, found = find(keys, flow.row * size + flow.target)
    slot, mass, source = order[place[found]], flow.mass[found], flow.source[found]
    sums = index_sum(m * k, slot, mass)
    ranked = mass.argsort(descending=True, stable=True)
    ranked = ranked[slot[ranked].argsort(stable=True)]
    slot, mass, source = slot[ranked], mass[ranked], source[ranked]
    rank = torch.arange(len(slot), device=ids.device) - torch.searchsorted(slot, slot)
    top = rank < n
    tokens = torch.full((m * k, n), -1, device=ids.device)
    shares = mass.new_zeros((m * k, n))
    tokens[slot[top], rank[top]] = source[top]
    shares[slot[top], rank[top]] = mass[top] / sums[slot[top]].clamp(min=TINY)
    return tokens.view(m, k, n), shares.view(m, k, n)


def _towards(route: Route, total: torch.Tensor, ids: torch.Tensor) -> Flow:
    """Follow only source tokens that can reach the target tokens (m, k) of their row."""
    given, table = route.given, route.table
    every = torch.arange(len(route.position), device=ids.device)
    if not isinstance(given, DenseRows) or route.mapping.transported:
        return flow_of(route, *agreeing(route, every, total.clone()), total)
    ids = ids[route.position]  # (e, k)
    entry = every[:, None].expand_as(ids)
    entry, target = entry[ids >= 0], ids[ids >= 0]
    keys, sources = table.by_target
    wanted = route.group[entry] * route.native.vocab_size + target
    low = torch.searchsorted(keys, wanted)
    whose, place = expand(low, torch.searchsorted(keys, wanted, right=True) - low)
    size = table.source_size
    reach = entry[whose] * size + sources[place] % size
    if route.shared is None:
        same = route.group[entry] == 0
        reach = torch.cat([reach, entry[same] * size + target[same]])
    reach = reach.unique()
    entry, token = reach // size, reach % size
    probs = given.logprobs[route.row[entry], token].exp()
    if route.weight is not None:
        probs = torch.where(route.allowed(entry, token), probs * route.weight[entry], 0)
    return flow_of(route, entry, token, probs, total)


def probs_at(
    projected: ProjectedRows, native: DenseRows, row: torch.Tensor, token: torch.Tensor
) -> torch.Tensor:
    """Look up probabilities of projected rows.

    Args:
        projected: m rows.
        native: the target's native rows, the first m of them.
        row: (n,) int64.
        token: (n,) int64; no pair of row and token stands twice.

    Returns:
        (n,) probabilities.
    """
    if projected.mapped.is_sparse:
        size = native.vocab_size
        index, mass = projected.mapped._indices(), projected.mapped._values()
        keys, order = (row * size + token).sort()
        place, found = find(keys, index[0] * size + index[1])
        mapped = torch.zeros_like(token, dtype=mass.dtype)
        mapped.index_add_(0, order[place[found]], mass[found])
    else:
        mapped = projected.mapped[row, token]
    return mapped + projected.target_share[row] * native.at(row, token)
