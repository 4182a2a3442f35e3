"""Exact rows on the target's tokens: what they may know, and what becomes of them.

What a prompt's last token says of what follows is known as the partial-token problem, and its
remedy as token healing (guidance-ai/guidance, huggingface/transformers#28346).
"""

from __future__ import annotations

import numpy as np
import pytest
from exact_readings import KINDS, LETTERS, model, projected
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_core.models import LoadedModel


def difference(
    texts: tuple[str, str], target: LoadedModel, source: LoadedModel, **how: object
) -> float:
    """Return how far rows of two texts lie apart, up to where the target can tell the texts apart.

    Row i counts where both texts have the target's first i tokens, and the bytes that these spell.
    """
    encodings = [[m.tokenizer.encode(t) for m in (target, source)] for t in texts]
    whole = all(e.lossless for pair in encodings for e in pair)
    if not whole or len({pair[1].dummy_prefix for pair in encodings}) > 1:
        return 0.0  # a text of other bytes
    (one, _), (two, _) = (projected(t, target, source, **how) for t in texts)
    a, b = (pair[0] for pair in encodings)
    ids = a.ids[a.text_tokens], b.ids[b.text_tokens]
    n = min(map(len, ids))
    unlike = np.flatnonzero(ids[0][:n] != ids[1][:n])
    data = [np.frombuffer(t.encode(), np.uint8) for t in texts]
    size = min(map(len, data))
    alike = int(np.append(data[0][:size] != data[1][:size], True).argmax())
    rows = np.arange(min(n, unlike[0] + 1 if len(unlike) else n))
    rows = rows[a.row_bytes[rows] <= alike]
    return float((one[rows] - two[rows]).abs().max()) if len(rows) else 0.0


# What rows know ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["letters", "another"])
@pytest.mark.parametrize("source", KINDS)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_row_does_not_depend_on_what_follows(source: str, target: str, data) -> None:
    if target == "another":
        target = "byte_level_code" if source != "byte_level_code" else "sentencepiece_bpe"
    part = st.sampled_from(KINDS[source])
    head = "".join(data.draw(st.lists(part, min_size=1, max_size=3)))
    tails = ("".join(data.draw(st.lists(part, min_size=1, max_size=2))) for _ in range(2))
    texts = tuple(head + tail for tail in tails)
    assert difference(texts, model(target, 2), model(source, 1)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("target", ["letters", "byte_level_digits", "sentencepiece_unigram"])
@pytest.mark.parametrize("source", KINDS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_row_of_many_texts_depends_on_what_follows(source: str, target: str, data) -> None:
    target = "letters" if source == target else target
    part = st.sampled_from(KINDS[source])
    head = "".join(data.draw(st.lists(part, min_size=1, max_size=5)))
    tails = ("".join(data.draw(st.lists(part, min_size=1, max_size=3))) for _ in range(2))
    texts = tuple(head + tail for tail in tails)
    assert difference(texts, model(target, 2), model(source, 1)) < 1e-5


@pytest.mark.parametrize("source", KINDS)
def test_rows_at_the_sources_boundaries_depend_on_what_follows(source: str) -> None:
    """A word is spelled otherwise than its beginning: that a token ends tells that it is whole."""
    words = (
        ("the cat", "cat and", "and the", "ten two")
        if KINDS[source] is LETTERS
        else ("Tom has", "return 1", "name the", "the box")
    )
    apart = {"exact": 0.0, "boundary": 0.0}
    for word in words:
        for cut in range(1, 4):
            pair = word, word[:cut] + " a"
            for rows, worst in apart.items():
                found = difference(pair, model("letters", 2), model(source, 1), rows=rows)
                apart[rows] = max(worst, found)
    assert apart["exact"] < 1e-5 and apart["boundary"] > 0.02
