"""The tree of a text's canonical prefixes, and the mass of the covers that begin at its nodes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import log

import numpy as np
import torch
from numpy.typing import ArrayLike

from fusion_core.numerics import index_sum
from fusion_core.records import LIGHT, Encoding, NextTokenRows
from fusion_core.tokens import AFTER_SPACE, TextTokenizer

GO_ON = 0.01
"""Share of the mass of a path whose row was not read that is taken to go on with known bytes."""

FEW = 500
"""Tokens of which it is tried whether any of them follows another."""


class PrefixTree:
    """The tree of a text's canonical prefixes, as far as it has been read.

    Node i is the prefix after which row i stands: the first are those of the text itself, the
    others are side paths in the order in which they were asked for. All weights are natural
    logarithms relative to the root.
    """

    def __init__(
        self,
        rows: NextTokenRows,
        encoding: Encoding,
        tokenizer: TextTokenizer,
        positions: np.ndarray,
        prune: float,
        context: int | None = None,
        first: int = 0,
    ) -> None:
        """Begin with the path of the text itself.

        Args:
            rows: the model's n + 1 whole rows on the text.
            encoding: the text in the model's tokens.
            tokenizer: the model's.
            positions: (p,) int64 bytes of which covers are wanted, ascending, each once; as in
                `Encoding.row_bytes`.
            prune: covers and side paths below this share of the mass are dropped; 0 drops none.
            context: most tokens of a path, a start token included.
            first: text tokens before the first row, where only the last rows are at hand.
        """
        self.logprobs, self.encoding, self.tokenizer = rows.logprobs, encoding, tokenizer
        self.positions = positions
        self.log_prune = np.log(prune) if prune else -np.inf
        self.log_light = self.log_prune + log(LIGHT)
        self.prune, self.light, self.temperature = prune, prune * LIGHT, rows.rows.temperature
        self.index = tokenizer.byte_index
        self.room = (context or 1 << 60) - (tokenizer.start_id is not None)
        self.text = b" " + encoding.data  # a dummy prefix counts as a byte before the text
        self.n = len(rows.rows) - 1
        ids = encoding.ids[encoding.text_tokens]
        self.ids = ids[first : first + self.n]  # (n,)
        self.unread = tuple(ids[first + self.n :].tolist())
        self.byte = encoding.row_bytes[first : first + self.n + 1].tolist()
        self.lost = np.concatenate([[0], encoding.lost_before])
        steps = rows.logprobs[:-1].gather(
            1, torch.as_tensor(self.ids, device=rows.logprobs.device)[:, None]
        )
        self.steps = steps[:, 0].double().cpu().numpy()  # (n,)
        mute = tokenizer.start_id is None and not first  # row 0 says nothing then
        if mute:
            self.steps[:1] = 0
        self.log_p = np.concatenate([[0.0], np.cumsum(self.steps)]).tolist()
        self.main_nodes = [
            i for i in range(mute, self.n + 1) if i == self.n or self.byte[i + 1] > self.byte[i]
        ]
        self.last = [int(ids[first - 1]) if first else -1, *self.ids.tolist()]
        self.path: list[tuple[int, tuple[int, ...]]] = [(first + i, ()) for i in range(self.n + 1)]
        self.branches: list[torch.Tensor] = []
        self.pairs: list[np.ndarray] = []  # (e, 3) place, node, known bytes
        self.shares: list[np.ndarray] = []  # (e,)
        self.log_z, self.expected = np.full((2, len(positions)), -np.inf)
        self._reached: dict[int, list[int]] = {}
        self._bounds = [*(self.byte[n] for n in self.main_nodes), len(encoding.data)]
        self._places = positions.tolist()

    # The tree ----------------------------------------------------------------------------------

    def main(self) -> list[int]:
        """Count the covers that begin on the text's own path; return its nodes."""
        at = np.asarray(self.byte)[self.main_nodes]
        log_p = np.asarray(self.log_p)[self.main_nodes]
        # The text goes through the next boundary: the mass is no less there.
        after = np.searchsorted(at, self.positions).clip(max=len(at) - 1)
        least = log_p[after] + self.log_light  # (p,)
        with np.errstate(divide="ignore"):
            leaves = np.log(-np.expm1(np.minimum(self.steps, 0)))
        self.ends_before = {
            node: (self.byte[node + 1], self.log_p[node] + leaves[node])
            for node in self.main_nodes
            if node < self.n
        }
        self._count(self.main_nodes, self.logprobs, 0, least)
        if self.unread:
            self._expect(self.unread[0])
        return self.main_nodes

    def _expect(self, token: int) -> None:
        """Let the text's next token, whose row is not read, count in what others are held against.

        Its cover of the byte at which it ends has all of its mass.
        """
        spelled = self.tokenizer.bytes_of[token] or b""
        place = np.searchsorted(self.positions, self.byte[self.n] + len(spelled))
        if self.positions[place : place + 1] == self.byte[self.n] + len(spelled):
            step = float(self.logprobs[self.n, token])
            self.expected[place] = self.log_p[self.n] + step

    def add(self, nodes: Sequence[tuple[int, int, int]], logprobs: torch.Tensor) -> list[int]:
        """Take rows that were asked for; return their nodes."""
        first = len(self.byte)
        for parent, token, byte in nodes:
            k, tokens = self.path[parent]
            self.path.append((k, (*tokens, token)))
            self.byte.append(byte)
            self.last.append(token)
        self.branches.append(logprobs)
        self.expected[:] = -np.inf
        found = list(range(first, len(self.byte)))
        self._count(found, logprobs, first, None)
        return found

    def count_unread(self, ends: Sequence[int], weights: Sequence[float]) -> None:
        """Count side paths that end at bytes and whose rows are not at hand."""
        found = [
            (place, weight + (log(GO_ON) if known else 0.0), known)
            for end, weight in zip(ends, weights, strict=True)
            for place in self._reach(end)
            for known in [int(self.positions[place]) - end]
        ]
        places, shares, known = np.asarray(found).reshape(-1, 3).T
        pairs = np.stack([places, np.full_like(places, -1), known], axis=1).astype(np.int64)
        self.pairs.append(pairs)
        self.shares.append(shares)
        np.logaddexp.at(self.log_z, pairs[:, 0], shares)

    def children(self, nodes: Sequence[int]) -> list[tuple[int, int, int]]:
        """List what branches off nodes and weighs enough: (parent, token, byte at its end)."""
        found = [
            (node, token, end)
            for node in nodes
            for token, end in self._steps_from(self.byte[node])
            if not (node < self.n and token == self.ids[node] and end == self.byte[node + 1])
        ]
        if not found:
            return []
        first = self.n + 1 if nodes[0] > self.n else 0
        logprobs = self.branches[-1] if first else self.logprobs
        if first:
            first = len(self.byte) - len(logprobs)
        step = self.at(logprobs, [n - first for n, _, _ in found], [t for _, t, _ in found])
        weight = np.asarray([self.log_p[n] for n, _, _ in found]) + step
        ends = np.asarray([end for _, _, end in found])
        least = self._least(ends)
        matters = (least < np.inf) & (weight > -np.inf)
        least[~matters] = 0
        matters &= weight >= least + self.log_light
        matters[matters] = [bool(self._reach(end)) for end in ends[matters].tolist()]
        heavy = matters & (weight >= least + self.log_prune)
        self._drop(found, weight, matters & ~heavy)
        places = np.flatnonzero(heavy).tolist()
        paths = self._paths(sorted({found[i][2] for i in places})) if places else {}
        chosen = []
        spelled = [i for i in places if self._path_to(found[i]) in paths[found[i][2]]]
        for i in self._followed(spelled, found):
            node, _, end = found[i]
            k, tokens = self.path[node]
            if k + len(tokens) + 1 > self.room:
                self.count_unread([end], [weight[i]])
                continue
            chosen.append(found[i])
            self.log_p.append(float(weight[i]))
        return chosen

    def _path_to(self, step: tuple[int, int, int]) -> tuple[int, tuple[int, ...]]:
        k, tokens = self.path[step[0]]
        return k, (*tokens, step[1])

    def _followed(self, places: Sequence[int], found: Sequence[tuple[int, int, int]]) -> list[int]:
        """Choose the nodes behind whose tokens the tokenizer puts one that the text allows.

        Nothing that follows the others counts, such as words behind a space that would be theirs.
        """
        if not self.prune:
            return list(places)
        follow: list[np.ndarray] = []
        for end in (found[i][2] for i in places):
            spans = [
                self.index.span(self.text[end + 1 : self._places[n] + 1])
                for n in self._reach(end)
                if self._places[n] > end
            ]
            if len(spans) < len(self._reach(end)) or any(b - a > FEW for a, b in spans):
                follow.append(np.asarray([-1]))  # something does
                continue
            whole = np.asarray([token for token, _ in self._steps_from(end)], np.int64)
            follow.append(np.concatenate([whole, *(self.index.ids[a:b] for a, b in spans)]))
        last = np.asarray([found[i][1] for i in places], np.int64)
        which = np.repeat(np.arange(len(places)), [len(x) for x in follow])
        nexts = np.concatenate([np.zeros(0, np.int64), *follow])
        stays = self.tokenizer.canonical.stays(np.stack([last[which], nexts], axis=1))
        some = np.bincount(which[stays], minlength=len(places)) > 0
        return [i for i, kept in zip(places, some.tolist(), strict=True) if kept]

    def _drop(
        self, found: Sequence[tuple[int, int, int]], weight: np.ndarray, light: np.ndarray
    ) -> None:
        """Count nodes that are not asked for, those apart that the tokenizer never makes."""
        places = np.flatnonzero(light)
        pairs = [(self.last[found[i][0]], found[i][1]) for i in places.tolist()]
        places = places[self.tokenizer.canonical.stays(np.asarray(pairs, np.int64))]
        self.count_unread([found[i][2] for i in places.tolist()], weight[places].tolist())

    def _paths(self, ends: Sequence[int]) -> dict[int, list[tuple[int, tuple[int, ...]] | None]]:
        """Spell the text up to bytes: as it ends there, and white space also before other text."""
        asked = [(end, b"") for end in ends]
        spaces = [end for end in ends if self.text[end : end + 1].isspace()]
        asked += [(end, then) for then in AFTER_SPACE for end in spaces]
        found = self.tokenizer.canonical.paths(self.encoding, *zip(*asked, strict=True))
        paths: dict[int, list[tuple[int, tuple[int, ...]] | None]] = {end: [] for end in ends}
        for (end, _), path in zip(asked, found, strict=True):
            paths[end].append(self._of_read(*path) if path and self.unread else path)
        return paths

    def _of_read(self, k: int, tokens: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Let a path leave the text's own where its rows end."""
        last = self.path[self.n][0]
        return (last, (*self.unread[: k - last], *tokens)) if k > last else (k, tokens)

    def _steps_from(self, byte: int) -> list[tuple[int, int]]:
        """List the tokens that spell what follows a byte, and where they end."""
        begin, ids_of = byte + 1, self.tokenizer.ids_of
        longest = self.index.longest(self.text[begin : begin + 2])
        found = []
        for end in range(begin + 1, min(begin + longest, len(self.text)) + 1):
            if self.lost[end] != self.lost[begin]:
                break
            found += [(token, end - 1) for token in ids_of.get(self.text[begin:end], ())]
        return found

    def _least(self, ends: np.ndarray) -> np.ndarray:
        """(f,) least mass at the positions for which paths that end at bytes matter most.

        These are those up to the text's next boundary, and at least the first one; infinite where
        there is none.
        """
        unique, inverse = np.unique(ends, return_inverse=True)
        bounds = np.asarray(self._bounds)
        horizon = bounds[np.searchsorted(bounds, unique, "right").clip(max=len(bounds) - 1)]
        low = np.searchsorted(self.positions, unique)
        high = np.searchsorted(self.positions, horizon, "right")
        high = np.maximum(high, low + 1).clip(max=len(self.positions))
        mass = np.append(np.logaddexp(self.log_z, self.expected), np.inf)
        return np.minimum.reduceat(mass, np.stack([low, high], axis=1).ravel())[::2][inverse]

    def _reach(self, end: int) -> list[int]:
        """List the positions near the end of a path that tokens from there reach."""
        if end not in self._reached:
            bounds, positions = self._bounds, self._places
            horizon = bounds[min(bisect_right(bounds, end), len(bounds) - 1)]
            low = bisect_left(positions, end)
            near = enumerate(positions[low : max(bisect_right(positions, horizon), low + 1)], low)
            self._reached[end] = [n for n, at in near if self._spells(end, at, horizon)]
        return self._reached[end]

    def _spells(self, begin: int, end: int, horizon: int) -> bool:
        """Tell whether tokens spell what lies between bytes, of which the last one may go on.

        Those before it end before the text's next boundary, from which its own path goes on.
        """
        between = self.text[begin + 1 : end + 1]
        low, high = self.index.span(between) if between else (0, 1)
        return low < high or any(
            between[:n] in self.tokenizer.ids_of and self._spells(begin + n, end, horizon)
            for n in range(1, len(between) + 1)
            if begin + n < horizon or begin + n == end or not self.prune
        )

    # Their mass --------------------------------------------------------------------------------

    def _count(
        self, nodes: Sequence[int], logprobs: torch.Tensor, first: int, least: np.ndarray | None
    ) -> None:
        """Add the covers that begin at nodes, whose rows these are from the first on."""
        pairs, spans = self._pairs(nodes, least)
        if not len(pairs):
            return
        inside = pairs[:, 2] > 0
        share = np.asarray([self.log_p[n] for n in pairs[:, 1].tolist()])
        place, token = self.tokens(spans[inside])
        p = torch.as_tensor(self.at(logprobs, (pairs[inside, 1] - first)[place], token)).exp()
        mass = index_sum(int(inside.sum()), torch.as_tensor(place), p).numpy()
        with np.errstate(divide="ignore"):
            share[inside] += np.log(mass)
        self.pairs.append(pairs)
        self.shares.append(share)
        np.logaddexp.at(self.log_z, pairs[:, 0], share)

    def _pairs(
        self, nodes: Sequence[int], least: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """List positions that tokens from nodes reach: (e, 3) place, node and known bytes.

        Returns:
            The list, and (e, 2) the range of the vocabulary's order that goes on there.
        """
        begins = np.searchsorted(self.positions, [self.byte[n] for n in nodes]).tolist()
        positions, found, spans = self._places, [], []
        for node, begin in zip(nodes, begins, strict=True):
            byte = self.byte[node]
            bound = self.ends_before.get(node) if least is not None else None
            for place in range(begin, len(positions)):
                at = positions[place]
                if self.lost[at + 1] != self.lost[byte + 1]:
                    break
                span = (0, 0)
                if at > byte:
                    span = self.index.span(self.text[byte + 1 : at + 1])
                    if span[0] == span[1]:
                        break
                    if bound and least is not None and at >= bound[0] and bound[1] < least[place]:
                        continue
                found.append((place, node, at - byte))
                spans.append(span)
        return np.asarray(found, np.int64).reshape(-1, 3), np.asarray(spans).reshape(-1, 2)

    def tokens(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay (e, 2) ranges of the vocabulary's order out: (t,) which range, and (t,) tokens."""
        count = spans[:, 1] - spans[:, 0]
        which = np.repeat(np.arange(len(spans)), count)
        first = spans[:, 0] - (np.cumsum(count) - count)
        return which, self.index.ids[np.arange(len(which)) + first[which]]

    def at(self, logprobs: torch.Tensor, row: ArrayLike, token: ArrayLike) -> np.ndarray:
        """(t,) float64 log-probabilities of tokens of rows."""
        flat = np.asarray(row, np.int64) * logprobs.shape[1] + np.asarray(token, np.int64)
        index = torch.as_tensor(flat, device=logprobs.device)
        return logprobs.reshape(-1).index_select(0, index).double().cpu().numpy()
