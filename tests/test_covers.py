"""Covers against the sum over every token sequence; their telescoping sum; who cannot have them."""

from __future__ import annotations

from functools import cache
from itertools import islice
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from canonical_tokenizers import across_words, unsplit_unigram, wordpiece
from conftest import byte_level, chain, sentencepiece, tiny_model
from exact_readings import tokenizer as small_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_covers import PlainModel
from tiny_tokenizers import metaspace, named

from fusion_core import characters, corpus, models
from fusion_core.covers import read_with_covers
from fusion_core.models import LoadedModel
from fusion_core.records import Covers
from fusion_core.tokens import TextTokenizer

# Every sequence of tokens ------------------------------------------------------------------------


def gpt() -> TextTokenizer:
    merges = chain("Ġthe", "the", "at", "cat", "Ġc", "he", "ĠĠĠ", "æĿ±", "ca")
    backend = byte_level(merges)
    end = backend.token_to_id("<|endoftext|>")
    return TextTokenizer(backend, "gpt", start_id=end, eos_id=end)


def llama() -> TextTokenizer:
    merges = chain("▁the", "at", "cat", "▁▁", "he")
    letters = list("▁thecatso東\n")
    return named(sentencepiece(letters + [a + b for a, b in merges], merges), "llama")


TOYS = {
    "gpt": (gpt, "bytes", ("the cats", "  the", "a  é", "x東y", "é the", "cat\n\n at", "'ll the")),
    "llama": (llama, "unsplit", ("the cat", "a  the", "é t", "東é", "hehe cats")),
    "across words": (across_words, "unsplit", ("the cat.", "of the", "aaaaa", " of")),
    "metaspace": (lambda: named(metaspace("unigram", "▁", "always"), "metaspace"), "mark",
                  ("the cat", "on a", "sea and", "dog ran")),
    "wordpiece": (wordpiece, "mark", ("the cat", "on  a", "sea and", "ran two")),
    "without start": (unsplit_unigram, "unsplit", ("the cat s", "aaaaa", "haha.the")),
}  # fmt: skip
"""Tokenizers, how they cut words, and texts of up to ten bytes."""


@cache
def toy(name: str) -> tuple[LoadedModel, PlainModel]:
    made, style, _ = TOYS[name]
    tokenizer = made()
    model = tiny_model(tokenizer, seed=3)
    model.network.double()
    start, ends = tokenizer.start_id, tokenizer.end_ids
    return model, PlainModel(tokenizer._backend, model.network, start, ends, style)


def covered(model: LoadedModel, text: str) -> tuple[Covers, characters.NextCharacters]:
    """Read a text, and covers of all of its bytes; and sum them up by the next byte."""
    encoding = model.tokenizer.encode(text)
    assert encoding.lossless
    at = np.arange(len(encoding.data) + 1)
    ((rows, covers),) = read_with_covers(model, [encoding], [at], prune=0)
    return covers, characters.next_characters(rows, encoding, model.tokenizer, at, covers)


def check_sums(name: str, text: str) -> None:
    model, plain = toy(name)
    covers, got = covered(model, text)
    expected = plain.expects(text.encode())
    said = np.asarray([e.total > 0 for e in expected])
    assert said[-1] and np.array_equal(np.isfinite(covers.log_mass), said)
    for n in np.flatnonzero(said):
        one = expected[n]
        assert covers.log_mass[n] == pytest.approx(log(one.total - one.never), abs=2e-5)
        assert covers.noncanonical[n] == pytest.approx(one.never / one.total, abs=1e-5)
        assert got.byte_probs[n].tolist() == pytest.approx(one.next_byte, abs=1e-5)
        assert float(got.end[n]) == pytest.approx(one.end, abs=1e-5)
        rest = 1 - sum(one.next_byte) - one.end
        assert float(got.unknown[n]) == pytest.approx(rest, abs=1e-5)


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, (*_, some) in TOYS.items() for t in some])
def test_covers_are_the_sum_over_all_token_sequences(name: str, text: str) -> None:
    check_sums(name, text)


