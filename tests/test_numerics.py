"""Sums over vocabularies, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusion_core.numerics import MASKED, bits, index_sum, log_softmax, logits_off


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 3), (2, 50), (1, 262_144), (4, 1)])
def test_log_softmax_of_large_vocabularies(shape: tuple[int, int]) -> None:
    logits = 30 * random(*shape)
    logits[:, 0] += 500
    wanted = torch.log_softmax(logits.double(), 1)
    given = logits.clone()
    found = log_softmax(logits)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-5)
    assert torch.equal(logits, given) and found.dtype == torch.float32
    even = log_softmax(torch.zeros(1, 262_144))
    assert float(even.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_log_softmax_of_impossible_tokens() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    assert log_softmax(logits).exp().tolist()[0] == [0.5, 0, 0.5]
    assert log_softmax(logits)[0, 1] == -torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_index_sum(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 5, 40)
    index[index == 3] = 2  # an index that nothing has
    for shape in ((40,), (40, 3), (40, 2, 2)):
        values = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
        wanted = np.zeros((5, *shape[1:]))
        np.add.at(wanted, index, values.double().numpy())
        found = index_sum(5, torch.from_numpy(index), values)
        assert found.dtype == dtype
        torch.testing.assert_close(found, torch.from_numpy(wanted).to(dtype))


def test_index_sum_of_many_small_values() -> None:
    """One after another in float32 they would be off by 5e-4."""
    n = 1 << 20
    found = index_sum(1, torch.zeros(n, dtype=torch.int64), torch.full((n,), 0.1))
    assert float(found) == pytest.approx(n * 0.1, rel=1e-7)


def off(ours: torch.Tensor, expected: torch.Tensor) -> list[float]:
    """Divide the root of the mean square at each position by the spread of what was expected."""
    rows, places = expected.double().numpy(), expected.numpy() >= -6e4
    spread = rows[places].std(ddof=1)
    errors = np.where(places, ours.double().numpy() - rows, 0)
    return (np.sqrt((errors**2).mean(1)) / spread).tolist()


def test_logits_off() -> None:
    expected, ours = random(4, 7), random(4, 7) + 0.1 * random(4, 7, seed=1)
    ours[2] = expected[2]
    found = logits_off(ours, expected)
    assert found.tolist() == pytest.approx(off(ours, expected), rel=1e-5) and found[2] == 0
    expected[0, 3], ours[0, 3] = -torch.inf, -65_504
    expected[1, 2], ours[1, 2] = -60_000.5, -60_001.5
    assert logits_off(ours, expected).tolist() == pytest.approx(off(ours, expected), rel=1e-5)
    wide = logits_off(ours.double(), expected.double())
    assert wide.dtype == torch.float32 and torch.isfinite(wide).all()


def test_what_is_masked_must_be_masked_in_both() -> None:
    expected, ours = random(3, 5), random(3, 5)
    for number, masked in ((-59_999.5, False), (-6e4, False), (-60_000.5, True)):
        one, other = expected.clone(), ours.clone()
        one[1, 1] = number
        assert torch.isinf(logits_off(other, one)).all() == masked
        assert torch.isinf(logits_off(one, other)).all() == masked
    assert MASKED == -6e4
    assert logits_off(random(3, 4), expected).tolist() == [torch.inf] * 3
    nan = ours.clone()
    nan[0, 0] = torch.nan
    assert torch.isnan(logits_off(nan, expected)).tolist() == [True, False, False]


def test_logits_without_any_spread() -> None:
    """Divided by 1e-9, not by nothing."""
    same = torch.full((2, 4), 3.0)
    assert logits_off(same, same).tolist() == [0, 0]
    assert logits_off(same + 1, same).tolist() == pytest.approx([1e9, 1e9], rel=1e-5)


def test_bits_per_byte() -> None:
    assert bits(6 * math.log(2), 3) == pytest.approx(2)
    assert bits(math.log(2), 1) == pytest.approx(1)
    assert math.isnan(bits(1.0, 0))
