"""Spellings of beginnings against whole prefixes, encoded one by one by `tokenizers` itself.

Whoever reads on from a beginning meets tokens that the whole text has not: karpathy/llama2.c#248,
GraySwanAI/nanoGCG#24, ggml-org/llama.cpp#2810.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from canonical_tokenizers import ALL_SMALL, TEXTS, small
from conftest import TOKENIZERS, byte_level, chain
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep import corpora
from tiny_tokenizers import named, without_spaces
from tokenizers import Regex, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizer

from fusion_core import tokens
from fusion_core.align.windows import cut
from fusion_core.records import Window
from fusion_core.tokens import Canonical, TextTokenizer, canonical

L = "Ġabcdefghijklmnopqrstuvwxyz"
TEXTS_SWEPT = 100
SPELLING = tuple(name for name in TOKENIZERS if name != "bert-base-uncased")


def prefixes(
    tokenizer: TextTokenizer, text: str, counts: Sequence[int]
) -> list[tuple[int, ...] | None]:
    """Encode a text's first characters; None where the tokens' bytes are not theirs."""
    dummy = b" " * tokenizer.encode(text).dummy_prefix
    heads = [text[:n] for n in counts]
    out: list[tuple[int, ...] | None] = []
    reads = tokenizer._backend.encode_batch_fast(heads, add_special_tokens=False)
    for head, ids in zip(heads, (r.ids for r in reads), strict=True):
        spelled = b"".join(tokenizer.bytes_of[i] or b"\xff" for i in ids)
        out.append(tuple(ids) if spelled == dummy + head.encode() else None)
    return out


def joined(tokenizer: TextTokenizer, text: str, ends: list[int], known: Canonical | None = None):
    """Join the encoding's tokens and the others of each path."""
    encoding = tokenizer.encode(text)
    ids = encoding.ids[encoding.text_tokens].tolist()
    out = []
    for path in (known or Canonical(tokenizer)).paths(encoding, ends):
        k, others = path or (0, ())
        assert not others or ids[k : k + 1] != [others[0]]
        out.append(path and (*ids[:k], *others))
    return out


def disagreeing(tokenizer: TextTokenizer, text: str, known: Canonical) -> list[str]:
    """Name the beginnings that are spelled otherwise than they are encoded."""
    counts = range(1, len(text) + 1)
    found = joined(tokenizer, text, [len(text[:n].encode()) for n in counts], known)
    want = prefixes(tokenizer, text, counts)
    return [text[:n] for n, p, w in zip(counts, found, want, strict=True) if p != w]


# Beginnings


@pytest.mark.parametrize("name", ALL_SMALL)
@settings(max_examples=30, deadline=None)
@given(st.text("thecatso 's.\n1aa東京é", min_size=1, max_size=60))
def test_small_tokenizers_spell_beginnings_as_whole_prefixes(name: str, text: str) -> None:
    assert disagreeing(small(name), text, Canonical(small(name))) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bytes", "lla'lll'll'lhe"),
        ("byte_level_code", "atheall''the'llhelaa'llhe'hea'he"),
        ("a continued word and a space", "heaaallthealaaa"),
    ],
)
def test_pieces_that_go_on_otherwise_begin_further_back(name: str, text: str) -> None:
    """A word's middle is a word of another kind: after a contraction, or as one that goes on."""
    assert disagreeing(small(name), text, Canonical(small(name))) == []


def test_equal_pieces_in_another_order_are_chosen_as_the_whole_text_does() -> None:
    """Scores of "a, aa" and "aa, a" differ by the last digits of what is added up before."""
    tokenizer = small("fractional")
    assert disagreeing(tokenizer, "c東ccacataaa東at", Canonical(tokenizer)) == []


@pytest.mark.parametrize("name", ["always", "first", "unigram"])
def test_a_text_before_which_no_dummy_prefix_is_put(name: str) -> None:
    """It begins with spaces, of which one is then taken for the prefix."""
    for text in ("  \n!aa.\n\ncat's==", "  llcat", " " * 60 + "the cat"):
        assert disagreeing(small(name), text, Canonical(small(name))) == []


@pytest.mark.parametrize("name", SPELLING)
def test_real_tokenizers_spell_beginnings_as_whole_prefixes(real_tokenizer, testdata, name) -> None:
    known = Canonical(real_tokenizer(name))
    some = [t[n : n + 120] for n, t in enumerate(corpora(testdata)["UDHR"][::3])]
    for text in (*TEXTS, *some):
        assert disagreeing(real_tokenizer(name), text, known) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SPELLING)
