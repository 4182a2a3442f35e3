"""A text's rows, fused window by window, against its rows taken one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from random_rows import VOCABULARIES
from test_fusion_definition import drawn, entropy, run, target_of

from fusion_core import fuse, project
from fusion_core.fuse import rows as layouts
from fusion_core.reading import read
from fusion_core.records import RowKind, TextReading

TEXT = "the cats sat at 東, " * 9


@pytest.fixture(scope="module")
def reading() -> TextReading:
    """A text of several windows, read by a target and two sources."""
    names = ("marked", "plain", "plain too")
    target, *sources = (tiny_model(VOCABULARIES[n], seed=s) for s, n in enumerate(names))
    found = read(TEXT, target, sources)
    assert len(found.windows) > 2
    return found


def weights_of(scores: np.ndarray, temperature: float) -> np.ndarray:
    w = np.exp(-(scores - scores.min()) / temperature)
    return w / w.sum()


@pytest.mark.parametrize("with_target", [False, True])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_rows_of_a_text_are_those_of_its_windows(
    reading: TextReading, level: str, with_target: bool
) -> None:
    projection, shown, told = project.project(reading), [], []
    out = fuse.fuse(
        projection,
        "avg_ce",
        level=level,
        top_k=4,
        operator_temperature=0.7,
        with_target=with_target,
        look=lambda *seen: shown.append(seen),
        progress=lambda what, share: told.append((what, share)),
    )
    bits = list(reading.bits_per_byte.values())
    by_text = np.asarray([*bits[1:], *bits[:1]] if with_target else bits[1:])
    m, nats, seen = len(reading.encodings[0].text_tokens), 0.0, set()
    assert len(out.fused) == m and out.level == level and out.operator == "avg_ce"
    for part, (low, high) in zip(projection.windows, reading.scored, strict=True):
        native = part.reading.rows[0].dense.probs[:-1]
        every = [rows.probs(native).double().numpy() for rows in part.rows]
        every += [native.double().numpy()] * with_target
        after = part.reading.rows[0].observed[:-1].tolist()
        places = part.reading.rows[0].boundary + part.reading.window.start
        window = part.reading.window
        for i, y in enumerate(after):
            rows = np.stack([q[i] for q in every])
            scores = by_text if level == "sequence" else -np.log(rows[:, y])
            w = weights_of(scores, 0.7)
            fused = w @ rows
            if low <= places[i] < high:
                nats -= math.log(fused[y])
            if window.owned_from <= places[i] < window.owned_to:
                at = i + part.reading.before[0]
                seen.add(at)
                kept = out.fused.rows.probs[at].double().numpy()
                np.testing.assert_allclose(kept, np.sort(fused)[::-1][:4], atol=3e-6)
                np.testing.assert_allclose(out.fused.weights[at], w, atol=1e-5)
                assert float(out.fused.entropy[at]) == pytest.approx(entropy(fused), abs=1e-4)
    assert seen == set(range(m)) and out.nats == pytest.approx(nats, rel=1e-5)
    n = len(reading.windows)
    assert told == [(f"fusing window {i + 1} of {n}", i / n) for i in range(n)]
    assert len(shown) == n
    for (window, rows, fused), part in zip(shown, projection.windows, strict=True):
        assert len(rows) == 2 + with_target and window.rows == part.rows
        assert len(fused) == len(rows[0])


def test_what_is_fused_where_nothing_is_asked_for(reading: TextReading) -> None:
    projection = project.project(reading)
    plain = fuse.fuse(projection)
    given = fuse.fuse(projection, "min_ce", level="sequence", top_k=10, operator_temperature=1.0)
    assert torch.equal(plain.fused.rows.probs, given.fused.rows.probs)
    assert plain.fused.rows.probs.shape[1] == 10 and plain.level == "sequence"
    assert plain.fused.weights.shape[1] == 2 and torch.isfinite(plain.fused.entropy).all()
    assert torch.isnan(fuse.fuse(projection, "mean", entropy=False).fused.entropy).all()
    assert fuse.fuse(projection, "mean", level="token").level == ""
    soft = fuse.fuse(projection, "avg_ce")
    same = fuse.fuse(projection, "avg_ce", operator_temperature=1.0)
    assert torch.equal(soft.fused.weights, same.fused.weights)
    case = drawn(1)
    one, other = (run(case, sparse=False, **x) for x in
                  ({"operator": "avg_ce"}, {"operator": "avg_ce", "level": "sequence", "top_k": 10,
                    "operator_temperature": 1.0}))  # fmt: skip
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.probs, other.probs)


def test_a_text_of_one_window_needs_no_progress() -> None:
    models = [tiny_model(VOCABULARIES[n], seed=3) for n in ("marked", "plain")]
    told: list[str] = []
    fuse.fuse(project.project(read("the cat", *models)), progress=lambda what, _: told.append(what))
    assert told == []


def test_the_target_as_a_source_is_its_own_rows() -> None:
    case = drawn(2)
    target = target_of(case)
    rows = fuse.target_rows(target)
    ones = [1.0] * len(case.own)
    assert rows.kept.tolist() == rows.total.tolist() == rows.target_share.tolist() == ones
    assert rows.kind.tolist() == [int(RowKind.SHARED)] * len(case.own)
    np.testing.assert_allclose(rows.probs(target.dense.probs[:-1]), case.own, atol=1e-7)


@pytest.mark.parametrize(
    ("sparse", "cells", "dense_cells", "expected"),
    [
        (False, 2 * 19, 0, [("dense", 2), ("dense", 2), ("dense", 1)]),
        (False, 5 * 19, 0, [("dense", 5)]),
        (False, 5 * 19 - 1, 0, [("dense", 4), ("dense", 1)]),
        (False, 1, 0, [("dense", 1)] * 5),
        (True, 1, 5 * 19, [("dense", 5)]),
        (True, 1, 5 * 19 - 1, [("sparse", 5)]),
    ],
)
def test_how_many_rows_are_laid_out_at_once(
    sparse: bool, cells: int, dense_cells: int, expected: list, monkeypatch
) -> None:
    made = []
    for name in ("dense", "sparse"):
        kind = getattr(layouts, f"{name.title()}Layout")

        def noted(projected, target, top_k, kind=kind, name=name):
            made.append((name, len(projected[0])))
            return kind(projected, target, top_k)

        monkeypatch.setattr(layouts, f"{name.title()}Layout", noted)
    monkeypatch.setattr(layouts, "PART_CELLS", cells)
    monkeypatch.setattr(layouts, "DENSE_CELLS", dense_cells)
    run(drawn(3), sparse=sparse, operator="mean")
    assert made == expected
