"""What the Align tab shows: the score, the cards, and who wins each token."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from app.tabs.align import cards
from app.tabs.align import view as views
from fusion_core import fuse, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.records import Analysis, RowKind

TEXT = "The cat sat, the cats sat.\n  東京 the é"


def analyze(tiny_models, text: str = TEXT):
    """Analyse a text with two tiny models, the first being the target."""
    target, source = tiny_models
    return pipeline.analyze(target, [source], text, FusionConfig(level="token"))


@pytest.fixture(scope="module")
def analysis(tiny_models):
    """The analysis of a text with two tiny models."""
    return analyze(tiny_models)


@pytest.fixture(scope="module")
def pieces(tiny_models):
    """Spell the tokens of the tiny models."""
    return {m.name: m.tokenizer.piece for m in tiny_models}


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
    score = views.score(analyze(tiny_models, "a 👩🏽‍🚀 b"), "name")
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
    assert winners == views.winners(analysis)
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


WAYS = [(name, level) for name in fuse.OPERATORS for level in fuse.LEVELS]


@pytest.fixture(scope="module")
def ways(tiny_models) -> dict[tuple[str, str], Analysis]:
    """A text fused by every operator at every level, with two sources that say the same."""
    target, source = tiny_models
    alike = [source, replace(source, name="another")]
    return {
        (name, level): pipeline.analyze(
            target, alike, TEXT, FusionConfig(operator=name, level=level, strategy="exact")
        )
        for name, level in WAYS
    }


@pytest.mark.parametrize("way", WAYS)
def test_tokens_without_a_winner_say_why(ways, way: tuple[str, str]) -> None:
    """The strip said that the target's own row stood in, whatever the operator but for one."""
    analysis = ways[way]
    found = views.winners(analysis)
    assert views.score(analysis, "name")["winners"] == found
    silent = [all(s.kind[i] == RowKind.NONE for s in analysis.sources) for i in range(len(found))]
    weights = analysis.fused.weights.tolist()
    for i, winner in enumerate(found):
        if silent[i]:
            assert winner == views.NO_ROW
        elif weights[i][0] == weights[i][1]:
            assert winner == views.ALL_ALIKE
        else:
            assert winner == int(weights[i][1] > weights[i][0])
    assert any(silent) and not all(silent)


def test_a_source_that_wins_without_a_row_leaves_the_target_to_speak(ways) -> None:
    analysis = ways["min_ce", "sequence"]  # all weight is the first source's, row or not
    silent = torch.tensor([RowKind.NONE, *([RowKind.SHARED] * (len(analysis.fused.winner) - 1))])
    first, second = analysis.sources
    sources = (replace(first, kind=silent), replace(second, kind=torch.ones_like(silent)))
    winner = analysis.fused.winner.clone()
    winner[0] = -1
    changed = replace(analysis, sources=sources, fused=replace(analysis.fused, winner=winner))
    assert views.winners(changed)[0] == views.NO_ROW
    assert views.winners(changed, 1) == analysis.fused.winner.tolist()[1:]


@pytest.mark.parametrize("way", WAYS)
def test_a_level_is_shown_where_the_operator_has_one(ways, pieces, way: tuple[str, str]) -> None:
    """The card said "confidence, sequence level"."""
    operator, level = way
    details = cards.cards(ways[way], 1, {**pieces, "another": str})["fused"]["details"]
    assert details["operator"] == operator
    assert details["level"] == (level if operator in ("min_ce", "avg_ce") else "")


def test_carriage_returns_end_a_line_of_the_score(tiny_models) -> None:
    score = views.score(analyze(tiny_models, "the\r\ncat"), "name")
    assert [cell for cell, _ in score["axis"]] == ["t", "h", "e", "␍⏎", "c", "a", "t"]
    assert score["breaks"] == [sum(width for _, width in score["axis"][:4])]


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
