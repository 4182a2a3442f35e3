"""Projection against a plain-Python version written from the definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import tiny_model
from rapidfuzz.distance import Levenshtein

from fusion_core import mapping, models, project
from fusion_core.align import by_bytes
from fusion_core.config import Truncation
from fusion_core.mapping import transport
from fusion_core.mapping.edges import Edges
from fusion_core.project import attribution
from fusion_core.records import RowKind, SparseRows

TEXTS = ["the cat sat", " the the, 東京 cats", "a\nthe cats 東 é", "sat thesat", "Tom"]


def read(model, encoding, top_k: int | None = None):
    cut = Truncation(top_k=top_k) if top_k else None
    return models.read_rows_batch(model, [encoding], cut=cut)[0]


def row_of(rows, r: int) -> tuple[list[float], float]:
    """Lay one row out as a list of probabilities, with what was cut off."""
    if not isinstance(rows.rows, SparseRows):
        return rows.logprobs[r].exp().tolist(), 0.0
    out = [0.0] * rows.rows.vocab_size
    for token, p in zip(rows.rows.ids[r].tolist(), rows.rows.probs[r].tolist(), strict=True):
        out[token] = p
    return out, float(rows.rows.tail[r])


class carried:  # noqa: N801
    """Carry rows over, and lay them out over the target's vocabulary."""

    def __init__(self, rs, rt, es, et, pairs) -> None:
        own = rt.dense.probs[:-1]
        rows = project.project_rows(rs, rt, by_bytes(et, es), pairs)
        assert rows.mapped.is_sparse or not isinstance(rs.rows, SparseRows)
        self.rows, self.probs, self.kept, self.kind = rows, rows.probs(own), rows.kept, rows.kind


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
    p_s, tail = row_of(rows, r)
    p_t = target_rows.logprobs[i].exp().tolist()
    q, rest, total = [0.0] * len(p_t), tail, tail
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
    relation = mapping.PrefixRelation(source.tokenizer, target.tokenizer)
    seen = set()
    for text in TEXTS[:3]:
        et, es = target.tokenizer.encode(text), source.tokenizer.encode(text)
        rt, rs = models.read_rows(target, et), read(source, es, top_k)
        aligned = by_bytes(et, es)
        got = carried(rs, rt, es, et, relation)
        assert torch.allclose(got.probs.sum(1), torch.ones(len(got.probs)), atol=1e-5)
        spelled = b" " + et.data
        for i in range(len(aligned.row)):
            stand = max(int(et.row_bytes[i]), int(es.row_bytes[0])) + 1
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
    pairs = mapping.STRATEGIES[strategy].make(source.tokenizer, target.tokenizer, ())
    entries = pairs.vocab_map
    goes = dict(zip(entries.source_ids.tolist(), entries.indices.tolist(), strict=True))
    et, es = (m.tokenizer.encode("the cats sat 東") for m in (target, source))
    rt, rs = models.read_rows(target, et), models.read_rows(source, es)
    aligned = by_bytes(et, es)
    got = carried(rs, rt, es, et, pairs)
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


@pytest.mark.parametrize("top_k", [None, 6])
def test_every_strategy_sums_to_one(tiny_models, top_k: int | None) -> None:
    for (target, source), strategy, text in itertools.product(
        (tiny_models, tiny_models[::-1]), mapping.STRATEGIES, TEXTS
    ):
        pairs = mapping.mapping_between(source.tokenizer, target.tokenizer, strategy, TEXTS)
        et, es = (m.tokenizer.encode(text) for m in (target, source))
        got = carried(read(source, es, top_k), models.read_rows(target, et), es, et, pairs)
        assert torch.allclose(got.probs.sum(1), torch.ones(len(got.probs)), atol=1e-5)
        assert bool((got.probs >= 0).all()) and bool(((got.kept >= 0) & (got.kept <= 1)).all())


