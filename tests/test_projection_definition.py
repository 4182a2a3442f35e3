"""Projection from its definition: float64 matrices, random rows, segmentations drawn at random.

The rows are of no model and the tokens of no tokenizer's own spelling, so that every kind of
position comes up: shared, inside a token, after a dummy prefix on one side or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import byte_level, chain, sentencepiece

from fusion_core import project
from fusion_core.align import by_bytes
from fusion_core.mapping import (
    Consistency,
    FixedMapping,
    IdentityMapping,
    PrefixRelation,
    VocabMapping,
    mapping_between,
)
from fusion_core.records import DenseRows, Encoding, NextTokenRows, RowKind, SparseRows
from fusion_core.tokens import TextTokenizer

# The only lines that know how the library is called -------------------------------------------


@dataclass
class Case:
    """A text in the tokens of both sides, with rows for both."""

    target: Encoding
    source: Encoding
    target_rows: NextTokenRows
    source_rows: NextTokenRows

    def project(self, mapping: VocabMapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (m, V) probabilities, (m,) kept masses and (m,) kinds."""
        alignment = by_bytes(self.target, self.source)
        rows = project.project_rows(self.source_rows, self.target_rows, alignment, mapping)
        probs = rows.probs(self.target_rows.dense.probs[:-1])
        return probs.double().numpy(), rows.kept.double().numpy(), rows.kind


# Vocabularies, segmentations, rows ------------------------------------------------------------


def marked(*words: str) -> TextTokenizer:
    merges = chain(*words)
    letters = list("▁abcdefghijklmnopqrst東")
    backend = sentencepiece(letters + [a + b for a, b in merges], merges)
    return TextTokenizer(backend, "-".join(words), start_id=1, eos_id=2)


def plain(*words: str) -> TextTokenizer:
    backend = byte_level(chain(*words))
    eos = backend.token_to_id("<|endoftext|>")
    return TextTokenizer(backend, "-".join(words), start_id=eos, eos_id=eos)


VOCABULARIES = {
    "marked": marked("▁the", "▁cat", "at"),
    "marked too": marked("▁th", "▁ca", "cats", "▁a"),
    "plain": plain("Ġthe", "the", "Ġca", "ts"),
    "plain too": plain("Ġcat", "he", "æĿ±", "th"),
}
DUMMY = {"marked", "marked too"}
PAIRS = [
    ("marked", "marked too"),
    ("marked too", "marked"),
    ("marked", "plain"),
    ("plain", "marked"),
    ("plain", "plain too"),
    ("marked", "marked"),
    ("plain too", "plain too"),
]
TEXT = "the cats at 東 the"


def cut(name: str, text: str, rng: np.random.Generator) -> Encoding:
    """Cut a text into tokens of a vocabulary at random, its dummy prefix before it."""
    tokenizer, dummy = VOCABULARIES[name], name in DUMMY
    spelled = b" " * dummy + text.encode()
    ids, ends = [], []
    at = 0
    while at < len(spelled):
        lengths = [n for n in range(1, 9) if spelled[at : at + n] in tokenizer.ids_of]
        n = int(rng.choice([n for n in lengths if at + n <= len(spelled)]))
        ids.append(tokenizer.id_of(spelled[at : at + n]))
        at += n
        ends.append(at - dummy)
    start = [0, *ends[:-1]]
    special = np.zeros(len(ids), bool)
    pieces = tuple(map(str, ids))
    arrays = (np.asarray(x, np.int64) for x in (ids, start, ends))
    return Encoding(name, text.encode(), *arrays, special, pieces, dummy_prefix=dummy)


def next_tokens(encoding: Encoding, size: int, rng: np.random.Generator) -> NextTokenRows:
    """Draw rows, a quarter of their tokens impossible."""
    n = len(encoding) + 1
    p = rng.dirichlet(np.full(size, 0.3), n) * (rng.random((n, size)) > 0.25)
    logprobs = torch.from_numpy(p / p.sum(1, keepdims=True)).log().float()
    observed = torch.from_numpy(np.append(encoding.ids, -1))
    return NextTokenRows(
        encoding.model, DenseRows(logprobs), observed, torch.zeros(n), encoding.row_bytes
    )