def test_full_sweep(real_tokenizer, testdata, name) -> None:
    """At every character of texts in many scripts; the lower-casing one reads them lower-cased."""
    known = Canonical(real_tokenizer(name))
    problems = (testdata / "data" / "gsm8k").glob("*.jsonl")
    lines = [json.loads(line)["question"] for p in problems for line in p.open(encoding="utf-8")]
    for texts in (*corpora(testdata).values(), lines):
        for text in texts[:TEXTS_SWEPT]:
            shown = " ".join(text.lower().split()) if name == "albert-spiece" else text
            if shown:
                assert disagreeing(real_tokenizer(name), shown[:600], known) == []


REAL = ("gpt2", "llama-3", "qwen1.5", "llama-2-7b-fast", "mistral-7b-v0.1", "albert-spiece")
TAILS = st.text("thecatso 's.\n1a東京杰é\u0301", max_size=12)


def same_until(tokenizer: TextTokenizer, head: str, tails: list[str]) -> None:
    """Check that nothing after a byte changes what is spelled up to it, within characters too."""
    texts = [head + t for t in tails]
    one, two = (t.encode() for t in texts)
    common = next(
        (n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
        min(len(one), len(two)),
    )
    dummies = {tokenizer.encode(t).dummy_prefix for t in texts}
    if len(dummies) == 1:
        ends = list(range(-dummies.pop(), common + 1))
        first, second = (joined(tokenizer, t, ends) for t in texts)
        assert first == second


@pytest.mark.parametrize("name", ALL_SMALL)
@settings(max_examples=25, deadline=None)
@given(st.text("thecatso 's.\n1a東é", min_size=1, max_size=40), TAILS, TAILS)
def test_what_follows_changes_nothing(name: str, head: str, one: str, two: str) -> None:
    same_until(small(name), head, [one, two])


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=25, deadline=None)
@given(st.text("thecatso 's.\n1a東é", min_size=1, max_size=40), TAILS, TAILS)
def test_what_follows_changes_nothing_for_real_ones(real_tokenizer, name, head, one, two) -> None:
    same_until(real_tokenizer(name), head, [one, two])


@pytest.mark.parametrize(
    "name", ["gpt2", "llama-3", "qwen1.5", "llama-2-7b-fast", "mistral-7b-v0.1"]
)
def test_unfinished_characters_have_their_bytes(real_tokenizer, name) -> None:
    tokenizer = real_tokenizer(name)
    text = "is 東京 — “naïve” \U0001f642 \uffff \U0010ffff \ud7ff…"
    encoding = tokenizer.encode(text)
    ends = list(range(len(encoding.data) + 1))
    for end, path in zip(ends, joined(tokenizer, text, ends), strict=True):
        shown = b" " * encoding.dummy_prefix + encoding.data[:end]
        assert b"".join(tokenizer.bytes_of[i] for i in path) == shown


def test_unfinished_characters_by_hand() -> None:
    """The model merges what it can of the last word; no merge reaches over the space before."""
    tokenizer = named(byte_level(chain("æĿ±", "Ġæ", "aĠ")), "b")
    found = joined(tokenizer, "a 東", [1, 2, 3, 4, 5])
    spelled = [[tokenizer.bytes_of[i] for i in p] for p in found]
    assert spelled[2:] == [
        [b"a", b" \xe6"[:1] + b"\xe6"],
        [b"a", b" ", b"\xe6\x9d"],
        [b"a", b" ", b"\xe6\x9d\xb1"],
    ]


def test_a_dummy_prefix_is_a_byte_before_the_text(tiny_llama_tokenizer) -> None:
    known = Canonical(tiny_llama_tokenizer)
    space = tiny_llama_tokenizer.id_of(b" ")
    assert known.paths(tiny_llama_tokenizer.encode("the"), [-1, 0, 3]) == [
        (0, ()),
        (0, (space,)),
        (1, ()),
    ]
    assert known.paths(tiny_llama_tokenizer.encode("東京"), [-1, 0, 3]) == [
        (0, ()),
        (1, ()),
        (2, ()),
    ]


