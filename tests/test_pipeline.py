"""The stages together: identities, windows, bits per byte, the published table of transfer."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from conftest import byte_level, tiny_model

from fusion_core import compare, fuse, mapping, models, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError, TooLargeError
from fusion_core.reading import read
from fusion_core.records import TextReading
from fusion_core.tokens import TextTokenizer

TEXT = "the cats sat, the cat 東京 sat"


@pytest.mark.parametrize("top_k", [10_000, 5])
@pytest.mark.parametrize("operator", fuse.OPERATORS)
def test_identical_tokenizers_give_back_the_sources_rows(
    tiny_llama_tokenizer, operator: str, top_k: int
) -> None:
    target = tiny_model(tiny_llama_tokenizer, seed=1)
    source = replace(tiny_model(tiny_llama_tokenizer, seed=2), name="other")
    config = FusionConfig(operator=operator, top_k=top_k)
    analysis = pipeline.analyze(target, [source], TEXT, config)
    own = models.read_rows(source, source.tokenizer.encode(TEXT)).logprobs[:-1].exp()
    k = min(top_k, own.shape[1])
    expected = own.topk(k, dim=1).values
    assert torch.equal(analysis.fused.rows.probs, expected)
    assert torch.equal(own.gather(1, analysis.fused.rows.ids), expected)
    assert torch.allclose(analysis.fused.rows.tail, 1 - expected.sum(1), atol=1e-6)
    assert analysis.fused_bits_per_byte == pytest.approx(analysis.sources[0].bits_per_byte, 1e-5)


def test_bits_per_byte_by_hand(tiny_models) -> None:
    scores = compare.bits_per_byte(tiny_models, [TEXT, "the"])
    for model in tiny_models:
        nats = 0.0
        for text in (TEXT, "the"):
            own = model.tokenizer.encode(text)
            ids = [model.tokenizer.start_id, *own.ids[own.text_tokens].tolist()]
            logits = model.network(input_ids=torch.tensor([ids])).logits[0]
            logits = logits[:-1, : model.tokenizer.size]
            nats += float(
                torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
            )
        n_bytes = len(TEXT.encode()) + 3
        assert scores[model.name]["bytes"] == n_bytes
        expected = nats / math.log(2) / n_bytes
        assert scores[model.name]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_a_model_without_start_token_leaves_bytes_out_for_all(tiny_models) -> None:
    mute = tiny_model(TextTokenizer(byte_level(), "mute", start_id=None, eos_id=None))
    scores = compare.bits_per_byte([tiny_models[0], mute], ["the cat"])
    # After its first byte the mute model predicts; the llama's first boundary is after "the".
    assert {s["bytes"] for s in scores.values()} == {len(" cat")}
    rows = models.read_rows(mute, mute.tokenizer.encode("the cat"))
    expected = -float(rows.observed_logprob[3:7].sum()) / math.log(2) / 4
    assert scores["mute"]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    analysis = pipeline.analyze(tiny_models[0], [mute], "the cat", FusionConfig())
    assert analysis.scored_bytes == 4 and analysis.fused.winner[0] == -1
    assert math.isfinite(analysis.fused_bits_per_byte)


def test_a_mute_model_of_one_token_is_refused(tiny_models) -> None:
    mute = tiny_model(TextTokenizer(byte_level(), "mute", start_id=None, eos_id=None))
    with pytest.raises(InputError, match="longer text"):
        pipeline.analyze(tiny_models[0], [mute], "x", FusionConfig())
    with pytest.raises(InputError, match="longer text"):
        compare.bits_per_byte([mute], ["x"])


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_a_mute_source_over_several_windows(tiny_models, overlap: float) -> None:
    mute = tiny_model(TextTokenizer(byte_level(), "mute", start_id=None, eos_id=None))
    text = "the cat sat, " * 20
    config = FusionConfig(overlap=overlap, operator="avg_ce")
    analysis = pipeline.analyze(tiny_models[1], [mute], text, config)
    assert analysis.details["windows"] > 2
    assert math.isfinite(analysis.sources[0].bits_per_byte)
    assert math.isfinite(analysis.fused_bits_per_byte)
    assert 0 < analysis.scored_bytes < len(text)
    score = compare.transfer(tiny_models[1], mute, [text], config)["prefix"]
    assert score["native_positions"] > 0 and math.isfinite(score["native_ce"])


def test_windows_without_a_shared_boundary_leave_the_same_bytes_out_for_all() -> None:
    # One model reads x, ab, ab, …, the other xa, ba, ba, …: they meet at no byte inside.
    pair = [
        tiny_model(TextTokenizer(byte_level(merges), name, start_id=256, eos_id=256), seed=seed)
        for name, merges, seed in (
            ("odd", [("x", "a"), ("b", "a")], 1),
            ("even", [("a", "b")], 2),
        )
    ]
    with pytest.raises(InputError, match="nowhere meet"):
        compare.bits_per_byte(pair, ["x" + "ab" * 150 + "a"])
    reading = read("x" + "ab" * 150 + "a and so on", *pair)
    assert len(reading.windows) > 2
    assert 0 < reading.scored_bytes < len(reading.data) / 2
    assert [widths(reading, j) for j in range(2)] == [reading.scored_bytes] * 2


def widths(reading: TextReading, model: int) -> int:
    """Sum the bytes of a model's tokens that are scored."""
    total = 0
    for window, (low, high) in zip(reading.windows, reading.scored, strict=True):
        row_bytes = window.row_bytes(model)
        scored = (row_bytes[:-1] >= low) & (row_bytes[:-1] < high)
        total += int((row_bytes[1:] - row_bytes[:-1])[scored].sum())
    return total


