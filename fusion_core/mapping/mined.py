"""The published mapping by spelling, exact and complete: equal strings, else the nearest one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from fusion_core.records import MapReason, VocabMap
from fusion_core.tokens import TextTokenizer

from .maps import single

CHUNK = 1024
"""Source tokens compared at once; a chunk holds at most CHUNK x target size distances."""

FIRST_RING = 2
"""Target tokens are first compared whose lengths differ by at most this."""


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
        A map with one entry of weight 1 for every id that has a token, and `distance`. A row's
        confidence is 1 - distance / length of the longer string.

    Source: EM and MinED of FuseLLM (arXiv 2401.10491).
    """
    strings, marker = source.published_strings()
    target_strings, target_marker = target.published_strings()
    queries = [
        None
        if s is None or (text_only and source.bytes_of[i] is None)
        else s.replace(marker, target_marker)
        for i, s in enumerate(strings)
    ]
    choices = [
        None if text_only and target.bytes_of[i] is None else s
        for i, s in enumerate(target_strings)
    ]
    ids, distance = nearest(queries, choices)
    confidence = np.zeros(len(ids), np.float32)
    for i in np.flatnonzero(ids >= 0):
        longer = max(len(queries[i] or ""), len(choices[ids[i]] or ""), 1)
        confidence[i] = 1 - distance[i] / longer
    reason = np.where(distance == 0, MapReason.SAME, MapReason.NEAREST)
    return single("mined", ids, target.size, confidence, reason, distance)


def nearest(
    queries: Sequence[str | None], choices: Sequence[str | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the string at minimum edit distance for each query; ties go to the lowest place.

    Two strings whose lengths differ by d are at least d apart, so that choices are compared in
    rings of growing difference in length, and only with queries that a ring can still serve.

    Args:
        queries: n strings; None is nobody's.
        choices: m strings; None is not to be chosen.

    Returns:
        (n,) int64 places in ``choices`` and (n,) int64 distances; -1 where there is none.
    """
    ids = np.full(len(queries), -1, np.int64)
    distance = np.full(len(queries), -1, np.int64)
    equal: dict[str, int] = {}
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, choice in enumerate(choices):
        if choice is not None:
            equal.setdefault(choice, place)
            by_length[len(choice)].append(place)
    if not equal:
        return ids, distance
    left: dict[int, list[int]] = defaultdict(list)
    for i, query in enumerate(queries):
        if query is not None and query in equal:
            ids[i], distance[i] = equal[query], 0
        elif query is not None:
            left[len(query)].append(i)
    for length, same_length in left.items():
        rings = _rings(by_length, length)
        for first in range(0, len(same_length), CHUNK):
            part = np.asarray(same_length[first : first + CHUNK])
            ids[part], distance[part] = _nearest([queries[i] or "" for i in part], choices, rings)
    return ids, distance


def _rings(by_length: dict[int, list[int]], length: int) -> list[tuple[int, np.ndarray]]:
    """List choices by how much their lengths differ from one length, the nearest first."""
    rings: dict[int, list[int]] = defaultdict(list)
    for other, places in by_length.items():
        apart = abs(other - length)
        rings[0 if apart <= FIRST_RING else apart] += places
    return [(apart, np.sort(rings[apart])) for apart in sorted(rings)]


def _nearest(
    queries: list[str], choices: Sequence[str | None], rings: list[tuple[int, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest choices of queries of one length, ring by ring."""
    far = np.iinfo(np.int64).max
    best, where = np.full(len(queries), far), np.full(len(queries), -1, np.int64)
    for apart, places in rings:
        open_ = np.flatnonzero(best >= apart)
        if not len(open_):
            break
        texts = [choices[p] or "" for p in places]
        longest = max(map(len, [*texts, queries[0]]))
        table = process.cdist(
            [queries[i] for i in open_],
            texts,
            scorer=Levenshtein.distance,
            dtype=np.uint8 if longest < 256 else np.uint16,
            workers=-1,
        )
        nearest_one = table.argmin(axis=1)
        found = table[np.arange(len(open_)), nearest_one].astype(np.int64)
        place = places[nearest_one]
        better = (found < best[open_]) | ((found == best[open_]) & (place < where[open_]))
        best[open_[better]], where[open_[better]] = found[better], place[better]
    return where, best
