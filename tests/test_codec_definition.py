"""The bytes of stored rows from their definition, one token after the other in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusion_core.cache import decode, encode
from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows

SIZE = 1000


def rows_of(mass: np.ndarray, size: int = SIZE) -> SparseRows:
    """Make rows of (m, k + 1) masses, the tail last."""
    mass = mass / mass.sum(1, keepdims=True)
    probs = -np.sort(-mass[:, :-1], axis=1)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.choice(size, probs.shape[1], replace=False) for _ in mass])
    ids[probs == 0] = -1
    parts = (torch.from_numpy(x.astype(np.float32)) for x in (probs, mass[:, -1]))
    return SparseRows(torch.from_numpy(ids), *parts, size)


def share(code: int) -> tuple[float, float]:
    """Read what a code gives the first token and the tail, of what the others leave."""
    if code in (0, 255):
        return (1.0, 0.0) if code == 0 else (0.0, 1.0)
    angle = (code - 0.5) / 254 * math.pi / 2
    return math.cos(angle) ** 2, math.sin(angle) ** 2


def reading(code: int, j: int) -> float:
    """Read the probability of the j-th token."""
    return ((code - 0.5) / 255) ** 2 / j if code else 0.0


def codes_of(p: list[float], tail: float) -> list[int]:
    """Choose codes: of the two nearest the one that evens out what those before left over."""
    turn = math.atan(math.sqrt(tail / p[0])) / (math.pi / 2) if p[0] else 255 / 254
    codes, left = [math.ceil(254 * turn)], 0.0
    for j, x in enumerate(p[1:], start=2):
        code = 0
        if x > 0:
            here = 255 * math.sqrt(j * x)  # a code c is read at c - 1/2
            near = [c for c in range(1, 256) if abs(c - 0.5 - here) <= 1]
            wanted = 255 * math.sqrt(max(j * (x + left), 0))
            code = min(near, key=lambda c: abs(c - 0.5 - wanted))
        left += x - reading(code, j)
        codes.append(code)
    return codes


def drawn() -> np.ndarray:
    rng = np.random.default_rng(1)
    k = 12
    masses = [rng.dirichlet(np.full(k + 1, c), 40) for c in (0.1, 0.5, 2, 50)]
    peaked = 10 ** rng.uniform(-9, 0, (40, k + 1))
    none = rng.dirichlet(np.ones(k + 1), 9) * (np.arange(k + 1) < rng.integers(1, k, (9, 1)))
    nothing = np.eye(k + 1)[-1:]
    return np.concatenate([*masses, peaked, none, nothing])


def test_codes_are_as_defined() -> None:
    rows = rows_of(drawn())
    found = encode(rows, torch.zeros(len(rows), dtype=torch.int64))["probs"]
    off = 0
    for got, p, tail in zip(found.tolist(), rows.probs, rows.tail, strict=True):
        wanted = codes_of(p.double().tolist(), float(tail.double()))
        off += got != wanted  # a tie may be cut either way
    assert off <= 1
    assert {0, 1, 255} <= set(found.ravel().tolist())


def test_what_is_left_over_never_adds_up() -> None:
    """Flat rows whose every token would be rounded down, were it not evened out."""
    k = 64
    j = np.arange(2, k + 1)
    others = ((np.floor(255 * np.sqrt(j / (k + 4))) + 0.4) / 255) ** 2 / j
    first = max(others.max(), 1 - others.sum())
    rows = rows_of(np.asarray([[first, *others, 0]]))
    codes = encode(rows, torch.zeros(1, dtype=torch.int64))["probs"][0].tolist()
    read = [reading(c, i) for i, c in enumerate(codes[1:], start=2)]
    given = rows.probs[0, 1:].double().numpy()
    step = [reading(c + 1, i) - reading(c, i) for i, c in enumerate(codes[1:], start=2)]
    assert (np.abs(np.cumsum(given - read)) <= step).all()


def test_codes_are_read_as_defined() -> None:
    k = 5
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (200, k)).astype(np.uint8)
    codes[:4, 0], codes[4:8, 1:] = [0, 1, 254, 255], 255
    rows = rows_of(np.ones((200, k + 1)))
    arrays = encode(rows, torch.arange(200)) | {"probs": codes}
    back, observed = decode(arrays, k, SIZE, 0.5)
    assert observed.tolist() == list(range(200)) and back.temperature == 0.5
    for i, row in enumerate(codes.tolist()):
        others = [reading(c, j) for j, c in enumerate(row[1:], start=2)]
        others = [x / max(sum(others), 1) for x in others]
        of_first, of_tail = (x * (1 - sum(others)) for x in share(row[0]))
        assert back.probs[i].tolist() == pytest.approx([of_first, *others], abs=1e-6)
        assert float(back.tail[i]) == pytest.approx(of_tail, abs=1e-6)
        gone = back.probs[i, 0] == 0
        assert back.ids[i].tolist() == [-1] * k if gone else rows.ids[i].tolist()


@pytest.mark.parametrize("size", [2, 9, 256, 257, 1000])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_ids_come_back_with_those_that_are_missing(size: int, k: int) -> None:
    k = min(k, size)
    rng = np.random.default_rng(size)
    mass = rng.dirichlet(np.ones(k + 1), 50) * (np.arange(k + 1) != rng.integers(1, k + 2, (50, 1)))
    rows = rows_of(mass, size)
    seen = torch.from_numpy(rng.integers(0, size, 50))
    arrays = encode(rows, seen)
    bits = len(f"{size - 1:b}")
    assert arrays["ids"].shape == (50, math.ceil((k + 1) * bits / 8))
    back, observed = decode(arrays, k, size, 1.0)
    assert torch.equal(back.ids, rows.ids) and torch.equal(observed, seen)


def stored(number: int, bits: int) -> dict[str, np.ndarray]:
    """Write a row of one id and an observed one, bit by bit."""
    text = f"{0:0{bits}b}{number:0{bits}b}"
    text = text.ljust(-(-len(text) // 8) * 8, "0")
    packed = [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]
    return {"ids": np.asarray([packed], np.uint8), "probs": np.zeros((1, 1), np.uint8)}


def test_an_id_outside_the_vocabulary_is_named() -> None:
    back, observed = decode(stored(8, 4), 1, 9, 1.0)
    assert observed.tolist() == [8] and back.probs.tolist() == [[1.0]]
    with pytest.raises(InputError, match="holds id 9, outside the vocabulary of 9"):
        decode(stored(9, 4), 1, 9, 1.0)


def test_arrays_that_do_not_fit() -> None:
    good = stored(3, 4)
    for change, k in (
        ({"probs": np.zeros((1, 0), np.uint8)}, 0),
        ({"ids": good["ids"].astype(np.int64)}, 1),
        ({"probs": np.zeros(1, np.uint8)}, 1),
        ({"probs": np.zeros((1, 2), np.uint8)}, 1),
        ({"ids": np.zeros((1, 2), np.uint8)}, 1),
    ):
        with pytest.raises(InputError, match="build the cache again"):
            decode(good | change, k, 9, 1.0)
    nothing = {"ids": np.zeros((0, 1), np.uint8), "probs": np.zeros((0, 1), np.uint8)}
    assert len(decode(nothing, 1, 9, 1.0)[0]) == 0


@pytest.mark.parametrize(
    ("ids", "probs", "tail", "seen", "wrong"),
    [
        ([[]], [[]], [1.0], [0], "at least 1"),
        ([[1]], [[0.5]], [0.5], [0, 1], "at least 1"),
        ([1], [0.5], 0.5, [0], "at least 1"),
        ([[1, 9]], [[0.6, 0.4]], [0.0], [0], "outside the vocabulary"),
        ([[1, -2]], [[0.6, 0.0]], [0.4], [0], "outside the vocabulary"),
        ([[1, 2]], [[0.6, 0.4]], [0.0], [9], "outside the vocabulary"),
        ([[1, 2]], [[0.6, 0.4]], [0.0], [-1], "outside the vocabulary"),
        ([[1, 2], [1, 2]], [[0.6, 0.4], [0.2, 0.6]], [0.0, 0.2], [0, 0], "Row 1 .* a tail of 0.2"),
        ([[1, 2]], [[0.6, 0.3]], [0.0], [0], "Row 0"),
        ([[1, 2]], [[0.6, 0.6]], [-0.2], [0], "Row 0"),
        ([[1, 2]], [[1.2, -0.2]], [0.0], [0], "Row 0"),
        ([[1, -1]], [[0.6, 0.4]], [0.0], [0], "Row 0"),
    ],
)
def test_what_could_not_be_read_back_is_refused(ids, probs, tail, seen, wrong: str) -> None:
    fields = (torch.tensor(ids).long(), torch.tensor(probs), torch.tensor(tail))
    rows = object.__new__(SparseRows)
    for name, value in zip(("ids", "probs", "tail"), fields, strict=True):
        object.__setattr__(rows, name, value)
    object.__setattr__(rows, "vocab_size", 9)
    with pytest.raises(FusionError, match=wrong):
        encode(rows, torch.tensor(seen))
