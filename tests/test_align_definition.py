"""Alignment from its definition, byte by byte: lossy encodings, many texts at once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_core.align import by_bytes, by_bytes_batch, by_dtw
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


def last_cut(low: int, high: int, *sides: list[int]) -> int:
    """Find the last boundary of a side in (low, high], of the first side that has one."""
    for ends in sides:
        fits = [e for e in ends if low < e <= high]
        if fits:
            return max(fits)
    return low


def plain_windows(
    readings_: list[Encoding], contexts: list[int | None], overlap: float
) -> list[tuple[int, int, int, bool]]:
    """Read as far as every model can, and go back by a share of what was read, if that fits."""
    length, out, back, owned = len(readings_[0].data), [], 0, 0
    sides = [e.end[e.text_tokens].tolist() for e in readings_]
    common = [e for e in sides[0] if all(e in side for side in sides)]

    def reach(start: int) -> int:
        """Find how far all models can read from there."""
        limit = length
        for reading, context in zip(readings_, contexts, strict=True):
            left = [i for i in reading.text_tokens if reading.start[i] >= start]
            if context is not None and len(left) > context - 1:  # one is the start token
                limit = min(limit, int(reading.end[left[context - 2]]))
        return length if limit == length else last_cut(owned, limit, common, sides[0])

    while owned < length:
        starts = [s for s in (back, owned) if reach(s) > owned]
        if not starts:
            raise InputError("too short")
        start, stop = starts[0], reach(starts[0])
        out.append((start, stop, owned, stop == length))
        again = last_cut(start, stop - int(overlap * (stop - start)), common, sides[0])
        back, owned = (again if again > start else stop), stop
    return out


def test_an_overlap_gives_way_to_a_long_token() -> None:
    """What would be read again is left out where the next token would not fit beside it."""
    wide = encoding(12, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 12)])
    short = encoding(12, [(i, i + 1) for i in range(12)])
    found = windows([wide, short], [4, 9], 0.75)
    assert [(w.start, w.owned_from, w.end) for w in found] == [(0, 0, 3), (1, 3, 4), (4, 4, 12)]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 14), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_windows_are_as_defined(data: st.DataObject, size: int, overlap: float) -> None:
    both = [data.draw(readings(size)) for _ in range(2)]
    context = st.one_of(st.none(), st.integers(2, 9))
    contexts = [data.draw(context), data.draw(context)]
    try:
        expected = plain_windows(both, contexts, overlap)
    except InputError:
        shortest = min(c for c in contexts if c)
        with pytest.raises(InputError, match=f"A context of {shortest} tokens is too short"):
            windows(both, contexts, overlap)
        return
    found = windows(both, contexts, overlap)
    assert [(w.start, w.end, w.owned_from, w.last) for w in found] == expected
    if overlap == 0.25:
        assert windows(both, contexts) == found
    for window in found:
        check_window_part(data.draw(st.sampled_from(both)), window)


def check_window_part(whole: Encoding, window: Window) -> None:
    """Compare the tokens that lie within a window with those taken one by one."""
    part, before = cut(whole, window)
    low, high = window.start, window.end
    tokens = [
        i
        for i in whole.text_tokens.tolist()
        if low <= whole.start[i] and whole.end[i] <= high and not (low and whole.end[i] == low)
    ]
    assert part.data == whole.data[low:high] and part.ids.tolist() == whole.ids[tokens].tolist()
    assert (part.start + low).tolist() == whole.start[tokens].tolist()
    assert (part.end + low).tolist() == whole.end[tokens].tolist()
    assert part.special.tolist() == [False] * len(tokens) and part.published == ()
    assert part.pieces == tuple(whole.pieces[i] for i in tokens)
    assert before == (whole.text_tokens.tolist().index(tokens[0]) if tokens else 0)
    assert part.lossless == whole.lossless
    assert part.dummy_prefix == (whole.dummy_prefix and low == 0)
    lost = {b for s, e in whole.lost for b in range(s, e)} & set(range(low, high))
    assert {b + low for s, e in part.lost for b in range(s, e)} == lost
    assert all(0 <= s < e <= high - low for s, e in part.lost)


def test_the_words_of_a_vocabulary_are_not_those_of_a_window() -> None:
    """What the published alignment compares is of the whole text; a part has none."""
    whole = encoding(4, [(0, 2), (2, 4)], lost=[(1, 2)])
    named = replace(whole, published=("a", "b"))
    part, before = cut(named, Window(2, 4, 2))
    assert part.published == () and before == 1 and not part.lossless


def test_more_tokens_than_bytes_are_one_window(real_tokenizer) -> None:
    """A compatibility character is spelled out by normalisers: eight tokens of three bytes.

    A model without a limit of its context, such as one with recurrent states, reads them at once.
    """
    spelled = real_tokenizer("albert-spiece").encode("\ufdfa")
    assert len(spelled) > len(spelled.data)
    for text in ("\ufdfa", "\ufdfa a", "a \ufdfa\ufdfa"):
        both = [real_tokenizer(n).encode(text) for n in ("albert-spiece", "gpt2")]
        for pair in (both, both[::-1]):
            found = windows(pair, [None, None])
            assert [(w.start, w.end) for w in found] == [(0, len(text.encode()))]


# The published alignment ----------------------------------------------------------------------


def components(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share a token, one after the other."""
    groups: list[tuple[set[int], set[int]]] = []
    for t, s in pairs:
        touching = [g for g in groups if t in g[0] or s in g[1]]
        groups = [g for g in groups if g not in touching]
        sides = ({t}, {s})
        groups.append(tuple(x.union(*(g[n] for g in touching)) for n, x in enumerate(sides)))
    return sorted([min(t), max(t) + 1, min(s), max(s) + 1] for t, s in groups)


words = st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(words, words, st.booleans(), st.booleans())
def test_groups_of_the_warping_are_its_components(
    t: list[str], s: list[str], bos: bool, start: bool
) -> None:
    both = []
    for own in (t, s):
        n = len(own)
        spans = [(min(i, 1), 1) if i else (0, 1) for i in range(n)]
        made = encoding(1, spans, bos=bos and own is t)
        both.append(replace(made, published=("?",) * (len(made) - n) + tuple(own)))
    aligned = by_dtw(*both, source_start=start)
    pairs = [(i, j) for i, given in enumerate(aligned.target_to_source) for j in given]
    assert aligned.groups.tolist() == components(pairs)
    plain = by_bytes(*both, source_start=start)
    for name in ("boundary", "row", "kind", "offset", "at_boundary"):
        assert np.array_equal(getattr(aligned, name), getattr(plain, name))


def test_a_side_without_tokens_is_not_warped() -> None:
    some, none = encoding(2, [(0, 1), (1, 2)], bos=True), encoding(2, [], lost=[(0, 2)])
    some = replace(some, published=("?", "a", "b"))
    for pair in ((some, none), (none, some), (none, none)):
        aligned, plain = by_dtw(*pair), by_bytes(*pair)
        assert aligned.cost == 0 and aligned.groups.tolist() == plain.groups.tolist()
        assert aligned.target_to_source == ((),) * len(pair[0])