def test_every_token_is_scored_once(tiny_models) -> None:
    text = " ".join(["the cat sat, 東京 the cats"] * 12)
    for overlap in (0.0, 0.25, 0.6):
        target, source = tiny_models
        reading = read(text, target, source, FusionConfig(overlap=overlap))
        assert reading.scored_bytes == len(text.encode())
        assert [widths(reading, j) for j in range(2)] == [reading.scored_bytes] * 2


def test_a_source_that_is_the_target_scores_the_same_on_hard_text(tiny_llama_tokenizer) -> None:
    target = tiny_model(tiny_llama_tokenizer, seed=1)
    target.network.lm_head.weight.data *= 6  # probabilities far below 1e-9
    source = replace(target, name="same")
    analysis = pipeline.analyze(target, [source], TEXT, FusionConfig())
    assert float(analysis.target_ce.max()) > -math.log(1e-9)
    assert analysis.fused_bits_per_byte == pytest.approx(analysis.target_bits_per_byte, rel=1e-4)


def test_long_texts_are_read_in_windows(tiny_models) -> None:
    text = " ".join(["the cat sat, 東京 the cats"] * 12)
    target, source = tiny_models
    analysis = pipeline.analyze(target, [source], text, FusionConfig(operator="mean"))
    assert analysis.details["windows"] > 2
    rows = analysis.fused.rows
    assert len(rows) == len(analysis.target.text_tokens)
    assert torch.allclose(rows.probs.sum(1) + rows.tail, torch.ones(len(rows)), atol=1e-5)
    own = analysis.sources[0].native
    assert len(own) == len(analysis.sources[0].encoding.text_tokens) + 1
    assert torch.allclose(own.probs.sum(1) + own.tail, torch.ones(len(own)), atol=1e-5)
    scores = compare.bits_per_byte(tiny_models, [text])
    assert scores[target.name]["bytes"] == len(text.encode())
    assert scores[target.name]["bits_per_byte"] == pytest.approx(analysis.target_bits_per_byte)
    # The first window is read as if it stood alone.
    first = pipeline.analyze(target, [source], text[:40], FusionConfig(operator="mean"))
    assert torch.allclose(first.fused.rows.probs[:8], rows.probs[:8], atol=1e-5)


def test_sources_may_stand_in_any_order(tiny_models, tiny_llama_tokenizer) -> None:
    target, one = tiny_models
    two = replace(tiny_model(tiny_llama_tokenizer, seed=9), name="two")
    for operator in ("min_ce", "avg_ce", "mean"):
        config = FusionConfig(operator=operator, level="token")
        a = pipeline.analyze(target, [one, two], TEXT, config)
        b = pipeline.analyze(target, [two, one], TEXT, config)
        assert a.fused_bits_per_byte == pytest.approx(b.fused_bits_per_byte, rel=1e-6)
        assert torch.allclose(a.fused.rows.probs, b.fused.rows.probs, atol=1e-6)


