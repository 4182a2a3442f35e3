"""What the Fuse tab and the cards are told: winners, mappings, next characters, origins."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from app.compute import analyze
from app.compute.model_cache import ModelCache
from app.requests import AnalysisRequest
from app.tabs.align import cards
from app.tabs.align import view as views
from app.tabs.fuse import view as fusing
from app.tabs.sidebar import Settings
from fusion_core import compare
from fusion_core.config import FusionConfig
from fusion_core.mapping import STRATEGIES
from fusion_core.reading import read

CHOSEN, KNOWN = "chosen knowing each token", "knows the source's boundaries"
TEXT = "The cat sat, the cats sat.\n  東京 the é"


@pytest.fixture(scope="module")
def cache(tiny_models) -> ModelCache:
    """A cache with the two tiny models."""
    by_name = {m.name: m for m in tiny_models}
    return ModelCache(1 << 30, lambda name: by_name[name])


@pytest.fixture(scope="module")
def request_(tiny_models) -> AnalysisRequest:
    """Both tiny models on one text."""
    names = [m.name for m in tiny_models]
    return AnalysisRequest(names[0], (names[1],), TEXT, FusionConfig(level="token"))


@pytest.fixture(scope="module")
def analysis(cache, request_):
    """The analysis of the text, as the page gets it."""
    *_, found = analyze.analyze(cache.key, request_)
    return found.analysis


def test_the_view_holds_what_was_analysed(cache, request_, analysis) -> None:
    *said, study = analyze.compare(cache.key, request_)
    assert all(isinstance(step, str) for step in said)
    view = fusing.fuse_view(analysis, study)
    json.dumps(view, allow_nan=False)
    assert "".join(t[0] for t in view["tokens"]) == TEXT
    assert [t[1] for t in view["tokens"]] == analysis.fused.winner.tolist()
    nats = torch.tensor([t[3] for t in view["tokens"]])
    assert torch.allclose(nats[:, 0], analysis.sources[0].ce, atol=1e-3)
    assert torch.allclose(nats[:, 1], analysis.target_ce, atol=1e-3)
    carried = float(analysis.sources[0].ce.sum()) / math.log(2) / len(TEXT.encode())
    assert view["sources"][0]["carried"] == pytest.approx(carried, abs=1e-4)
    chosen = [o for o in view["operators"] if (o["operator"], o["level"]) == ("min_ce", "token")]
    assert chosen[0]["bits"] == pytest.approx(analysis.fused_bits_per_byte, abs=1e-4)
    assert {s["strategy"] for s in view["strategies"]} == set(STRATEGIES)


def test_a_mapping_is_scored_over_all_positions_where_it_speaks(
    tiny_models, cache, request_, analysis
) -> None:
    *_, study = analyze.compare(cache.key, request_)
    rows = {s["strategy"]: s for s in fusing.fuse_view(analysis, study)["strategies"]}
    speaks = analysis.sources[0].kind > 0
    ce = analysis.sources[0].ce[speaks].double().mean()
    assert rows["prefix"]["transfer"] == pytest.approx(float(ce), abs=1e-4)
    assert rows["prefix"]["target"] == pytest.approx(
        float(analysis.target_ce[speaks].double().mean()), abs=1e-4
    )
    assert rows["prefix"]["coverage"] == pytest.approx(float(speaks.double().mean()), abs=1e-4)


def test_hostile_text_stays_text_and_control_signs_are_seen(cache, tiny_models) -> None:
    text = "<img onerror=x>${a}`\u202eb\x00</script>"
    names = [m.name for m in tiny_models]
    request = AnalysisRequest(names[0], (names[1],), text, FusionConfig())
    *_, found = analyze.analyze(cache.key, request)
    found = found.analysis
    shown = "".join(fusing.token_texts(found.target))
    assert (
        shown.startswith("<img onerror=x>${a}`") and "\u202e" not in shown and "\x00" not in shown
    )


def test_origins_of_a_fused_token_sum_to_its_share(analysis, tiny_models) -> None:
    pieces = {m.name: m.tokenizer.piece for m in tiny_models}
    for index in range(len(analysis.target.text_tokens)):
        row = cards.cards(analysis, index, pieces)["fused"]["row"]
        assert len(row["from"]) <= len(row["bars"])
        for (_, share, _), parts in zip(row["bars"], row["from"], strict=False):
            assert sum(p for _, _, p in parts) == pytest.approx(share, abs=2e-3)
            assert all(0 <= source <= len(analysis.sources) for source, _, _ in parts)


def test_next_characters_agree_with_the_models_and_sum_to_one(
    tiny_models, cache, request_, analysis
) -> None:
    target = analysis.target
    positions = sorted({int(b) for b in target.start[target.text_tokens]})
    readers = analyze.characters(cache.key, request_, analysis, positions)
    alone = compare.next_characters(read(TEXT, *tiny_models), positions)
    for ours, theirs in zip(readers, alone, strict=False):
        assert torch.equal(ours.probs, theirs.probs)
    answers = [cards.characters(readers, analysis, i) for i in range(len(target.text_tokens))]
    json.dumps(answers, allow_nan=False)
    for answer in answers:
        assert [r["role"] for r in answer["readers"]] == ["target", "source 0", "fused"]
        for reader in answer["readers"]:
            parts = (reader["other"], reader["end"], reader["unknown"])
            assert sum(reader["shares"]) + sum(parts) == pytest.approx(1, abs=1e-3)
        assert sum(seen for _, seen in answer["labels"]) <= 1
    assert cards.characters(readers, analysis, 10**6) is None


def test_the_fused_next_character_is_summed_over_fused_tokens(
    tiny_models, cache, request_, analysis
) -> None:
    target, fused = analysis.target, analysis.fused.rows
    tokenizer = tiny_models[0].tokenizer
    index = TEXT.index("cat") - 1  # some token in the middle of plain text
    positions = sorted({int(b) for b in target.start[target.text_tokens]})
    reader = analyze.characters(cache.key, request_, analysis, positions)[-1]
    byte = int(target.start[target.text_tokens[index]])
    at = positions.index(byte)
    expected: dict[str, float] = {}
    for token, p in zip(fused.ids[index].tolist(), fused.probs[index].tolist(), strict=True):
        own = tokenizer.bytes_of[token] if token >= 0 else None
        text = own.decode("utf-8", "ignore") if own else ""
        if text:
            expected[text[0]] = expected.get(text[0], 0) + p
    given = dict(zip(reader.characters, reader.probs[at].tolist(), strict=True))
    assert expected
    for character, p in expected.items():
        assert given[character] == pytest.approx(p, abs=1e-4)


def test_pages_say_where_a_token_stands(analysis) -> None:
    starts = views.pages(analysis)
    assert views.page_of(analysis, 0) == 0
    long = SimpleNamespace(target=analysis.target, sources=analysis.sources)
    assert views.page_of(long, len(analysis.target.text_tokens) - 1) == len(starts) - 1


def test_rows_are_read_as_they_are_asked_for(tiny_models, cache, request_) -> None:
    """Readings are kept by all that they depend on, and every figure says what it knew."""
    target, source = tiny_models
    bits = set()
    for rows, prune in (("exact", 0.01), ("boundary", 0.01), ("exact", 0.3), ("exact", 0.0)):
        config = FusionConfig(rows=rows, prune=prune, level="token")
        *_, found = analyze.analyze(cache.key, replace(request_, config=config))
        alone = read(TEXT, target, source, config).project().fuse("min_ce", level="token")
        assert found.analysis.fused_bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-6)
        bits.add(round(alone.bits_per_byte, 9))
        *_, study = analyze.compare(cache.key, replace(request_, config=config))
        view = fusing.fuse_view(found.analysis, study)
        known = [CHOSEN, *([KNOWN] if rows == "boundary" else [])]
        assert view["board"][-1]["leaks"] == known and view["chosen"]["rows"] == rows
        for said in (fusing.summary(found.analysis), views.summary(found.analysis)):
            assert CHOSEN in said and (KNOWN in said) == (rows == "boundary")
        card = cards.cards(found.analysis, 1, dict.fromkeys((target.name, source.name), str))
        assert card["fused"]["details"]["rows"] == rows
    assert len(bits) >= 3


def test_the_sidebar_hands_on_all_that_it_has() -> None:
    options = Settings.options(["exact", "mean", "token", 3, "boundary"])
    assert FusionConfig(**options) == FusionConfig(
        strategy="exact", operator="mean", level="token", top_k=3, rows="boundary"
    )
