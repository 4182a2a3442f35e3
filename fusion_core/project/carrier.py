"""One source's rows on their way to the target, all positions at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fusion_core.mapping import Mapping, PrefixRelation, Transport
from fusion_core.numerics import index_sum
from fusion_core.records import (
    Alignment,
    DenseRows,
    Encoding,
    NextTokenRows,
    ProjectedRows,
    RowKind,
    VocabMap,
)

from .pairs import TINY, Pairs, PairTable, expand, find
from .transport import TOP_K, destinations

CHUNK_CELLS = 1 << 25
"""Rows times vocabulary that are multiplied at once."""


@dataclass(frozen=True, eq=False)
class _Kinds:
    """At what kind of position each target row row_bytes, as a source sees it.

    Attributes:
        kind: (m,) int64 of `RowKind`, NONE where the mapping has nothing to say.
        row: (m,) int64, the source's row; -1 where there is none.
        group: (m,) int64, index into `known`; -1 where there is no row.
        known: for each group the bytes that the source's next token is known to begin with, and
            whether the target has yet to spell a dummy prefix that the source has not.
    """

    kind: np.ndarray
    row: np.ndarray
    group: np.ndarray
    known: Sequence[tuple[bytes, bool]]

    @staticmethod
    def of(
        alignment: Alignment, mapping: Mapping | None, source: Encoding, target: Encoding
    ) -> _Kinds:
        """Gather target rows by what is known of the source's next token.

        A dummy prefix that the source has yet to spell is known to come; where only the target has
        one, its first token is read without it.
        """
        kind = alignment.kind.copy()
        relates = isinstance(mapping, PrefixRelation)
        if not relates:
            kind[kind == RowKind.INSIDE] = RowKind.NONE
        group = np.where(kind == RowKind.NONE, -1, 0)
        known: dict[tuple[bytes, bool], int] = {(b"", False): 0}
        if relates:
            text = b" " + target.data  # the source's dummy prefix counts as a byte before the text
            at = np.maximum(target.row_bytes[:-1], source.row_bytes[0]) + 1
            first = target.dummy_prefix and not source.dummy_prefix
            special = kind == RowKind.INSIDE
            special[:1] |= first & (group[:1] == 0)
            for i in np.flatnonzero(special).tolist():
                bytes_known = text[at[i] - alignment.offset[i] : at[i]]
                group[i] = known.setdefault((bytes_known, first and i == 0), len(known))
        return _Kinds(kind, alignment.row, group, list(known))


class _Flow(NamedTuple):
    """Mass on its way: (f,) target rows, source tokens, target tokens, probabilities."""

    row: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    mass: torch.Tensor


class Carrier:
    """A source's rows on their way to the target.

    Attributes:
        rows: what arrives.
    """

    def __init__(
        self,
        source: NextTokenRows,
        target: NextTokenRows,
        alignment: Alignment,
        mapping: Mapping | None,
        *,
        source_encoding: Encoding,
        target_encoding: Encoding,
    ) -> None:
        """Carry the rows over; arguments as for `project`."""
        kinds = _Kinds.of(alignment, mapping, source_encoding, target_encoding)
        own = target.dense.logprobs[: len(kinds.row)]
        self._target, self._shape, self._given = target.dense, own.shape, source.rows.to(own.device)
        self._mapping, self._source_size = mapping, source.rows.vocab_size
        self._row = torch.as_tensor(kinds.row, device=own.device)
        self._group = torch.as_tensor(kinds.group, device=own.device)
        self._total = own.new_ones(len(own))
        self._shared, self._table = self._pairs(kinds)
        kept, own_share = own.new_zeros(len(own)), own.new_ones(len(own))
        if isinstance(self._given, DenseRows) and not isinstance(mapping, Transport):
            carried = torch.zeros_like(own)
            self._carry_shared(self._given, carried, kept)
            # Half of a vocabulary can begin with what is known: a few rows at a time.
            step = max(1, CHUNK_CELLS // self._source_size)
            for some in torch.nonzero(self._group > 0)[:, 0].split(step):
                which = torch.zeros_like(self._group, dtype=torch.bool).index_fill_(0, some, True)
                flow = self._flow(*self._tokens(which), kept)
                carried.index_put_((flow.row, flow.target), flow.mass, accumulate=True)
            own_share = 1 - kept
        else:
            flow = self._flow(*self._tokens(self._group >= 0), kept)
            own_share = 1 - kept
            if self._shared is None and not isinstance(mapping, Transport):
                flow, own_share = self._spread_tail(flow, own_share)
            where = torch.stack([flow.row, flow.target])
            carried = torch.sparse_coo_tensor(where, flow.mass, own.shape, check_invariants=False)
        self.rows = ProjectedRows(source.model, carried, own_share, kept, kinds.kind)

    def _pairs(self, kinds: _Kinds) -> tuple[Pairs | None, PairTable]:
        """Look up the pairs of every kind of position; None at shared boundaries for the same."""
        mapping, lists = self._mapping, []
        shared = None
        empty = torch.zeros(0, dtype=torch.int64)
        nothing = Pairs(empty, empty, torch.zeros(1, dtype=torch.int64), empty)
        if isinstance(mapping, VocabMap):
            shared = Pairs.of(mapping)
        elif isinstance(mapping, PrefixRelation):
            if not mapping.identical:
                shared = Pairs.of(mapping.given())
            lists = [
                Pairs.of(mapping.given(known, target_start=start))
                for known, start in kinds.known[1:]
            ]
        sizes = self._source_size, self._shape[1]
        table = PairTable([shared or nothing, *lists], *sizes)
        return shared, table.to(self._row.device)

    def _carry_shared(self, given: DenseRows, carried: torch.Tensor, kept: torch.Tensor) -> None:
        """Carry whole rows at shared boundaries: products with the sparse matrix of pairs."""
        where = torch.nonzero(self._group == 0)[:, 0]
        size = self._shape[1]
        step = max(1, CHUNK_CELLS // max(size, self._source_size))
        for some in where.split(step) if len(where) else ():
            probs = given.logprobs[self._row[some]].exp()
            if self._shared is None:
                carried[some] = probs
                kept[some] = 1.0
                continue
            mass = probs.T.contiguous()
            if self._shared.weight is not None:
                arrived = self._shared.spread(mass, size)
                carried[some], kept[some] = arrived.T, arrived.sum(0).clamp(max=1)
                continue
            prior = self._target.logprobs[some].exp().T.contiguous()
            mass = mass[self._shared.candidates.to(mass.device)]
            room = self._shared.room(prior)
            mapped = room > TINY
            share = torch.where(mapped, mass / room.clamp(min=TINY), 0)
            carried[some] = (self._shared.spread(share, size) * prior).T
            kept[some] = torch.where(mapped, mass, 0).sum(0).clamp(max=1)

    def _tokens(self, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """List the source tokens that count at the rows of a mask: row, token, probability.

        Sets the total over which the rows are normalised: the tokens that agree with what is known,
        those that end within it, and the tail.
        """
        rows = torch.nonzero(which)[:, 0]
        given, at, table = self._given, self._row[rows], self._table
        if isinstance(given, DenseRows):
            if isinstance(self._mapping, Transport):
                top, ids = given.logprobs[at].topk(min(TOP_K, self._source_size), dim=1)
                return self._listed(rows, ids, top.exp())
            whose, token = table.of_kind(table.key, self._group[rows])
            probs = given.logprobs[at[whose], token].exp()
            elsewhere, other = table.of_kind(table.other_key, self._group[rows])
            rest = given.logprobs[at[elsewhere], other].exp()
            counted = torch.cat([rows[whose], rows[elsewhere]])
            total = index_sum(len(self._total), counted, torch.cat([probs, rest]))
            self._total[rows] = total[rows]
            return rows[whose], token, probs
        ids, probs = given.ids[at], given.probs[at]
        if isinstance(self._mapping, Transport):
            return self._listed(rows, ids[:, :TOP_K], probs[:, :TOP_K])
        row, token, p = self._listed(rows, ids, probs)
        # At shared boundaries every token counts, and the whole row is 1.
        some = torch.nonzero(self._group.index_select(0, row))[:, 0]
        if not len(some):
            return row, token, p
        inside, mass = row.index_select(0, some), p.index_select(0, some)
        key = self._group.index_select(0, inside) * self._source_size + token.index_select(0, some)
        agrees = find(table.key, key)[1]
        counts = agrees | find(table.other_key, key)[1]
        total = index_sum(len(self._total), inside, torch.where(counts, mass, 0))
        partly = rows[self._group[rows] > 0]
        self._total[partly] = total[partly] + given.tail[self._row[partly]]
        keep = torch.ones_like(row, dtype=torch.bool).index_copy_(0, some, agrees)
        return row[keep], token[keep], p[keep]

    @staticmethod
    def _listed(
        rows: torch.Tensor, ids: torch.Tensor, probs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lay (r, k) tokens out as lists, without places that hold none."""
        real = (ids >= 0) & (probs > 0)
        return rows[:, None].expand_as(ids)[real], ids[real], probs[real]

    def _flow(
        self,
        row: torch.Tensor,
        token: torch.Tensor,
        probs: torch.Tensor,
        kept: torch.Tensor | None = None,
    ) -> _Flow:
        """Send listed source tokens to their target tokens; what was mapped is added to ``kept``.

        q(v) = sum over w of p_s(w) p_t(v) [v ~ w] / (sum over v' ~ w of p_t(v')): Jeffrey's rule,
        with the target's own row p_t as the prior; or by the fixed shares of a map.
        """
        table, total = self._table, self._total[row]
        probs = torch.where(total > 0, probs / total.clamp(min=TINY), 0)
        if isinstance(self._mapping, Transport):
            flow = self._transported(row, token, probs)
            mapped = probs
        else:
            group = self._group.index_select(0, row)
            if self._shared is None:
                place, found = find(table.key, group * table.source_size + token)
                found &= group != 0
            else:
                # The pairs at shared boundaries stand first, one list for every source token.
                place, found = token, torch.ones_like(token, dtype=torch.bool)
                some = torch.nonzero(group)[:, 0]
                if len(some):
                    key = group.index_select(0, some) * table.source_size
                    at, there = find(table.key, key + token.index_select(0, some))
                    place = token.index_copy(0, some, at)
                    found.index_copy_(0, some, there)
            begin = table.indptr.index_select(0, place)
            count = torch.where(found, table.indptr.index_select(0, place + 1) - begin, 0)
            whose, pair = expand(begin, count)
            goes = table.target.index_select(0, pair)
            to = row.index_select(0, whose)
            if table.weight is not None:
                mass = probs.index_select(0, whose) * table.weight.index_select(0, pair)
                mapped = index_sum(len(probs), whose, mass)
            else:
                prior = self._target.at(to, goes)
                room = index_sum(len(probs), whose, prior)
                mapped = torch.where(room > TINY, probs, 0)
                mass = (mapped / room.clamp(min=TINY)).index_select(0, whose) * prior
            flow = _Flow(to, token.index_select(0, whose), goes, mass)
            if self._shared is None:
                same = self._group[row] == 0
                mapped = torch.where(same, probs, mapped)
                parts = (row[same], token[same], token[same], probs[same])
                flow = _Flow(*(torch.cat([a, b]) for a, b in zip(flow, parts, strict=True)))
        if kept is not None:
            kept.add_(index_sum(len(kept), row, mapped)).clamp_(max=1)
        return flow

    def _transported(self, row: torch.Tensor, token: torch.Tensor, probs: torch.Tensor) -> _Flow:
        """Send the listed tokens, at most TOP_K a row and in order, by optimal transport."""
        rows, counts = row.unique_consecutive(return_counts=True)
        whose, place = expand(torch.zeros_like(counts), counts)
        ids = torch.full((len(rows), TOP_K), -1, device=row.device)
        mass = probs.new_zeros(ids.shape)
        ids[whose, place], mass[whose, place] = token, probs
        assert isinstance(self._mapping, Transport)
        goes = destinations(ids, mass, self._target.logprobs[rows].exp(), self._mapping)
        return _Flow(row, token, goes[whose, place], probs)

    def _spread_tail(self, flow: _Flow, own_share: torch.Tensor) -> tuple[_Flow, torch.Tensor]:
        """Spread the tails of rows of the same vocabulary over the tokens that were cut off."""
        same = self._group[flow.row] == 0
        at, token = flow.row[same], flow.target[same]
        prior = self._target.at(at, token)
        taken = index_sum(len(own_share), at, prior)
        room = 1 - taken
        spread = (self._group == 0) & (room > 1e-6)
        share = torch.where(spread, own_share / room.clamp(min=1e-6), own_share)
        less = torch.where(spread[at], share[at], 0) * prior
        mass = flow.mass.clone()
        mass[same] -= less
        return _Flow(flow.row, flow.source, flow.target, mass), share

    def origins(self, ids: torch.Tensor, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
        """Trace where target tokens had what was carried to them from.

        Args:
            ids: (m, k) target tokens of each row, none twice; -1 for none.
            n: source tokens named for each.

        Returns:
            (m, k, n) int64 source tokens by falling mass, -1 where there are fewer, and (m, k, n)
            float32 the share of each in what was carried to the target token.
        """
        m, k = ids.shape
        flow = self._towards(ids)
        size = self._shape[1]
        first = torch.arange(m, device=ids.device)[:, None] * size
        keys, order = (first + ids).masked_fill(ids < 0, -1).reshape(-1).sort()
        place, found = find(keys, flow.row * size + flow.target)
        slot, mass, source = order[place[found]], flow.mass[found], flow.source[found]
        total = index_sum(m * k, slot, mass)
        ranked = mass.argsort(descending=True, stable=True)
        ranked = ranked[slot[ranked].argsort(stable=True)]
        slot, mass, source = slot[ranked], mass[ranked], source[ranked]
        rank = torch.arange(len(slot), device=ids.device) - torch.searchsorted(slot, slot)
        top = rank < n
        tokens = torch.full((m * k, n), -1, device=ids.device)
        shares = mass.new_zeros((m * k, n))
        tokens[slot[top], rank[top]] = source[top]
        shares[slot[top], rank[top]] = mass[top] / total[slot[top]].clamp(min=TINY)
        return tokens.view(m, k, n), shares.view(m, k, n)

    def _towards(self, ids: torch.Tensor) -> _Flow:
        """Follow only source tokens that can reach the target tokens (m, k) of their row."""
        if not isinstance(self._given, DenseRows) or isinstance(self._mapping, Transport):
            return self._flow(*self._tokens(self._group >= 0))
        row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
        real = (ids >= 0) & (self._group[row] >= 0)
        row, target = row[real], ids[real]
        group = self._group[row]
        keys, sources = self._table.by_target
        wanted = group * self._shape[1] + target
        low = torch.searchsorted(keys, wanted)
        whose, place = expand(low, torch.searchsorted(keys, wanted, right=True) - low)
        reach = row[whose] * self._source_size + sources[place] % self._source_size
        if self._shared is None:
            same = group == 0
            reach = torch.cat([reach, row[same] * self._source_size + target[same]])
        reach = reach.unique()
        row, token = reach // self._source_size, reach % self._source_size
        return self._flow(row, token, self._given.logprobs[self._row[row], token].exp())
