"""Pairs of tokens that stay as they are, against texts of both that `tokenizers` encodes."""

from __future__ import annotations

import numpy as np
import pytest

from fusion_core.tokens import Canonical, TextTokenizer, canonical


def spelled_pairs(tokenizer: TextTokenizer, pairs: np.ndarray, before: str) -> list[bool | None]:
    """Encode each pair after a separator, white space also before a word; None for no text."""
    head = tokenizer._backend.encode(before, add_special_tokens=False).ids
    out: list[bool | None] = []
    for u, w in pairs.tolist():
        string = tokenizer.bytes_of[u] + tokenizer.bytes_of[w]
        try:
            text = before + string.decode()
        except UnicodeDecodeError:
            out.append(None)
            continue
        ends = [[]]
        if string[-1:].isspace():
            ends += [tokenizer._backend.encode(s, add_special_tokens=False).ids for s in "a1"]
        reads = (
            tokenizer._backend.encode(text + s, add_special_tokens=False).ids
            for s in ("", "a", "1")[: len(ends)]
        )
        out.append(any(ids == [*head, u, w, *end] for ids, end in zip(reads, ends, strict=True)))
    return out


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("gpt2", ""),
        ("llama-3", ""),
        ("qwen1.5", ""),
        ("llama-2-7b-fast", "\n"),
        ("llama-2-7b", "\n"),
        ("mistral-7b-v0.1", "\n"),
    ],
)
def test_pairs_stay_as_they_are_encoded(real_tokenizer, name, before) -> None:
    tokenizer = real_tokenizer(name)
    draw = np.random.default_rng(0)
    known = [i for i in range(tokenizer.size) if tokenizer.bytes_of[i]]
    spaces = [tokenizer.id_of(s) for s in (b" ", b"  ", b"   ", b" the", b"the", b"s", b"'", b"1")]
    spaces = [i for i in spaces if i >= 0]
    pairs = np.concatenate(
        [draw.choice(known, (1500, 2)), [(u, w) for u in spaces for w in spaces]]
    )
    found = Canonical(tokenizer).stays(pairs).tolist()
    want = spelled_pairs(tokenizer, pairs, before)
    wrong = [
        (p, w) for p, f, w in zip(pairs.tolist(), found, want, strict=True) if w not in (f, None)
    ]
    assert wrong == [] and {True, False} <= set(found)


@pytest.mark.parametrize(
    "name", ["gpt2", "llama-3", "qwen1.5", "llama-2-7b-fast", "phi-3", "falcon"]
)
def test_pairs_of_a_text_within_words_stay(real_tokenizer, name) -> None:
    encoding = real_tokenizer(name).encode("The cats sat unquestionably on my grandfather's mats.")
    ids = encoding.ids[encoding.text_tokens]
    assert Canonical(real_tokenizer(name)).stays(np.stack([ids[:-1], ids[1:]], 1)).all()


def test_known_pairs_are_looked_up_and_forgotten(real_tokenizer, monkeypatch) -> None:
    tokenizer = real_tokenizer("gpt2")
    monkeypatch.setattr(canonical, "KEPT_PAIRS", 50)
    fresh, known = Canonical(tokenizer), Canonical(tokenizer)
    pairs = np.random.default_rng(1).integers(0, 3000, (400, 2))
    want = fresh.stays(pairs)
    asked = []
    ask = known._ask
    monkeypatch.setattr(known, "_ask", lambda keys: asked.append(len(keys)) or ask(keys))
    for n in (*range(0, 400, 20), *range(380, 400, 5)):
        assert (known.stays(pairs[n : n + 20]) == want[n : n + 20]).all()
        assert len(known._recent) + len(known._older) <= 2 * 70
    assert sum(asked) == 400  # the last ones were known


def test_tokens_without_bytes_stay(tiny_llama_tokenizer) -> None:
    size = tiny_llama_tokenizer.size
    pairs = np.array([[0, 300], [300, 1], [size + 2, 300], [300, -1]])
    assert Canonical(tiny_llama_tokenizer).stays(pairs).all()
    assert Canonical(tiny_llama_tokenizer).stays(np.empty((0, 2), np.int64)).shape == (0,)


def test_two_spaces_within_a_text_are_spelled_where_none_is_put_before_a_space(
    real_tokenizer,
) -> None:
    for name in ("llama-2-7b", "llama-2-7b-fast", "mistral-7b-v0.1"):
        tokenizer = real_tokenizer(name)
        (found,) = tokenizer.spellings([b"  x"])
        assert b"".join(tokenizer.bytes_of[i] for i in found) == b"  x"
