"""Operators on vectors worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fusion_core import fuse
from fusion_core.errors import InputError
from fusion_core.records import DenseRows, NextTokenRows, ProjectedRows, RowKind

A = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
B = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
OWN = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
OBSERVED = torch.tensor([1, 2])
LEVELS = fuse.LEVELS


@pytest.fixture(autouse=True)
def keep_sparse_rows_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise rows as few as these are laid out."""
    monkeypatch.setattr("fusion_core.fuse.rows.DENSE_CELLS", 0)


def target(own: torch.Tensor = OWN, observed: torch.Tensor = OBSERVED) -> NextTokenRows:
    """Give a target m + 1 rows, of which the last predicts nothing."""
    logprobs = torch.cat([own, own[:1]]).log()
    follow = torch.cat([observed, torch.tensor([-1])])
    n = len(logprobs)
    return NextTokenRows("target", DenseRows(logprobs), follow, torch.zeros(n), np.arange(n))


def rows(
    probs: torch.Tensor, name: str, kind: RowKind = RowKind.SHARED, share: float = 0.0, own=OWN
) -> ProjectedRows:
    """Write rows as what was carried and a share of the target's own."""
    m = len(probs)
    carried = probs - share * own
    return ProjectedRows(
        name, carried, torch.full((m,), share), torch.ones(m), np.full(m, int(kind)), torch.ones(m)
    )


def sparse(p: ProjectedRows, keep: float = 0.0) -> ProjectedRows:
    """Write the same rows as entries, one of which stands in two halves."""
    where = torch.nonzero(p.mapped.abs() > keep).T
    values = p.mapped[where[0], where[1]].clone()
    values[0] /= 2
    entries = torch.sparse_coo_tensor(
        torch.cat([where, where[:, :1]], dim=1), torch.cat([values, values[:1]]), p.mapped.shape
    )
    return ProjectedRows(p.source, entries, p.target_share, p.kept, p.kind, p.total)


def run(operator: str, level: str = "sequence", ce: tuple = (0.5, 0.9), k: int = 3):
    both = [rows(A, "a"), rows(B, "b", share=0.25)]
    fused = fuse.fuse_rows(both, target(), ce, operator=operator, level=level, top_k=k)
    other = fuse.fuse_rows(
        [sparse(p) for p in both], target(), ce, operator=operator, level=level, top_k=k
    )
    for name in ("weights", "winner", "entropy", "observed_logprob", "ce"):
        assert torch.allclose(getattr(fused, name), getattr(other, name), atol=1e-6)
    assert torch.equal(fused.rows.ids, other.rows.ids)
    assert torch.allclose(fused.rows.probs, other.rows.probs, atol=1e-6)
    return fused


def dense(fused) -> torch.Tensor:
    return torch.zeros(2, 3).scatter_(1, fused.rows.ids, fused.rows.probs)


def test_min_ce_by_sequence_takes_one_source_throughout() -> None:
    fused = run("min_ce")
    assert torch.allclose(dense(fused), A)
    assert fused.winner.tolist() == [0, 0]
    assert torch.allclose(dense(run("min_ce", ce=(0.9, 0.5))), B)


def test_min_ce_by_token_takes_the_better_row_of_each() -> None:
    fused = run("min_ce", "token")
    assert fused.winner.tolist() == [1, 0]
    assert torch.allclose(dense(fused), torch.stack([B[0], A[1]]))


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
    one = fuse.fuse_rows(
        [rows(A, "a"), rows(B, "b")], target(), (0.5, 0.9), operator=operator, level=level
    )
    other = fuse.fuse_rows(
        [rows(B, "b"), rows(A, "a")], target(), (0.9, 0.5), operator=operator, level=level
    )
    assert torch.allclose(dense(one), dense(other))
    assert torch.allclose(one.rows.probs.sum(1) + one.rows.tail, torch.ones(2), atol=1e-6)
    for i, j in zip(one.winner.tolist(), other.winner.tolist(), strict=True):
        assert (i < 0 and j < 0) or one.sources[i] == other.sources[j]


def test_no_winner_where_the_best_source_has_no_row() -> None:
    fused = fuse.fuse_rows([rows(A, "a", RowKind.NONE), rows(B, "b")], target(), (0.5, 0.9))
    assert fused.winner.tolist() == [-1, -1]


def test_equal_weights_have_no_winner() -> None:
    assert run("mean").winner.tolist() == [-1, -1]
    assert fuse.fuse_rows([rows(A, "a")], target(), (0.5,), operator="mean").winner.tolist() == [
        0,
        0,
    ]


