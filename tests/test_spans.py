"""Matching tokens that do not reproduce a text, without a tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_core.tokens import spans


def test_dropped_characters_are_lost_and_shift_nothing() -> None:
    start, end, lost, extra = spans.locate("a\x01b\x01cd", [b"a", b"b", b"cd"], None)
    assert (start.tolist(), end.tolist()) == ([0, 2, 4], [1, 3, 6])
    assert lost == [(1, 2), (3, 4)] and not extra


def test_a_changed_character_is_lost_whole() -> None:
    # é as e and an accent, given back as one character in two tokens
    start, end, lost, _ = spans.locate("ae\u0301b", [b"a\xc3", b"\xa9", b"b"], None)
    assert lost == [(1, 4)]
    assert start[0] == 0 and end[1] == 4 and (start[2], end[2]) == (4, 5)


def test_what_the_text_has_not_is_extra() -> None:
    start, end, lost, extra = spans.locate("ab", [b"a", b"!", b"b"], None)
    assert extra and not lost
    assert (start.tolist(), end.tolist()) == ([0, 1, 1], [1, 1, 2])


def test_an_unknown_token_covers_what_it_stands_for() -> None:
    # The offsets of a dummy prefix reach into the unknown characters after it.
    pieces, offsets = [b"", None, b"?", None, b"b"], [(0, 1), (0, 2), (2, 3), (3, 5), (5, 6)]
    start, end, lost, _ = spans.locate("<>?{}b", pieces, offsets)
    assert (start.tolist(), end.tolist()) == ([0, 0, 2, 3, 5], [0, 2, 3, 5, 6])
    assert lost == [(0, 2), (3, 5)]
    start, end, lost, _ = spans.locate("a<>b", [b"a", None, None, b"b"], None)
    assert (start.tolist(), end.tolist()) == ([0, 1, 3, 3], [1, 3, 3, 4]) and lost == [(1, 3)]


alphabet = st.text(alphabet="ab é東", max_size=40)


@settings(max_examples=200, deadline=None)
@given(alphabet, st.data())
def test_windows_of_any_size_find_an_alignment(text: str, data: st.DataObject) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    pieces = [c.encode() for c, k in zip(text, keep, strict=True) if k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "WINDOW", data.draw(st.sampled_from([4, 9, 2000])))
        start, end, lost, extra = spans.locate(text, pieces, None)
    whole = text.encode()
    lost_bytes = {b for s, e in lost for b in range(s, e)}
    for piece, s, e in zip(pieces, start, end, strict=True):
        if not set(range(s, e)) & lost_bytes and e > s:
            assert whole[s:e] == piece
    assert (start <= end).all() and (start[1:] >= end[:-1]).all()
    if not extra:
        assert len(lost_bytes) == len(whole) - sum(map(len, pieces))


def test_long_texts_are_matched_in_windows() -> None:
    text = "word \x01and more " * 2000
    kept = text.replace("\x01", "")
    start, end, lost, extra = spans.locate(text, [c.encode() for c in kept], None)
    assert len(lost) == 2000 and not extra
    assert text[start[-1] : end[-1]] == kept[-1]
