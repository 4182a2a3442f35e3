"""Encoding x Encoding -> `Alignment`: where two readings of one text share a boundary.

Byte offsets are the only coordinate. Both lists of end offsets are sorted, so that equal ends are
found in O(n + m); they close the groups, and a target row has a source row exactly where a source
token ends at the same byte, or, inside a source token, at the source's last boundary before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .errors import InputError
from .records import Alignment, Encoding, RowKind


def by_bytes(target: Encoding, source: Encoding, *, source_start: bool = True) -> Alignment:
    """Align two encodings of one text by their bytes.

    Args:
        target: the target's tokens.
        source: the source's tokens.
        source_start: the source has a start token, so that it says something at byte 0.

    Returns:
        Groups, boundaries and source rows. The groups cover every token that is not special, in
        order; a token is in one group only.

    Raises:
        InputError: the two encodings are of different texts.
    """
    if target.data != source.data:
        raise InputError(
            f"{target.model} and {source.model} have read different texts: encode the same text."
        )
    target_own, source_own = target.text_tokens, source.text_tokens
    target_end, source_end = target.end[target_own], source.end[source_own]
    shared = np.intersect1d(target_end, source_end)
    target_cut = np.searchsorted(target_end, shared, side="right")
    source_cut = np.searchsorted(source_end, shared, side="right")
    rest = len(target_own), len(source_own)
    if not len(shared) or (target_cut[-1], source_cut[-1]) != rest:
        target_cut, source_cut = np.append(target_cut, rest[0]), np.append(source_cut, rest[1])
    first_target = target_own[0] if rest[0] else 0
    first_source = source_own[0] if rest[1] else 0
    groups = np.stack(
        [
            np.concatenate([[0], target_cut[:-1]]) + first_target,
            target_cut + first_target,
            np.concatenate([[0], source_cut[:-1]]) + first_source,
            source_cut + first_source,
        ],
        axis=1,
    ).astype(np.int64)
    last = np.searchsorted(source.end, target.end, side="right") - 1
    found = np.isin(target.end, source.end)
    row, kind, offset = _rows(target, source, source_start)
    stands = np.concatenate([[0], source_end]) if source_start else source_end
    at_boundary = np.isin(np.maximum(target.stands[:-1], 0), stands)
    return Alignment(groups, np.where(found, last, -1), row, kind, offset, at_boundary)


def _rows(
    target: Encoding, source: Encoding, source_start: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the source row for each target row, and what it is to it."""
    own = source.text_tokens
    stands = source.stands
    at = np.maximum(target.stands[:-1], stands[0])
    row = np.searchsorted(stands, at, side="right") - 1
    offset = at - stands[row]
    # The next source token must cover the target's boundary, from the row's own boundary on, with
    # bytes that are the text's: only then is it known how that token begins.
    begin = np.append(source.start[own], len(source.data))[row]
    end = np.append(source.end[own], len(source.data))[row]
    unsure = np.zeros(len(source.data) + 2, np.int64)
    for s, e in source.lost:
        unsure[s + 1 : e + 1] = 1
    unsure = np.cumsum(unsure)
    first = np.maximum(stands[row], 0)
    known = unsure[np.maximum(at, 0)] == unsure[first]
    inside = (offset > 0) & (begin == first) & (end > at) & known
    kind = np.where(
        offset == 0, int(RowKind.SHARED), np.where(inside, int(RowKind.INSIDE), int(RowKind.NONE))
    )
    if not source_start:
        kind = np.where(row == 0, int(RowKind.NONE), kind)
    nothing = kind == RowKind.NONE
    return np.where(nothing, -1, row), kind, np.where(nothing, 0, offset)


METHODS: dict[str, Callable[..., Alignment]] = {"bytes": by_bytes}
"""Alignment methods by name. `bytes`: shared byte boundaries (FuseLab)."""
