"""Fusion from its definition: whole float64 distributions, combined one row after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fusion_core import fuse
from fusion_core.fuse import Measures
from fusion_core.fuse import rows as layouts
from fusion_core.records import DenseRows, NextTokenRows, ProjectedRows, RowKind, SparseRows

# The only lines that know how the library is called -------------------------------------------


@dataclass
class Fused:
    """What came out: top ids and probabilities (m, k), tails, weights and the rest by row."""

    ids: np.ndarray
    probs: np.ndarray
    tail: np.ndarray
    weights: np.ndarray
    rest: dict[str, np.ndarray]


def run(case: Case, *, sparse: bool, **options) -> Fused:
    projected = [written(case, j, sparse=sparse) for j in range(len(case.q))]
    out = fuse.fuse_rows(projected, target_of(case), case.bits, **options)
    names = ("winner", "ce", "entropy", "observed_logprob", "kept")
    rest = {name: getattr(out, name).numpy() for name in names}
    parts = (x.double().numpy() for x in (out.rows.probs, out.rows.tail, out.weights))
    assert out.rows.temperature == TEMPERATURE and out.rows.vocab_size == case.own.shape[1]
    return Fused(out.rows.ids.numpy(), *parts, rest)


def written(case: Case, j: int, *, sparse: bool) -> ProjectedRows:
    """Write rows as what was mapped and a share of the target's; entries stand in halves."""
    share, m = case.share[j], len(case.own)
    mapped = torch.from_numpy(case.q[j] - share[:, None] * case.own).float()
    if sparse:
        where = torch.nonzero(mapped != 0).T
        half = mapped[where[0], where[1]] / 2
        order = torch.randperm(2 * len(half), generator=torch.Generator().manual_seed(j))
        mapped = torch.sparse_coo_tensor(
            torch.cat([where, where], 1)[:, order], torch.cat([half, half])[order], mapped.shape
        )
    kept, ones = torch.from_numpy(1 - share).float(), torch.ones(m)
    return ProjectedRows(f"s{j}", mapped, 1 - kept, kept, case.kind[j], ones)


# Rows -----------------------------------------------------------------------------------------

TEMPERATURE = 1.5


@dataclass
class Case:
    """S sources' whole rows q and shares of the target's row, kinds, and bits per byte."""

    own: np.ndarray
    observed: np.ndarray
    q: list[np.ndarray]
    share: list[np.ndarray]
    kind: list[np.ndarray]
    bits: list[float]


def drawn(seed: int = 0, m: int = 5, size: int = 19, sources: int = 3) -> Case:
    """Draw rows that differ from the target's at some tokens alone; some tokens are impossible."""
    rng = np.random.default_rng(seed)
    own = rng.dirichlet(np.full(size, 0.6), m) * (rng.random((m, size)) > 0.25)
    own[:, -1] *= seed % 2
    own /= own.sum(1, keepdims=True)
    case = Case(own, rng.integers(0, size, m), [], [], [], [0.7, 0.4, 0.9][:sources])
    for j in range(sources):
        share = rng.random(m) * (0.2 + 0.4 * j)
        mapped = np.zeros((m, size))
        for i in range(m):
            hit = rng.choice(size - 1, 3 + i, replace=False)
            mapped[i, hit] = rng.random(len(hit))
            less = rng.choice(np.setdiff1d(np.arange(size), hit), 2, replace=False)
            mapped[i, less] = -0.5 * share[i] * own[i, less]
            free = 1 - share[i] - mapped[i, less].sum()
            mapped[i, hit] *= free / mapped[i, hit].sum()
        case.q.append(np.maximum(mapped + share[:, None] * own, 0))
        case.share.append(share)
        kind = np.full(m, int(RowKind.SHARED))
        kind[j], kind[(j + 2) % m] = int(RowKind.NONE), int(RowKind.INSIDE)
        case.kind.append(kind)
    case.observed[1] = size - 1  # perhaps impossible for all
    return case


