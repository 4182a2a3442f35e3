"""Weight merging: methods worked out by hand, against peft, and what always holds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from fusion_core.baselines import METHODS, linear, sce, ties


def t(*rows: object) -> Tensor:
    """Make a tensor of a number, of a list, or of several lists."""
    return torch.tensor(rows[0] if len(rows) == 1 else rows, dtype=torch.float32)


def close(a: Tensor, b: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(a, b, rtol=1e-6, atol=atol)


# Worked out by hand -----------------------------------------------------------------------------


def test_linear_by_hand() -> None:
    tuned = t([1.0, 2.0, -4.0], [3.0, 6.0, 0.0])
    # (1·1 + 3·3) / 4, (1·2 + 3·6) / 4, (1·-4 + 3·0) / 4
    close(linear(t([9.0, 9.0, 9.0]), tuned, t([1.0, 3.0])), t([2.5, 5.0, -1.0]))


TIES_BASE = t([10.0, 20.0, 30.0, 40.0, 50.0])
TIES_TASK = t(
    [4.0, -1.0, 0.5, 2.0, -3.0],  # the 3 largest: 4, ., ., 2, -3
    [-1.0, -2.0, 3.0, 0.1, -4.0],  # ., -2, 3, ., -4
    [2.0, 0.2, -1.0, -5.0, 1.5],  # 2, ., ., -5, 1.5
)


@pytest.mark.parametrize(
    ("weights", "task"),
    [
        # sums 6, -2, 3, -3, -5.5; the mean of what has their sign:
        # (4 + 2) / 2, -2, 3, -5, (-3 - 4) / 2
        ([1.0, 1.0, 1.0], [3.0, -2.0, 3.0, -5.0, -3.5]),
        # sums 14, -2, 3, 3·2 - 5 = 1, -9 - 4 + 1.5; so the fourth sign turns:
        # (3·4 + 2) / 4, -2, 3, 2, (3·-3 - 4) / 4
        ([3.0, 1.0, 1.0], [3.5, -2.0, 3.0, 2.0, -3.25]),
    ],
)
def test_ties_by_hand(weights: list[float], task: list[float]) -> None:
    merged = ties(TIES_BASE, TIES_BASE + TIES_TASK, t(weights), 0.6)
    close(merged, TIES_BASE + t(task), atol=1e-5)


SCE_BASE = t([5.0, 6.0, 7.0, 8.0])
SCE_TASK = t([1.0, 0.0, 3.0, 1.0], [1.0, 0.3, -1.0, 2.0], [1.0, 0.0, 1.0, -2.0])


def test_sce_by_hand() -> None:
    # Variances: 0 | 0.02 | (4 + 4 + 0) / 3 | 9/3 - 1/9, so the last two are the upper half.
    # Sums of squares of these: 9 + 1 = 10 | 1 + 4 = 5 | 1 + 4 = 5, so weights 1/2, 1/4, 1/4.
    # Third: the sum is 3, so -1 goes: (3/2 + 1/4) / (3/4) = 7/3.
    # Fourth: the sum is 1, so -2 goes: (1/2 + 2/4) / (3/4) = 4/3.
    merged = sce(SCE_BASE, SCE_BASE + SCE_TASK, torch.ones(3), 0.5)
    close(merged, SCE_BASE + t([0.0, 0.0, 7 / 3, 4 / 3]))


def test_sce_weighs_tensors_however_small_the_changes() -> None:
    # The same, a ten-thousandth of it: weights are proportions.
    merged = sce(torch.zeros(4), SCE_TASK * 1e-4, torch.ones(3), 0.5)
    torch.testing.assert_close(merged, t([0.0, 0.0, 7 / 3, 4 / 3]) * 1e-4, rtol=1e-5, atol=0)


def test_sce_weighs_a_matrix_as_a_whole() -> None:
    task = SCE_TASK.reshape(3, 2, 2)
    merged = sce(torch.zeros(2, 2), task, torch.ones(3), 0.5)
    close(merged, t([[0.0, 0.0], [7 / 3, 4 / 3]]))


@pytest.mark.parametrize("method", [ties, sce])
def test_an_even_vote_leaves_the_base(method: Callable[..., Tensor]) -> None:
    merged = method(t([7.0, 7.0]), t([8.0, 8.0], [6.0, 9.0]), torch.ones(2), 1.0)
    # +1 against -1; +1 and +2, by ties (1 + 2) / 2, by sce with squares 1 + 1 and 1 + 4:
    second = {ties: 1.5, sce: (2 * 1 + 5 * 2) / 7}[method]
    close(merged, t([7.0, 7.0 + second]))


def test_at_least_one_element_counts() -> None:
    # A fifth of 2 elements is less than one.
    close(ties(t([0.0, 0.0]), t([[3.0, 1.0]]), torch.ones(1), 0.2), t([3.0, 0.0]))
    close(sce(t([0.0, 0.0]), t([3.0, 1.0], [3.0, 2.0]), torch.ones(2), 0.2)[0], t(0.0))


def test_what_ties_with_the_last_one_kept_stays() -> None:
    close(ties(torch.zeros(4), t([[2.0, -2.0, 2.0, 1.0]]), torch.ones(1), 0.25), t([2, -2, 2, 0]))


@pytest.mark.parametrize("density", [0.1, 0.5, 0.75, 1.0])
@pytest.mark.filterwarnings("ignore:The density")
def test_ties_is_that_of_peft_where_all_weigh_1(density: float) -> None:
    peft = pytest.importorskip("peft.utils.merge_utils")
    base, task = torch.zeros(20, 30), torch.randn(3, 20, 30, generator=seeded(1))
    expected = peft.ties(list(task), torch.ones(3), density)
    close(ties(base, task, torch.ones(3), density), expected)


# What always holds ------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(models: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    base = torch.randn(9, 7, generator=seeded(seed))
    return base, base + 0.1 * torch.randn(models, 9, 7, generator=seeded(seed + 1))


@pytest.mark.parametrize("models", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("name", "density"), [("linear", 0.2), ("ties", 1.0), ("sce", 1.0), ("sce", 0.2)]
)
def test_equal_models_give_themselves(name: str, density: float, models: int) -> None:
    base, tuned = some(1)
    merged = METHODS[name](base, tuned.repeat(models, 1, 1), torch.ones(models), density)
    close(merged, tuned[0])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_unchanged_models_give_the_base(name: str, density: float) -> None:
    base, _ = some(1)
    assert METHODS[name](base, base.repeat(3, 1, 1), torch.ones(3), density).equal(base)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_the_order_of_the_models_is_indifferent(name: str, density: float) -> None:
    base, tuned = some(4)
    weights = t([1.0, 2.0, 0.5, 0.0])
    merged = METHODS[name](base, tuned, weights, density)
    for order in map(list, permutations(range(4))):
        close(METHODS[name](base, tuned[order], weights[order], density), merged)


def test_a_near_even_vote_does_not_hang_on_the_order() -> None:
    # In float32 the sum of these is of either sign or 0, by their order.
    task = t([0.1], [0.2], [-0.3])
    for method in (ties, sce):
        found = {
            float(method(torch.zeros(1), task[list(o)], torch.ones(3), 1.0))
            for o in permutations(range(3))
        }
        assert len(found) == 1


@pytest.mark.parametrize("name", ["linear", "ties"])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_weight_counts_like_copies(name: str, density: float) -> None:
    base, tuned = some(3)
    merged = METHODS[name](base, tuned, t([2.0, 1.0, 3.0]), density)
    copies = tuned[[0, 0, 1, 2, 2, 2]]
    close(METHODS[name](base, copies, torch.ones(6), density), merged)
    close(METHODS[name](base, tuned, t([0.2, 0.1, 0.3]), density), merged)


def test_one_weight_alone_gives_that_model() -> None:
    base, tuned = some(2)
    assert linear(base, tuned, t([1.0, 0.0])).equal(tuned[0])
    close(ties(base, tuned, t([0.0, 1.0]), 1.0), tuned[1])


@pytest.mark.parametrize("name", METHODS)
def test_the_models_stay_as_they_are(name: str) -> None:
    base, tuned = some(3)
    METHODS[name](base, tuned, torch.ones(3), 0.3)
    before = some(3)
    assert base.equal(before[0]) and tuned.equal(before[1])


def test_every_method_names_its_paper() -> None:
    papers = {"linear": "2203.05482", "ties": "2306.01708", "sce": "2408.07990"}
    assert papers.keys() == METHODS.keys()
    for name, paper in papers.items():
        assert paper in str(METHODS[name].__doc__)
