"""Projection against a plain-Python version written from the definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import tiny_model
from rapidfuzz.distance import Levenshtein

from fusion_core import models, pipeline, project, vocab
from fusion_core.align import by_bytes
from fusion_core.records import RowKind

TEXTS = ["the cat sat", " the the, 東京 cats", "a\nthe cats 東 é", "sat thesat", "Tom"]


def heads(tokenizer, string, at_start=False):
    """Name the first tokens of a string at a text's end and before a word."""
    return {
        int(tokenizer.first_tokens([string], at_start=at_start, before_word=b)[0])
        for b in (False, True)
    } - {-1}


def plain_prefix(  # noqa: PLR0912
    rows, target_rows, i, r, known, source, target, target_start=False
):
    """Carry one row over by Jeffrey's rule, pair by pair."""
    p_s = [0.0 if x == float("-inf") else x for x in rows.logprobs[r].exp().tolist()]
    p_t = target_rows.logprobs[i].exp().tolist()
    q, rest, total = [0.0] * len(p_t), float(rows.tail[r]), float(rows.tail[r])
    for w, wb in enumerate(source.bytes_of):
        if known:
            if not wb:
                continue
            if known.startswith(wb):
                rest, total = rest + p_s[w], total + p_s[w]
                continue
            if not wb.startswith(known):
                continue
        total += p_s[w]
        after = wb[len(known) :] if wb else b""
        mates = []
        for v, vb in enumerate(target.bytes_of):
            if not wb:
                if not known and w == source.eos_id and v == target.eos_id:
                    mates.append(v)
                continue
            if target_start:
                vb = vb[1:] if vb and vb.startswith(b" ") else None  # noqa: PLW2901
            begins = v in heads(target, after, target_start)
            longer = vb and vb.startswith(after) and len(vb) > len(after)
            if begins or (longer and w in heads(source, known + vb)):
                mates.append(v)
        room = sum(p_t[v] for v in mates)
        if room > 0:
            for v in mates:
                q[v] += p_s[w] * p_t[v] / room
        else:
            rest += p_s[w]
    return [(a + rest * b) / total for a, b in zip(q, p_t, strict=True)], 1 - rest / total


@pytest.mark.parametrize("top_k", [None, 7])
@pytest.mark.parametrize("swap", [False, True])
def test_prefix_equals_plain_python(tiny_models, swap: bool, top_k: int | None) -> None:
    target, source = tiny_models[::-1] if swap else tiny_models
    relation = vocab.PrefixRelation(source.tokenizer, target.tokenizer)
    seen = set()
    for text in TEXTS[:3]:
        et, es = target.tokenizer.encode(text), source.tokenizer.encode(text)
        rt, rs = models.rows(target, et), project.truncate(models.rows(source, es), top_k)
        aligned = by_bytes(et, es)
        got = project.project(rs, rt, aligned, relation, source_encoding=es, target_encoding=et)
        assert torch.allclose(got.probs.sum(1), torch.ones(len(got.probs)), atol=1e-5)
        spelled = b" " + et.data
        for i in range(len(aligned.row)):
            stand = max(int(et.stands[i]), int(es.stands[0])) + 1
            known = spelled[stand - int(aligned.offset[i]) : stand]
            start = i == 0 and et.dummy_prefix and not es.dummy_prefix
            seen.add((int(aligned.kind[i]), start, known[:1] == b" "))
            expected, kept = plain_prefix(
                rs,
                rt,
                i,
                int(aligned.row[i]),
                known,
                source.tokenizer,
                target.tokenizer,
                target_start=start,
            )
            assert got.probs[i].tolist() == pytest.approx(expected, abs=2e-6)
            assert float(got.kept[i]) == pytest.approx(kept, abs=2e-5)
    assert {kind for kind, _, _ in seen} >= {RowKind.SHARED, RowKind.INSIDE}


@pytest.mark.parametrize("strategy", ["exact", "mined"])
def test_fixed_maps_equal_plain_python(tiny_models, strategy: str) -> None:
    target, source = tiny_models
    pairs = vocab.relate(strategy, source.tokenizer, target.tokenizer)
    goes = dict(zip(pairs.source_ids.tolist(), pairs.indices.tolist(), strict=True))
    et, es = (m.tokenizer.encode("the cats sat 東") for m in (target, source))
    rt, rs = models.rows(target, et), models.rows(source, es)
    aligned = by_bytes(et, es)
    got = project.project(rs, rt, aligned, pairs, source_encoding=es, target_encoding=et)
    for i, (row, kind) in enumerate(zip(aligned.row, aligned.kind, strict=True)):
        p_t = rt.logprobs[i].exp().tolist()
        q, kept = [0.0] * len(p_t), 0.0
        if kind == RowKind.SHARED:
            for w, p in enumerate(rs.logprobs[row].exp().tolist()):
                if w in goes:
                    q[goes[w]] += p
                    kept += p
        expected = [a + (1 - kept) * b for a, b in zip(q, p_t, strict=True)]
        assert got.probs[i].tolist() == pytest.approx(expected, abs=2e-6)
        assert float(got.kept[i]) == pytest.approx(kept, abs=1e-5)
        assert (got.kind[i] == RowKind.NONE) == (kind != RowKind.SHARED)