@pytest.mark.parametrize("top_k", [None, 5])
def test_identical_vocabularies_are_the_identity(tiny_llama_tokenizer, top_k: int | None) -> None:
    target, source = (tiny_model(tiny_llama_tokenizer, seed=s) for s in (3, 4))
    encoding = tiny_llama_tokenizer.encode("the cat sat 東")
    rt = models.read_rows(target, encoding)
    rs = read(source, encoding, top_k)
    pairs = mapping.mapping_between(source.tokenizer, target.tokenizer, "prefix")
    assert pairs.identity and not pairs.inside
    got = carried(rs, rt, encoding, encoding, pairs)
    rows = [row_of(rs, i) for i in range(len(rs.observed) - 1)]
    own = torch.tensor([probs for probs, _ in rows])
    kept = own > 0
    if top_k is None:
        assert torch.equal(got.probs[kept], own[kept])
    assert torch.allclose(got.probs[kept], own[kept], atol=1e-7, rtol=1e-5)
    assert torch.allclose(got.probs.sum(1), torch.ones(len(own)), atol=1e-6)
    assert (1 - got.kept).tolist() == pytest.approx([tail for _, tail in rows], abs=1e-6)
    # what was cut off is spread over the other tokens as the target has them
    prior = rt.logprobs[:-1].exp() * ~kept
    left = 1 - own.sum(1, keepdim=True)
    expected = torch.where(kept, own, left * prior / prior.sum(1, keepdim=True))
    assert torch.allclose(got.probs, expected, atol=1e-6)


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
    plans = transport.transport_plan(mass, room, cost)
    assert torch.allclose(plans.sum(1), (room / room.sum(1, keepdim=True)).double(), atol=1e-4)
    assert torch.allclose(plans.sum(2), (mass / mass.sum(1, keepdim=True)).double(), atol=1e-4)
    for plan, *problem in zip(plans, mass.tolist(), room.tolist(), cost.tolist(), strict=True):
        expected = plain_transport(*problem, transport.SHARPNESS)
        assert torch.allclose(plan, torch.tensor(expected, dtype=torch.float64), atol=1e-3)


def test_transport_survives_zeros_and_far_costs() -> None:
    mass = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    room = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    plan = transport.transport_plan(mass, room, torch.full((2, 2, 2), 90))
    assert bool(torch.isfinite(plan).all()) and bool((plan >= 0).all())


def test_ot_sends_each_token_where_most_of_it_goes(tiny_models) -> None:
    target, source = tiny_models
    costs = mapping.Transport(source.tokenizer, target.tokenizer)
    et, es = (m.tokenizer.encode("the cats sat 東") for m in (target, source))
    rt, rs = models.read_rows(target, et), models.read_rows(source, es)
    aligned = by_bytes(et, es)
    got = carried(rs, rt, es, et, costs)
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
        plan = plain_transport(mass.tolist(), room.tolist(), cost, transport.SHARPNESS)
        expected = (p_t * (1 - mass.sum())).tolist()
        for row, p in zip(plan, mass.tolist(), strict=True):
            expected[tokens.tolist()[row.index(max(row))]] += p
        assert got.probs[i].tolist() == pytest.approx(expected, abs=1e-5)
        assert float(got.kept[i]) == pytest.approx(float(mass.sum()), abs=1e-5)