def scored(probs: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Score one row of two tokens on the second."""
    own = torch.tensor([[0.5, 0.5]])
    return fuse.projected_ce(rows(probs, "a", own=own), target(own, torch.tensor([1])))


def test_only_zeros_are_floored() -> None:
    ce, floored = scored(torch.tensor([[1.0, 1e-20]]))
    assert floored == 0 and float(ce[0]) == pytest.approx(-math.log(1e-20))


def test_zeros_are_floored_and_counted() -> None:
    ce, floored = scored(torch.tensor([[1.0, 0.0]]))
    assert floored == 1 and float(ce[0]) == pytest.approx(-math.log(1e-9))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"operator": "max"}, "min_ce, avg_ce, confidence, mean, product"),
        ({"level": "word"}, "sequence, token"),
    ],
)
def test_unknown_names_are_refused(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        fuse.fuse_rows([rows(A, "a")], target(), (0.5,), **options)


def test_nothing_to_fuse() -> None:
    with pytest.raises(InputError, match="at least one source"):
        fuse.fuse_rows([], target(), ())


def test_confidence_weighs_by_entropy() -> None:
    def entropy(row) -> float:
        return -sum(p * math.log(p) for p in row.tolist())

    expected = []
    for a, b in zip(A, B, strict=True):
        x, y = math.exp(-entropy(a)), math.exp(-entropy(b))
        expected.append((x * a + y * b) / (x + y))
    assert torch.allclose(dense(run("confidence")), torch.stack(expected), atol=1e-6)


def test_product_is_the_normalised_geometric_mean() -> None:
    expected = (A * B).sqrt()
    expected /= expected.sum(1, keepdim=True)
    fused = run("product")
    assert torch.allclose(dense(fused), expected, atol=1e-6)
    assert fused.observed_logprob.tolist() == pytest.approx(
        expected[[0, 1], [1, 2]].log().tolist(), abs=1e-6
    )


def test_a_product_of_rows_that_agree_nowhere_is_their_sum() -> None:
    one = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    other = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    for write in (lambda p: p, sparse):
        fused = fuse.fuse_rows(
            [write(rows(one, "a")), write(rows(other, "b"))], target(), (), operator="product"
        )
        assert torch.allclose(dense(fused), torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))


def test_operator_temperature_divides_the_scores() -> None:
    both = [rows(A, "a"), rows(B, "b")]
    fused = fuse.fuse_rows(both, target(), (0.5, 0.9), operator="avg_ce", operator_temperature=0.1)
    a = math.exp(-5) / (math.exp(-5) + math.exp(-9))
    assert fused.weights[0].tolist() == pytest.approx([a, 1 - a], abs=1e-6)


def plain_fusion(sources, own, observed, ce, operator: str, level: str):
    """Fuse rows, each (entries {token: mass}, share of the own row), in plain Python."""
    out = []
    for i, mine in enumerate(own):
        whole = []
        for entries, share in (s[i] for s in sources):
            whole.append([share * p + entries.get(v, 0.0) for v, p in enumerate(mine)])
        if operator == "confidence":
            score = [-sum(p * math.log(p) for p in q if p > 0) for q in whole]
        elif level == "token":
            score = [-math.log(q[observed[i]] or 1e-9) for q in whole]
        else:
            score = list(ce)
        if operator == "min_ce":
            weights = [float(j == score.index(min(score))) for j in range(len(score))]
        elif operator in ("avg_ce", "confidence"):
            weights = [math.exp(-x) for x in score]
        else:
            weights = [1.0] * len(score)
        weights = [w / sum(weights) for w in weights]
        if operator == "product":
            row = [
                math.prod(q[v] ** w for q, w in zip(whole, weights, strict=True))
                for v in range(len(mine))
            ]
        else:
            row = [
                sum(w * q[v] for q, w in zip(whole, weights, strict=True)) for v in range(len(mine))
            ]
        total = sum(row)
        out.append(([p / total for p in row], weights))
    return out


@pytest.mark.parametrize("operator", fuse.OPERATORS)
@pytest.mark.parametrize("level", LEVELS)
def test_sparse_and_whole_rows_equal_plain_python(operator: str, level: str) -> None:
    generator = torch.Generator().manual_seed(7)
    m, size, k = 6, 23, 4
    own = torch.softmax(3 * torch.randn(m, size, generator=generator), dim=1)
    observed = torch.randint(size, (m,), generator=generator)
    sources, projected = [], []
    for name in "abc":
        carried = torch.zeros(m, size)
        for i in range(m):
            hit = torch.randperm(size, generator=generator)[: 2 + i]
            carried[i, hit] = torch.rand(len(hit), generator=generator)
        share = torch.rand(m, generator=generator)
        carried *= ((1 - share) / carried.sum(1))[:, None]
        carried[:, 5] -= 0.5 * share * own[:, 5]  # an entry that lessens the own share
        share_now = share
        missing = 1 - (carried + share_now[:, None] * own).sum(1)
        carried[:, 6] += missing
        kind = np.full(m, int(RowKind.SHARED))
        projected.append(
            ProjectedRows(name, carried, share_now, torch.ones(m), kind, torch.ones(m))
        )
        sources.append(
            [
                ({v: x for v, x in enumerate(carried[i].tolist()) if x}, float(share_now[i]))
                for i in range(m)
            ]
        )
    ce = (0.7, 0.4, 0.9)
    expected = plain_fusion(sources, own.tolist(), observed.tolist(), ce, operator, level)
    for write in (lambda p: p, sparse):
        fused = fuse.fuse_rows(
            [write(p) for p in projected],
            target(own, observed),
            ce,
            operator=operator,
            level=level,
            top_k=k,
        )
        for i, (row, weights) in enumerate(expected):
            best = sorted(range(size), key=lambda v: -row[v])[:k]
            assert fused.rows.ids[i].tolist() == best
            assert fused.rows.probs[i].tolist() == pytest.approx([row[v] for v in best], abs=2e-6)
            assert float(fused.rows.tail[i]) == pytest.approx(
                sum(row) - sum(row[v] for v in best), abs=5e-6
            )
            assert fused.weights[i].tolist() == pytest.approx(weights, abs=1e-5)
            entropy = -sum(p * math.log(p) for p in row if p > 0)
            assert float(fused.entropy[i]) == pytest.approx(entropy, abs=1e-4)
            assert float(fused.observed_logprob[i]) == pytest.approx(
                math.log(row[int(observed[i])]), abs=1e-4
            )


def test_top_rows_of_one_source() -> None:
    p = rows(B, "b", share=0.25)
    for write in (lambda p: p, sparse):
        top = fuse.top_rows(write(p), target(), 2)
        assert torch.allclose(top.probs, torch.tensor([[0.5, 0.3], [0.6, 0.3]]), atol=1e-6)
        assert top.tail.tolist() == pytest.approx([0.2, 0.1], abs=1e-6)