def test_every_strategy_sums_to_one(tiny_models) -> None:
    for (target, source), strategy, text in itertools.product(
        (tiny_models, tiny_models[::-1]), vocab.STRATEGIES, TEXTS
    ):
        pairs = pipeline.mapping(source.tokenizer, target.tokenizer, strategy, TEXTS)
        et, es = (m.tokenizer.encode(text) for m in (target, source))
        got = project.project(
            models.rows(source, es),
            models.rows(target, et),
            by_bytes(et, es),
            pairs,
            source_encoding=es,
            target_encoding=et,
        )
        assert torch.allclose(got.probs.sum(1), torch.ones(len(got.probs)), atol=1e-5)
        assert bool((got.probs >= 0).all()) and bool(((got.kept >= 0) & (got.kept <= 1)).all())


@pytest.mark.parametrize("top_k", [None, 5])
def test_identical_vocabularies_are_the_identity(tiny_llama_tokenizer, top_k: int | None) -> None:
    target, source = (tiny_model(tiny_llama_tokenizer, seed=s) for s in (3, 4))
    encoding = tiny_llama_tokenizer.encode("the cat sat 東")
    rt = models.rows(target, encoding)
    rs = project.truncate(models.rows(source, encoding), top_k)
    pairs = pipeline.mapping(source.tokenizer, target.tokenizer, "prefix")
    assert pairs is None
    got = project.project(
        rs,
        rt,
        by_bytes(encoding, encoding),
        pairs,
        source_encoding=encoding,
        target_encoding=encoding,
    )
    own = rs.logprobs[:-1].exp()
    kept = own > 0
    assert torch.equal(got.probs[kept], own[kept])
    assert torch.allclose(got.probs.sum(1), torch.ones(len(own)), atol=1e-6)
    assert torch.allclose(1 - got.kept, rs.tail[:-1])


def test_truncated_rows_keep_their_top_and_a_tail(tiny_models) -> None:
    model = tiny_models[0]
    full = models.rows(model, model.tokenizer.encode("the cat"))
    cut = project.truncate(full, 3)
    probs = full.logprobs.exp()
    expected = probs.sort(dim=1, descending=True).values[:, :3].sum(1)
    assert torch.allclose(cut.logprobs.exp().sum(1), expected, atol=1e-6)
    assert torch.allclose(cut.tail, 1 - expected, atol=1e-6)
    assert project.truncate(full, 10_000) is full


def plain_transport(mass, room, cost, sharpness: float) -> list[list[float]]:
    """Scale rows and columns in turn, in plain Python, until nothing moves."""
    mass, room = ([x / sum(v) for x in v] for v in (mass, room))
    plan = [[math.exp(-sharpness * c) for c in row] for row in cost]
    for _ in range(5000):
        for i, row in enumerate(plan):
            total = sum(row)
            plan[i] = [x * mass[i] / total for x in row]
        for j, whole in enumerate(room):
            total = sum(row[j] for row in plan)
            for row in plan:
                row[j] *= whole / total
    return plan


def test_transport_plans_equal_plain_python() -> None:
    generator = torch.Generator().manual_seed(0)
    mass, room = (torch.rand(6, n, generator=generator) + 0.05 for n in (4, 5))
    cost = torch.randint(0, 4, (6, 4, 5), generator=generator)
    plans = project.transport_plan(mass, room, cost)
    assert torch.allclose(plans.sum(1), (room / room.sum(1, keepdim=True)).double(), atol=1e-4)
    assert torch.allclose(plans.sum(2), (mass / mass.sum(1, keepdim=True)).double(), atol=1e-4)
    for plan, *problem in zip(plans, mass.tolist(), room.tolist(), cost.tolist(), strict=True):
        expected = plain_transport(*problem, project.TRANSPORT_SHARPNESS)
        assert torch.allclose(plan, torch.tensor(expected, dtype=torch.float64), atol=1e-3)


def test_transport_survives_zeros_and_far_costs() -> None:
    mass = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    room = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    plan = project.transport_plan(mass, room, torch.full((2, 2, 2), 90))
    assert bool(torch.isfinite(plan).all()) and bool((plan >= 0).all())


def test_ot_sends_each_token_where_most_of_it_goes(tiny_models) -> None:
    target, source = tiny_models
    costs = vocab.Transport(source.tokenizer, target.tokenizer)
    et, es = (m.tokenizer.encode("the cats sat 東") for m in (target, source))
    rt, rs = models.rows(target, et), models.rows(source, es)
    aligned = by_bytes(et, es)
    got = project.project(rs, rt, aligned, costs, source_encoding=es, target_encoding=et)
    for i in [n for n, kind in enumerate(aligned.kind) if kind == RowKind.SHARED][:3]:
        p_t = rt.logprobs[i].exp()
        p_s = rs.logprobs[aligned.row[i]].exp()
        room, tokens = p_t.topk(10)
        mass, others = p_s.topk(10)
        piece = target.tokenizer.piece
        cost = [
            [Levenshtein.distance(source.tokenizer.piece(w), piece(v)) for v in tokens.tolist()]
            for w in others.tolist()
        ]
        plan = plain_transport(mass.tolist(), room.tolist(), cost, project.TRANSPORT_SHARPNESS)
        expected = (p_t * (1 - mass.sum())).tolist()
        for row, p in zip(plan, mass.tolist(), strict=True):
            expected[tokens.tolist()[row.index(max(row))]] += p
        assert got.probs[i].tolist() == pytest.approx(expected, abs=1e-5)
        assert float(got.kept[i]) == pytest.approx(float(mass.sum()), abs=1e-5)
