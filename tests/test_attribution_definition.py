"""Attribution from its definition: what each source token gave, in one matrix a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_rows import VOCABULARIES, Case, drawn, jeffrey, relation, row, standing

from fusion_core import fuse, project
from fusion_core.align import by_bytes
from fusion_core.mapping import FixedMapping, IdentityMapping, VocabMapping, mapping_between
from fusion_core.records import RowKind

K = 6


def attributed(
    cases: list[Case],
    mappings: list[VocabMapping],
    operator: str,
    with_target: bool,
    absent: int = 0,
) -> tuple[np.ndarray, ...]:
    """Return ids and probabilities of fused rows, weights, tokens, masses, native part, others."""
    target = cases[0].target_rows
    given = [(c.source_rows, target, by_bytes(c.target, c.source)) for c in cases]
    projected = [project.project_rows(*g, m) for g, m in zip(given, mappings, strict=True)]
    routes = [project.Route.of(*g, m) for g, m in zip(given, mappings, strict=True)]
    rows = [*projected, *([fuse.target_rows(target)] if with_target else [])]
    fused = fuse.fuse_rows(rows, target, [0.5] * len(rows), operator=operator, top_k=K)
    fused.rows.ids[:absent, ::2], fused.rows.probs[:absent, ::2] = -1, 0
    found = project.attribute(fused, rows, routes, target)
    parts = (fused.rows.ids, fused.rows.probs, fused.weights)
    return tuple(x.numpy() for x in (*parts, found.token, found.mass, found.target, found.other))


def flow_of(case: Case, mapping: VocabMapping, i: int) -> tuple[np.ndarray, float]:
    """Return (S, V) what goes from where to where in row i, and the share of the target's row."""
    p_t = case.target_rows.dense.probs[i].double().numpy()
    r, known, yet = standing(case, i)
    p_s, tail = row(case.source_rows, r)
    if known and not mapping.inside:
        return np.zeros((len(p_s), len(p_t))), 1.0
    if isinstance(mapping, FixedMapping):
        weights, given = np.zeros((len(p_s), len(p_t))), mapping.vocab_map
        weights[given.source_ids, given.indices] = given.weights
        flow = p_s[:, None] * weights
        return flow, 1 - flow.sum()
    if mapping.identity and not known and not yet:
        return np.diag(p_s), 0.0
    flow, kept = jeffrey(p_s, tail, p_t, mapping.conditioned_on(known, yet))
    return flow, 1 - kept


@pytest.mark.parametrize("top_k", [None, 12])
@pytest.mark.parametrize(
    ("operator", "with_target"), [("mean", False), ("product", True), ("min_ce", False)]
)
@pytest.mark.parametrize(
    ("target", "source", "strategy"),
    [
        ("marked", "plain", "prefix"),
        ("plain", "marked too", "prefix"),
        ("marked", "marked too", "exact"),
        ("plain", "plain too", "retokenise"),
        ("plain", "plain", "identity"),
        ("plain", "plain", "prefix"),
    ],
)
def test_shares_are_those_of_the_flow(
    target: str, source: str, strategy: str, operator: str, with_target: bool, top_k: int | None
) -> None:
    if target == source and top_k:
        return  # a tail is spread over the tokens that were cut off, which has no source token
    cases = [drawn(target, source, 11, top_k), drawn(target, "marked" if target == "plain" else
             "plain too", 11, top_k)]  # fmt: skip
    cases[1].target, cases[1].target_rows = cases[0].target, cases[0].target_rows
    mappings = [
        IdentityMapping() if strategy == "identity" else relation(target, source)
        if strategy == "prefix"
        else mapping_between(VOCABULARIES[source], VOCABULARIES[target], strategy),
        relation(target, cases[1].source.model),
    ]  # fmt: skip
    ids, probs, weights, token, mass, native, other = attributed(
        cases, mappings, operator, with_target
    )
    assert token.min() >= -1
    together = mass.sum(3) + native + other
    np.testing.assert_allclose(together.sum(2), probs, atol=2e-6)
    named = 0
    for i in range(len(ids)):
        p_t = cases[0].target_rows.dense.probs[i].double().numpy()
        flows = [flow_of(c, m, i) for c, m in zip(cases, mappings, strict=True)]
        if with_target:
            flows.append((np.zeros((1, len(p_t))), 1.0))
        for n, v in enumerate(ids[i].tolist()):
            gave = [
                w * (f[:, v].sum() + s * p_t[v])
                for w, (f, s) in zip(weights[i], flows, strict=True)
            ]
            scale = probs[i, n] / sum(gave) if sum(gave) else 0.0
            for j, (flow, share) in enumerate(flows):
                factor = scale * weights[i, j]
                np.testing.assert_allclose(native[i, n, j], factor * share * p_t[v], atol=2e-6)
                column = flow[:, v] * factor
                first = np.sort(column)[::-1][:3]
                first = np.append(first, np.zeros(3 - len(first)))
                np.testing.assert_allclose(mass[i, n, j], first, atol=2e-6)
                np.testing.assert_allclose(other[i, n, j], column.sum() - first.sum(), atol=2e-6)
                real = [w for w in token[i, n, j].tolist() if w >= 0]
                assert len(set(real)) == len(real)
                np.testing.assert_allclose(column[real], first[: len(real)], atol=2e-6)
                assert not (first[len(real) :] > 2e-6).any()
                named += len(real)
    assert named > 5


def test_rows_of_no_kind_name_nothing() -> None:
    case = drawn("marked", "plain", 8)
    pairs = mapping_between(VOCABULARIES["plain"], VOCABULARIES["marked"], "exact")
    kinds = case.project(pairs)[2]
    assert (kinds == RowKind.NONE).any()
    *_, token, mass, native, other = attributed([case], [pairs], "mean", False)
    none = kinds == RowKind.NONE
    assert (token[none] == -1).all() and not mass[none].any()
    np.testing.assert_allclose(other[none], 0, atol=1e-7)
    assert (native[none][:, 0] > 0).any()
    assert torch.from_numpy(native).dtype == torch.float32


@pytest.mark.parametrize("top_k", [None, 12])
def test_places_without_a_token_have_nothing(top_k: int | None) -> None:
    case = drawn("plain", "marked", 4, top_k)
    pairs = [relation("plain", "marked")]
    whole = attributed([case], pairs, "mean", True)[3:]
    absent = attributed([case], pairs, "mean", True, absent=2)[3:]
    for a, b in zip(whole, absent, strict=True):
        np.testing.assert_array_equal(a[2:], b[2:])
        np.testing.assert_allclose(a[:, 1::2], b[:, 1::2], atol=1e-6)
        assert set(b[:2, ::2].ravel().tolist()) <= {0.0, -1.0}
