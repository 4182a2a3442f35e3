"""Operators on vectors worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusion_core import fuse
from fusion_core.errors import InputError
from fusion_core.records import ProjectedRows, RowKind

A = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
B = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
OBSERVED = torch.tensor([1, 2])


def rows(probs: torch.Tensor, name: str, kind: RowKind = RowKind.SHARED) -> ProjectedRows:
    return ProjectedRows(name, probs, torch.ones(len(probs)), np.full(len(probs), int(kind)))


def run(operator: str, level: str = "sequence", ce: tuple = (0.5, 0.9), k: int = 3):
    return fuse.fuse(
        [rows(A, "a"), rows(B, "b")], OBSERVED, ce, operator=operator, level=level, top_k=k
    )


def dense(fused) -> torch.Tensor:
    return torch.zeros(2, 3).scatter_(1, fused.rows.ids, fused.rows.probs)


def test_min_ce_by_sequence_takes_one_source_throughout() -> None:
    fused = run("min_ce")
    assert torch.equal(dense(fused), A)
    assert fused.winner.tolist() == [0, 0]
    assert torch.equal(dense(run("min_ce", ce=(0.9, 0.5))), B)


def test_min_ce_by_token_takes_the_better_row_of_each() -> None:
    fused = run("min_ce", "token")
    assert fused.winner.tolist() == [1, 0]
    assert torch.equal(dense(fused), torch.stack([B[0], A[1]]))


def test_ties_go_to_the_earlier_source() -> None:
    assert run("min_ce", ce=(0.5, 0.5)).winner.tolist() == [0, 0]


def test_avg_ce_by_sequence() -> None:
    a = math.exp(-0.5) / (math.exp(-0.5) + math.exp(-0.9))
    assert torch.allclose(dense(run("avg_ce")), a * A + (1 - a) * B, atol=1e-6)


def test_avg_ce_by_token() -> None:
    # softmax(-CE) of carried rows is proportional to their probability of what follows
    first, second = 0.2 / 0.7, 0.8 / 0.9
    expected = torch.stack([first * A[0] + (1 - first) * B[0], second * A[1] + (1 - second) * B[1]])
    assert torch.allclose(dense(run("avg_ce", "token")), expected, atol=1e-6)


def test_mean_and_what_is_said_of_it() -> None:
    fused = run("mean", k=2)
    assert torch.allclose(fused.rows.probs[0], torch.tensor([0.45, 0.35]))
    assert fused.rows.tail.tolist() == pytest.approx([0.2, 0.2])
    entropy = -sum(p * math.log(p) for p in (0.45, 0.35, 0.2))
    assert float(fused.entropy[0]) == pytest.approx(entropy, abs=1e-6)
    expected = [math.log(0.35), math.log(0.45)]
    assert fused.observed_logprob.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("operator", fuse.OPERATORS)
@pytest.mark.parametrize("level", fuse.LEVELS)
def test_order_of_sources_does_not_matter(operator: str, level: str) -> None:
    one = fuse.fuse(
        [rows(A, "a"), rows(B, "b")], OBSERVED, (0.5, 0.9), operator=operator, level=level
    )
    other = fuse.fuse(
        [rows(B, "b"), rows(A, "a")], OBSERVED, (0.9, 0.5), operator=operator, level=level
    )
    assert torch.allclose(dense(one), dense(other))
    assert torch.allclose(one.rows.probs.sum(1) + one.rows.tail, torch.ones(2), atol=1e-6)
    for i, j in zip(one.winner.tolist(), other.winner.tolist(), strict=True):
        assert (i < 0 and j < 0) or one.sources[i] == other.sources[j]


def test_no_winner_where_the_best_source_has_no_row() -> None:
    fused = fuse.fuse([rows(A, "a", RowKind.NONE), rows(B, "b")], OBSERVED, (0.5, 0.9))
    assert fused.winner.tolist() == [-1, -1]


def test_equal_weights_have_no_winner() -> None:
    assert run("mean").winner.tolist() == [-1, -1]
    assert fuse.fuse([rows(A, "a")], OBSERVED, (0.5,), operator="mean").winner.tolist() == [0, 0]


def test_only_zeros_are_floored() -> None:
    ce, floored = fuse.cross_entropy(torch.tensor([[1.0, 1e-20]]), torch.tensor([1]))
    assert floored == 0 and float(ce[0]) == pytest.approx(-math.log(1e-20))


def test_zeros_are_floored_and_counted() -> None:
    ce, floored = fuse.cross_entropy(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert floored == 1 and float(ce[0]) == pytest.approx(-math.log(1e-9))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"operator": "max"}, "min_ce, avg_ce, mean"), ({"level": "word"}, "sequence, token")],
)
def test_unknown_names_are_refused(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        fuse.fuse([rows(A, "a")], OBSERVED, (0.5,), **options)


def test_nothing_to_fuse() -> None:
    with pytest.raises(InputError, match="at least one source"):
        fuse.fuse([], OBSERVED, ())
