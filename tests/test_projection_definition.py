"""Projection from its definition: float64 matrices, random rows, segmentations drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_rows import PAIRS, VOCABULARIES, Case, cut_to, drawn, jeffrey, relation, row, standing

from fusion_core import project
from fusion_core.align import by_bytes
from fusion_core.mapping import (
    FixedMapping,
    IdentityMapping,
    PrefixRelation,
    Transport,
    VocabMapping,
    mapping_between,
)
from fusion_core.records import DenseRows, NextTokenRows, RowKind, SparseRows
from fusion_core.tokens import TextTokenizer

# The definition -------------------------------------------------------------------------------


def expected(case: Case, mapping: VocabMapping, i: int) -> tuple[np.ndarray, float, RowKind]:
    """Work out row i from the bytes at which both sides have their rows."""
    p_t = case.target_rows.dense.probs[i].double().numpy()
    r, known, yet = standing(case, i)
    p_s, tail = row(case.source_rows, r)
    if known and not mapping.inside:
        return p_t, 0.0, RowKind.NONE
    if isinstance(mapping, FixedMapping):
        weights, given = np.zeros((len(p_s), len(p_t))), mapping.vocab_map
        weights[given.source_ids, given.indices] = given.weights
        arrived = p_s @ weights
        return arrived + (1 - arrived.sum()) * p_t, arrived.sum(), RowKind.SHARED
    kind = RowKind.INSIDE if known else RowKind.SHARED
    if mapping.identity and not known and not yet:
        others = np.where(p_s > 0, 0, p_t) if tail else np.zeros_like(p_t)
        return p_s + tail * others / max(others.sum(), 1e-30), 1 - tail, kind
    flow, kept = jeffrey(p_s, tail, p_t, mapping.conditioned_on(known, yet))
    return flow.sum(0) + (1 - kept) * p_t, kept, kind


def agrees(case: Case, mapping: VocabMapping) -> set[tuple[RowKind, bool]]:
    """Compare every row; return which kinds there were, and whether it was the first row."""
    probs, kept, kinds = case.project(mapping)
    seen = set()
    for i, (q, mass, kind) in enumerate(zip(probs, kept, kinds, strict=True)):
        row, share, what = expected(case, mapping, i)
        np.testing.assert_allclose(q, row, atol=2e-6)
        np.testing.assert_allclose(mass, share, atol=5e-6)
        assert kind == what
        seen.add((RowKind(kind), i == 0))
    return seen


@pytest.mark.parametrize("top_k", [None, 5, 40])
@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_jeffreys_rule_with_known_bytes(target: str, source: str, top_k: int | None) -> None:
    seen = set()
    for seed in range(3):
        seen |= agrees(drawn(target, source, seed, top_k), relation(target, source))
    assert {kind for kind, _ in seen} == {RowKind.SHARED, RowKind.INSIDE}


@pytest.mark.parametrize("strategy", ["prefix", "exact", "same"])
def test_how_many_rows_at_a_time_does_not_matter(strategy: str, monkeypatch) -> None:
    monkeypatch.setattr(project.rows, "CHUNK_CELLS", 1)
    case = drawn("marked", "marked" if strategy == "same" else "plain", 9)
    names = case.source.model, case.target.model
    if strategy == "exact":
        agrees(case, mapping_between(*(VOCABULARIES[n] for n in names), strategy))
    else:
        agrees(case, relation(names[1], names[0]))


@pytest.mark.parametrize("strategy", ["prefix", "exact", "mined"])
@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_listed_tokens_of_large_vocabularies(
    target: str, source: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them as products with the edges; the likely ones as if the others had no edge."""
    mapping = mapping_between(VOCABULARIES[source], VOCABULARIES[target], strategy)
    case = drawn(target, source, 4, None)
    monkeypatch.setattr(project.rows, "LARGE", 1)
    monkeypatch.setattr(project.rows, "LISTED_SHARE", 0)
    monkeypatch.setattr(project.rows, "LEAST", 1e-30)
    agrees(case, mapping)
    if mapping.identity:  # nothing is left out
        return
    monkeypatch.setattr(project.rows, "LEAST", 0.02)
    probs, kept, kinds = case.project(mapping)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    top, ids = case.source_rows.dense.probs.sort(dim=1, descending=True)
    top, ids = torch.where(top < 0.02, 0, top), ids.masked_fill(top < 0.02, -1)
    rows = SparseRows(ids, top, 1 - top.sum(1), case.source_rows.dense.vocab_size)
    likely = replace(case, source_rows=replace(case.source_rows, rows=rows))
    fewer = 0
    for i in np.flatnonzero(kinds == RowKind.SHARED).tolist():
        _, known, yet = standing(case, i)
        if known or yet:
            continue
        q, mass, _ = expected(likely, mapping, i)
        np.testing.assert_allclose(probs[i], q, atol=2e-6)
        np.testing.assert_allclose(kept[i], mass, atol=5e-6)
        fewer += mass < 0.999
    assert fewer
    monkeypatch.setattr(project.rows, "LISTED_SHARE", 10**9)  # as nothing may be left out then
    agrees(case, mapping)


