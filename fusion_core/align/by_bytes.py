"""Alignment by shared byte boundaries, O(n + m), for many texts at once.

Every text of a batch has a stretch of slots of its own, one for each byte boundary and one for the
place before the text where a row stands whose dummy prefix is still to come. What happens at a slot
is marked or counted in arrays over all slots, and looked up there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion_core.errors import InputError
from fusion_core.records import Alignment, Encoding, RowKind


def by_bytes(target: Encoding, source: Encoding, *, source_start: bool = True) -> Alignment:
    """Align two encodings of one text; see `by_bytes_batch`."""
    return by_bytes_batch([target], [source], source_start=source_start)[0]


def positions_of(target: Encoding, source: Encoding) -> np.ndarray:
    """(m + 1,) int64, the bytes at which the target's rows ask a source; as `Encoding.row_bytes`.

    A target that has yet to spell a dummy prefix asks a source without one at the text's begin.
    """
    return np.maximum(target.row_bytes, source.row_bytes[0])


def by_bytes_batch(
    targets: Sequence[Encoding], sources: Sequence[Encoding], *, source_start: bool = True
) -> list[Alignment]:
    """Align encodings of b texts by their bytes.

    Args:
        targets: b texts in the target's tokens.
        sources: the same texts in the source's tokens.
        source_start: the source has a start token, so that it says something at byte 0.

    Returns:
        For each text groups, boundaries and source rows. The groups cover every token that is not
        special, in order; a token is in one group only.

    Raises:
        InputError: two encodings are of different texts.
    """
    for target, source in zip(targets, sources, strict=True):
        if target.data != source.data:
            raise InputError(
                f"{target.model} and {source.model} have read different texts: encode the same "
                "text."
            )
    if not targets:
        return []
    slots = np.cumsum([0] + [len(t.data) + 2 for t in targets])
    target_side, source_side = _Side.of(targets, slots), _Side.of(sources, slots)
    groups, group_text = _groups(target_side, source_side, slots)
    boundary = _boundary(target_side, source_side, slots)
    row_bytes = _predicting(target_side)
    row, kind, offset = _rows(
        row_bytes, target_side.text, source_side, sources, slots, source_start
    )
    at_boundary = _at_boundary(row_bytes, target_side.text, source_side, slots, source_start)
    group_cut = np.searchsorted(group_text, np.arange(1, len(targets)))
    token_cut = target_side.before_token[1:-1]
    row_cut = target_side.before[1:-1]
    return [
        Alignment(*parts)
        for parts in zip(
            targets,
            sources,
            np.split(groups, group_cut),
            np.split(boundary, token_cut),
            *(np.split(x, row_cut) for x in (row, kind, offset, at_boundary)),
            strict=True,
        )
    ]


@dataclass(frozen=True, eq=False)
class _Side:
    """One model's tokens of b texts, joined; M of them are not special.

    Attributes:
        start: (M,) slots at which the tokens that are not special start.
        end: (M,) slots at which they end.
        index: (M,) their indices among all tokens of their text.
        text: (M,) their text.
        before: (b + 1,) number of them before each text.
        all_end: (N,) slots at which all tokens end.
        all_text: (N,) their text.
        before_token: (b + 1,) number of tokens before each text.
        first_stand: (b,) slot at which row 0 of each text stands.
    """

    start: np.ndarray
    end: np.ndarray
    index: np.ndarray
    text: np.ndarray
    before: np.ndarray
    all_end: np.ndarray
    all_text: np.ndarray
    before_token: np.ndarray
    first_stand: np.ndarray

    @staticmethod
    def of(encodings: Sequence[Encoding], slots: np.ndarray) -> _Side:
        counts = np.asarray([len(e) for e in encodings])
        before_token = np.concatenate([[0], np.cumsum(counts)])
        all_text = np.repeat(np.arange(len(encodings)), counts)
        own = np.flatnonzero(~np.concatenate([e.special for e in encodings]))
        zero = slots[:-1] + 1  # the slot of byte 0
        all_end = np.concatenate([e.end for e in encodings]) + zero[all_text]
        text = all_text[own]
        return _Side(
            start=np.concatenate([e.start for e in encodings])[own] + zero[text],
            end=all_end[own],
            index=own - before_token[text],
            text=text,
            before=np.searchsorted(text, np.arange(len(encodings) + 1)),
            all_end=all_end,
            all_text=all_text,
            before_token=before_token,
            first_stand=zero - np.asarray([e.dummy_prefix for e in encodings]),
        )

    def row_bytes(self) -> np.ndarray:
        """(M + b,) slots at which rows stand: each text's row 0, then one after each token."""
        return np.insert(self.end, self.before[:-1], self.first_stand)

    def range(
        self, begin: np.ndarray, stop: np.ndarray, text: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn ranges of tokens that are not special into ranges of indices in their text."""
        place, first = np.append(self.index, 0), self.before[text]
        # An empty range has no token to name: count on from the first of the text.
        empty = begin - first + np.where(first < self.before[text + 1], place[first], 0)
        some = stop > begin
        return np.where(some, place[begin], empty), np.where(some, place[stop - 1] + 1, empty)


def _count(at: np.ndarray, size: int) -> np.ndarray:
    """(size,) how many of the sorted slots ``at`` are at or before each slot."""
    return np.cumsum(np.bincount(at, minlength=size))


def _marked(at: np.ndarray, size: int) -> np.ndarray:
    """(size,) bool, the slots that ``at`` names."""
    marks = np.zeros(size, bool)
    marks[at] = True
    return marks


def _groups(target: _Side, source: _Side, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Close a group at every boundary that both sides share, and at each text's end."""
    size = int(slots[-1])
    shared = _marked(target.end, size) & _marked(source.end, size)  # (N,)
    shared[slots[1:] - 1] = True
    cuts = np.flatnonzero(shared)  # (c,)
    stops = [_count(side.end, size)[cuts] for side in (target, source)]
    begins = [np.concatenate([[0], stop[:-1]]) for stop in stops]  # (c,) each
    filled = (begins[0] < stops[0]) | (begins[1] < stops[1])  # (c,)
    text = np.searchsorted(slots, cuts, side="right")[filled] - 1
    columns: list[np.ndarray] = []
    for side, begin, stop in zip((target, source), begins, stops, strict=True):
        columns += side.range(begin[filled], stop[filled], text)
    return np.stack(columns, axis=1).astype(np.int64), text


def _boundary(target: _Side, source: _Side, slots: np.ndarray) -> np.ndarray:
    """Name the last source token that ends where each target token ends, special ones included."""
    size = int(slots[-1])
    last = _count(source.all_end, size)[target.all_end] - 1 - source.before_token[target.all_text]
    return np.where(_marked(source.all_end, size)[target.all_end], last, -1)


def _at_boundary(
    row_bytes: np.ndarray, text: np.ndarray, source: _Side, slots: np.ndarray, source_start: bool
) -> np.ndarray:
    """Tell for each target row whether it stands at a byte where the source has a boundary."""
    ends = _marked(source.end, int(slots[-1]))
    zero = slots[:-1] + 1
    ends[zero] |= source_start
    return ends[np.maximum(row_bytes, zero[text])]


def _predicting(side: _Side) -> np.ndarray:
    """(M,) slots at which the rows stand that predict a token."""
    return np.delete(side.row_bytes(), side.before[1:] + np.arange(len(side.before) - 1))


def _rows(
    at: np.ndarray,
    text: np.ndarray,
    source: _Side,
    sources: Sequence[Encoding],
    slots: np.ndarray,
    source_start: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the source row for each target row, and what it is to it."""
    size = int(slots[-1])
    row_bytes = source.row_bytes()
    at = np.maximum(at, source.first_stand[text])
    joined = _count(row_bytes, size)[at] - 1  # (m,)
    row = joined - (source.before[text] + text)
    offset = at - row_bytes[joined]
    # Only where the next source token begins at the row's own boundary, and the bytes from there on
    # are the text's, is it known how that token begins. It ends behind the target's boundary, or
    # its own row would be nearer.
    begin = np.insert(source.start, source.before[1:], -1)[joined]  # no token begins nowhere
    zero = slots[:-1] + 1
    first = np.maximum(row_bytes[joined], zero[text])
    unsure = _unsure(sources, zero, size)
    inside = (begin == first) & (unsure[np.maximum(at, zero[text])] == unsure[first])
    kind = np.where(
        offset == 0, int(RowKind.SHARED), np.where(inside, int(RowKind.INSIDE), int(RowKind.NONE))
    )
    if not source_start:
        kind = np.where(row == 0, int(RowKind.NONE), kind)
    nothing = kind == RowKind.NONE
    return np.where(nothing, -1, row), kind, np.where(nothing, 0, offset)


def _unsure(sources: Sequence[Encoding], zero: np.ndarray, size: int) -> np.ndarray:
    """(size,) number of its text's lost bytes before each slot."""
    unsure = np.zeros(size, np.int64)
    for encoding, slot in zip(sources, zero, strict=True):
        if encoding.lost:
            unsure[slot : slot + len(encoding.data) + 1] = encoding.lost_before
    return unsure
