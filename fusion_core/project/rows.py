"""One source's rows -> the target's positions and vocabulary, all positions at once.

A row at a shared boundary is moved along the edges of the mapping there. Inside a source token the
source's row at its last boundary is conditioned on the bytes that are already known: tokens that
contradict them are dropped, and those that end within them are other paths of the source, whose
mass stays with the target's native row, as does everything that has no edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fusion_core.mapping import VocabMapping
from fusion_core.mapping.edges import Edges, EdgeTable, expand, find
from fusion_core.numerics import index_sum
from fusion_core.records import (
    Alignment,
    DenseRows,
    NextTokenRows,
    ProjectedRows,
    RowKind,
    SparseRows,
)

TINY = torch.finfo(torch.float32).tiny
CHUNK_CELLS = 1 << 25
"""Rows times vocabulary that are multiplied at once."""


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


@dataclass(frozen=True, eq=False)
class Route:
    """From which source row, and along which edges, each of the target's m rows is projected.

    Attributes:
        given: the source's rows, on the target's device.
        native: the target's rows, the first m of them.
        mapping: from the source's vocabulary to the target's.
        kind: (m,) int64 of `RowKind`, NONE where the mapping has nothing to say.
        row: (m,) int64, the source's row; -1 where there is none.
        group: (m,) int64, which list of the table counts; -1 where there is no row, 0 at shared
            boundaries.
        shared: edges at shared boundaries; None where ids stand for themselves.
        table: edges of all groups; the first list is empty where `shared` is None.
    """

    given: DenseRows | SparseRows
    native: DenseRows
    mapping: VocabMapping
    kind: np.ndarray
    row: torch.Tensor
    group: torch.Tensor
    shared: Edges | None
    table: EdgeTable

    @staticmethod
    def of(
        source: NextTokenRows, target: NextTokenRows, alignment: Alignment, mapping: VocabMapping
    ) -> Route:
        """Find the route of every row; arguments as for `project_rows`."""
        native = target.dense.part(0, len(alignment.row))
        device, size = native.logprobs.device, source.rows.vocab_size
        kind, group, known = _groups(alignment, mapping)
        nothing = torch.zeros(0, dtype=torch.int64)
        empty = Edges(nothing, nothing, torch.zeros(1, dtype=torch.int64), nothing)
        shared = None if mapping.identity or mapping.transported else mapping.edges()
        lists = [mapping.edges(b, target_start=start) for b, start in known[1:]]
        table = EdgeTable([shared or empty, *lists], size, native.vocab_size).to(device)
        row, group_ = (torch.as_tensor(x, device=device) for x in (alignment.row, group))
        return Route(source.rows.to(device), native, mapping, kind, row, group_, shared, table)


def _groups(
    alignment: Alignment, mapping: VocabMapping
) -> tuple[np.ndarray, np.ndarray, list[tuple[bytes, bool]]]:
    """Gather the target's rows by what is known of the source's next token.

    A dummy prefix that the source has yet to spell is known to come; where only the target has one,
    its first token is read without it.

    Returns:
        (m,) kinds and (m,) groups, see `Route`, and for each group the bytes that are known, and
        whether the target has yet to spell a dummy prefix that the source has not.
    """
    source, target, kind = alignment.source, alignment.target, alignment.kind.copy()
    if not mapping.inside:
        kind[kind == RowKind.INSIDE] = RowKind.NONE
    group = np.where(kind == RowKind.NONE, -1, 0)
    known: dict[tuple[bytes, bool], int] = {(b"", False): 0}
    if mapping.inside:
        text = b" " + target.data  # the source's dummy prefix counts as a byte before the text
        at = np.maximum(target.row_bytes[:-1], source.row_bytes[0]) + 1
        first = target.dummy_prefix and not source.dummy_prefix
        special = kind == RowKind.INSIDE
        special[:1] |= first & (group[:1] == 0)
        for i in np.flatnonzero(special).tolist():
            bytes_known = text[at[i] - alignment.offset[i] : at[i]]
            group[i] = known.setdefault((bytes_known, first and i == 0), len(known))
    return kind, group, list(known)


class Flow(NamedTuple):
    """Mass on its way: (f,) target rows, source tokens, target tokens, probabilities."""

    row: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    mass: torch.Tensor


def project_rows(
    source: NextTokenRows, target: NextTokenRows, alignment: Alignment, mapping: VocabMapping
) -> ProjectedRows:
    """Project a source's rows to the target's rows and vocabulary.

    Args:
        source: n + 1 rows on the source's vocabulary, whole or truncated.
        target: m + 1 whole rows of the target on the same text.
        alignment: of the target's rows with the source's.
        mapping: from the source's vocabulary to the target's.

    Returns:
        m rows that sum to 1: row i predicts the target's text token i. Rows of kind NONE are the
        target's native rows, with kept mass 0.
    """
    route = Route.of(source, target, alignment, mapping)
    native = route.native.logprobs  # (m, V)
    kept, total = native.new_zeros(len(native)), native.new_ones(len(native))
    if isinstance(route.given, DenseRows) and not mapping.transported:
        mapped = torch.zeros_like(native)
        _project_shared(route, route.given, mapped, kept)
        # Half of a vocabulary can begin with what is known: a few rows at a time.
        step = max(1, CHUNK_CELLS // route.given.vocab_size)
        for some in torch.nonzero(route.group > 0)[:, 0].split(step):
            which = torch.zeros_like(route.group, dtype=torch.bool).index_fill_(0, some, True)
            flow = flow_of(route, *agreeing(route, which, total), total, kept)
            mapped.index_put_((flow.row, flow.target), flow.mass, accumulate=True)
        target_share = 1 - kept
    else:
        flow = flow_of(route, *agreeing(route, route.group >= 0, total), total, kept)
        target_share = 1 - kept
        if mapping.identity:
            flow, target_share = _spread_tail(route, flow, target_share)
        where = torch.stack([flow.row, flow.target])
        mapped = torch.sparse_coo_tensor(where, flow.mass, native.shape, check_invariants=False)
    return ProjectedRows(source.model, mapped, target_share, kept, route.kind, total)


def _project_shared(
    route: Route, given: DenseRows, mapped: torch.Tensor, kept: torch.Tensor
) -> None:
    """Project whole rows at shared boundaries: products with the sparse matrix of edges."""
    size = mapped.shape[1]
    step = max(1, CHUNK_CELLS // max(size, given.vocab_size))
    for some in torch.nonzero(route.group == 0)[:, 0].split(step):
        probs = given.logprobs[route.row[some]].exp()  # (r, S)
        if route.shared is None:
            mapped[some], kept[some] = probs, 1.0
            continue
        mass = probs.T.contiguous()  # (S, r)
        if route.shared.weight is not None:
            arrived = route.shared.spread(mass, size)  # (V, r)
            mapped[some], kept[some] = arrived.T, arrived.sum(0).clamp(max=1)
            continue
        prior = route.native.logprobs[some].exp().T.contiguous()  # (V, r)
        mass = mass[route.shared.candidates.to(mass.device)]  # (c, r)
        moved, share = jeffrey(mass, route.shared.room(prior))
        mapped[some] = (route.shared.spread(share, size) * prior).T
        kept[some] = moved.sum(0).clamp(max=1)


def agreeing(
    route: Route, which: torch.Tensor, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List the source tokens that agree with what is known at the rows of a mask.

    Args:
        route: of the rows.
        which: (m,) bool.
        total: (m,), set at those rows to the mass over which they are normalised: of the tokens
            that agree, of those that end within what is known, and of the tail.

    Returns:
        (n,) target rows, source tokens and probabilities.
    """
    given, table, size = route.given, route.table, route.given.vocab_size
    rows = torch.nonzero(which)[:, 0]
    at = route.row[rows]
    if isinstance(given, DenseRows):
        if k := route.mapping.transported:
            top, ids = given.logprobs[at].topk(min(k, size), dim=1)
            return _listed(rows, ids, top.exp())
        whose, token = table.of_kind(table.key, route.group[rows])
        probs = given.logprobs[at[whose], token].exp()
        elsewhere, other = table.of_kind(table.other_key, route.group[rows])
        rest = given.logprobs[at[elsewhere], other].exp()
        counted = torch.cat([rows[whose], rows[elsewhere]])
        total[rows] = index_sum(len(total), counted, torch.cat([probs, rest]))[rows]
        return rows[whose], token, probs
    k = route.mapping.transported or given.ids.shape[1]
    row, token, p = _listed(rows, given.ids[at][:, :k], given.probs[at][:, :k])
    # At shared boundaries every token counts, and the whole row is 1.
    some = torch.nonzero(route.group.index_select(0, row))[:, 0]
    if not len(some):
        return row, token, p
    inside, mass = row.index_select(0, some), p.index_select(0, some)
    key = route.group.index_select(0, inside) * size + token.index_select(0, some)
    agrees = find(table.key, key)[1]
    counts = agrees | find(table.other_key, key)[1]
    sums = index_sum(len(total), inside, torch.where(counts, mass, 0))
    partly = rows[route.group[rows] > 0]
    total[partly] = sums[partly] + given.tail[route.row[partly]]
    keep = torch.ones_like(row, dtype=torch.bool).index_copy_(0, some, agrees)
    return row[keep], token[keep], p[keep]


