"""Codes of rows: what is read back is what was written, to a small divergence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from codec_rows import divergence, random_rows, rows_of, through
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion_core.cache import (
    decode,
    encode,
)
from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows


def test_the_bytes_by_hand() -> None:
    """Seven ids need three bits: 5, 2, 6 and the observed 3 are 101 010 110 011."""
    rows = SparseRows(
        torch.tensor([[5, 2, 6]]), torch.tensor([[0.5, 0.25, 0.05]]), torch.tensor([0.2]), 7
    )
    arrays = encode(rows, torch.tensor([3]))
    assert arrays["ids"].tolist() == [[0b10101011, 0b00110000]]
    share, *others = arrays["probs"][0].tolist()
    second, third = (((c - 0.5) / 255) ** 2 / j for j, c in enumerate(others, 2))
    angle = (share - 0.5) / 254 * math.pi / 2
    rest = 1 - second - third
    back = through(rows, torch.tensor([3]))
    assert back.ids.tolist() == [[5, 2, 6]]
    assert back.probs[0].tolist() == pytest.approx(
        [rest * math.cos(angle) ** 2, second, third], rel=1e-5
    )
    assert back.tail.item() == pytest.approx(rest * math.sin(angle) ** 2, rel=1e-5)
    assert back.probs[0].tolist() == pytest.approx([0.5, 0.25, 0.05], abs=0.004)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65_536, 100_000, 262_144, 2**31 - 1])
def test_ids_stand_bit_by_bit(size: int) -> None:
    numbers = np.random.default_rng(size).integers(0, size, (5, 4))
    numbers[0] = size - 1, 0, size - 1, size - 1
    rows = SparseRows(
        torch.from_numpy(numbers[:, :3]),
        torch.tensor([[0.5, 0.3, 0.1]]).repeat(5, 1),
        torch.full((5,), 0.1),
        size,
    )
    need = len(f"{size - 1:b}")
    for row, packed in zip(
        numbers.tolist(), encode(rows, torch.from_numpy(numbers[:, 3]))["ids"], strict=True
    ):
        text = "".join(f"{number:0{need}b}" for number in row)
        assert "".join(f"{byte:08b}" for byte in packed) == text.ljust(-(-len(text) // 8) * 8, "0")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_row_comes_back(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300_000))
    k = data.draw(st.integers(1, min(size, 64)))
    powers = st.one_of(st.floats(-12, 0), st.just(-math.inf), st.just(0.0))
    mass = 10 ** np.array([data.draw(st.lists(powers, min_size=k + 1, max_size=k + 1))])
    mass = mass if mass.sum() > 0 else np.eye(k + 1)[-1:]
    rows = rows_of(mass, size, data.draw(st.integers(0, 9)))
    back = through(rows, torch.tensor([data.draw(st.integers(0, size - 1))]))
    assert torch.equal(back.ids, rows.ids)
    assert torch.equal(back.probs > 0, rows.probs > 0) and (back.tail > 0) == (rows.tail > 0)
    assert (back.probs.sum(1) + back.tail).item() == pytest.approx(1, abs=1e-6)
    assert divergence(rows, back).max() < 1e-4


@pytest.mark.parametrize("k", [1, 2, 3, 10, 64])
def test_codes_cost_next_to_nothing(k: int) -> None:
    rng = np.random.default_rng(k)
    masses = [rng.dirichlet(np.full(k + 1, c), 60) for c in (0.02, 0.1, 0.5, 1, 5, 1e3, 1e6)]
    peaked = 10 ** rng.uniform(-10, 0, (60, k + 1))
    flat = np.concatenate([np.ones((60, k)), k * rng.random((60, 1)) ** 4], axis=1)
    wide = np.concatenate([np.ones((60, k)), 10 ** rng.uniform(0, 6, (60, 1))], axis=1)
    slim = np.concatenate([rng.dirichlet(np.ones(k), 60), 10 ** rng.uniform(-9, -3, (60, 1))], 1)
    power = ((rng.integers(1, 200, (60, 1)) / 255) ** 2) / np.arange(1, k + 1)  # edges of the steps
    edges = np.concatenate([power, rng.random((60, 1)) / k], axis=1)
    rows = rows_of(np.concatenate([*masses, peaked, flat, wide, slim, edges]))
    costs = divergence(rows, through(rows))
    assert costs.max() < 1e-4
    assert costs.mean() < 3e-5


def test_the_worst_rounding_for_the_first_token() -> None:
    """Flat rows whose every code would be rounded the same way, were they not evened out."""
    k = 64
    j = np.arange(2, k + 1)
    for up in (0.001, 0.999):
        others = ((np.floor(255 * np.sqrt(j / (k + 4))) + up) / 255) ** 2 / j
        first = max(others.max(), 1 - others.sum())
        rows = rows_of(np.array([[first, *others, 0]]))
        assert divergence(rows, through(rows)).max() < 1e-4


def kinds_of_rows() -> dict[str, SparseRows]:
    rng = np.random.default_rng(5)
    flat = np.concatenate([np.ones((80, 64)), 64 * rng.random((80, 1))], 1)
    steps = 10 ** (-rng.uniform(0.05, 1.5, (80, 1)) * np.arange(13))
    return {
        "flat": rows_of(flat * rng.uniform(0.97, 1.03, flat.shape)),
        "mixed": random_rows(80, 32),
        "steep": rows_of(np.concatenate([steps, rng.random((80, 1))], 1)),
    }


@pytest.mark.parametrize("kind", ["flat", "mixed", "steep"])
def test_what_rounding_leaves_over_is_evened_out(kind: str) -> None:
    """By brute force: one code after the other, of the two nearest the one that evens out best.

    Nearest on the scale of the codes, on which code c means sqrt(j·p) = (c - 1/2)/255.
    """
    rows = kinds_of_rows()[kind]
    codes = encode(rows, torch.zeros(len(rows), dtype=torch.int64))["probs"]
    for masses, found in zip(rows.probs.double().tolist(), codes.tolist(), strict=True):
        left = 0.0
        for j, (p, code) in enumerate(zip(masses, found, strict=True), 1):
            if j == 1 or p == 0:
                continue
            nearest = sorted(range(257), key=lambda c: abs((c - 0.5) / 255 - math.sqrt(j * p)))[:2]
            wanted = math.sqrt(max(0.0, j * (p + left)))
            off = {c: abs((c - 0.5) / 255 - wanted) for c in nearest}
            best = [c for c in nearest if off[c] < min(off.values()) + 1e-9]
            assert code in [min(max(c, 1), 255) for c in best]
            left += p - ((code - 0.5) / 255) ** 2 / j


@pytest.mark.parametrize("k", [8, 32, 64])
def test_the_sum_of_a_flat_row_is_off_by_one_step_at_most(k: int) -> None:
    """Codes that are rounded each for itself would be off by k half steps."""
    for share in np.linspace(0.5, 1, 41):
        rows = rows_of(np.array([[*[share / k] * k, 1 - share]]))
        back = through(rows)
        lost = (rows.probs - back.probs)[0, 1:].double().cumsum(0).abs()
        j = np.arange(2, k + 1)
        step = 2 * np.sqrt(share / k / j) / 255 + (1 / 255) ** 2 / j
        assert (lost.numpy() <= step).all()


def test_rows_that_hold_less() -> None:
    nothing = SparseRows(torch.full((2, 3), -1), torch.zeros(2, 3), torch.ones(2), 9)
    back = through(nothing)
    assert (back.ids == -1).all() and back.tail.tolist() == [1, 1] and back.probs.sum() == 0
    some = SparseRows(
        torch.tensor([[4, 0, -1], [0, 8, -1], [4, 0, 2]]),
        torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.25, 0.0], [1.0, 0.0, 0.0]]),
        torch.tensor([0.0, 0.25, 0.0]),
        9,
        2.0,
    )
    back = through(some)
    assert torch.equal(back.ids, some.ids) and back.temperature == 2
    assert back.probs[2].tolist() == [1, 0, 0] and back.tail[0] == 0
    none = SparseRows(torch.empty(0, 3).long(), torch.empty(0, 3), torch.empty(0), 9)
    assert len(through(none)) == 0
    one = SparseRows(torch.tensor([[0]]), torch.tensor([[1.0]]), torch.tensor([0.0]), 1)
    assert through(one).ids.tolist() == [[0]]


@pytest.mark.parametrize(
    ("ids", "probs", "tail", "seen"),
    [
        ([1, 2], [0.2, 0.6], 0.2, 0),
        ([1, 2], [0.5, 0.5], 0.5, 0),
        ([1, 2], [math.nan, 0.5], 0.5, 0),
        ([1, 2], [1.5, -0.5], 0.0, 0),
        ([-1, 2], [0.6, 0.4], 0.0, 0),
        ([1, 9], [0.6, 0.4], 0.0, 0),
        ([1, -2], [0.6, 0.0], 0.4, 0),
        ([1, 2], [0.6, 0.4], 0.0, 9),
        ([1, 2], [0.6, 0.4], 0.0, -1),
    ],
)
def test_what_cannot_come_back_is_not_stored(ids, probs, tail, seen) -> None:
    rows = SparseRows(torch.tensor([ids]), torch.tensor([probs]), torch.tensor([tail]), 9)
    with pytest.raises(FusionError, match="to store"):
        encode(rows, torch.tensor([seen]))


def test_codes_that_nobody_wrote() -> None:
    good = encode(random_rows(4, 9, 100), torch.arange(4))
    back, _ = decode(good | {"probs": np.full((4, 9), 255, np.uint8)}, 9, 100, 1.0)
    assert torch.isfinite(back.probs).all()
    assert torch.allclose(back.probs.sum(1) + back.tail, torch.ones(4))
    for arrays, k, size in (
        (good | {"ids": np.full_like(good["ids"], 255)}, 9, 100),
        (good, 8, 100),
        (good, 9, 300),
        (good | {"probs": good["probs"].astype(np.int16)}, 9, 100),
        (good | {"probs": good["probs"][:3]}, 9, 100),
    ):
        with pytest.raises(InputError, match="build the cache again"):
            decode(arrays, k, size, 1.0)
