"""Byte spans against what tokenizers themselves say when they decode."""

from __future__ import annotations

import difflib

import numpy as np
import pytest
from conftest import TOKENIZERS, byte_level, sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers import models as backends

from fusion_core import tokens
from fusion_core.errors import InputError, ModelFormatError
from fusion_core.tokens import TextTokenizer

TEXT = "Ünïcödé — 東京 2026年, Привет! مرحبا 👩🏽‍🚀"
CODE = 'def f(x):\n\tif x:  # "two  spaces"\n        return x </s> <|endoftext|>\n'


def lost_by_decoding(text: str, decoded: str) -> set[int]:
    """Name the bytes of the characters that a tokenizer's own decoder does not give back."""
    at = np.cumsum([0] + [len(c.encode()) for c in text])
    kept = set()
    matcher = difflib.SequenceMatcher(None, text, decoded, autojunk=False)
    for a, _, size in matcher.get_matching_blocks():
        kept |= set(range(at[a], at[a + size]))
    return set(range(at[-1])) - kept


def spans_in_order(encoding) -> None:
    assert (encoding.start <= encoding.end).all()
    assert (np.diff(encoding.start) >= 0).all() and (np.diff(encoding.end) >= 0).all()
    assert (encoding.end[:-1] <= encoding.start[1:]).all() or not encoding.lossless
    assert encoding.end.max(initial=0) <= len(encoding.data)
    special = encoding.special
    assert (encoding.start[special] == encoding.end[special]).all()


def lost_bytes(encoding) -> set[int]:
    return {b for s, e in encoding.lost for b in range(s, e)}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", [TEXT, CODE, "a", "  two leading", "e\u0301 \u0958 ﬁ ①"])
def test_spans_of_real_tokenizers(real_tokenizer, name: str, text: str) -> None:
    tokenizer = real_tokenizer(name)
    encoding = tokenizer.encode(text)
    spans_in_order(encoding)
    own = encoding.text_tokens
    if encoding.lossless:
        assert encoding.lost == ()
        covered = b"".join(encoding.data[encoding.start[i] : encoding.end[i]] for i in own)
        assert covered == encoding.data
    for i in own:  # what is not lost stands at its true bytes
        begin, end = int(encoding.start[i]), int(encoding.end[i])
        if end > begin and not set(range(begin, end)) & lost_bytes(encoding):
            literal = (
                tokenizer.bytes_of[encoding.ids[i]]
                or tokenizer.piece(int(encoding.ids[i])).encode()
            )
            assert literal in (encoding.data[begin:end], b" " + encoding.data[begin:end])
    if name not in {"bert-base-uncased", "albert-spiece"}:
        # Decoders of these families give back all that the ids hold; WordPiece's adds spaces.
        decoded = tokenizer._backend.decode(encoding.ids[own].tolist(), skip_special_tokens=False)
        assert encoding.lossless == (decoded == text)
        assert lost_bytes(encoding) == lost_by_decoding(text, decoded)


def text_of_lost(encoding) -> list[str]:
    return [encoding.data[s:e].decode() for s, e in encoding.lost]


def test_wordpiece_and_unigram_name_what_they_lose(real_tokenizer) -> None:
    bert = real_tokenizer("bert-base-uncased").encode(TEXT)
    expected = ["Ü", "ï", "ö", "é ", " ", " ", " П", " ", " 👩🏽‍🚀"]
    assert text_of_lost(bert) == expected and not bert.lossless
    albert = real_tokenizer("albert-spiece").encode("Ünï ﬁ")
    assert text_of_lost(albert) == ["Ü", "ï", "ﬁ"]


def test_the_two_llama_2_folders_differ_in_leading_spaces(real_tokenizer) -> None:
    slow, fast = (real_tokenizer(n).encode("  x") for n in ("llama-2-7b", "llama-2-7b-fast"))
    assert fast.lossless and fast.dummy_prefix
    assert not slow.lossless and slow.lost == ((0, 1),)


def test_every_token_of_a_character_has_its_own_bytes(real_tokenizer) -> None:
    encoding = real_tokenizer("open_llama_3b-fast").encode("京")
    own = encoding.text_tokens
    spans = list(zip(encoding.start[own].tolist(), encoding.end[own].tolist(), strict=True))
    assert spans[-3:] == [(0, 1), (1, 2), (2, 3)] or spans[-1] == (0, 3)
    assert encoding.lossless


def test_added_tokens_of_a_byte_level_vocabulary_are_literal(real_tokenizer) -> None:
    encoding = real_tokenizer("gpt-neox-20b_mpt").encode("x        y")
    assert "        " in encoding.pieces or "       " in encoding.pieces
    assert encoding.lossless


def test_a_written_special_token_is_ordinary_text(real_tokenizer) -> None:
    for name in ("llama-2-7b-fast", "gpt2", "bert-base-uncased"):
        tokenizer = real_tokenizer(name)
        encoding = tokenizer.encode("a</s><|endoftext|>[SEP]")
        own = set(encoding.ids[encoding.text_tokens].tolist())
        assert not own & (tokenizer.special_ids - {100, 3})


@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_dummy_prefix_is_stripped_once(
    family: str, tiny_llama_tokenizer, tiny_gpt_tokenizer
) -> None:
    tokenizer = tiny_llama_tokenizer if family == "llama" else tiny_gpt_tokenizer
    for text in ("the cat", " the cat", "   the"):
        encoding = tokenizer.encode(text)
        assert encoding.lossless
        assert encoding.dummy_prefix == (family == "llama")


