"""One source's rows -> the target's positions and vocabulary, all positions at once.

A row at a shared boundary is moved along the edges of the mapping there. Inside a source token the
source's row at its last boundary is conditioned on the bytes that are already known: tokens that
contradict them are dropped, and those that end within them are other paths of the source, whose
mass stays with the target's native row, as does everything that has no edge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from fusion_core.mapping import VocabMapping
from fusion_core.mapping.edges import expand, find
from fusion_core.numerics import index_sum
from fusion_core.records import (
    Alignment,
    Covers,
    DenseRows,
    NextTokenRows,
    ProjectedRows,
    SparseRows,
)

from .routes import Route

TINY = torch.finfo(torch.float32).tiny
CHUNK_CELLS = 1 << 25
"""Rows times vocabulary that are multiplied at once."""

LARGE, LEAST = 1 << 16, 1e-8
"""Where one of two vocabularies has so many ids, tokens of less probability are not carried: 19 of
20 of Gemma-3-270M's, with 0.00005 of its mass. Their mass stays with the target."""

LISTED_SHARE = 8
"""Where more than one in so many tokens would be carried, all of them are."""


def jeffrey(mass: torch.Tensor, room: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Share mass among targets in proportion to their prior: Jeffrey's rule.

    q(v) = sum over w of p_s(w) p_t(v) [v ~ w] / (sum over v' ~ w of p_t(v')).

    Args:
        mass: of source tokens, any shape.
        room: the prior of all targets of each, the same shape.

    Returns:
        The mass that has a target, and what each target's prior is to be multiplied by.
    """
    mapped = torch.where(room > TINY, mass, 0)
    return mapped, mapped / room.clamp(min=TINY)


class Flow(NamedTuple):
    """Mass on its way: (f,) target rows, source tokens, target tokens, probabilities."""

    row: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    mass: torch.Tensor


def project_rows(
    source: NextTokenRows,
    target: NextTokenRows,
    alignment: Alignment,
    mapping: VocabMapping,
    covers: Covers | None = None,
) -> ProjectedRows:
    """Project a source's rows to the target's rows and vocabulary.

    Args:
        source: n + 1 rows on the source's vocabulary, whole or truncated.
        target: m + 1 whole rows of the target on the same text.
        alignment: of the target's rows with the source's.
        mapping: from the source's vocabulary to the target's.
        covers: of the bytes at which the target's rows stand, so that the source's rows know only
            what has been read; without them its rows at its own boundaries are taken.

    Returns:
        m rows that sum to 1: row i predicts the target's text token i. Rows of kind NONE are the
        target's native rows, with kept mass 0.
    """
    route = Route.of(source, target, alignment, mapping, covers)
    native = route.native.logprobs  # (m, V)
    kept, total = native.new_zeros(len(native)), native.new_ones(len(native))
    flow = _likely_flow(route, total, kept)
    if flow is not None:
        mapped, target_share = _sparse(flow, native), 1 - kept
    elif isinstance(route.given, DenseRows) and not mapping.transported:
        mapped = torch.zeros_like(native)
        _project_shared(route, route.given, mapped, kept)
        # Half of a vocabulary can begin with what is known: a few rows at a time.
        step = max(1, CHUNK_CELLS // route.given.vocab_size)
        for some in torch.nonzero(route.group > 0)[:, 0].split(step):
            flow = flow_of(route, *agreeing(route, some, total), total, kept)
            mapped.index_put_((flow.row, flow.target), flow.mass, accumulate=True)
        target_share = 1 - kept
    else:
        every = torch.arange(len(route.position), device=kept.device)
        flow = flow_of(route, *agreeing(route, every, total), total, kept)
        target_share = 1 - kept
        if mapping.identity and covers is None:
            flow, target_share = _spread_tail(route, flow, target_share)
        mapped = _sparse(flow, native)
    return ProjectedRows(source.model, mapped, target_share, kept, route.kind, total)


def _sparse(flow: Flow, native: torch.Tensor) -> torch.Tensor:
    where = torch.stack([flow.row, flow.target])
    return torch.sparse_coo_tensor(where, flow.mass, native.shape, check_invariants=False)


def _likely_flow(route: Route, total: torch.Tensor, kept: torch.Tensor) -> Flow | None:
    """Project the likely tokens of whole rows of large vocabularies; None where all are projected.

    Arguments as for `flow_of`, of which nothing is changed where there is None.
    """
    given = route.given
    size = max(given.vocab_size, route.native.vocab_size)
    if not isinstance(given, DenseRows) or route.shared is None or size < LARGE:
        return None
    step = max(1, CHUNK_CELLS // given.vocab_size)
    parts = []
    for some in torch.nonzero(route.group == 0)[:, 0].split(step):
        likely = given.logprobs[route.row[some]] >= math.log(LEAST)  # (r, S)
        if route.weight is not None:
            likely[route.excluded_of(some)] = False
        whose, token = likely.nonzero(as_tuple=True)
        if len(token) * LISTED_SHARE > likely.numel():
            return None
        parts.append((some[whose], token))
    flows = []
    for entry, token in parts:
        probs = given.at(route.row[entry], token)
        if route.weight is not None:
            probs *= route.weight[entry]
        flows.append(flow_of(route, entry, token, probs, total, kept))
    for some in torch.nonzero(route.group > 0)[:, 0].split(step):
        entry, token, probs = agreeing(route, some, total)
        likely = probs >= LEAST
        flows.append(flow_of(route, entry[likely], token[likely], probs[likely], total, kept))
    return Flow(*(torch.cat(x) for x in zip(*flows, strict=True)))


def _project_shared(
    route: Route, given: DenseRows, mapped: torch.Tensor, kept: torch.Tensor
) -> None:
    """Project whole rows of which nothing is known: products with the sparse matrix of edges."""
    size = mapped.shape[1]
    step = max(1, CHUNK_CELLS // max(size, given.vocab_size))
    for some in torch.nonzero(route.group == 0)[:, 0].split(step):
        probs, at = given.logprobs[route.row[some]].exp(), route.position[some]  # (r, S)
        if route.weight is not None:
            probs[route.excluded_of(some)] = 0
            probs *= route.weight[some, None]
        if route.shared is None:
            mapped.index_add_(0, at, probs)
            kept.index_add_(
                0, at, torch.ones_like(kept[at]) if route.weight is None else probs.sum(1)
            )
            continue
        mass = probs.T.contiguous()  # (S, r)
        if route.shared.weight is not None:
            arrived = route.shared.spread(mass, size)  # (V, r)
            mapped.index_add_(0, at, arrived.T)
            kept.index_add_(0, at, arrived.sum(0))
            continue
        prior = route.native.logprobs[at].exp().T.contiguous()  # (V, r)
        mass = mass[route.shared.candidates.to(mass.device)]  # (c, r)
        moved, share = jeffrey(mass, route.shared.room(prior))
        mapped.index_add_(0, at, (route.shared.spread(share, size) * prior).T)
        kept.index_add_(0, at, moved.sum(0))
    kept.clamp_(max=1)


def agreeing(
    route: Route, entries: torch.Tensor, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List the source tokens that agree with what is known.

    Args:
        route: of the rows.
        entries: (r,), ascending.
        total: (m,), set where rows are normalised to the mass over which they are: of the tokens
            that agree, of those that end within what is known, and of the tail. Of cut rows it is
            at least what is listed: draws may hold more of it than whole rows.

    Returns:
        (n,) entries, source tokens and probabilities, those multiplied by the entries' weights.
    """
    entry, token, probs = _agreeing(route, entries, total)
    if route.weight is None:
        return entry, token, probs
    allowed = route.allowed(entry, token)
    entry, token = entry[allowed], token[allowed]
    probs = probs[allowed] * route.weight[entry]
    if isinstance(route.given, SparseRows):
        rows = route.position[entry]
        total[rows] = index_sum(len(total), rows, probs)[rows].clamp(min=1)
    return entry, token, probs