def _listed(
    rows: torch.Tensor, ids: torch.Tensor, probs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lay (r, k) tokens out as lists, without places that hold none."""
    real = (ids >= 0) & (probs > 0)
    return rows[:, None].expand_as(ids)[real], ids[real], probs[real]


def flow_of(
    route: Route,
    row: torch.Tensor,
    token: torch.Tensor,
    probs: torch.Tensor,
    total: torch.Tensor,
    kept: torch.Tensor | None = None,
) -> Flow:
    """Send (n,) listed source tokens along their edges; what was mapped is added to ``kept``."""
    total = total[row]
    probs = torch.where(total > 0, probs / total.clamp(min=TINY), 0)
    if route.mapping.transported:
        flow, mapped = _transported(route, row, token, probs), probs
    else:
        flow, mapped = _along_edges(route, row, token, probs)
    if kept is not None:
        kept.add_(index_sum(len(kept), row, mapped)).clamp_(max=1)
    return flow


def _along_edges(
    route: Route, row: torch.Tensor, token: torch.Tensor, probs: torch.Tensor
) -> tuple[Flow, torch.Tensor]:
    table, group = route.table, route.group.index_select(0, row)
    if route.shared is None:
        place, found = find(table.key, group * table.source_size + token)
        found &= group != 0
    else:
        # The edges at shared boundaries stand first, one list for every source token.
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


def _transported(route: Route, row: torch.Tensor, token: torch.Tensor, probs: torch.Tensor) -> Flow:
    """Send the listed tokens, in order of their rows, where the mapping says."""
    rows, counts = row.unique_consecutive(return_counts=True)
    whose, place = expand(torch.zeros_like(counts), counts)
    ids = torch.full((len(rows), route.mapping.transported), -1, device=row.device)
    mass = probs.new_zeros(ids.shape)
    ids[whose, place], mass[whose, place] = token, probs
    goes = route.mapping.destinations(ids, mass, route.native.logprobs[rows].exp())
    return Flow(row, token, goes[whose, place], probs)


def _spread_tail(route: Route, flow: Flow, target_share: torch.Tensor) -> tuple[Flow, torch.Tensor]:
    """Spread the tails of rows of the same vocabulary over the tokens that were cut off."""
    same = route.group[flow.row] == 0
    at, token = flow.row[same], flow.target[same]
    prior = route.native.at(at, token)
    room = 1 - index_sum(len(target_share), at, prior)
    spread = (route.group == 0) & (room > 1e-6)
    share = torch.where(spread, target_share / room.clamp(min=1e-6), target_share)
    mass = flow.mass.clone()
    mass[same] -= torch.where(spread[at], share[at], 0) * prior
    return Flow(flow.row, flow.source, flow.target, mass), share