TINY = {
    "byte-level": lambda: TextTokenizer(byte_level(), "b", start_id=256, eos_id=256),
    "sentencepiece": lambda: TextTokenizer(sentencepiece(list("▁ab")), "s", start_id=1, eos_id=2),
}


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)))
@pytest.mark.parametrize("family", TINY)
def test_any_text_is_reproduced(family: str, text: str) -> None:
    encoding = TINY[family]().encode(text)
    assert encoding.lossless and not encoding.lost
    spans_in_order(encoding)
    own = encoding.text_tokens
    assert encoding.start[own[0]] == 0 and encoding.end[own[-1]] == len(encoding.data)


@pytest.mark.parametrize("text", [" ab", "ab", "\nab", "\tab", "  ab"])
def test_byte_level_with_a_prefix_space(text: str) -> None:
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    encoding = TextTokenizer(backend, "p", start_id=256, eos_id=256).encode(text)
    assert encoding.lossless
    assert encoding.dummy_prefix == (text[0] != " ")
    assert encoding.end[-1] == len(text)


def test_the_dummy_prefix_is_found_without_latin_letters() -> None:
    backend = Tokenizer(backends.Unigram([("<unk>", 0.0), ("▁", -1.0), ("東", -2.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    encoding = TextTokenizer(backend, "u", start_id=None, eos_id=None).encode("東東")
    assert encoding.lossless and encoding.dummy_prefix


def test_ids_without_a_token_are_found() -> None:
    backend = Tokenizer(backends.BPE({"a": 0, "b": 4}, []))
    tokenizer = TextTokenizer(backend, "holes", start_id=None, eos_id=None)
    assert tokenizer.size == 5 and tokenizer.unused_ids.tolist() == [1, 2, 3]
    assert tokenizer.piece(2) == "[2]"


def test_vocabularies_that_differ_in_control_tokens_alone_are_not_the_same() -> None:
    keys = set()
    for special in (True, False):
        backend = byte_level()
        backend.add_tokens([AddedToken("<x>", special=special)])
        keys.add(TextTokenizer(backend, "k", start_id=256, eos_id=256).vocabulary_key)
    assert len(keys) == 2


def test_a_vocabulary_is_the_same_whatever_ends_documents() -> None:
    ends = [TextTokenizer(byte_level(), "k", start_id=256, eos_id=eos) for eos in (256, None)]
    assert len({t.vocabulary_key for t in ends}) == 1 and len({t.key for t in ends}) == 2


def test_a_long_text_that_is_not_reproduced(real_tokenizer) -> None:
    encoding = real_tokenizer("bert-base-uncased").encode("Ünïcödé words, Öf course. " * 8000)
    assert not encoding.lossless and len(encoding.lost) > 8000
    spans_in_order(encoding)


def wordlevel(unknown: str = "[UNK]") -> TextTokenizer:
    backend = Tokenizer(backends.WordPiece({"[UNK]": 0, "ab": 1, "##c": 2}, unk_token=unknown))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(backend, "w", start_id=None, eos_id=None)


def test_unknown_words_have_spans_and_are_lost() -> None:
    encoding = wordlevel().encode("abc  zz ABC")
    assert tuple(encoding.pieces) == ("ab", "c", "[UNK]", "ab", "c")
    assert encoding.start.tolist() == [0, 2, 5, 8, 10]
    assert encoding.end.tolist() == [2, 3, 7, 10, 11]
    assert encoding.lost == ((3, 11),)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abcABC zﬁé\n", min_size=1))
def test_lossy_spans_stay_in_order_inside_the_text(text: str) -> None:
    encoding = wordlevel().encode(text)
    spans_in_order(encoding)
    for i, token in enumerate(encoding.ids):
        if token and not set(range(encoding.start[i], encoding.end[i])) & lost_bytes(encoding):
            covered = encoding.data[encoding.start[i] : encoding.end[i]].decode()
            assert covered == encoding.pieces[i]


def test_first_tokens_spell_within_a_text(real_tokenizer) -> None:
    llama = real_tokenizer("llama-2-7b-fast")
    strings = [b" the", b"the", b" ", "東".encode(), "東".encode()[:2], b""]
    first = [llama.piece(i) if i >= 0 else None for i in llama.first_tokens(strings)]
    assert first == [" the", "the", " ", "東", "\\xe6", None]
    assert not llama.is_byte_piece[llama.first_tokens([b" "])[0]], "a real piece goes first"
    started = llama.first_tokens([b"the", "東".encode()], at_start=True)
    assert [llama.piece(i) for i in started] == [" the", " "]
    gpt2 = real_tokenizer("gpt2")
    first = [gpt2.piece(i) for i in gpt2.first_tokens([b" the", b"the", b" \xe6"])]
    assert first == [" the", "the", " \\xe6"]


def test_first_tokens_agree_with_encoding(tiny_gpt_tokenizer) -> None:
    for text in ("the", " cats", "東京", "sat.", " s"):
        own = tiny_gpt_tokenizer.encode(text)
        assert tiny_gpt_tokenizer.first_tokens([text.encode()])[0] == own.ids[0]


@pytest.mark.parametrize("text", ["", "a\ud800b"])
def test_texts_that_cannot_be_read(tiny_gpt_tokenizer, text: str) -> None:
    with pytest.raises(InputError, match=r"empty|surrogate"):
        tiny_gpt_tokenizer.encode(text)


def test_a_broken_tokenizer_file_is_one_sentence(tmp_path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model":')
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}'
    )
    with pytest.raises(ModelFormatError) as caught:
        tokens.load(tmp_path, "broken")
    assert "\n" not in str(caught.value) and "broken" in str(caught.value)