@pytest.mark.parametrize("top_k", [None, 7])
@pytest.mark.parametrize("strategy", ["prefix", "exact", "retokenise"])
def test_the_chain_rule_equals_plain_python(tiny_models, strategy: str, top_k: int | None) -> None:
    target, source = tiny_models
    pairs = mapping.STRATEGIES[strategy].make(source.tokenizer, target.tokenizer, ())
    applied = 0
    for text in ("the cats sat", "a 東 thesat"):
        et, es = (m.tokenizer.encode(text) for m in (target, source))
        rt, rs = models.read_rows(target, et), read(source, es, top_k)
        before = carried(rs, rt, es, et, pairs)
        native = project.native_ce(et, es, rs)
        own, observed = rt.dense.probs[:-1], rt.observed[:-1]
        ruled = project.chain_rule(
            before.rows, rt.dense, observed, native, et, target.tokenizer.ids_of
        ).probs(own)
        assert torch.allclose(ruled.sum(1), torch.ones(len(ruled)), atol=1e-5)
        spelled = b" " + et.data
        for i, nats in enumerate(native.tolist()):
            expected = before.probs[i].tolist()
            if not math.isnan(nats) and before.kind[i] != RowKind.NONE:
                ahead = spelled[int(et.row_bytes[i]) + 1 :]
                y = int(observed[i])
                known = math.exp(-nats)
                drop = {
                    v for v, b in enumerate(target.tokenizer.bytes_of) if b and ahead[: len(b)] == b
                }
                rest = sum(p for v, p in enumerate(expected) if v not in drop | {y})
                scale = (1 - known) / rest
                expected = [0.0 if v in drop else p * scale for v, p in enumerate(expected)]
                expected[y] = known
                applied += 1
            assert ruled[i].tolist() == pytest.approx(expected, abs=3e-6)
    assert applied > 5


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("strategy", mapping.STRATEGIES)
def test_attribution_names_the_tokens_that_the_mass_came_from(
    tiny_models, strategy: str, top_k: int | None
) -> None:
    """Take one source token out of the row at a time, and see what is missing at the target."""
    target, source = tiny_models
    pairs = mapping.mapping_between(source.tokenizer, target.tokenizer, strategy, TEXTS)
    et, es = (m.tokenizer.encode("the cats sat 東") for m in (target, source))
    rt, rs = models.read_rows(target, et), read(source, es, top_k)
    aligned = by_bytes(et, es)
    rows, route = (f(rs, rt, aligned, pairs) for f in (project.project_rows, project.Route.of))
    carried_over = rows.mapped.to_dense()
    ids = carried_over.topk(4, dim=1).indices
    token, share = attribution._named(route, rows.total, ids, 50)
    relation = pairs.conditioned_on() if isinstance(pairs, mapping.PrefixRelation) else None
    for i, kind in enumerate(rows.kind):
        if kind == RowKind.NONE:
            assert bool((token[i] < 0).all())
            continue
        p_s, _ = row_of(rs, int(by_bytes(et, es).row[i]))
        for r, v in enumerate(ids[i].tolist()):
            named = [t for t in token[i, r].tolist() if t >= 0]
            assert len(named) == len(set(named))
            if carried_over[i, v] > 1e-6:
                assert float(share[i, r].sum()) == pytest.approx(1, abs=1e-4) or len(named) == 50
                assert all(p_s[t] > 0 for t in named)
            falling = share[i, r].tolist()
            assert falling == sorted(falling, reverse=True)
            if kind == RowKind.SHARED and relation is not None and i:
                edges = relation.edge_target == v
                mates = set(relation.candidates[relation.edge_source[edges]].tolist())
                weight = {}
                for w in mates:
                    goes = relation.edge_target[relation.candidates[relation.edge_source] == w]
                    weight[w] = p_s[w] / float(rt.dense.probs[i][goes.tolist()].sum())
                total = sum(weight.values())
                for t, x in zip(named, falling, strict=False):
                    assert x == pytest.approx(weight[t] / total, abs=1e-4)


def test_no_rows_at_all_are_added_up_to_no_rows() -> None:
    n = 300  # enough for several threads, which torch gives a part each
    edges = Edges(
        torch.arange(n), torch.empty(0, dtype=torch.int64), torch.arange(n + 1), torch.arange(n)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert edges.room(torch.zeros(n, 0)).shape == (n, 0)
        assert edges.spread(torch.zeros(n, 0), n).shape == (n, 0)
    finally:
        torch.set_num_threads(threads)
