"""Windows cover a text once, fit every context, and change no row that they need not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_align import encoding

from fusion_core.align.windows import cut, windows
from fusion_core.errors import InputError

cuts = st.lists(st.integers(1, 59), max_size=50, unique=True).map(lambda c: [*sorted(c), 60])


@settings(max_examples=200, deadline=None)
@given(cuts, cuts, st.integers(3, 30), st.integers(3, 30), st.sampled_from([0.0, 0.25, 0.5]))
def test_windows_cover_the_text_once(
    t: list[int], s: list[int], t_context: int, s_context: int, overlap: float
) -> None:
    readings = [encoding(bytes(60), t), encoding(bytes(60), s)]
    try:
        found = windows(readings, [t_context, s_context], overlap)
    except InputError:
        # Only where one target token holds more tokens of the source than its context takes.
        widest = max(np.diff([0, *t]))
        assert widest > s_context - 2
        return
    assert [w.owned_from for w in found] == [0] + [w.end for w in found[:-1]]
    assert found[-1].end == 60
    for window in found:
        assert window.start <= window.owned_from < window.end
        for reading, context in zip(readings, (t_context, s_context), strict=True):
            part, before = cut(reading, window)
            assert len(part) + 1 <= context
            assert part.data == reading.data[window.start : window.end]
            assert np.array_equal(part.end + window.start, reading.end[before:][: len(part)])


def test_a_text_that_fits_is_one_window() -> None:
    reading = encoding(b"abcdef", [1, 3, 6], bos=True)
    assert [(w.start, w.end, w.owned_from) for w in windows([reading], [4])] == [(0, 6, 0)]
    assert [(w.start, w.end) for w in windows([reading], [None])] == [(0, 6)]
    part, before = cut(reading, windows([reading], [4])[0])
    assert before == 0 and len(part) == 3 and not part.special.any()


def test_windows_are_cut_where_all_models_have_a_boundary() -> None:
    target, source = encoding(bytes(8), [1, 2, 4, 5, 8]), encoding(bytes(8), [2, 5, 8])
    found = windows([target, source], [4, 9], 0.0)
    assert [(w.start, w.end) for w in found] == [(0, 2), (2, 8)]


def test_a_context_that_is_too_short_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        windows([encoding(bytes(4), [4]), encoding(bytes(4), [1, 2, 3, 4])], [9, 3])
