"""Vocabulary x vocabulary -> which target tokens a source token's probability may go to.

Strategies by name in `STRATEGIES`. `exact` and `mined` are fixed maps; `prefix` is a relation, and
how a source token's mass is shared among its consistent target tokens is decided at each position
by the target's own distribution (see `project`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from .errors import InputError
from .records import VocabMap
from .tokens import TextTokenizer

KEPT_RELATIONS = 2000
"""Beginnings of a source token whose pairs a relation remembers."""

MINED_CHUNK = 1024
"""Source tokens compared at once; a chunk holds MINED_CHUNK x target size distances of a byte."""


def exact(source: TextTokenizer, target: TextTokenizer) -> VocabMap:
    """Map each source token to the target token with the same bytes.

    Where the target has several, its real pieces go before its byte pieces, then the lowest id.
    Special tokens have no bytes and are not mapped.

    Returns:
        A map with at most one entry of weight 1 a row.
    """
    ids = np.asarray([target.id_of(b) if b else -1 for b in source.bytes_of], np.int64)
    return _single("exact", ids, target.size, exact=int((ids >= 0).sum()))


def mined(source: TextTokenizer, target: TextTokenizer, *, text_only: bool = False) -> VocabMap:
    """Map each source token to the target token at minimum edit distance, as published.

    The raw vocabulary strings are compared after the source's word-start character has been
    replaced by the target's; equal strings have distance 0, ties go to the lowest target id.
    It maps by spelling, not by meaning: `512` may become `2`.

    Args:
        source: the source's vocabulary.
        target: the target's vocabulary.
        text_only: leave control tokens out on both sides, so that no text is carried over to them;
            the published map has them.

    Returns:
        A map with one entry of weight 1 for every id that has a token, and `distance`.

    Source: EM and MinED of FuseLLM (arXiv 2401.10491).
    """
    strings, marker = source.published_strings()
    target_strings, target_marker = target.published_strings()
    known = [
        i
        for i, s in enumerate(strings)
        if s is not None and not (text_only and source.bytes_of[i] is None)
    ]
    choices = [
        (i, s)
        for i, s in enumerate(target_strings)
        if s is not None and not (text_only and target.bytes_of[i] is None)
    ]
    choice_ids = np.asarray([i for i, _ in choices], np.int64)
    texts = [s for _, s in choices]
    queries = [(strings[i] or "").replace(marker, target_marker) for i in known]
    ids = np.full(source.size, -1, np.int64)
    distance = np.full(source.size, -1, np.int64)
    longest = max(map(len, queries + texts), default=0)
    for first in range(0, len(known), MINED_CHUNK):
        part = slice(first, first + MINED_CHUNK)
        table = process.cdist(
            queries[part],
            texts,
            scorer=Levenshtein.distance,
            dtype=np.uint8 if longest < 256 else np.uint16,
            workers=-1,
        )
        best = table.argmin(axis=1)
        ids[known[part]] = choice_ids[best]
        distance[known[part]] = table[np.arange(len(best)), best]
    return _single("mined", ids, target.size, int((distance == 0).sum()), distance)


@dataclass(frozen=True, eq=False)
class Consistency:
    """Which target tokens may take a source token's mass at one kind of position.

    Attributes:
        candidates: (c,) int64, source tokens that agree with the bytes already known.
        others: (o,) int64, source tokens that end within the known bytes: other paths of the
            source, on which it has not been asked.
        edge_source: (e,) int64, index into `candidates` of each consistent pair.
        edge_target: (e,) int64, target id of each consistent pair.
        first: (e,) bool, the target token begins the target's own spelling of the source token.
    """

    candidates: np.ndarray
    others: np.ndarray
    edge_source: np.ndarray
    edge_target: np.ndarray
    first: np.ndarray


class PrefixRelation:
    """Byte-prefix consistency of two vocabularies.

    A source token w and a target token v are consistent when v is the first token of the target's
    own spelling of w, or when v properly extends w and w is the first token of the source's own
    spelling of v. Other prefixes are spellings that a tokenizer never produces. Tokens without
    bytes are consistent with nothing, but end of text with end of text.
    """

    def __init__(self, source: TextTokenizer, target: TextTokenizer) -> None:
        """Prepare the two vocabularies; pairs are found when they are asked for."""
        self.source, self.target = source, target
        self.identical = source.vocabulary_key == target.vocabulary_key
        self._source_sorted = _sorted_bytes(enumerate(source.bytes_of))
        self._target_sorted = _sorted_bytes(enumerate(target.bytes_of))
        # As a text begins, a target with a dummy prefix spells every word with its space.
        self._target_start = _sorted_bytes(
            (i, b[1:]) for i, b in enumerate(target.bytes_of) if b and b[:1] == b" "
        )
        self._known: OrderedDict[tuple[bytes, bool], Consistency] = OrderedDict()

    def given(self, known: bytes = b"", *, target_start: bool = False) -> Consistency:
        """Find the consistent pairs where the source's next token is known to begin with bytes.

        Args:
            known: bytes of the text from the source's last boundary to the target's boundary;
                empty at a shared boundary.
            target_start: the target is at the start of a text and has yet to spell its dummy
                prefix.
        """
        key = (known, target_start)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._find(known, target_start)
            while len(self._known) > KEPT_RELATIONS:
                self._known.popitem(last=False)
        return found

    def _find(self, known: bytes, target_start: bool) -> Consistency:
        if known:
            low, high = _range(self._source_sorted, known)
            matching = [(b, i) for b, i in self._source_sorted[low:high] if len(b) > len(known)]
            others = [
                i
                for n in range(1, len(known) + 1)
                for _, i in _equal(self._source_sorted, known[:n])
            ]
        else:
            matching = [(b or b"", i) for i, b in enumerate(self.source.bytes_of)]
            others = []
        rests = [b[len(known) :] for b, _ in matching]
        place = {i: n for n, (_, i) in enumerate(matching)}
        first = self.target.first_tokens(rests, at_start=target_start)
        pairs = [(n, int(v)) for n, v in enumerate(first) if v >= 0]
        n_first = len(pairs)
        spelled = self._target_start if target_start else self._target_sorted
        longer = _longer(spelled, rests) if known else [(v, b) for b, v in spelled]
        heads = self.source.first_tokens([known + b for _, b in longer])
        for (v, b), w in zip(longer, heads, strict=True):
            n = place.get(int(w))
            if n is not None and 0 < len(rests[n]) < len(b):
                pairs.append((n, v))
        eos = self.source.eos_id, self.target.eos_id
        if not known and eos[0] is not None and eos[1] is not None:
            pairs.insert(0, (place[eos[0]], eos[1]))
            n_first += 1
        edges = np.asarray(pairs, np.int64).reshape(-1, 2)
        return Consistency(
            candidates=np.asarray([i for _, i in matching], np.int64),
            others=np.asarray(others, np.int64),
            edge_source=edges[:, 0],
            edge_target=edges[:, 1],
            first=np.arange(len(edges)) < n_first,
        )

    def as_map(self) -> VocabMap:
        """Return the relation at shared boundaries as a matrix.

        The weights are the shares without a target distribution: the first token of the target's
        spelling takes all, so that the other consistent tokens stand with weight 0.
        """
        pairs = self.given()
        order = np.lexsort((pairs.edge_target, ~pairs.first, pairs.edge_source))
        rows = pairs.candidates[pairs.edge_source[order]]
        weights = pairs.first[order].astype(np.float32)
        counts = np.bincount(rows, minlength=self.source.size)
        sums = np.bincount(rows, weights=weights, minlength=self.source.size)
        weights = np.where(sums[rows] > 0, weights, 1 / counts[rows]).astype(np.float32)
        source_bytes, target_bytes = self.source.bytes_of, self.target.bytes_of
        same = sum(
            source_bytes[w] == target_bytes[v]
            for w, v in zip(rows, pairs.edge_target[order], strict=True)
        )
        return VocabMap(
            "prefix",
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            pairs.edge_target[order],
            weights,
            (self.source.size, self.target.size),
            exact=int(same),
        )


Mapping = VocabMap | PrefixRelation


@dataclass(frozen=True)
class Strategy:
    """A vocab mapping strategy.

    Attributes:
        relate: makes what carries rows: a fixed map, or a relation that is asked at each position.
        matrix: makes the whole map as a matrix, control tokens included where the strategy has
            something to say about them.
        reference: where it was published.
    """

    relate: Callable[[TextTokenizer, TextTokenizer], Mapping]
    matrix: Callable[[TextTokenizer, TextTokenizer], VocabMap]
    reference: str


STRATEGIES: dict[str, Strategy] = {
    "prefix": Strategy(PrefixRelation, lambda s, t: PrefixRelation(s, t).as_map(), "FuseLab"),
    "exact": Strategy(exact, exact, "EM of FuseLLM, arXiv 2401.10491"),
    "mined": Strategy(
        partial(mined, text_only=True), mined, "EM and MinED of FuseLLM, arXiv 2401.10491"
    ),
}


def strategy(name: str) -> Strategy:
    """Look a strategy up by name.

    Raises:
        InputError: there is no such strategy.
    """
    if name not in STRATEGIES:
        raise InputError(
            f"There is no strategy called {name!r}: choose one of {', '.join(STRATEGIES)}."
        )
    return STRATEGIES[name]


def _single(
    strategy: str, ids: np.ndarray, target_size: int, exact: int, distance: np.ndarray | None = None
) -> VocabMap:
    """Build the map that sends each source id to one target id (-1: to none)."""
    found = ids >= 0
    return VocabMap(
        strategy,
        np.concatenate([[0], np.cumsum(found)]).astype(np.int64),
        ids[found],
        np.ones(int(found.sum()), np.float32),
        (len(ids), target_size),
        exact,
        distance,
    )


_Sorted = list[tuple[bytes, int]]


def _sorted_bytes(items: Iterable[tuple[int, bytes | None]]) -> _Sorted:
    return sorted((b, i) for i, b in items if b)


def _range(ordered: _Sorted, head: bytes) -> tuple[int, int]:
    """Find the range of the byte strings that begin with ``head``."""
    after = head.rstrip(b"\xff")
    low = bisect_left(ordered, (head, -1))
    if not after:
        return low, len(ordered)
    return low, bisect_left(ordered, (after[:-1] + bytes([after[-1] + 1]), -1))


def _equal(ordered: _Sorted, string: bytes) -> _Sorted:
    low = bisect_left(ordered, (string, -1))
    high = bisect_left(ordered, (string + b"\0", -1))
    return ordered[low:high]


def _longer(ordered: _Sorted, heads: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """List the entries that properly extend one of the heads, as (id, bytes)."""
    found: dict[int, bytes] = {}
    for head in set(heads):
        if head:
            low, high = _range(ordered, head)
            found.update((i, b) for b, i in ordered[low:high] if len(b) > len(head))
    return list(found.items())
