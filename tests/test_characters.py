"""Next characters against enumeration in plain Python, token by token."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import byte_level, chain, sentencepiece

from fusion_core.characters import next_characters
from fusion_core.errors import InputError
from fusion_core.records import DenseRows, Encoding, NextTokenRows, SparseRows
from fusion_core.tokens import ByteIndex, TextTokenizer
from fusion_core.tokens.lookup import first_character

TEXTS = ["the cat sat", " the the, 東京 cats", "naïve é😀!", "\na", "東", "e\u0301\0 "]
LEADS = {
    chr(c).encode()[:n]
    for c in range(0x80, 0x110000, 64)
    if not 0xD800 <= c < 0xE000
    for n in range(1, len(chr(c).encode()))
}
"""Every beginning of a character: the last byte takes 64 values."""


def random_rows(
    tokenizer: TextTokenizer, encoding: Encoding, top_k: int | None = None, seed: int = 0
) -> NextTokenRows:
    """Draw Dirichlet rows for a text, whole or cut."""
    n = len(encoding.text_tokens) + 1
    drawn = np.random.default_rng(seed).dirichlet(np.full(tokenizer.size, 0.3), n)
    probs = torch.as_tensor(drawn, dtype=torch.float32)
    rows: DenseRows | SparseRows = DenseRows(probs.log())
    if top_k:
        top, ids = probs.topk(top_k)
        rows = SparseRows(ids, top, 1 - top.sum(1), tokenizer.size)
    observed = np.append(encoding.ids[encoding.text_tokens], -1)
    own = probs.log()[range(n), observed]
    return NextTokenRows(
        tokenizer.name,
        rows,
        observed=torch.as_tensor(observed),
        observed_logprob=own,
        boundary=np.maximum(encoding.row_bytes, 0),
    )


def plain(rows: NextTokenRows, i: int, size: int) -> tuple[list[float], float]:
    """Write one row out, with its tail."""
    if isinstance(rows.rows, DenseRows):
        return rows.rows.logprobs[i].exp().tolist(), 0.0
    probs = [0.0] * size
    for token, p in zip(rows.rows.ids[i].tolist(), rows.rows.probs[i].tolist(), strict=True):
        probs[token] += p
    return probs, float(rows.rows.tail[i])


def begins_with(string: bytes) -> str | bytes:
    """Name the first character, or why there is none, from the list of all beginnings."""
    for n in range(1, len(string) + 1):
        part = string[:n]
        if part not in LEADS:
            try:
                return part.decode()
            except UnicodeDecodeError:
                return part
    return string


def enumerated(
    rows: NextTokenRows, encoding: Encoding, tokenizer: TextTokenizer, b: int
) -> tuple[dict, list[float]]:
    """Apply the definition to every token: {character, bytes, "end" or None: p}, next bytes."""
    data, row_bytes = encoding.data, encoding.row_bytes.tolist()
    i = max(n for n, stand in enumerate(row_bytes) if stand <= b)
    found: dict = defaultdict(float)
    following = [0.0] * 256
    lost = any(max(s, row_bytes[i]) < min(e, b) for s, e in encoding.lost)
    if lost or (i == 0 and tokenizer.start_id is None):
        return {None: 1.0}, following
    known = b" " + data[:b] if row_bytes[i] == -1 else data[row_bytes[i] : b]
    head = b""
    while b - len(head) < len(data) and data[b - len(head)] & 0xC0 == 0x80:
        head = data[b - len(head) - 1 : b]
    probs, tail = plain(rows, i, tokenizer.size)
    found[None] = total = tail
    for token, own in enumerate(tokenizer.bytes_of):
        if own and own != known and own.startswith(known):
            label = begins_with(head + own[len(known) :])
            following[own[len(known)]] += probs[token]
        elif own and known.startswith(own):
            label = None
        elif not own and not known:
            label = "end" if token == tokenizer.eos_id else None
        else:
            continue
        found[label] += probs[token]
        total += probs[token]
    if total == 0:
        return {None: 1.0}, following
    return {k: p / total for k, p in found.items()}, [p / total for p in following]


def agrees(tokenizer: TextTokenizer, text: str, top_k: int | None = None) -> Counter:
    """Compare every byte position of a text, and count what occurred."""
    encoding = tokenizer.encode(text)
    rows = random_rows(tokenizer, encoding, top_k)
    positions = list(range(len(encoding.data) + 1))
    random.Random(0).shuffle(positions)
    got = next_characters(rows, encoding, tokenizer, positions)
    seen: Counter = Counter()
    assert got.positions.tolist() == positions
    assert list(got.characters) == sorted(got.characters) and list(got.parts) == sorted(got.parts)
    for n, b in enumerate(positions):
        expected, following = enumerated(rows, encoding, tokenizer, b)
        found = dict(zip(got.characters, got.probs[n].tolist(), strict=True))
        found |= dict(zip(got.parts, got.partial[n].tolist(), strict=True))
        found |= {"end": float(got.end[n]), None: float(got.unknown[n])}
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        rest = float(got.byte_probs[n].sum() + got.end[n] + got.unknown[n])
        assert rest == pytest.approx(1, abs=1e-5)
        for label in expected.keys() | found.keys():
            assert found.get(label, 0) == pytest.approx(expected.get(label, 0), abs=2e-6)
        assert got.byte_probs[n].tolist() == pytest.approx(following, abs=2e-6)
        seen.update(type(k).__name__ for k, p in found.items() if p > 0)
        seen["silent"] += expected == {None: 1.0}
        seen["end"] += found["end"] > 0
    return seen


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("text", TEXTS)
def test_small_vocabularies_equal_enumeration(
    tiny_llama_tokenizer, tiny_gpt_tokenizer, text: str, top_k: int | None
) -> None:
    for tokenizer in (tiny_llama_tokenizer, tiny_gpt_tokenizer):
        seen = agrees(tokenizer, text, top_k)
        assert seen["str"]
        assert top_k or (seen["bytes"] and seen["end"] and not seen["silent"])


def test_a_real_vocabulary_equals_enumeration(real_tokenizer) -> None:
    seen = agrees(real_tokenizer("llama-2-7b-fast"), "The ca 京é")
    assert seen["bytes"] and seen["end"] and not seen["silent"]


def test_without_a_start_token_nothing_is_known_before_the_first_boundary() -> None:
    tokenizer = TextTokenizer(byte_level(chain("the")), "s", start_id=None, eos_id=None)
    encoding = tokenizer.encode("thethe")
    got = next_characters(random_rows(tokenizer, encoding), encoding, tokenizer, range(7))
    assert got.unknown[:3].tolist() == [1, 1, 1] and bool((got.unknown[3:] < 1).all())
    assert not got.end.any()
    agrees(tokenizer, "thethe é")


def test_lost_bytes_make_what_follows_unknown(real_tokenizer) -> None:
    bert = real_tokenizer("bert-base-uncased")
    encoding = bert.encode("Hello Wé a")
    assert encoding.lost == ((0, 1), (5, 10)) and encoding.row_bytes.tolist() == [0, 5, 9, 11]
    silent = next_characters(random_rows(bert, encoding), encoding, bert, range(12)).unknown == 1
    # Before byte 5 it has no start token either.
    assert silent.tolist() == [*[True] * 5, False, *[True] * 3, False, True, False]
    assert agrees(bert, "Hello Wé a", top_k=50)["silent"]


def test_only_tokens_that_are_the_texts_bytes_are_evidence(tiny_llama_tokenizer) -> None:
    encoding = tiny_llama_tokenizer.encode("cat")
    assert encoding.pieces[1:] == (" cat",)
    rows = random_rows(tiny_llama_tokenizer, encoding)
    for reading, unknown in [
        (encoding, [False, False, False]),
        (replace(encoding, dummy_prefix=False), [False, True, True]),  # a space too many
        (replace(encoding, lost=((1, 2),)), [False, False, True]),
    ]:
        got = next_characters(rows, reading, tiny_llama_tokenizer, [0, 1, 2])
        assert (got.unknown == 1).tolist() == unknown


def test_a_cut_row_without_a_token_that_agrees_is_unknown(tiny_gpt_tokenizer) -> None:
    encoding = tiny_gpt_tokenizer.encode("the")
    whole = random_rows(tiny_gpt_tokenizer, encoding)
    ids, probs = torch.tensor([[3, -1], [3, -1]]), torch.tensor([[1.0, 0], [1, 0]])
    cut = SparseRows(ids, probs, torch.zeros(2), tiny_gpt_tokenizer.size)
    got = next_characters(replace(whole, rows=cut), encoding, tiny_gpt_tokenizer, [0, 1])
    assert got.unknown.tolist() == [0, 1] and got.byte_probs.sum(1).tolist() == [1, 0]


def test_single_bytes_are_the_rows_themselves() -> None:
    tokenizer = TextTokenizer(byte_level(), "bytes", start_id=256, eos_id=256)
    encoding = tokenizer.encode("a é😀")
    rows = random_rows(tokenizer, encoding)
    got = next_characters(rows, encoding, tokenizer, range(len(encoding.data) + 1))
    ids = [tokenizer.id_of(bytes([b])) for b in range(256)]
    probs = rows.logprobs.exp()
    assert torch.allclose(got.byte_probs, probs[:, ids], atol=1e-6)
    assert torch.allclose(got.end, probs[:, 256], atol=1e-6) and not got.unknown.any()
    # The chain: along the text the bytes are as probable as the tokens.
    chained = got.byte_probs[range(len(encoding.data)), list(encoding.data)].log()
    assert torch.allclose(chained, rows.observed_logprob[:-1], atol=1e-4)


def test_single_characters_are_the_rows_themselves() -> None:
    text = "▁abé東😀"
    tokenizer = TextTokenizer(sentencepiece(list(text)), "characters", start_id=1, eos_id=2)
    encoding = tokenizer.encode("é a東😀")
    at = np.unique(np.maximum(encoding.row_bytes, 0))
    rows = random_rows(tokenizer, encoding)
    got = next_characters(rows, encoding, tokenizer, at)
    probs = rows.logprobs.exp()[1:]  # row 0 is to spell the dummy prefix
    for n, row in enumerate(probs):
        for c in "abé東😀":
            same = [i for i, own in enumerate(tokenizer.bytes_of) if own == c.encode()]
            p = float(got.probs[n, got.characters.index(c)])
            assert p == pytest.approx(float(row[same].sum()), abs=1e-6)
    piece = tokenizer.id_of(b"\xc3")
    assert torch.allclose(got.partial[:, got.parts.index(b"\xc3")], probs[:, piece], atol=1e-6)


def test_what_completes_a_character_is_shown_whole(tiny_gpt_tokenizer) -> None:
    encoding = tiny_gpt_tokenizer.encode("京")  # three bytes, three tokens
    assert len(encoding) == 3
    rows = random_rows(tiny_gpt_tokenizer, encoding)
    got = next_characters(rows, encoding, tiny_gpt_tokenizer, [1, 2])
    last = tiny_gpt_tokenizer.id_of("京".encode()[2:])
    p = float(got.probs[1, got.characters.index("京")])
    assert p == pytest.approx(math.exp(float(rows.logprobs[2, last])), abs=1e-6)
    assert float(got.partial[0, got.parts.index("京".encode()[:2])]) > 0
    assert float(got.partial[1, got.parts.index("京".encode()[:2] + b"a")]) > 0
    assert all(len(c.encode()) == 3 for c in got.characters)


@pytest.mark.parametrize("text", TEXTS)
def test_the_chain_inside_a_token_never_exceeds_its_beginnings(
    tiny_gpt_tokenizer, text: str
) -> None:
    """Other paths count as unknown: bytes along a token are at most as probable as its tokens."""
    encoding = tiny_gpt_tokenizer.encode(text)
    rows = random_rows(tiny_gpt_tokenizer, encoding)
    data = encoding.data
    got = next_characters(rows, encoding, tiny_gpt_tokenizer, range(len(data)))
    index = ByteIndex(enumerate(tiny_gpt_tokenizer.bytes_of))
    for i, (start, end) in enumerate(zip(encoding.start, encoding.end, strict=True)):
        product = math.prod(float(got.byte_probs[b, data[b]]) for b in range(start, end))
        own = data[start:end]
        begun = [t for _, t in index.extending(own) + index.prefixes_of(own)[-1:]]
        whole = float(rows.logprobs[i].exp()[begun].sum())
        assert product <= whole + 1e-6
        assert end - start > 2 or product == pytest.approx(whole, abs=1e-6)


def test_first_character_knows_every_beginning() -> None:
    for lead in LEADS | {b""}:
        assert first_character(lead) == lead
        for byte in (0, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xED, 0xF4, 0xFF):
            string = lead + bytes([byte, 0xFF])
            assert first_character(string) == begins_with(string)


def test_positions_outside_the_text_are_refused(tiny_gpt_tokenizer) -> None:
    encoding = tiny_gpt_tokenizer.encode("the")
    rows = random_rows(tiny_gpt_tokenizer, encoding)
    for wrong in (-1, 4):
        with pytest.raises(InputError, match=f"Byte {wrong} lies outside"):
            next_characters(rows, encoding, tiny_gpt_tokenizer, [0, wrong])
    with pytest.raises(InputError, match="one model and text"):
        next_characters(rows, tiny_gpt_tokenizer.encode("the cat"), tiny_gpt_tokenizer, [0])
    nothing = next_characters(rows, encoding, tiny_gpt_tokenizer, [])
    assert nothing.probs.shape == (0, 0) and nothing.byte_probs.shape == (0, 256)


def test_byte_index_equals_a_search(tiny_llama_tokenizer) -> None:
    entries = [*enumerate(tiny_llama_tokenizer.bytes_of), (999, b"\xff\xffa"), (998, b"\xff")]
    index = ByteIndex(entries)
    spelled = sorted((b, i) for i, b in entries if b)
    assert list(index) == spelled
    for string in [
        b"",
        b"t",
        b" t",
        b"the",
        b" the",
        b"\xe6",
        b"\xff",
        b"\xff\xff",
        b"zz",
        b"a\xff",
    ]:
        longer = [(b, i) for b, i in spelled if b.startswith(string) and b != string]
        assert index.extending(string) == longer
        assert index.prefixes_of(string) == [(b, i) for b, i in spelled if string.startswith(b)]
