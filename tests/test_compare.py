"""Every operator and every mapping on one text, against one analysis after another."""

from __future__ import annotations

import pytest

from fusion_core import fuse, pipeline
from fusion_core.compare import compare_mappings, compare_operators, transfer
from fusion_core.config import FusionConfig
from fusion_core.mapping import STRATEGIES
from fusion_core.reading import read

TEXT = "The cat sat, the cats sat.\n  東京 the é"


def test_every_operator_scores_as_it_does_alone(tiny_models) -> None:
    target, source = tiny_models
    config = FusionConfig()
    stages: list[str] = []
    scores = compare_operators(
        read(TEXT, target, source), config, progress=lambda stage, _: stages.append(stage)
    )
    assert {s.operator for s in scores} == set(fuse.OPERATORS)
    assert len(scores) == 7 and any("fusing by mean" in stage for stage in stages)
    for score in scores:
        way = config.replace(operator=score.operator, level=score.level or config.level)
        alone = pipeline.analyze(target, [source], TEXT, way)
        assert score.bits_per_byte == pytest.approx(alone.fused_bits_per_byte, rel=1e-6)
        winner = alone.fused.winner
        assert score.wins == (pytest.approx(float((winner == 0).float().mean())),)
        assert score.sees_token == (score.level == "token")


def test_the_best_of_all_choices_sees_the_token(tiny_models) -> None:
    target, source = tiny_models
    config = FusionConfig(with_target=True)
    reading = read(TEXT, target, source)
    scores = {(s.operator, s.level): s for s in compare_operators(reading, config)}
    best = scores["min_ce", "token"].bits_per_byte
    sums = [s.bits_per_byte for s in scores.values() if not fuse.OPERATORS[s.operator].combine]
    assert best == min(sums)  # a product may find less surprising what no source does
    assert len(scores["mean", ""].wins) == 2


@pytest.mark.parametrize("chain_rule", [False, True])
def test_every_mapping_scores_as_it_does_alone(tiny_models, chain_rule: bool) -> None:
    target, source = tiny_models
    reading = read(TEXT, target, source)
    found = compare_mappings(reading.project("exact", chain_rule=chain_rule))[source.name]
    assert list(found) == list(STRATEGIES)
    for strategy, figures in found.items():
        config = FusionConfig(strategy=strategy, chain_rule=chain_rule)
        alone = transfer(target, source, [TEXT], config)[strategy]
        for key, value in alone.items():
            assert figures[key] == pytest.approx(value), key