def cut_to(rows: NextTokenRows, k: int) -> NextTokenRows:
    """Keep k tokens, one fewer in every other row."""
    top, ids = rows.dense.probs.topk(k, dim=1)
    top[::2, -1], ids[::2, -1] = 0, -1
    kept = SparseRows(ids, top, 1 - top.sum(1), rows.dense.vocab_size)
    return NextTokenRows(rows.model, kept, rows.observed, rows.observed_logprob, rows.boundary)


def drawn(target: str, source: str, seed: int, top_k: int | None = None) -> Case:
    rng = np.random.default_rng(seed)
    t, s = cut(target, TEXT, rng), cut(source, TEXT, rng)
    t_rows = next_tokens(t, VOCABULARIES[target].size, rng)
    s_rows = next_tokens(s, VOCABULARIES[source].size, rng)
    return Case(t, s, t_rows, cut_to(s_rows, top_k) if top_k else s_rows)


def row(rows: NextTokenRows, r: int) -> tuple[np.ndarray, float]:
    """Lay a row out over the vocabulary, with what was cut off."""
    if isinstance(rows.rows, DenseRows):
        return rows.dense.probs[r].double().numpy(), 0.0
    p = np.zeros(rows.rows.vocab_size)
    for token, x in zip(rows.rows.ids[r].tolist(), rows.rows.probs[r].tolist(), strict=True):
        if token >= 0:
            p[token] += x
    return p, float(rows.rows.tail[r])


# The definition -------------------------------------------------------------------------------


def jeffrey(
    p_s: np.ndarray, tail: float, p_t: np.ndarray, pairs: Consistency
) -> tuple[np.ndarray, float]:
    """Share the tokens that agree among their mates as the target has them; the rest is p_t's."""
    mates = np.zeros((len(p_s), len(p_t)))
    mates[pairs.candidates[pairs.edge_source], pairs.edge_target] = 1
    agrees = np.isin(np.arange(len(p_s)), pairs.candidates)
    ends = np.isin(np.arange(len(p_s)), pairs.others)
    total = p_s[agrees | ends].sum() + tail
    room = mates @ p_t
    mapped = np.where(agrees & (room > 0), p_s, 0)
    if total == 0:
        return p_t, 0.0
    arrived = (np.divide(mapped, room, where=room > 0, out=np.zeros_like(room)) @ mates) * p_t
    kept = mapped.sum() / total
    return arrived / total + (1 - kept) * p_t, kept


def expected(case: Case, mapping: VocabMapping, i: int) -> tuple[np.ndarray, float, RowKind]:
    """Work out row i from the bytes at which both sides have their rows."""
    p_t = case.target_rows.dense.probs[i].double().numpy()
    at, places = int(case.target.row_bytes[i]), case.source.row_bytes.tolist()
    yet = case.target.dummy_prefix and not case.source.dummy_prefix and i == 0
    at = max(at, places[0])
    r = max(j for j, place in enumerate(places) if place <= at)
    known = (b" " + case.source.data)[places[r] + 1 : at + 1]
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
    return *jeffrey(p_s, tail, p_t, mapping.conditioned_on(known, yet)), kind


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


RELATIONS: dict[tuple[str, str], PrefixRelation] = {}


def relation(target: str, source: str) -> PrefixRelation:
    return RELATIONS.setdefault(
        (target, source), PrefixRelation(VOCABULARIES[source], VOCABULARIES[target])
    )


@pytest.mark.parametrize("top_k", [None, 5, 40])
@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_jeffreys_rule_with_known_bytes(target: str, source: str, top_k: int | None) -> None:
    seen = set()
    for seed in range(3):
        seen |= agrees(drawn(target, source, seed, top_k), relation(target, source))
    assert {kind for kind, _ in seen} == {RowKind.SHARED, RowKind.INSIDE}


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
