"""Vocab mappings: the golden files, and brute force on small vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import byte_level, sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from fusion_core import mapping
from fusion_core.errors import InputError
from fusion_core.mapping import PrefixRelation
from fusion_core.mapping.mined import nearest
from fusion_core.records import MapReason, VocabMap
from fusion_core.tokens import TextTokenizer


@pytest.mark.parametrize("source", ["open_llama_3b-fast", "gpt-neox-20b_mpt"])
def test_mined_equals_the_published_map(testdata, real_tokenizer, source: str) -> None:
    target = "llama-2-7b-fast"
    golden = np.load(testdata / "golden" / f"{target}__from__{source}.mined.npz")
    pairs = mapping.mined(real_tokenizer(source), real_tokenizer(target))
    assert np.array_equal(pairs.distance, golden["distance"])
    assert np.array_equal(pairs.indices, golden["target_id"])
    assert pairs.rows_mapped == len(golden["target_id"])


def test_exact_maps_equal_bytes_and_prefers_real_pieces(real_tokenizer) -> None:
    llama, gpt2 = real_tokenizer("llama-2-7b-fast"), real_tokenizer("gpt2")
    pairs = mapping.exact(gpt2, llama)
    for w, v in zip(pairs.source_ids, pairs.indices, strict=True):
        assert gpt2.bytes_of[w] == llama.bytes_of[v]
    mapped = dict(zip(pairs.source_ids.tolist(), pairs.indices.tolist(), strict=True))
    every = set(llama.bytes_of)
    for w, b in enumerate(gpt2.bytes_of):
        assert (w in mapped) == (b is not None and b in every)
    space = gpt2.id_of(b" ")
    assert not llama.is_byte_piece[mapped[space]]
    assert llama.piece(mapped[gpt2.id_of("é".encode())]) == "é"


def heads(tokenizer, string: bytes) -> set[int]:
    """Spell a string at a text's end and, where it is white space, before a word."""
    found = {int(tokenizer.first_tokens([string])[0])}
    if string.isspace():
        ids = tokenizer.spellings([string + b"a"])[0]
        whole = tokenizer.bytes_of[ids[0]]
        found |= {ids[0]} if string.startswith(whole) else set()
    return found - {-1}


def brute_force_relation(source, target, known: bytes) -> set[tuple[int, int]]:
    """Apply the definition to every pair, spelling each token on its own."""
    pairs = set()
    for w, wb in enumerate(source.bytes_of):
        if not wb or not wb.startswith(known) or len(wb) <= len(known):
            continue
        rest = wb[len(known) :]
        for v, vb in enumerate(target.bytes_of):
            if not vb:
                continue
            extends = vb.startswith(rest) and len(vb) > len(rest)
            if v in heads(target, rest) or (extends and w in heads(source, known + vb)):
                pairs.add((w, v))
    return pairs


@pytest.fixture(params=["llama-gpt", "gpt-llama"])
def tokenizers(request, tiny_llama_tokenizer, tiny_gpt_tokenizer):
    """Return two tokenizers that differ, as source and target, either way round."""
    pair = (tiny_llama_tokenizer, tiny_gpt_tokenizer)
    return pair if request.param == "llama-gpt" else pair[::-1]


@pytest.mark.parametrize("known", [b"", b" ", b"t", b" t", "東".encode()[:1], b"zz"])
def test_prefix_relation_equals_its_definition(tokenizers, known: bytes) -> None:
    source, target = tokenizers
    found = PrefixRelation(source, target).conditioned_on(known)
    pairs = {
        (int(found.candidates[w]), int(v))
        for w, v in zip(found.edge_source, found.edge_target, strict=True)
    }
    expected = brute_force_relation(source, target, known)
    if not known:
        expected.add((source.eos_id, target.eos_id))
    assert pairs == expected
    others = {i for i, b in enumerate(source.bytes_of) if b and known.startswith(b)}
    assert set(found.others.tolist()) == others


def test_prefix_reads_a_target_without_its_dummy_prefix_at_the_start(
    tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    relation = PrefixRelation(tiny_gpt_tokenizer, tiny_llama_tokenizer)
    found = relation.conditioned_on(target_start=True)
    pairs = set(zip(found.candidates[found.edge_source], found.edge_target, strict=True))
    the, marked = tiny_gpt_tokenizer.id_of(b"the"), tiny_llama_tokenizer.id_of(b" the")
    assert (the, marked) in pairs
    assert (tiny_gpt_tokenizer.id_of(b" the"), marked) not in pairs


def test_prefix_as_a_matrix(tiny_llama_tokenizer, tiny_gpt_tokenizer) -> None:
    pairs = PrefixRelation(tiny_llama_tokenizer, tiny_gpt_tokenizer).matrix()[0]
    sums = np.bincount(pairs.source_ids, pairs.weights, minlength=pairs.shape[0])
    assert set(np.round(sums, 6)) <= {0.0, 1.0}
    first = pairs.weights > 0
    expected = tiny_gpt_tokenizer.first_tokens([b or b"" for b in tiny_llama_tokenizer.bytes_of])
    for w, v in zip(pairs.source_ids[first], pairs.indices[first], strict=True):
        if w != tiny_llama_tokenizer.eos_id and expected[w] >= 0:
            assert expected[w] == v


def test_mined_without_control_tokens(tiny_llama_tokenizer, tiny_gpt_tokenizer) -> None:
    made = mapping.STRATEGIES["mined"].make(tiny_llama_tokenizer, tiny_gpt_tokenizer, ())
    pairs = made.vocab_map
    assert not set(pairs.source_ids.tolist()) & tiny_llama_tokenizer.special_ids
    assert not set(pairs.indices.tolist()) & tiny_gpt_tokenizer.special_ids


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="prefix, exact, mined, statistical, retokenise, ot"):
        mapping.strategy("magic")


