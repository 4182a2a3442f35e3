"""Alignment from its definition, byte by byte: lossy encodings, many texts at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_core.align import by_bytes, by_bytes_batch
from fusion_core.align.windows import cut, windows
from fusion_core.errors import InputError
from fusion_core.records import Alignment, Encoding, RowKind, Window

Spans = list[tuple[int, int]]


def encoding(
    size: int,
    spans: Spans,
    *,
    lost: Spans = (),
    bos: bool = False,
    eos: bool = False,
    dummy: bool = False,
) -> Encoding:
    """Build an encoding of tokens that cover the given bytes of a text."""
    spans = [(0, 0)] * bos + list(spans) + [(size, size)] * eos
    start, end = np.asarray(spans, np.int64).reshape(-1, 2).T
    special = np.zeros(len(spans), bool)
    special[: int(bos)] = True
    special[len(spans) - eos :] = True
    ids = np.arange(len(spans))
    pieces = tuple(map(str, ids))
    return Encoding(
        "m", bytes(size), ids, start, end, special, pieces, tuple(lost), not lost, dummy
    )


@st.composite
def readings(draw: st.DrawFn, size: int) -> Encoding:
    """Draw tokens with gaps between them, lost bytes, zero widths, or none at all."""
    edges = sorted(draw(st.lists(st.integers(0, size), max_size=10)))
    if draw(st.booleans()):  # every byte is in a token
        cuts = [0, *edges, size]
        spans = list(itertools.pairwise(cuts))
    else:
        spans = list(zip(edges[::2], edges[1::2], strict=False))
    lost = sorted(draw(st.lists(st.integers(0, size), max_size=4)))
    pairs = [(s, e) for s, e in zip(lost[::2], lost[1::2], strict=False) if s < e]
    flags = {name: draw(st.booleans()) for name in ("bos", "eos", "dummy")}
    return encoding(size, spans, lost=pairs, **flags)


def plain_groups(target: Encoding, source: Encoding) -> list[list[int]]:
    """Close a group at every byte where tokens of both end, and at the text's end."""
    t, s = target.text_tokens.tolist(), source.text_tokens.tolist()
    t_end, s_end = target.end[t].tolist(), source.end[s].tolist()
    begin = [int(t[0]) if t else 0, int(s[0]) if s else 0]
    groups, done = [], [0, 0]
    for byte in range(len(target.data) + 1):
        if not (byte == len(target.data) or (byte in t_end and byte in s_end)):
            continue
        now = [sum(e <= byte for e in ends) for ends in (t_end, s_end)]
        if now != done:
            groups.append([begin[i] + x[i] for i in (0, 1) for x in (done, now)])
        done = now
    return groups


def plain_row(target: Encoding, source: Encoding, i: int, start: bool) -> tuple[int, ...]:
    """Return row, kind, offset and at_boundary of row i of the target."""
    own, spans = target.text_tokens, source.text_tokens
    at = int(target.end[own[i - 1]]) if i else -int(target.dummy_prefix)
    shared = max(at, 0) in source.end[spans].tolist() or (start and at <= 0)
    places = [-int(source.dummy_prefix), *source.end[spans].tolist()]
    at = max(at, places[0])
    row = max(j for j, place in enumerate(places) if place <= at)
    offset, first = at - places[row], max(places[row], 0)
    kind = RowKind.SHARED
    if offset:
        # The source's next token must begin at its own boundary and reach beyond the target's,
        # and none of the bytes between the two may be lost.
        begin, end = (x[spans[row]] if row < len(spans) else len(source.data) for x in
                      (source.start, source.end))  # fmt: skip
        between = set(range(first, max(at, 0)))
        sure = not any(between & set(range(*lost)) for lost in source.lost)
        kind = RowKind.INSIDE if begin == first and end > at and sure else RowKind.NONE
    if row == 0 and not start:
        kind = RowKind.NONE
    return (-1, kind, 0, shared) if kind == RowKind.NONE else (row, kind, offset, shared)


def check(aligned: Alignment, target: Encoding, source: Encoding, start: bool) -> None:
    assert aligned.groups.tolist() == plain_groups(target, source)
    ends = source.end.tolist()
    last = [max((j for j, e in enumerate(ends) if e == end), default=-1) for end in target.end]
    assert aligned.boundary.tolist() == last
    rows = [plain_row(target, source, i, start) for i in range(len(target.text_tokens))]
    fields = (aligned.row, aligned.kind, aligned.offset, aligned.at_boundary)
    assert [tuple(map(int, x)) for x in zip(*fields, strict=True)] == rows


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_field_of_a_batch_is_as_defined(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=3))
    targets, sources = ([data.draw(readings(n)) for n in sizes] for _ in range(2))
    start = data.draw(st.booleans())
    batch = by_bytes_batch(targets, sources, source_start=start)
    for aligned, *pair in zip(batch, targets, sources, strict=True):
        check(aligned, *pair, start)
    check(by_bytes_batch(targets, sources)[-1], targets[-1], sources[-1], True)
    check(by_bytes(targets[0], sources[0]), targets[0], sources[0], True)


def test_no_texts() -> None:
    assert by_bytes_batch([], []) == []
    with pytest.raises(ValueError, match="zip"):
        by_bytes_batch([encoding(1, [(0, 1)])], [])


def test_one_different_text_of_a_batch_is_refused() -> None:
    one, other = encoding(3, [(0, 3)]), encoding(2, [(0, 2)])
    with pytest.raises(InputError, match="different texts"):
        by_bytes_batch([one, one], [one, other])


def test_lost_bytes_count_between_the_boundaries_only() -> None:
    """What was lost before a source's boundary, or in another text, is no reason for doubt."""
    target = encoding(8, [(i, i + 1) for i in range(8)])
    source = encoding(8, [(0, 4), (4, 8)], lost=[(1, 3)])
    whole = encoding(8, [(0, 8)])
    first, second = by_bytes_batch([target, target], [source, whole])
    shared, inside, none = RowKind.SHARED, RowKind.INSIDE, RowKind.NONE
    assert first.kind.tolist() == [shared, inside, none, none, shared, inside, inside, inside]
    assert second.kind.tolist() == [shared, *[inside] * 7]


@pytest.mark.parametrize("lost", [(), ((0, 2),)])
def test_a_window_that_cuts_a_source_token_has_no_row_inside_it(lost: Spans) -> None:
    """A token that reaches over a window's edge is left out there, and its bytes are not lost.

    What the source says at the window's begin is not conditioned on them: the token that it has
    read next begins after them.
    """
    target = encoding(6, [(i, i + 1) for i in range(6)])
    source = encoding(6, [(0, 4), (4, 6)], lost=list(lost))
    found = windows([target, source], [3, 9], 0.0)
    assert [(w.start, w.end) for w in found] == [(0, 2), (2, 4), (4, 6)]
    parts = [(cut(target, w)[0], cut(source, w)[0]) for w in found]
    kinds = [by_bytes(t, s).kind.tolist() for t, s in parts]
    shared, inside, none = RowKind.SHARED, RowKind.INSIDE, RowKind.NONE
    assert kinds == [[shared, none], [shared, none], [shared, inside]]
    late = cut(source, Window(2, 6, 2))[0]
    aligned = by_bytes(cut(target, Window(2, 6, 2))[0], late)
    assert late.start.tolist() == [2] and late.lost == ()
    assert aligned.kind.tolist() == [shared, none, none, none]
    assert aligned.row.tolist() == [0, -1, -1, -1]
