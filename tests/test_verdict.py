"""Verdicts, against tables, textbook special cases and simulated comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fusion_core.comparison import judge
from fusion_core.comparison.verdict import half_width, student

BYTES = np.full(40, 500.0)


def drawn(
    gain: float, seeds: int, documents: int, of_seed: float, of_document: float, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw bits of two methods, of which the first is better by some bits a byte."""
    draws = np.random.default_rng(number)
    base = 500 * draws.uniform(0.5, 1.5, (1, documents)).repeat(seeds, 0)
    change = gain + of_seed * draws.normal(size=(seeds, 1))
    change = change + of_document * draws.normal(size=documents)
    change = change + 0.02 * draws.normal(size=(seeds, documents))
    return base - 500 * change, base


@pytest.mark.parametrize(
    ("freedom", "wanted"), [(1, 12.706), (2, 4.303), (3, 3.182), (10, 2.228), (30, 2.042)]
)
def test_student_is_that_of_the_tables(freedom: float, wanted: float) -> None:
    assert math.isclose(student(freedom), wanted, abs_tol=6e-4)
    assert student(freedom) > student(freedom + 0.5)


def test_documents_alone_are_the_paired_t_test() -> None:
    d = np.asarray([[0.1, 0.3, 0.2, 0.4, 0.25]])
    assert math.isclose(half_width(d), 2.776 * d.std(ddof=1) / math.sqrt(5), rel_tol=1e-3)


def test_seeds_alone_are_the_paired_t_test() -> None:
    of_seed = np.asarray([0.1, 0.3, 0.2])
    d = np.repeat(of_seed[:, None], 50, 1)
    assert math.isclose(half_width(d), 4.303 * of_seed.std(ddof=1) / math.sqrt(3), rel_tol=1e-3)


@pytest.mark.parametrize(
    ("of_seed", "of_document"), [(0.0, 0.1), (0.05, 0.0), (0.03, 0.1), (0.0, 0.0)]
)
@pytest.mark.parametrize(("seeds", "documents"), [(2, 40), (3, 40), (5, 12)])
def test_the_interval_covers_the_true_gain(
    of_seed: float, of_document: float, seeds: int, documents: int
) -> None:
    """Over 300 comparisons it misses no more often than promised, whatever varies."""
    missed = 0
    for number in range(300):
        a, b = drawn(0.05, seeds, documents, of_seed, of_document, number)
        found = judge(a, b, np.full(documents, 500.0))
        missed += not found.low <= 0.05 <= found.high
    assert missed / 300 < 0.075


@pytest.mark.parametrize("number", range(3))
def test_a_good_source_is_better_and_a_useless_one_no_gain(number: int) -> None:
    good = judge(*drawn(0.3, 3, 40, 0.01, 0.1, number), BYTES)
    assert good.word == "better" and good.low > 0 and math.isclose(good.gain, 0.3, abs_tol=0.1)
    assert judge(*drawn(0.0, 3, 40, 0.0, 0.0, number), BYTES).word == "no gain"
    assert judge(*drawn(-0.3, 3, 40, 0.01, 0.1, number), BYTES).word == "no gain"
    assert judge(*drawn(0.05, 2, 40, 0.1, 0.3, number), BYTES).word == "undecided"


def test_equal_methods_are_no_gain_to_the_last_bit() -> None:
    same = drawn(0.0, 3, 40, 0.0, 0.1, 1)[1]
    found = judge(same, same.copy(), BYTES)
    assert found.word == "no gain" and found.gain == found.low == found.high == 0


def test_a_tiny_gain_is_none_however_sure() -> None:
    base = np.full((3, 40), 500.0)
    assert judge(base * 0.995, base, BYTES).word == "no gain"
    assert judge(base * 0.985, base, BYTES).word == "better"


def test_what_cannot_be_known_is_undecided() -> None:
    a, b = drawn(0.3, 1, 40, 0.0, 0.1, 1)
    assert judge(a, b, BYTES).word == "undecided"
    assert judge(a, b, BYTES, trained=False).word == "better"
    one = judge(np.ones((3, 1)), np.full((3, 1), 2.0), np.ones(1))
    assert one.word == "undecided" and one.high == math.inf
    untrained = judge(drawn(0.3, 3, 40, 0.01, 0.1, 2)[0], b, BYTES)
    assert untrained.seeds == 3
    with pytest.raises(ValueError, match="do not agree"):
        judge(np.ones((2, 4)), np.ones((3, 4)), np.ones(4))