def _agreeing(
    route: Route, entries: torch.Tensor, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    given, table, size = route.given, route.table, route.given.vocab_size
    at = route.row[entries]
    if isinstance(given, DenseRows):
        if k := route.mapping.transported:
            top, ids = given.logprobs[at].topk(min(k, size), dim=1)
            return _listed(entries, ids, top.exp())
        whose, token = table.of_kind(table.key, route.group[entries])
        probs = given.logprobs[at[whose], token].exp()
        if route.weight is None:
            elsewhere, other = table.of_kind(table.other_key, route.group[entries])
            rest = given.logprobs[at[elsewhere], other].exp()
            rows = route.position[entries]
            counted = torch.cat([rows[whose], rows[elsewhere]])
            total[rows] = index_sum(len(total), counted, torch.cat([probs, rest]))[rows]
        return entries[whose], token, probs
    k = route.mapping.transported or given.ids.shape[1]
    entry, token, p = _listed(entries, given.ids[at][:, :k], given.probs[at][:, :k])
    # Where nothing is known every token counts, and the whole row is 1.
    some = torch.nonzero(route.group.index_select(0, entry))[:, 0]
    if not len(some):
        return entry, token, p
    inside, mass = entry.index_select(0, some), p.index_select(0, some)
    key = route.group.index_select(0, inside) * size + token.index_select(0, some)
    agrees = find(table.key, key)[1]
    if route.weight is None:
        counts = agrees | find(table.other_key, key)[1]
        where = route.position.index_select(0, inside)
        sums = index_sum(len(total), where, torch.where(counts, mass, 0))
        partly = entries[route.group[entries] > 0]
        where = route.position[partly]
        total[where] = sums[where] + given.tail[route.row[partly]]
    keep = torch.ones_like(entry, dtype=torch.bool).index_copy_(0, some, agrees)
    return entry[keep], token[keep], p[keep]


def _listed(
    entries: torch.Tensor, ids: torch.Tensor, probs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay (r, k) tokens out as lists, without places that hold none."""
    real = (ids >= 0) & (probs > 0)
    return entries[:, None].expand_as(ids)[real], ids[real], probs[real]


def flow_of(
    route: Route,
    entry: torch.Tensor,
    token: torch.Tensor,
    probs: torch.Tensor,
    total: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> Flow:
    """Send (n,) listed source tokens along their edges; what was mapped is added to ``kept``."""
    row = route.position.index_select(0, entry)
    total = total[row]
    probs = torch.where(total > 0, probs / total.clamp(min=TINY), 0)
    if route.mapping.transported:
        flow, mapped = _transported(route, entry, token, probs), probs
    else:
        flow, mapped = _along_edges(route, entry, token, probs)
    if kept is not None:
        kept.add_(index_sum(len(kept), row, mapped)).clamp_(max=1)
    return flow


def _along_edges(
    route: Route, entry: torch.Tensor, token: torch.Tensor, probs: torch.Tensor
) -> tuple[Flow, torch.Tensor]:
    table, group = route.table, route.group.index_select(0, entry)
    row = route.position.index_select(0, entry)
    if route.shared is None:
        place, found = find(table.key, group * table.source_size + token)
        found &= group != 0
    else:
        # The edges where nothing is known stand first, one list for every source token.
        place, found = token, torch.ones_like(token, dtype=torch.bool)
        some = torch.nonzero(group)[:, 0]
        if len(some):
            key = group.index_select(0, some) * table.source_size
            at, there = find(table.key, key + token.index_select(0, some))
            place = token.index_copy(0, some, at)
            found.index_copy_(0, some, there)
    begin = table.indptr.index_select(0, place)
    count = torch.where(found, table.indptr.index_select(0, place + 1) - begin, 0)
    whose, edge = expand(begin, count)  # (f,)
    goes, to = table.target.index_select(0, edge), row.index_select(0, whose)
    if table.weight is not None:
        mass = probs.index_select(0, whose) * table.weight.index_select(0, edge)
        mapped = index_sum(len(probs), whose, mass)
    else:
        prior = route.native.at(to, goes)
        mapped, share = jeffrey(probs, index_sum(len(probs), whose, prior))
        mass = share.index_select(0, whose) * prior
    flow = Flow(to, token.index_select(0, whose), goes, mass)
    if route.shared is None:
        same = group == 0
        mapped = torch.where(same, probs, mapped)
        parts = (row[same], token[same], token[same], probs[same])
        flow = Flow(*(torch.cat([a, b]) for a, b in zip(flow, parts, strict=True)))
    return flow, mapped


def _transported(
    route: Route, entry: torch.Tensor, token: torch.Tensor, probs: torch.Tensor
) -> Flow:
    """Send the listed tokens, in order of their entries, where the mapping says."""
    entries, counts = entry.unique_consecutive(return_counts=True)
    whose, place = expand(torch.zeros_like(counts), counts)
    ids = torch.full((len(entries), route.mapping.transported), -1, device=entry.device)
    mass = probs.new_zeros(ids.shape)
    ids[whose, place], mass[whose, place] = token, probs
    native = route.native.logprobs[route.position[entries]].exp()
    goes = route.mapping.destinations(ids, mass, native)
    return Flow(route.position[entry], token, goes[whose, place], probs)


def _spread_tail(route: Route, flow: Flow, target_share: torch.Tensor) -> tuple[Flow, torch.Tensor]:
    """Spread the tails of rows of the same vocabulary over the tokens that were cut off."""
    shared = torch.zeros_like(target_share, dtype=torch.bool)
    shared[route.position[route.group == 0]] = True
    same = shared[flow.row]
    at, token = flow.row[same], flow.target[same]
    prior = route.native.at(at, token)
    room = 1 - index_sum(len(target_share), at, prior)
    spread = shared & (room > 1e-6)
    share = torch.where(spread, target_share / room.clamp(min=1e-6), target_share)
    mass = flow.mass.clone()
    mass[same] -= torch.where(spread[at], share[at], 0) * prior
    return Flow(flow.row, flow.source, flow.target, mass), share