@pytest.mark.parametrize("name", TOYS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_covers_of_any_text_are_the_sum_over_all_token_sequences(name: str, data) -> None:
    letters = "thecat " if name != "gpt" else "thecat \né"
    text = data.draw(st.text(letters, min_size=1, max_size=8))
    model, _ = toy(name)
    if model.tokenizer.dummy_prefix and text.startswith(" "):
        text = "a" + text[1:]  # before a space some put no dummy prefix
    if model.tokenizer.encode(text).lossless:
        check_sums(name, text)


# The sum telescopes ------------------------------------------------------------------------------


def source_nats(model: LoadedModel, text: str) -> float:
    """Score a text and its end by a plain pass over the raw tokenizer's tokens."""
    tokenizer = model.tokenizer
    ids = tokenizer._backend.encode(text, add_special_tokens=False).ids
    start = [] if tokenizer.start_id is None else [tokenizer.start_id]
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([start + ids])).logits[0]
    used = [i for i in range(tokenizer.size) if i not in set(tokenizer.unused_ids.tolist())]
    given = torch.full(logits.shape, -torch.inf, dtype=torch.float64)
    given[:, used] = logits[:, used].double().log_softmax(1)
    nats = -given[-1, list(tokenizer.end_ids)].logsumexp(0)
    for n, i in enumerate(ids):
        if n or start:
            nats -= given[n - 1 + len(start), i]
    return float(nats)


def telescoped(model: LoadedModel, text: str) -> tuple[float, float]:
    """Return what the next bytes' sum misses of the model's own cross-entropy, in nats a byte.

    Returns:
        The difference, less the mass that was reported; and that mass.
    """
    covers, got = covered(model, text)
    data, said = text.encode(), np.isfinite(covers.log_mass)
    nats = -sum(log(float(got.byte_probs[n, b])) for n, b in enumerate(data) if said[n])
    nats -= log(float(got.end[len(data)]))
    first = int(said.argmax())  # a dummy prefix, of which the text has no byte, comes before it
    nats -= covers.log_mass[first] - np.log1p(-float(covers.noncanonical[first]))
    left_out = -float(np.log1p(-covers.noncanonical.astype(np.float64)[said]).sum())
    missing = source_nats(model, text) - nats - left_out
    return missing / len(data), left_out / len(data)


def stories(testdata: Path) -> list[tuple[LoadedModel, str]]:
    folder = testdata / "models"
    readers = [models.load(str(folder / n)) for n in ("stories260K", "babyllama-tok105")]
    lines = (testdata / "data" / "tinystories" / "windows.txt").read_text(encoding="utf-8")
    return [(r, w) for r in readers for w in lines.strip().split("\n\n")]


def zoo(documents: int) -> list[tuple[LoadedModel, str]]:
    found = []
    for name in ("gpt2-story", "mpt-code", "neox-reason"):
        model = models.load(f"zoo:{name}")
        for domain in corpus.DOMAINS:
            found += [
                (model, t) for t in islice(corpus.documents(domain, "test", seed=7), documents)
            ]
    return found


SCRIPTS = ("hin", "cmn_hant", "amh", "eng")


@cache
def reader_of(tokenizer: TextTokenizer) -> LoadedModel:
    """Make a small random model for a tokenizer."""
    made = tiny_model(tokenizer, seed=5, extra=0)
    made.network.double()
    return made


def declarations(
    testdata: Path, tokenizer: TextTokenizer, characters: int
) -> list[tuple[LoadedModel, str]]:
    """Read excerpts in four scripts."""
    found = []
    for script in SCRIPTS:
        text = (testdata / "data" / "udhr" / f"udhr_{script}.txt").read_text(encoding="utf-8")
        text = text[len(text) // 2 :].split("\n", 1)[1].strip()
        found.append((reader_of(tokenizer), text[:characters]))
    return found


def check_telescoping(pairs: list[tuple[LoadedModel, str]]) -> None:
    for model, text in pairs:
        missing, _ = telescoped(model, text)
        assert abs(missing) < 1e-3, (model.name, text[:60], missing)


def test_sums_over_stories_telescope(testdata: Path) -> None:
    pairs = stories(testdata)
    check_telescoping([*pairs[:2], *pairs[-2:]])


def test_sums_over_the_zoos_documents_telescope() -> None:
    pairs = zoo(1)
    check_telescoping([min(pairs[n : n + 3], key=lambda p: len(p[1])) for n in (0, 3, 6)])


@pytest.mark.parametrize(
    "tokenizer", ["sentencepiece_bpe", "sentencepiece_unigram", "byte_level_code"]
)
def test_sums_over_scripts_in_small_tokens_telescope(testdata: Path, tokenizer: str) -> None:
    check_telescoping(declarations(testdata, small_tokenizer(tokenizer), 12))


@pytest.mark.slow
def test_sums_over_all_stories_and_documents_telescope(testdata: Path) -> None:
    check_telescoping([*stories(testdata), *zoo(6)])


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["gpt2", "llama-2-7b-fast", "qwen1.5", "mistral-7b-v0.1"])
def test_sums_over_scripts_in_real_tokens_telescope(
    testdata: Path, real_tokenizer, tokenizer: str
) -> None:
    check_telescoping(declarations(testdata, real_tokenizer(tokenizer), 5))