def test_a_window_is_spelled_within_a_text(real_tokenizer) -> None:
    for name in REAL[:-1]:  # the last one drops a text's last space
        tokenizer = real_tokenizer(name)
        text = "every one of the cats sat on the mat, and nothing else happened there at all."
        whole = tokenizer.encode(text)
        start = text.index(" of")
        part, before = cut(whole, Window(start, len(text) - 5, start))
        known = Canonical(tokenizer)
        ids = part.ids.tolist()
        head = whole.ids[whole.text_tokens][:before].tolist()
        ends = range(1, len(part.data) + 1)
        wanted = prefixes(tokenizer, text, [start + n for n in ends])
        for want, path in zip(wanted, known.paths(part, ends), strict=True):
            assert want == (None if path is None else (*head, *ids[: path[0]], *path[1]))


@pytest.mark.parametrize("name", ["gpt2", "llama-3", "llama-2-7b-fast", "qwen1.5"])
@pytest.mark.parametrize("text", ["中文没有空格" * 300, "QmFzZTY0IGlzIGxvbmcu" * 100, "é" * 900])
def test_the_work_is_linear_where_there_are_no_spaces(
    real_tokenizer, monkeypatch, name, text
) -> None:
    tokenizer = real_tokenizer(name)
    spelled = []
    ask = tokenizer.prefix_spellings
    monkeypatch.setattr(
        TextTokenizer,
        "prefix_spellings",
        lambda self, strings, *how: spelled.extend(map(len, strings)) or ask(strings, *how),
    )
    ends = list(range(len(text.encode()) + 1))
    Canonical(tokenizer).paths(tokenizer.encode(text), ends)
    assert sum(spelled) < 100 * len(ends)


def test_what_was_spelled_is_remembered_and_forgotten(real_tokenizer, monkeypatch) -> None:
    tokenizer = real_tokenizer("gpt2")
    monkeypatch.setattr(canonical, "KEPT_PIECES", 20)
    known = Canonical(tokenizer)
    for text in TEXTS * 2:
        assert disagreeing(tokenizer, text, known) == []
        assert len(known._spelled) <= 20


# Tokenizers for which it cannot be had


@pytest.mark.parametrize("name", ALL_SMALL)
def test_small_tokenizers_have_canonical_beginnings(name: str) -> None:
    assert small(name).canonical.fault is None


@pytest.mark.parametrize("name", ["openai-gpt", "wordpiece", "wordlevel"])
def test_tokens_must_spell_spaces(name: str) -> None:
    assert "spaces" in (without_spaces(name).canonical.fault or "")


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python whose decoding says nothing of its kind."""

    def __init__(self) -> None:
        self._letters = {c: i for i, c in enumerate(" abcdefghijklmnopqrstuvwxyz")}
        super().__init__()

    @property
    def vocab_size(self) -> int:
        return len(self._letters)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._letters)

    def _tokenize(self, text: str) -> list[str]:
        return [c for c in text if c in self._letters]

    def _convert_token_to_id(self, token: str) -> int:
        return self._letters.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self._letters)[index]


def test_python_tokenizers_must_be_of_a_known_kind() -> None:
    assert "Python" in (tokens.from_transformers(Letters(), "letters").canonical.fault or "")
    bytes_alone = tokens.from_transformers(ByT5Tokenizer(), "bytes")
    assert bytes_alone.canonical.fault is None
    assert disagreeing_bytes(bytes_alone, TEXTS[1]) == []


def disagreeing_bytes(tokenizer: TextTokenizer, text: str) -> list[int]:
    data = text.encode()
    paths = joined(tokenizer, text, list(range(len(data) + 1)))
    return [n for n, p in enumerate(paths) if p != tuple(b + 3 for b in data[:n])]


@pytest.mark.parametrize("expression", [r"[\s\S]{7}", r"^[\s\S]{9}", r"(?<=\A[\s\S]{5})[\s\S]{6}"])
def test_pieces_must_be_spelled_as_whole_texts_are(expression: str) -> None:
    """Words that are counted from the text's begin cannot be spelled from the middle."""
    backend = byte_level(chain("the", "Ġcat", "sto", "Ġs", *(f"{a}{b}" for a in L for b in L)))
    cut_by_count = pre_tokenizers.Split(Regex(expression), "isolated")
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut_by_count, bytes_of_words])
    assert "not spelled alike" in (named(backend, "counted").canonical.fault or "")