def target_of(case: Case) -> NextTokenRows:
    logprobs = torch.from_numpy(np.concatenate([case.own, case.own[:1]])).log().float()
    n = len(logprobs)
    observed = torch.from_numpy(np.append(case.observed, -1))
    return NextTokenRows(
        "t", DenseRows(logprobs, TEMPERATURE), observed, torch.zeros(n), np.arange(n)
    )


# The definition -------------------------------------------------------------------------------


def entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def weights_of(scores: np.ndarray, operator: str, temperature: float) -> np.ndarray:
    if operator == "min_ce":
        return np.eye(len(scores))[int(np.argmin(scores))]
    if operator in ("mean", "product"):
        return np.full(len(scores), 1 / len(scores))
    w = np.exp(-(scores - scores.min()) / temperature)
    return w / w.sum()


def expected(
    case: Case, i: int, operator: str, level: str, temperature: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the fused row, the weights and the cross-entropies of the sources."""
    rows = np.stack([q[i] for q in case.q])
    p = rows[:, case.observed[i]]
    ce = -np.log(np.where(p > 0, p, 1e-9))
    by_text = np.asarray(case.bits)
    scores = ce if level == "token" else by_text
    if operator == "confidence":
        scores = np.asarray([entropy(r) for r in rows])
    w = weights_of(scores, operator, temperature)
    fused = w @ rows
    if operator == "product" and len(rows) > 1:
        product = np.prod(rows ** w[:, None], axis=0)
        if product.sum() > 0:
            fused = product / product.sum()
    return fused, w, ce


OPERATORS = ("min_ce", "avg_ce", "confidence", "mean", "product")


def check(case: Case, got: Fused, k: int, operator: str, level: str, temperature: float) -> None:
    for i in range(len(case.own)):
        fused, w, ce = expected(case, i, operator, level, temperature)
        k = min(k, len(fused))
        np.testing.assert_allclose(got.weights[i], w, atol=1e-5)
        np.testing.assert_allclose(got.rest["ce"][i], ce, rtol=1e-4, atol=1e-4)
        order = np.sort(fused)[::-1][:k]
        np.testing.assert_allclose(got.probs[i], order, atol=2e-6)
        real = got.ids[i] >= 0
        assert len(set(got.ids[i][real])) == real.sum() and not order[~real].any()
        np.testing.assert_allclose(fused[got.ids[i][real]], order[real], atol=2e-6)
        tail = 0 if k == len(fused) else 1 - order.sum()
        np.testing.assert_allclose(got.tail[i], tail, atol=0 if k == len(fused) else 5e-6)
        np.testing.assert_allclose(got.rest["entropy"][i], entropy(fused), atol=2e-5)
        p = fused[case.observed[i]]
        np.testing.assert_allclose(
            got.rest["observed_logprob"][i], np.log(p if p > 0 else 1e-9), atol=1e-4
        )
        best = np.flatnonzero(w > w.max() - 1e-9)
        alone = len(best) == 1 and case.kind[best[0]][i] != RowKind.NONE
        assert got.rest["winner"][i] == (best[0] if alone else -1)
        np.testing.assert_allclose(got.rest["kept"][i], [1 - s[i] for s in case.share], atol=1e-6)


LAYOUTS = ["whole", "parts", "sparse", "sparse laid out"]


@pytest.fixture(params=LAYOUTS)
def sparse(request, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the rows are sparse, laid out as many rows and large vocabularies would be."""
    monkeypatch.setattr(layouts, "DENSE_CELLS", 0 if request.param == "sparse" else 1 << 20)
    monkeypatch.setattr(layouts, "PART_CELLS", 2 * 19 if request.param == "parts" else 1 << 20)
    return request.param.startswith("sparse")


@pytest.mark.parametrize("sources", [1, 2, 3])
@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_is_as_defined(
    operator: str, level: str, sources: int, sparse: bool
) -> None:
    options = [(0, 4, 1.0), (1, 1, 0.3), (2, 18, 2.0), (3, 19, 1.0), (4, 50, 1.0)]
    for seed, k, temperature in options[sources - 1 :: 2]:
        case = drawn(seed, sources=sources)
        got = run(
            case,
            sparse=sparse,
            operator=operator,
            level=level,
            top_k=k,
            operator_temperature=temperature,
        )
        check(case, got, k, operator, level, temperature)


def test_entropies_and_tops_of_each_source(sparse: bool) -> None:
    case = drawn(5)
    projected = [written(case, j, sparse=sparse) for j in range(3)]
    found = fuse.entropies(projected, target_of(case)).numpy()
    wanted = [[entropy(q[i]) for q in case.q] for i in range(len(case.own))]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for j, rows in enumerate(projected):
        top = fuse.top_rows(rows, target_of(case), 3)
        order = -np.sort(-case.q[j], axis=1)[:, :3]
        np.testing.assert_allclose(top.probs.numpy(), order, atol=2e-6)
        np.testing.assert_allclose(
            np.take_along_axis(case.q[j], top.ids.numpy(), 1), order, atol=2e-6
        )
        np.testing.assert_allclose(top.tail.numpy(), 1 - order.sum(1), atol=2e-6)
    part = layouts._Part(projected, target_of(case), case.bits, 3)
    largest = np.stack([q.max(1) for q in case.q], axis=1)
    np.testing.assert_allclose(part.measures.top().numpy(), largest, atol=1e-6)


def test_rows_without_entropy(sparse: bool) -> None:
    got = run(drawn(6), sparse=sparse, operator="mean", entropy=False)
    assert np.isnan(got.rest["entropy"]).all() and not np.isnan(got.probs).any()


def test_zeros_are_counted(sparse: bool) -> None:
    case = drawn(7)
    case.own[:, case.observed] = case.q[0][:, case.observed] = 0  # only the label is looked at
    nats, zeros = fuse.projected_ce(written(case, 0, sparse=sparse), target_of(case))
    assert zeros == len(case.own)
    np.testing.assert_allclose(nats.numpy(), -np.log(1e-9), rtol=1e-6)


def test_rows_that_agree_nowhere_keep_their_sum(sparse: bool) -> None:
    case = drawn(8, sources=2)
    for j in range(2):
        case.q[j] = np.zeros_like(case.own)
        case.q[j][:, 2 * j : 2 * j + 2] = [0.25, 0.75]
        case.share[j] = np.zeros(len(case.own))
    got = run(case, sparse=sparse, operator="product", top_k=4)
    np.testing.assert_allclose(got.probs, np.tile([0.375, 0.375, 0.125, 0.125], (5, 1)), atol=1e-6)
    np.testing.assert_allclose(got.rest["entropy"], entropy(got.probs[0]), atol=1e-5)


def test_tokens_behind_many_that_are_lessened(sparse: bool) -> None:
    """The most probable tokens of the target are those that the source takes from."""
    case = drawn(0, sources=1)
    size = case.own.shape[1]
    case.own[:] = np.linspace(1, 2, size)
    case.own[:] /= case.own[0].sum()
    case.share = [np.full(len(case.own), 1.0)]
    case.q = [case.own.copy()]
    case.q[0][0, -8:] *= 0.5  # in one row alone
    case.q[0][0, 0] += 1 - case.q[0][0].sum()
    check(case, run(case, sparse=sparse, operator="mean", top_k=3), 3, "mean", "token", 1.0)


@pytest.mark.parametrize("sources", [2, 3])
def test_an_operator_with_another_mean(sources: int, sparse: bool, monkeypatch) -> None:
    """The mean of square roots, squared: rows are summed, lessened or not, and normalised."""
    roots = replace(fuse.OPERATORS["mean"], combine=fuse.Combination(torch.sqrt, torch.square))
    monkeypatch.setitem(fuse.OPERATORS, "roots", roots)
    case = drawn(10, sources=sources)
    got = run(case, sparse=sparse, operator="roots", top_k=4)
    wanted = np.square(sum(np.sqrt(q) for q in case.q))
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(got.probs, -np.sort(-wanted, axis=1)[:, :4], atol=2e-5)
    np.testing.assert_allclose(got.rest["entropy"], [entropy(p) for p in wanted], atol=1e-4)


# Rows of which only the top is known ----------------------------------------------------------


def cut(p: np.ndarray, k: int) -> SparseRows:
    """Keep k tokens, one fewer in the first row."""
    top, ids = torch.from_numpy(p).topk(k, dim=1)
    top[0, -1], ids[0, -1] = 0, -1
    return SparseRows(ids, top.float(), (1 - top.sum(1)).float(), p.shape[1], TEMPERATURE)


def guessed(rows: SparseRows, own: SparseRows, i: int, tokens: list[int]) -> np.ndarray:
    """Fill in what a row does not list: its tail as the target has it, never above its least."""
    listed = {int(v): float(p) for v, p in zip(rows.ids[i], rows.probs[i], strict=True) if v >= 0}
    prior = {int(v): float(p) for v, p in zip(own.ids[i], own.probs[i], strict=True) if v >= 0}
    room = 1 - sum(prior.get(v, 0) for v in listed)
    share = min(float(rows.tail[i]) / max(room, 1e-9), 1) if room > 0 else 0
    least = float(rows.probs[i].min())
    return np.asarray([listed.get(v, min(share * prior.get(v, 0), least)) for v in tokens])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("k", [2, 4])
def test_truncated_rows_are_filled_in_from_the_target(operator: str, k: int) -> None:
    case = drawn(9, sources=2)
    own, rows = cut(case.own, k + 1), [cut(q, k) for q in case.q]
    scores = np.random.default_rng(0).random((5, 2))
    same = torch.from_numpy(scores)
    measures = Measures(lambda: same, lambda: same, lambda: same, lambda: same)
    out, weights = fuse.fuse_truncated(
        rows,
        own,
        measures,
        operator=operator,
        level="token",
        top_k=3,
        operator_temperature=0.5,
    )
    for i in range(5):
        w = weights_of(scores[i], operator, 0.5)
        np.testing.assert_allclose(weights[i].numpy(), w, atol=1e-6)
        tokens = sorted({int(v) for part in (own, *rows) for v in part.ids[i] if v >= 0})
        q = np.stack([guessed(part, own, i, tokens) for part in rows])
        fused = w @ q
        if operator == "product":
            product, bucket = (np.prod(x ** w[:, None], 0) for x in (q, 1 - q.sum(1)[:, None]))
            fused = product / (product.sum() + bucket.sum())
        order = np.append(np.sort(fused)[::-1], [0, 0])[:3]
        np.testing.assert_allclose(out.probs[i].numpy(), order, atol=1e-6)
        named = [tokens.index(int(v)) for v in out.ids[i] if v >= 0]
        assert len(set(named)) == len(named) and not order[len(named) :].any()
        np.testing.assert_allclose(fused[named], order[: len(named)], atol=1e-6)
        assert float(out.tail[i]) == pytest.approx(1 - order.sum(), abs=1e-6)
    assert out.vocab_size == 19 and out.temperature == TEMPERATURE


def test_truncated_rows_that_agree_nowhere_keep_their_sum() -> None:
    ids = torch.tensor([[0, 1], [2, 3], [4, 5]])
    own, *rows = (
        SparseRows(part[None], torch.tensor([[0.75, 0.25]]), torch.zeros(1), 6) for part in ids
    )
    same = torch.zeros(1, 2)
    measures = Measures(lambda: same, lambda: same, lambda: same, lambda: same)
    out, _ = fuse.fuse_truncated(rows, own, measures, operator="product", level="token", top_k=4)
    assert out.probs[0].tolist() == pytest.approx([0.375, 0.375, 0.125, 0.125])
    assert set(out.ids[0].tolist()) == {2, 3, 4, 5} and float(out.tail[0]) == pytest.approx(0)
