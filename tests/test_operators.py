"""What operators say of themselves, and what they are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fusion_core import fuse
from fusion_core.errors import FusionError, InputError
from fusion_core.fuse import Measures


def test_a_source_without_weight_has_no_say() -> None:
    mean = fuse.operators.GEOMETRIC.mean
    weights, values = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.5, 0.0], [0.4, 0.9]])
    assert mean(weights, values).tolist() == pytest.approx([0.5, 0.6])


FLAGS = {
    "min_ce": (False, True),
    "avg_ce": (False, True),
    "confidence": (True, False),
    "mean": (True, False),
    "product": (True, False),
}


def test_flags() -> None:
    found = {n: (o.label_free, o.has_level) for n, o in fuse.OPERATORS.items()}
    assert found == FLAGS
    assert fuse.label_free() == ("confidence", "mean", "product")
    for name, (free, level) in FLAGS.items():
        operator = fuse.operator_of(name, "token")
        assert operator.level("token") == ("token" if level else "")
        assert operator.level("sequence") == ("sequence" if level else "")
        assert operator.sees_token("token") == (not free) and not operator.sees_token("sequence")
    for name, level in (("none", "token"), ("mean", "word")):
        with pytest.raises(InputError, match="choose one of"):
            fuse.operator_of(name, level)
    assert fuse.operator_of("mean") is fuse.OPERATORS["mean"]


@pytest.mark.parametrize("label_free", [False, True])
@pytest.mark.parametrize("has_level", [False, True])
def test_only_who_says_so_sees_the_token(label_free: bool, has_level: bool) -> None:
    one = torch.tensor([[1.0, 2.0]])
    measures = Measures(lambda: one, lambda: 2 * one, lambda: 3 * one, lambda: 4 * one)
    operator = replace(fuse.OPERATORS["avg_ce"], label_free=label_free, has_level=has_level)
    if label_free or not has_level:
        with pytest.raises(FusionError, match="must be declared"):
            operator.weights(measures, "token")
        return
    for level, factor in (("token", 1), ("sequence", 2)):
        soft = torch.softmax(-factor * one, 1)
        assert torch.allclose(operator.weights(measures, level), soft)
        assert torch.allclose(
            operator.weights(measures, level, 2.0), torch.softmax(-factor * one / 2, 1)
        )
    free = replace(operator, label_free=True, has_level=False)
    for score, factor in ((lambda x: x.entropy, 3), (lambda x: x.top_probability, 4)):
        found = replace(free, score=score).weights(measures, "token")
        assert torch.allclose(found, torch.softmax(-factor * one, 1))


def test_temperature_of_rows_is_1_unless_given() -> None:
    assert fuse.dense.sparsify(torch.tensor([[0.2, 0.8]]), 1).temperature == 1
