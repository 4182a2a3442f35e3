"""Vocab mappings: the golden files, and brute force on small vocabularies."""

from __future__ import annotations

import numpy as np
import pytest

from fusion_core import vocab
from fusion_core.errors import InputError
from fusion_core.vocab import PrefixRelation


@pytest.mark.parametrize("source", ["open_llama_3b-fast", "gpt-neox-20b_mpt"])
def test_mined_equals_the_published_map(testdata, real_tokenizer, source: str) -> None:
    target = "llama-2-7b-fast"
    golden = np.load(testdata / "golden" / f"{target}__from__{source}.mined.npz")
    pairs = vocab.mined(real_tokenizer(source), real_tokenizer(target))
    assert np.array_equal(pairs.distance, golden["distance"])
    assert np.array_equal(pairs.indices, golden["target_id"])
    assert pairs.rows_mapped == len(golden["target_id"])


def test_exact_maps_equal_bytes_and_prefers_real_pieces(real_tokenizer) -> None:
    llama, gpt2 = real_tokenizer("llama-2-7b-fast"), real_tokenizer("gpt2")
    pairs = vocab.exact(gpt2, llama)
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


@pytest.mark.parametrize("known", [b"", b" ", b"t", b" t", "東".encode()[:1], b"zz"])
@pytest.mark.parametrize("swap", [False, True])
def test_prefix_relation_equals_its_definition(
    tiny_llama_tokenizer, tiny_gpt_tokenizer, known: bytes, swap: bool
) -> None:
    source, target = tiny_llama_tokenizer, tiny_gpt_tokenizer
    if swap:
        source, target = target, source
    found = PrefixRelation(source, target).given(known)
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
    found = relation.given(target_start=True)
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
    pairs = vocab.relate("mined", tiny_llama_tokenizer, tiny_gpt_tokenizer)
    assert not set(pairs.source_ids.tolist()) & tiny_llama_tokenizer.special_ids
    assert not set(pairs.indices.tolist()) & tiny_gpt_tokenizer.special_ids


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="prefix, exact, mined"):
        vocab.strategy("magic")