def test_bad_input_is_refused(tiny_models) -> None:
    target, source = tiny_models
    with pytest.raises(InputError, match="empty"):
        pipeline.analyze(target, [source], "", FusionConfig())
    with pytest.raises(TooLargeError, match="limit"):
        pipeline.analyze(target, [source], "x" * 2_000_000, FusionConfig())
    with pytest.raises(InputError, match="named twice"):
        pipeline.analyze(target, [source, source], "x", FusionConfig())
    with pytest.raises(InputError, match="at least one"):
        pipeline.analyze(target, [], "x", FusionConfig())
    with pytest.raises(InputError, match="strategy"):
        pipeline.analyze(target, [source], "x", FusionConfig(strategy="magic"))
    with pytest.raises(InputError, match="top_k"):
        FusionConfig(top_k=0)


def test_progress_is_told_for_every_window(tiny_models, monkeypatch) -> None:
    # otherwise windows are read together
    monkeypatch.setattr("fusion_core.models.rows.BATCH_TOKENS", 1)
    told: list[tuple[str, float]] = []
    text = " ".join(["the cat sat, 東京 the cats"] * 12)
    analysis = pipeline.analyze(
        tiny_models[0],
        [tiny_models[1]],
        text,
        FusionConfig(),
        progress=lambda stage, share: told.append((stage, share)),
    )
    n = analysis.details["windows"]
    reading = [s for s, _ in told if s.startswith("reading")]
    assert reading == [f"reading window {i} of {n}" for i in range(1, n + 1)]
    assert sum(s.startswith("fusing") for s, _ in told) == n
    assert all(0 <= share < 1 for _, share in told)


CUTS = ({}, {"source_top_k": 5}, {"source_top_p": 0.9}, {"source_samples": 20})


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("operator", fuse.OPERATORS)
def test_every_setting_sums_to_one_and_names_its_origins(
    tiny_models, operator: str, cut: dict
) -> None:
    target, source = tiny_models
    other = tiny_model(target.tokenizer, seed=9)
    sources = [source, replace(other, name="other")]
    for strategy, level, with_target, chain_rule in itertools.product(
        mapping.STRATEGIES, fuse.LEVELS, (False, True), (False, True)
    ):
        config = FusionConfig(
            strategy=strategy,
            operator=operator,
            level=level,
            with_target=with_target,
            chain_rule=chain_rule,
            **cut,
        )
        analysis = pipeline.analyze(target, sources, TEXT, config)
        fused, rows, origins = analysis.fused, analysis.fused.rows, analysis.attribution
        assert torch.allclose(rows.probs.sum(1) + rows.tail, torch.ones(len(rows)), atol=1e-5)
        assert torch.allclose(fused.weights.sum(1), torch.ones(len(rows)), atol=1e-5)
        assert len(fused.sources) == 2 + with_target
        given = (origins.mass.sum(3) + origins.other + origins.target).sum(2)
        assert torch.allclose(given, rows.probs, atol=1e-5)
        if not chain_rule:
            assert origins.other.min() > -1e-5
        for s in analysis.sources:
            whole = s.projected.probs.sum(1) + s.projected.tail
            assert torch.allclose(whole, torch.ones(len(rows)), atol=1e-5)


@pytest.mark.parametrize("operator", fuse.OPERATORS)
@pytest.mark.parametrize("level", fuse.LEVELS)
def test_permuting_sources_permutes_results(tiny_models, operator: str, level: str) -> None:
    target, source = tiny_models
    other = replace(tiny_model(target.tokenizer, seed=9), name="other")
    config = FusionConfig(operator=operator, level=level, with_target=True)
    one = pipeline.analyze(target, [source, other], TEXT, config)
    two = pipeline.analyze(target, [other, source], TEXT, config)
    order = [two.fused.sources.index(name) for name in one.fused.sources]
    assert torch.equal(one.fused.rows.ids, two.fused.rows.ids)
    assert torch.allclose(one.fused.rows.probs, two.fused.rows.probs, atol=1e-6)
    assert torch.allclose(one.fused.weights, two.fused.weights[:, order], atol=1e-6)
    assert torch.allclose(one.attribution.target, two.attribution.target[:, :, order], atol=1e-6)
    assert torch.allclose(
        one.attribution.mass.sum(3), two.attribution.mass.sum(3)[:, :, order], atol=1e-5
    )


