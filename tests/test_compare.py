"""Every operator on one text, against one analysis after another."""

from __future__ import annotations

import pytest

from fusion_core import compare, fuse, pipeline
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError

TEXT = "The cat sat, the cats sat.\n  東京 the é"


def test_every_operator_scores_as_it_does_alone(tiny_models) -> None:
    target, source = tiny_models
    config = FusionConfig()
    told: list[str] = []
    scores = compare.operators(target, [source], TEXT, config, lambda stage, _: told.append(stage))
    assert {s.operator for s in scores} == set(fuse.OPERATORS)
    assert len(scores) == 7 and any("fusing by mean" in stage for stage in told)
    for score in scores:
        way = config.replace(operator=score.operator, level=score.level or config.level)
        alone = pipeline.analyse(target, [source], TEXT, way)
        assert score.bits_per_byte == pytest.approx(alone.fused_bits_per_byte, rel=1e-6)
        winner = alone.fused.winner
        assert score.wins == (pytest.approx(float((winner == 0).float().mean())),)
        assert score.sees == (score.level == "token")


def test_the_best_of_all_choices_sees_the_token(tiny_models) -> None:
    target, source = tiny_models
    config = FusionConfig(with_target=True)
    scores = {(s.operator, s.level): s for s in compare.operators(target, [source], TEXT, config)}
    best = scores["min_ce", "token"].bits_per_byte
    sums = [s.bits_per_byte for s in scores.values() if not fuse.OPERATORS[s.operator].geometric]
    assert best == min(sums)  # a product may find less surprising what no source does
    assert len(scores["mean", ""].wins) == 2


def test_an_empty_text_is_refused(tiny_models) -> None:
    target, source = tiny_models
    with pytest.raises(InputError, match="empty"):
        compare.operators(target, [source], "", FusionConfig())
