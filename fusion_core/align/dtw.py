"""The published alignment, for study and comparison: dynamic time warping of token strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from fusion_core.errors import InputError, TooLargeError
from fusion_core.records import Alignment, Encoding

from .by_bytes import by_bytes

MAX_CELLS = 1 << 26
"""Most pairs of tokens that are compared: about 8,000 tokens a side, half a gigabyte."""


def by_dtw(target: Encoding, source: Encoding, *, source_start: bool = True) -> Alignment:
    """Align two encodings of one text as published, by warping one token sequence onto the other.

    A cell costs the edit distance of the two tokens' vocabulary entries without their word-start
    markers; where ways back tie, the diagonal goes first, then the target's step, then the
    source's. Special tokens take no part.

    Args:
        target: the target's tokens, m of them not special.
        source: the source's tokens, n of them not special.
        source_start: as for `by_bytes`.

    Returns:
        `by_bytes`'s alignment with the warping's groups, `target_to_source` and `cost`.

    Raises:
        InputError: the encodings are of different texts, or their vocabularies' entries are not
            known.
        TooLargeError: the text is too long for a method that compares every pair of tokens.

    Source: token alignment of FuseLLM (arXiv 2401.10491).
    """
    aligned = by_bytes(target, source, source_start=source_start)
    own, others = target.text_tokens, source.text_tokens
    for encoding in (target, source):
        if len(encoding.published) != len(encoding):
            raise InputError(
                f"The vocabulary entries of {encoding.model} are not known: encode the text with "
                "its tokenizer."
            )
    if len(own) * len(others) > MAX_CELLS:
        raise TooLargeError(
            f"dtw compares every token with every other, {len(own):,} x {len(others):,} here, "
            f"more than the limit of {MAX_CELLS:,}: shorten the text or align by bytes."
        )
    pairs: list[tuple[int, int]] = []
    cost = 0
    if len(own) and len(others):
        pairs, cost = warp(
            [target.published[i] for i in own.tolist()],
            [source.published[i] for i in others.tolist()],
        )
    lists: list[list[int]] = [[] for _ in range(len(target))]
    for t, s in pairs:
        lists[own[t]].append(int(others[s]))
    return replace(
        aligned,
        groups=_components(pairs, own, others) if pairs else aligned.groups,
        target_to_source=tuple(map(tuple, lists)),
        cost=cost,
    )


def warp(target: Sequence[str], source: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """Warp one sequence of strings onto another at the least sum of edit distances.

    With C the running sum of a row's costs, D[i, j] = C[j] + min over k <= j of
    (min(D[i-1, k], D[i-1, k-1]) - C[k-1]), so that a whole row takes a few vector operations.

    Args:
        target: m strings, at least one.
        source: n strings, at least one.

    Returns:
        The pairs along the path, in order, and the path's cost.
    """
    rows, row_of = _distinct(target)
    columns, column_of = _distinct(source)
    table = process.cdist(rows, columns, scorer=Levenshtein.distance, dtype=np.int32)  # (u, v)
    m, n = len(target), len(source)
    running = np.zeros((len(rows), n + 1), np.int32)  # (u, n + 1)
    np.cumsum(table[:, column_of], axis=1, out=running[:, 1:])
    far = np.iinfo(np.int32).max // 2
    # total[i + 1, j + 1] is D[i, j]; the row and column before the first are out of reach.
    total = np.full((m + 1, n + 1), far, np.int32)  # (m + 1, n + 1)
    total[0, 0] = 0
    reach = np.empty(n, np.int32)
    for i, row in enumerate(row_of):
        above, below, along = total[i], total[i + 1], running[row]
        np.minimum(above[1:], above[:-1], out=reach)
        np.subtract(reach, along[:-1], out=reach)
        np.minimum.accumulate(reach, out=reach)
        np.add(reach, along[1:], out=below[1:])
    return _way_back(total), int(total[m, n])


def _distinct(strings: Sequence[str]) -> tuple[list[str], list[int]]:
    """List the different strings, and for each of the given ones its place in that list."""
    places: dict[str, int] = {}
    listed = [places.setdefault(s, len(places)) for s in strings]
    return list(places), listed


def _way_back(total: np.ndarray) -> list[tuple[int, int]]:
    """Walk from the last pair to the first: diagonal, else the target's step, else the source's."""
    i, j = total.shape[0] - 1, total.shape[1] - 1
    pairs = [(i - 1, j - 1)]
    while i > 1 or j > 1:
        above = total[i - 1]
        diagonal, up, left = above[j - 1], above[j], total[i, j - 1]
        # Nothing outside the table is near, so that no step leaves it.
        if diagonal <= up and diagonal <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
        pairs.append((i - 1, j - 1))
    return pairs[::-1]


def _components(
    pairs: Sequence[tuple[int, int]], own: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Join pairs that share a token: the path's stretches between its diagonal steps."""
    path = np.asarray(pairs, np.int64)  # (p, 2)
    opens = np.flatnonzero(np.concatenate([[True], (np.diff(path, axis=0) == 1).all(axis=1)]))
    first, last = path[opens], path[np.append(opens[1:], len(path)) - 1]
    return np.stack(
        [own[first[:, 0]], own[last[:, 0]] + 1, others[first[:, 1]], others[last[:, 1]] + 1],
        axis=1,
    )