entries = st.lists(st.one_of(st.none(), st.text(alphabet="abc", max_size=9)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(entries, entries)
def test_the_nearest_string_is_the_first_at_minimum_distance(queries: list, choices: list) -> None:
    ids, distance = nearest(queries, choices)
    known = [(i, c) for i, c in enumerate(choices) if c is not None]
    for query, place, apart in zip(queries, ids, distance, strict=True):
        if query is None or not known:
            assert (place, apart) == (-1, -1)
            continue
        expected = min((Levenshtein.distance(query, c), i) for i, c in known)
        assert (apart, place) == expected


def dense(pairs: VocabMap) -> np.ndarray:
    """Write a map out in full."""
    full = np.zeros(pairs.shape)
    np.add.at(full, (pairs.source_ids, pairs.indices), pairs.weights)
    return full


def test_retokenise_spreads_over_the_targets_own_spelling(
    tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    source, target = tiny_llama_tokenizer, tiny_gpt_tokenizer
    full = dense(mapping.retokenise(source, target))
    for w, own in enumerate(source.bytes_of):
        expected = np.zeros(target.size)
        if own:
            same = target.id_of(own)
            spelled = (
                [same]
                if same >= 0
                else target.encode("x" + own.decode()).ids[1:].tolist()
                if (own.decode("utf-8", "ignore").encode() == own)
                else target.spellings([own])[0]
            )
            for i, v in enumerate(spelled[:4]):
                expected[v] += 0.9 * 0.1**i
            expected /= expected.sum()
        assert full[w] == pytest.approx(expected, abs=1e-6)
    sat = source.id_of(b" sat")
    row = mapping.retokenise(source, target)
    assert row.reason[sat] == MapReason.RESPELLED
    first = target.encode("x sat").pieces[1]
    assert row.confidence[sat] == pytest.approx(len(first) / 4)


def test_statistical_counts_what_stands_at_shared_boundaries() -> None:
    source = TextTokenizer(byte_level([("a", "b")]), "s", start_id=257, eos_id=257)
    target = TextTokenizer(byte_level([("b", "c")]), "t", start_id=257, eos_id=257)
    # "abc": ab|c against a|bc, one group; "ac": a|c against a|c; "c": c against c
    pairs = mapping.statistical(source, target, ["abc", "ac", "c", "abc"])
    full = dense(pairs)
    ab, a, c = (source.id_of(s) for s in (b"ab", b"a", b"c"))
    target_a, target_c = target.id_of(b"a"), target.id_of(b"c")
    assert full[ab, target_a] == full[a, target_a] == full[c, target_c] == 1
    assert pairs.rows_mapped == 3 and full.sum() == 3
    assert pairs.confidence[[ab, a, c]].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 3])
    assert set(pairs.reason[[ab, a, c]]) == {MapReason.COUNTED}
    with pytest.raises(InputError, match="corpus"):
        mapping.matrix("statistical", source, target)


@pytest.mark.parametrize("name", mapping.MATRICES)
def test_every_map_is_a_matrix_with_reasons(tokenizers, name: str) -> None:
    source, target = tokenizers
    pairs, _ = mapping.matrix(name, source, target, ["the cat sat", "cats, 東京"])
    assert pairs.shape == (source.size, target.size)
    sums = dense(pairs).sum(axis=1)
    mapped = np.diff(pairs.indptr) > 0
    assert np.allclose(sums, mapped)
    assert ((pairs.reason != MapReason.UNMAPPED) == mapped).all()
    assert ((pairs.confidence > 0) <= mapped).all() and (pairs.confidence <= 1).all()
    assert (pairs.confidence[pairs.reason == MapReason.SAME] == 1).all()
    for w in range(source.size):
        row = pairs.indices[pairs.indptr[w] : pairs.indptr[w + 1]]
        assert (np.diff(row) > 0).all(), "target ids in order, each once"


def test_identical_vocabularies_map_to_themselves(tiny_gpt_tokenizer) -> None:
    twin = TextTokenizer(byte_level(), "one", start_id=256, eos_id=256)
    other = TextTokenizer(byte_level(), "two", start_id=256, eos_id=256)
    for name in ("exact", "mined", "retokenise"):
        full = dense(mapping.matrix(name, twin, other)[0])
        assert np.array_equal(full[:256, :256], np.eye(256))


def test_entries_with_equal_bytes_go_to_the_real_piece_with_the_lowest_id() -> None:
    # ▁ and <0x20> are both a space; so is an added token.
    backend = sentencepiece(list("▁ab"))
    backend.add_tokens(["ab", "a b"])
    tokenizer = TextTokenizer(backend, "twice", start_id=1, eos_id=2)
    space, byte = backend.token_to_id("▁"), backend.token_to_id("<0x20>")
    assert tokenizer.bytes_of[space] == tokenizer.bytes_of[byte] == b" "
    source = TextTokenizer(byte_level(), "bytes", start_id=256, eos_id=256)
    for name in ("exact", "retokenise"):
        full = dense(mapping.matrix(name, source, tokenizer)[0])
        assert full[source.id_of(b" "), space] == 1
    back = dense(mapping.exact(tokenizer, source))
    assert back[space, source.id_of(b" ")] == back[byte, source.id_of(b" ")] == 1


def test_ot_has_no_matrix(tiny_llama_tokenizer, tiny_gpt_tokenizer) -> None:
    with pytest.raises(InputError, match="every position"):
        mapping.matrix("ot", tiny_llama_tokenizer, tiny_gpt_tokenizer)
