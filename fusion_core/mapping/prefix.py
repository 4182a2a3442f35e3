"""Byte-prefix consistency: which target tokens a source token's mass may go to.

How the mass is shared among them is decided at each position by the target's own distribution (see
`project`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from cachetools import LRUCache, cachedmethod

from fusion_core.records import MapReason, VocabMap
from fusion_core.tokens import ByteIndex, TextTokenizer

from .edges import Edges, VocabMapping
from .maps import csr, respelling, same_ids
from .store import cached

VERSION = 1
"""Of the map at shared boundaries; raised whenever it changes."""

KEPT_RELATIONS = 2000
"""Beginnings of a source token whose pairs a relation remembers."""


@dataclass(frozen=True, eq=False)
class Consistency:
    """Which target tokens may take a source token's mass at one kind of position.

    Attributes:
        candidates: (c,) int64, source tokens that agree with the bytes already known.
        others: (o,) int64, source tokens that end within the known bytes: other paths of the
            source, on which it has not been asked.
        edge_source: (e,) int64, index into `candidates` of each consistent pair.
        edge_target: (e,) int64, target id of each consistent pair.
        first: (e,) bool, the target token begins the target's own spelling of the source token;
            otherwise it extends it.
    """

    candidates: np.ndarray
    others: np.ndarray
    edge_source: np.ndarray
    edge_target: np.ndarray
    first: np.ndarray

    @cached_property
    def edges(self) -> Edges:
        """The pairs in CSR form, by ascending candidates."""
        order = np.argsort(self.candidates, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        source = rank[self.edge_source]
        by_source = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=len(order))
        return Edges(
            torch.as_tensor(self.candidates[order]),
            torch.as_tensor(np.sort(self.others)),
            torch.as_tensor(np.concatenate([[0], np.cumsum(counts)])),
            torch.as_tensor(self.edge_target[by_source]).long(),
        )


class PrefixRelation(VocabMapping):
    """Byte-prefix consistency of two vocabularies.

    A source token w and a target token v are consistent when v is the first token of the target's
    own spelling of w, or when v properly extends w and w is the first token of the source's own
    spelling of v. White space is spelled either as at a text's end or as before a word: many
    tokenizers cut it differently there. Other prefixes are spellings that a tokenizer never
    produces. Tokens without bytes are consistent with nothing, but end of text with end of text.
    """

    inside = True

    def __init__(self, source: TextTokenizer, target: TextTokenizer) -> None:
        """Prepare the two vocabularies; pairs are found when they are asked for."""
        self.source, self.target = source, target
        self._same_ids = source.vocabulary_key == target.vocabulary_key
        self.identity = self._same_ids and set(source.end_ids) <= set(target.end_ids)
        self._known: LRUCache[tuple[bytes, bool], Consistency] = LRUCache(KEPT_RELATIONS)
        self._lock = threading.RLock()

    @cached_property
    def _target_start(self) -> ByteIndex:
        """As a text begins, a target with a dummy prefix spells every word with its space."""
        spelled = enumerate(self.target.bytes_of)
        return ByteIndex((i, b[1:]) for i, b in spelled if b and b[:1] == b" ")

    def edges(self, known: bytes = b"", *, target_start: bool = False) -> Edges:
        """Return the edges where the source's next token is known to begin with bytes."""
        return self.conditioned_on(known, target_start).edges

    @cachedmethod(lambda self: self._known, lock=lambda self: self._lock)
    def conditioned_on(self, known: bytes = b"", target_start: bool = False) -> Consistency:
        """Find the consistent pairs where the source's next token is known to begin with bytes.

        Args:
            known: bytes of the text from the source's last boundary to the target's boundary;
                empty at a shared boundary.
            target_start: the target is at the start of a text and has yet to spell its dummy
                prefix.
        """
        if known or target_start:
            return self._find(known, target_start)
        return self._by_ids() if self._same_ids else self._at_boundaries(self.matrix()[0])

    def _by_ids(self) -> Consistency:
        """Let every token go to itself, and what ends the source's texts to the target's ends."""
        rows, columns = same_ids(self.source, self.target)
        nothing = np.zeros(0, np.int64)
        every = np.arange(self.source.size)
        return Consistency(every, nothing, rows, columns, np.ones(len(rows), bool))

    def _find(self, known: bytes, target_start: bool) -> Consistency:
        if known:
            matching = self.source.byte_index.extending(known)
            others = [i for _, i in self.source.byte_index.prefixes_of(known)]
        else:
            matching = [(b or b"", i) for i, b in enumerate(self.source.bytes_of)]
            others = []
        rests = [b[len(known) :] for b, _ in matching]
        place = {i: n for n, (_, i) in enumerate(matching)}
        begins = _either(self.target, rests, target_start)
        pairs = list(begins[0])
        n_first = len(pairs)
        pairs += begins[1]
        spelled = self._target_start if target_start else self.target.byte_index
        longer = _longer(spelled, rests) if known else [(v, b) for b, v in spelled]
        for heads in _either(self.source, [known + b for _, b in longer], False):
            for m, w in heads:
                v, b = longer[m]
                n = place.get(w)
                if n is not None and 0 < len(rests[n]) < len(b):
                    pairs.append((n, v))
        if not known:
            ends = [(place[w], v) for w in self.source.end_ids for v in self.target.end_ids]
            pairs, n_first = ends + pairs, n_first + len(ends)
        edges = np.asarray(pairs, np.int64).reshape(-1, 2)
        return Consistency(
            candidates=np.asarray([i for _, i in matching], np.int64),
            others=np.asarray(others, np.int64),
            edge_source=edges[:, 0],
            edge_target=edges[:, 1],
            first=np.arange(len(edges)) < n_first,
        )

    def matrix(self) -> tuple[VocabMap, bool]:
        """Return the relation at shared boundaries as a matrix, and whether it came from disk.

        The weights are the shares without a target distribution: the first token of the target's
        spelling takes all, so that tokens that extend the source's stand with weight 0; where there
        is none but these, they share alike. A row's confidence is the share of the source token's
        bytes that its first target token spells, or of the shortest extension's that it does.
        """
        return cached("prefix", self.source, self.target, (), self._build, version=VERSION)

    def _build(self) -> VocabMap:
        pairs = self._find(b"", False)
        target_bytes = self.target.bytes_of
        rows = pairs.candidates[pairs.edge_source]
        begun = np.zeros(self.source.size, bool)
        begun[rows[pairs.first]] = True
        first = np.full(self.source.size, -1, np.int64)
        first[rows[pairs.first]] = pairs.edge_target[pairs.first]
        own = [b or b"" for b in self.source.bytes_of]
        confidence, reason = respelling(own, first.tolist(), self.target)
        for w, v in zip(rows.tolist(), pairs.edge_target.tolist(), strict=True):
            if not begun[w]:
                share = len(own[w]) / len(target_bytes[v] or b"-")
                confidence[w] = max(confidence[w], share)
                reason[w] = MapReason.EXTENDED
        if self.target.end_ids:
            ends = list(self.source.end_ids)
            confidence[ends], reason[ends] = 1, MapReason.CONTROL
        weights = pairs.first | ~begun[rows]
        shape = (self.source.size, self.target.size)
        return csr("prefix", rows, pairs.edge_target, weights, shape, confidence, reason)

    def _at_boundaries(self, pairs: VocabMap) -> Consistency:
        """Read the pairs at shared boundaries out of the matrix."""
        rows = pairs.source_ids
        return Consistency(
            candidates=np.arange(self.source.size),
            others=np.zeros(0, np.int64),
            edge_source=rows,
            edge_target=pairs.indices,
            first=(pairs.weights > 0) & (pairs.reason[rows] != MapReason.EXTENDED),
        )


def _either(
    tokenizer: TextTokenizer, strings: Sequence[bytes], at_start: bool
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Spell strings: (place, first token), and the same before a word where it is another token."""
    alone = tokenizer.first_tokens(strings, at_start=at_start)
    spaces = [n for n, s in enumerate(strings) if s.isspace()]
    before = tokenizer.first_tokens(
        [strings[n] for n in spaces], at_start=at_start, before_word=True
    )
    return (
        [(n, v) for n, v in enumerate(alone.tolist()) if v >= 0],
        [(n, v) for n, v in zip(spaces, before.tolist(), strict=True) if v not in (-1, alone[n])],
    )


def _longer(index: ByteIndex, heads: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """List the entries that properly extend one of the heads, as (id, bytes)."""
    found: dict[int, bytes] = {}
    for head in set(heads):
        if head:
            found.update((i, b) for b, i in index.extending(head))
    return list(found.items())