def test_the_target_among_the_sources(tiny_models) -> None:
    target, source = tiny_models
    alone = pipeline.analyze(target, [source], TEXT, FusionConfig(operator="mean"))
    both = pipeline.analyze(target, [source], TEXT, FusionConfig(operator="mean", with_target=True))
    assert both.fused.sources == (source.name, target.name)
    assert torch.allclose(both.fused.kept[:, 1], torch.ones(len(both.fused.kept)))
    own = both.target_ce
    assert torch.allclose(both.fused.ce[:, 1], own, atol=1e-5)
    half = (alone.fused.observed_logprob.exp() + (-own).exp()) / 2
    assert torch.allclose(both.fused.observed_logprob.exp(), half, atol=1e-6)


def test_the_chain_rule_gives_the_sources_own_cross_entropy(tiny_models) -> None:
    target, source = tiny_models
    plain = compare.transfer(target, source, [TEXT], FusionConfig())["prefix"]
    config = FusionConfig(chain_rule=True)
    ruled = compare.transfer(target, source, [TEXT], config)["prefix"]
    assert ruled["native_positions"] == plain["native_positions"] > 0
    assert ruled["native_ce"] == pytest.approx(plain["native_ce"])
    same = replace(target, name="same")
    everywhere = compare.transfer(target, same, [TEXT], config)["prefix"]
    assert everywhere["transfer_ce"] == pytest.approx(everywhere["native_ce"], abs=1e-5)


def test_temperature_softens_rows_but_not_scores(tiny_models) -> None:
    target, source = tiny_models
    plain = pipeline.analyze(target, [source], TEXT, FusionConfig())
    warm = pipeline.analyze(target, [source], TEXT, FusionConfig(temperature=3.0))
    assert warm.sources[0].bits_per_byte == pytest.approx(plain.sources[0].bits_per_byte, rel=1e-6)
    assert float(warm.fused.entropy.mean()) > float(plain.fused.entropy.mean())
    assert warm.fused.rows.temperature == 3.0


def test_next_characters_over_several_windows(tiny_models) -> None:
    text = " ".join(["the cat sat, 東京 the cats"] * 12)
    size = len(text.encode())
    positions = [0, 3, 8, 200, size, 201, 3]
    reading = read(text, tiny_models[0], tiny_models[1])
    found = compare.next_characters(reading, positions)
    for model, got in zip(tiny_models, found, strict=True):
        assert got.model == model.name
        assert got.positions.tolist() == sorted(set(positions))
        total = got.probs.sum(1) + got.partial.sum(1) + got.end + got.unknown
        assert torch.allclose(total, torch.ones(len(total)), atol=1e-5)
    near = compare.next_characters(read(text[:20], *tiny_models), [0, 3, 8])
    for got, first in zip(found, near, strict=True):
        for i in range(3):
            whole = dict(zip(got.characters, got.probs[i].tolist(), strict=True))
            for c, p in zip(first.characters, first.probs[i].tolist(), strict=True):
                assert whole[c] == pytest.approx(p, abs=1e-5)
    with pytest.raises(InputError, match=f"from 0 to {size}"):
        compare.next_characters(reading, [size + 1])


@pytest.mark.parametrize("strategy", mapping.STRATEGIES)
def test_rows_of_real_models_sum_to_one(testdata, strategy: str) -> None:
    zoo = [models.load(f"zoo:{n}") for n in ("llama", "neox-reason", "gpt2-story", "mpt-code")]
    real = [
        models.load(str(testdata / "models" / name)) for name in ("babyllama-tok105", "stories260K")
    ]
    for target, *sources in (zoo, real, real[::-1]):
        for operator, level in itertools.product(fuse.OPERATORS, fuse.LEVELS):
            config = FusionConfig(strategy=strategy, operator=operator, level=level)
            text = "Once upon a time, Mia had 3 cats.\ndef f(x):\n    return x"
            fused = pipeline.analyze(target, sources, text, config).fused
            total = fused.rows.probs.sum(1) + fused.rows.tail
            assert torch.allclose(total, torch.ones(len(total)), atol=1e-5)
            assert bool((fused.rows.probs >= 0).all())