@pytest.mark.parametrize("top_k", [None, 6])
@pytest.mark.parametrize("strategy", ["exact", "mined", "retokenise"])
@pytest.mark.parametrize(("target", "source"), PAIRS[:5])
def test_fixed_maps(target: str, source: str, strategy: str, top_k: int | None) -> None:
    pairs = mapping_between(VOCABULARIES[source], VOCABULARIES[target], strategy)
    seen = agrees(drawn(target, source, 8, top_k), pairs) | agrees(
        drawn(target, source, 9, top_k), pairs
    )
    assert {kind for kind, _ in seen} == {RowKind.SHARED, RowKind.NONE}


@pytest.mark.parametrize("top_k", [None, 6])
@pytest.mark.parametrize("name", ["marked", "plain"])
def test_identical_vocabularies(name: str, top_k: int | None) -> None:
    case = drawn(name, name, 3, top_k)
    assert {kind for kind, _ in agrees(case, IdentityMapping())} == {RowKind.SHARED, RowKind.NONE}


def whole(rows: NextTokenRows, logprobs: torch.Tensor) -> NextTokenRows:
    """Put other distributions in the place of rows."""
    return NextTokenRows(
        rows.model, DenseRows(logprobs), rows.observed, rows.observed_logprob, rows.boundary
    )


Change = Callable[[NextTokenRows], NextTokenRows]


@pytest.mark.parametrize("after", [lambda x: x, lambda x: cut_to(x, 3)], ids=["whole", "cut"])
def test_a_source_that_holds_none_of_it_possible(after: Change) -> None:
    """No token agrees with what is known, or no mate is possible: the target's row stays."""
    case = drawn("plain", "marked", 1)
    pairs = relation("plain", "marked")
    never = VOCABULARIES["marked"].id_of(b"q")
    one = torch.full_like(case.source_rows.logprobs, -torch.inf)
    one[:, never] = 0
    case.source_rows = after(whole(case.source_rows, one))
    kinds = agrees(case, pairs)
    assert (RowKind.INSIDE, False) in kinds
    edges = pairs.conditioned_on()
    mates = edges.edge_target[edges.edge_source == never]
    possible = case.target_rows.logprobs.clone()
    possible[:, mates] = -torch.inf
    case.target_rows = whole(case.target_rows, possible)
    agrees(case, pairs)
    _, kept, _ = case.project(pairs)
    assert not kept.any()


@pytest.mark.parametrize("left", [0.0, 1e-7, 1e-3])
def test_a_tail_goes_where_the_target_has_room(left: float) -> None:
    """Where the target has next to nothing else, the cut-off mass takes the target's whole row."""
    case = drawn("plain", "plain", 2)
    case.source_rows = cut_to(case.source_rows, 4)
    p = np.zeros(VOCABULARIES["plain"].size)
    r = int(by_bytes(case.target, case.source).row[0])
    listed = [t for t in case.source_rows.rows.ids[r].tolist() if t >= 0]
    p[listed] = (1 - left) / len(listed)
    other = next(v for v in range(len(p)) if v not in listed)
    p[other] = left
    every = np.tile(p, (len(case.target_rows.rows), 1))
    case.target_rows = whole(case.target_rows, torch.from_numpy(every).log().float())
    p_s, tail = row(case.source_rows, r)
    q = case.project(IdentityMapping())[0][0]
    spread = p_s + tail * (np.eye(len(p))[other] if left > 1e-6 else p)
    np.testing.assert_allclose(q, spread, atol=1e-4 if left else 1e-6)


