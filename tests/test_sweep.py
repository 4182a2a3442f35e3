"""Real tokenizers on real texts, alone and in pairs, against the oracles of the sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TOKENIZERS
from sweep import Vocabulary, common_length, corpora, is_subsequence, reading_faults

from benchmarks import sweep as command
from fusion_core.align import by_bytes
from fusion_core.records import Encoding
from fusion_core.tokens import TextTokenizer

SCRIPTS = ("jpn", "hin", "pes_1", "amh", "yor")
"""Languages of the sample, of which some have characters that NFC changes."""
Loader = Callable[[str], TextTokenizer]


def check(sweep: command.Sweep) -> None:
    """Fail at any disagreement, and where a pair of whole readings has no row."""
    assert sweep.faults() == []
    for name in sweep.tokenizers:
        assert sweep.misspelt(name) == []
    for pairs in sweep.pairs.values():
        assert pairs.lossless > 0 and pairs.lossless_kinds[0] == 0
        assert not any(n for (_, reason), n in pairs.reasons.items() if reason == command.OTHER)


@pytest.mark.slow
def test_every_tokenizer_and_pair_on_every_text(testdata: Path, real_tokenizer: Loader) -> None:
    sweep = command.Sweep({name: real_tokenizer(name) for name in TOKENIZERS})
    for corpus, texts in corpora(testdata).items():
        sweep.run(corpus, texts)
    check(sweep)
    assert command.render(sweep).endswith("None.\n")


def test_every_pair_on_a_sample(testdata: Path, real_tokenizer: Loader) -> None:
    sweep = command.Sweep({name: real_tokenizer(name) for name in TOKENIZERS})
    texts = corpora(testdata)
    udhr = sorted(p.stem for p in (testdata / "data" / "udhr").glob("*.txt"))
    sample = [texts["UDHR"][udhr.index(f"udhr_{script}")] for script in SCRIPTS]
    sweep.run("UDHR", [text[:400] for text in sample])
    sweep.run("naughty", texts["naughty"][80:100] + texts["naughty"][100::16])
    sweep.run("HumanEval", texts["HumanEval"][::30])
    check(sweep)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_readings_of_long_texts(name: str, testdata: Path, real_tokenizer: Loader) -> None:
    tokenizer = real_tokenizer(name)
    faults = reading_faults(Vocabulary.of(tokenizer._backend))
    udhr = [testdata / "data" / "udhr" / f"udhr_{s}.txt" for s in SCRIPTS[:3]]
    texts = [p.read_text(encoding="utf-8") for p in udhr] + corpora(testdata)["WikiText"][2:3]
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert faults(text, encoding) == []


TEXTS = {
    "gpt2": "shift one span",
    "llama-2-7b-fast": "shift 東 span",
    "llama-2-7b": "  two spaces, one of them lost",
    "qwen1.5": "of two one, e\u0301, is lost, é not",
    "bert-base-uncased": "One capital, né two",
    "albert-spiece": "one  double space, ﬁ and ① too",
}


def moved(encoding: Encoding, by: int) -> Encoding:
    """Move the end of one text token and the start of the next."""
    first, second = encoding.text_tokens[1:3]
    start, end = encoding.start.copy(), encoding.end.copy()
    start[second] += by
    end[first] += by
    return replace(encoding, start=start, end=end)


@pytest.mark.parametrize("name", TEXTS)
def test_the_oracle_sees_wrong_readings(name: str, real_tokenizer: Loader) -> None:
    tokenizer, text = real_tokenizer(name), TEXTS[name]
    faults = reading_faults(Vocabulary.of(tokenizer._backend))
    encoding = tokenizer.encode(text)
    assert faults(text, encoding) == []
    size = len(encoding.data)
    wrong = [
        moved(encoding, -1),
        replace(encoding, lossless=not encoding.lossless),
        replace(encoding, dummy_prefix=not encoding.dummy_prefix),
        replace(encoding, lost=((size - 1, size),), lossless=False),
        replace(encoding, ids=np.roll(encoding.ids, 1)),
    ]
    if encoding.lost:
        (start, end), *others = encoding.lost
        wrong += [
            replace(encoding, lost=()),
            replace(encoding, lost=tuple(others)),
            replace(encoding, lost=((start, end + 1), *others)),
            replace(encoding, lost=((start + 3, end + 3), *others)),
        ]
    for n, other in enumerate(wrong):
        assert faults(text, other), f"wrong reading {n} passes"


def test_the_oracle_sees_wrong_alignments(real_tokenizer: Loader) -> None:
    text = "unbelievable 東京 tokenisation"
    sides, encodings = [], []
    for name in ("gpt2", "llama-2-7b-fast"):
        tokenizer = real_tokenizer(name)
        encodings.append(tokenizer.encode(text))
        sides.append(command.Side(Vocabulary.of(tokenizer._backend), encodings[-1]))
    aligned = by_bytes(*encodings)
    assert command.alignment_faults(*sides, aligned) == []
    merged = np.concatenate([aligned.groups[:1], aligned.groups[2:]])
    merged[0, 1::2] = aligned.groups[1, 1::2]
    wrong = [replace(aligned, groups=merged), replace(aligned, at_boundary=~aligned.at_boundary)]
    for field in ("row", "kind", "offset", "boundary"):
        values = getattr(aligned, field).copy()
        values[2] += 1
        wrong.append(replace(aligned, **{field: values}))
    for n, other in enumerate(wrong):
        assert command.alignment_faults(*sides, other), f"wrong alignment {n} passes"
        assert not command.same(aligned, other)


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [("", "abc", 0), ("abc", "abc", 3), ("abcabba", "cbabac", 4), ("aab", "ab", 2), ("é", "e", 0)],
)
def test_common_subsequences(one: str, other: str, length: int) -> None:
    assert common_length(one, other) == common_length(other, one) == length
    assert is_subsequence(one, other) == (length == len(one))
