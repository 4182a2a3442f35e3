"""What the page is told: characters and cells, the score, the cards."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from app.tabs.align import cards
from app.tabs.align import view as views
from fusion_core import pipeline, text_display
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.records import RowKind

TEXT = "The cat sat, the cats sat.\n  東京 the é"


def analyze(tiny_models, text: str = TEXT):
    """Analyse a text with two tiny models, the first being the target."""
    target, source = tiny_models
    return pipeline.analyse(target, [source], text, FusionConfig(level="token"))


@pytest.fixture(scope="module")
def analysis(tiny_models):
    """The analysis of a text with two tiny models."""
    return analyze(tiny_models)


@pytest.fixture(scope="module")
def pieces(tiny_models):
    """Spell the tokens of the tiny models."""
    return {m.name: m.tokenizer.piece for m in tiny_models}


@pytest.mark.parametrize(
    ("text", "parts", "widths"),
    [
        ("ab", ["a", "b"], [1, 1]),
        ("e\u0301x", ["e\u0301", "x"], [1, 1]),
        ("東é", ["東", "é"], [2, 1]),
        ("👩🏽‍🚀!", ["👩🏽‍🚀", "!"], [2, 1]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"], [2, 2]),
        (" \u0301\n", [" ", "\u0301", "\n"], [1, 1, 1]),
        ("❤️", ["❤️"], [2]),
        ("a\u200db", ["a", "\u200d", "b"], [1, 1, 1]),
    ],
)
def test_characters_and_cells(text: str, parts: list[str], widths: list[int]) -> None:
    assert text_display.characters(text) == parts
    assert [text_display.cells(p) for p in parts] == widths


def test_nothing_invisible_or_turning_is_shown_as_itself() -> None:
    text = " \n\t\r\x00\x1b\x7f\xa0\u202e\u2066\u200b\ufeff\u2028\U000e0041\ue000"
    shown = text_display.visible(text)
    assert len(shown) == len(text)
    assert not set(shown) & set(text)
    assert text_display.visible("<b>`${1}`") == "<b>`${1}`"
    assert text_display.visible("مرحبا") == "مرحبا"


@pytest.mark.parametrize(
    ("covered", "piece", "label"),
    [
        (b"Tom", " Tom", "Tom"),  # a dummy prefix is no text
        (b" a", " a", "·a"),
        ("é".encode()[:1], "\\xc3", ""),
        (b" " + "é".encode()[:1], " \\xc3", "·"),
        ("東".encode(), "<unk>", "<unk>"),
    ],
)
def test_token_labels(covered: bytes, piece: str, label: str) -> None:
    assert text_display.token_label(covered, 0, len(covered), piece) == label


def test_score_is_plain_json_and_covers_the_text(analysis) -> None:
    score = views.score(analysis, "name")
    assert json.loads(json.dumps(score, allow_nan=False)) == score
    width = sum(cell[1] for cell in score["axis"])
    assert score["text"] == TEXT and len(score["axis"]) == len(TEXT)
    for lane in score["lanes"]:
        solid = [t for t in lane["tokens"] if t[1] > t[0]]
        assert solid[0][0] == 0 and solid[-1][1] == width
        assert all(a[1] == b[0] for a, b in pairwise(solid))
    links = [t[7] for t in score["lanes"][-1]["tokens"] if t[7] >= 0]
    assert links == list(range(score["total"])) == list(range(len(score["winners"])))


def test_equal_bytes_stand_at_equal_columns(analysis) -> None:
    column: dict[int, float] = {}
    for lane in views.score(analysis, "name")["lanes"]:
        for x0, x1, start, end, *_ in lane["tokens"]:
            assert column.setdefault(start, x0) == x0
            assert column.setdefault(end, x1) == x1


def test_byte_pieces_get_half_a_cell_each(tiny_models) -> None:
    score = views.score(analyse(tiny_models, "a 👩🏽‍🚀 b"), "name")
    thin = [t[1] - t[0] for lane in score["lanes"] for t in lane["tokens"] if t[1] > t[0]]
    assert min(thin) >= 0.5


def test_rings_stand_on_the_row_that_is_carried_over(analysis) -> None:
    score = views.score(analysis, "name")
    source, alignment = analysis.sources[0], analysis.sources[0].alignment
    row_bytes = np.concatenate([[0], analysis.target.end[analysis.target.text_tokens]])
    for i, ring in enumerate(score["rings"][0]):
        if ring == views.NO_RING:
            assert alignment.row[i] < 0
        elif ring == views.START_RING:
            assert alignment.row[i] == 0
        else:
            end = score["lanes"][0]["tokens"][ring][3]
            assert end + alignment.offset[i] == row_bytes[i]
            assert (alignment.offset[i] == 0) == (alignment.kind[i] == RowKind.SHARED)
    assert len(source.encoding) == len(score["lanes"][0]["tokens"])


def test_kinds_agree_with_the_bytes(analysis) -> None:
    score = views.score(analysis, "name")
    spans = {(t[2], t[3]) for t in score["lanes"][-1]["tokens"]}
    seen = set()
    for token in score["lanes"][0]["tokens"]:
        if token[5] >= 0 and token[3] > token[2]:
            seen.add(token[5])
            assert (token[5] == views.SAME) == ((token[2], token[3]) in spans)
    assert {views.SAME, views.ONE_TO_MANY, views.MANY_TO_ONE} & seen == seen - {views.OVERLAP}
    assert len(seen) > 1


def test_lost_bytes_are_marked_on_their_lane(analysis) -> None:
    lossy = replace(analysis, target=replace(analysis.target, lost=((4, 7),), lossless=False))
    lanes = views.score(lossy, "name")["lanes"]
    assert lanes[-1]["lost"] == [[4, 7]] and lanes[0]["lost"] == []


def test_pages_join_to_the_whole(tiny_models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_TOKENS", 20)
    analysis = analyze(tiny_models, TEXT * 3)
    starts = views.pages(analysis)
    assert len(starts) > 3 and starts[0] == 0
    texts, winners, targets = "", [], []
    for page in range(len(starts)):
        score = views.score(analysis, "name", page)
        assert score["first"] == starts[page] and score["page"] == page
        texts += score["text"]
        winners += score["winners"]
        own = score["lanes"][-1]["tokens"]
        targets += [t for t in own if t[7] >= 0]
        assert [t[7] for t in own if t[7] >= 0] == list(range(len(score["winners"])))
        assert max(len(lane["tokens"]) for lane in score["lanes"]) <= 20 + 2
        for lane, rings in zip(score["lanes"], score["rings"], strict=False):
            assert all(r < len(lane["tokens"]) for r in rings)
    assert texts == TEXT * 3
    assert winners == analysis.fused.winner.tolist()
    assert len(targets) == len(analysis.target.text_tokens)
    assert views.score(analysis, "name", 99)["page"] == len(starts) - 1


def test_cards_hold_rows_that_sum_to_one(analysis, pieces) -> None:
    m = len(analysis.target.text_tokens)
    for index in range(m):
        shown = cards.cards(analysis, index, pieces)
        json.dumps(shown, allow_nan=False)
        source = shown["sources"][0]
        rows = [shown["fused"]["row"], shown["target"]["row"], source["carried"]]
        rows += [source["own"]] if source["own"] else []
        for row in rows:
            assert sum(b[1] for b in row["bars"]) + row["tail"] == pytest.approx(1, abs=1e-3)
            assert sum(b[2] for b in row["bars"]) <= 1
        for row, ce in ((rows[0], shown["fused"]["ce"]), (rows[2], source["ce"])):
            observed = [b for b in row["bars"] if b[2]]
            assert observed and observed[0][1] == pytest.approx(math.exp(-ce), abs=1e-3)
        assert (source["kind"] == "inside") == (source["inside"] is not None)
        assert source["winner"] == (shown["fused"]["winner"] == 0)


def test_cards_say_inside_which_token(tiny_models, pieces) -> None:
    analysis = analyze(tiny_models, "the cats")
    where = [cards.cards(analysis, i, pieces) for i in range(len(analysis.target.text_tokens))]
    inside = [c["sources"][0] for c in where if c["sources"][0]["inside"]]
    assert inside
    for source in inside:
        whole, known = source["inside"]
        assert whole.startswith(known) and len(whole) > len(known)


def test_a_token_that_is_not_there(analysis, pieces) -> None:
    for index in (-1, len(analysis.target.text_tokens)):
        with pytest.raises(InputError, match="target tokens"):
            cards.cards(analysis, index, pieces)


def test_short_names() -> None:
    assert text_display.short_name("zoo:llama") == "llama"
    assert text_display.short_name("owner/model") == "model"
    assert text_display.short_name("owner/model?start=</s>") == "model?start=</s>"
    assert text_display.short_name("/a/b/model/") == "model"
    assert text_display.short_name("C:\\models\\m") == "m"