@pytest.mark.parametrize("known", [b"", b"t", b" "])
@pytest.mark.parametrize("strategy", ["prefix", "exact", "retokenise", "same"])
def test_one_row_at_a_time(strategy: str, known: bytes) -> None:
    """Nothing is normalised: what was mapped, how much that is, and how much agrees."""
    case = drawn("marked", "marked" if strategy == "same" else "plain", 5)
    names = case.source.model, case.target.model
    mapping = (
        relation(names[1], names[0])
        if strategy in ("prefix", "same")
        else mapping_between(*(VOCABULARIES[n] for n in names), strategy)
    )
    if known and not mapping.inside:
        return
    given, native = case.source_rows.dense.probs[1], case.target_rows.dense.probs[1]
    p_s, p_t = given.double().numpy(), native.double().numpy()
    found = [x.double().numpy() for x in project.project_row(given, native, mapping, known)]
    if isinstance(mapping, FixedMapping):
        pairs = mapping.vocab_map
        wanted = np.zeros(len(p_t))
        np.add.at(wanted, pairs.indices, p_s[pairs.source_ids] * pairs.weights)
        expect = wanted, wanted.sum(), p_s.sum()
    elif mapping.identity and not known:
        expect = p_s, p_s.sum(), p_s.sum()
    else:
        pairs = mapping.conditioned_on(known, False)
        mass = p_s[pairs.candidates].sum()
        flow = jeffrey(np.where(np.isin(range(len(p_s)), pairs.others), 0, p_s), 0, p_t, pairs)[0]
        expect = flow.sum(0) * mass, flow.sum() * mass, mass
    for a, b in zip(found, expect, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize("top_k", [None, 4, 30])
def test_transport_moves_the_ten_most_probable(top_k: int | None) -> None:
    """Where each goes is the plan's; the rest of the row is the target's."""
    case = drawn("plain", "marked", 6, top_k)
    mapping = Transport(VOCABULARIES["marked"], VOCABULARIES["plain"])
    probs, kept, kinds = case.project(mapping)
    for i, kind in enumerate(kinds):
        r, known, _ = standing(case, i)
        native = case.target_rows.dense.probs[i]
        p_s, _ = row(case.source_rows, r)
        ids = np.argsort(-p_s, kind="stable")[:10]
        ids, mass = torch.from_numpy(ids), torch.from_numpy(p_s[ids]).float()
        wanted, share = native.double().numpy(), 0.0
        if not known:
            goes = mapping.destinations(
                torch.where(mass > 0, ids, -1)[None], mass[None], native[None]
            )[0]
            share = float(mass.sum())
            wanted = wanted * (1 - share)
            np.add.at(wanted, goes.numpy(), mass.double().numpy())
        assert kind == (RowKind.NONE if known else RowKind.SHARED)
        np.testing.assert_allclose(kept[i], share, atol=1e-6)
        np.testing.assert_allclose(probs[i], wanted, atol=2e-6)
    given, native = (torch.from_numpy(row(x, 1)[0]).float() for x in
                     (case.source_rows, case.target_rows))  # fmt: skip
    mapped, moved, whole_row = project.project_row(given, native, mapping)
    assert float(moved) == pytest.approx(float(given.topk(10)[0].sum()), abs=1e-6)
    assert float(mapped.sum()) == pytest.approx(float(moved), abs=1e-6)
    assert float(whole_row) == pytest.approx(float(given.sum()), abs=1e-6)


# Two vocabularies with dummy prefixes: the published pair -------------------------------------


def test_llama_and_open_llama_begin_with_the_same_space(real_tokenizer) -> None:
    """Both spell a text's first word with a space that the text has not, so neither drops it.

    Row 0 is at the same place on both sides. Reading only the target's tokens without their space
    would send "▁The" to "The".
    """
    target, source = (real_tokenizer(n) for n in ("llama-2-7b-fast", "open_llama_3b-fast"))
    text = "The cats"
    t, s = target.encode(text), source.encode(text)
    assert t.dummy_prefix and s.dummy_prefix
    rng = np.random.default_rng(0)
    words = [b" The", b" the", b" Th", b" A", b" cat"]
    p_s = np.zeros(source.size)
    p_s[[source.id_of(w) for w in words]] = rng.dirichlet(np.ones(len(words)))
    p_t = rng.dirichlet(np.full(target.size, 0.5))
    rows = []
    for encoding, p in ((t, p_t), (s, p_s)):
        n = len(encoding.row_bytes)
        logprobs = torch.from_numpy(np.tile(p, (n, 1))).log().float()
        observed = torch.from_numpy(np.append(encoding.ids[encoding.text_tokens], -1))
        rows.append(
            NextTokenRows(
                encoding.model, DenseRows(logprobs), observed, torch.zeros(n), encoding.row_bytes
            )
        )
    q = Case(t, s, *rows).project(PrefixRelation(source, target))[0][0]

    def first(tokenizer: TextTokenizer, spelled: bytes) -> int:
        whole = tokenizer.encode(spelled[1:].decode("utf-8", "replace"))
        return int(whole.ids[whole.text_tokens[0]])

    wanted, kept = np.zeros(target.size), 0.0
    for word in words:
        w = source.id_of(word)
        longer = [v for v, b in enumerate(target.bytes_of) if b and b[: len(word)] == word != b]
        mates = {first(target, word)}
        mates |= {v for v in longer if first(source, target.bytes_of[v]) == w}
        room = sum(p_t[v] for v in mates)
        for v in mates:
            wanted[v] += p_s[w] * p_t[v] / room
        kept += p_s[w]
    wanted += (1 - kept) * p_t
    np.testing.assert_allclose(q, wanted, atol=1e-5)
    assert q[target.id_of(b" The")] > 0.01 and q[target.id_of(b"The")] < 1e-6
