"""All 13 tokenizers on real texts, and all 156 pairs: do bytes, losses and alignments hold?

    FUSELAB_TESTDATA=<folder of test data> python benchmarks/sweep.py    # writes results/sweep.md

Readings are held against the oracles of `tests/sweep.py`, alignments against those of
`tests/plain_alignment.py`.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from plain_alignment import CUT, LOST, OTHER, Side, alignment_faults, reasons
from sweep import Vocabulary, corpora, reading_faults

from fusion_core import tokens
from fusion_core.align import by_bytes, by_bytes_batch
from fusion_core.records import Alignment, Encoding
from fusion_core.tokens import TextTokenizer

RESULT = ROOT / "benchmarks" / "results" / "sweep.md"
CHUNK = 60_000
"""Bytes of text that are aligned in one batch."""
SHOWN = 30
"""Disagreements that are written out."""
KINDS = ("shared", "inside", "without a row")

INTRODUCTION = """\
{tokenizers} real tokenizers, all {pairs} ordered pairs of them, and {texts} texts: the Universal
Declaration of Human Rights in 25 languages, the Big List of Naughty Strings, the prompts of
HumanEval, and the validation part of WikiText-2, cut into its articles. Made by

    FUSELAB_TESTDATA=<folder of test data> python benchmarks/sweep.py
"""
READINGS = """\
For each corpus: texts that are reproduced / bytes that are named as lost. Both were compared with a
second way of working them out. For the eleven BPE tokenizers it is what their own decoder makes of
the ids: the characters that are not lost have to stand in it in order, and no smaller loss may be
possible; where either of two equal neighbours can be the lost one, both answers are right. For BERT
it is a normaliser and a WordPiece reader written from their definitions, for ALBERT its
normaliser's table applied grapheme by grapheme and a Unigram reader: they have to give the same
ids, and what is lost and where each token stands is compared character by character; where several
spaces became one, any of them may be the one that is kept. Spans have to be in order inside the
text, every byte that is not lost has to be in a span, and a token whose span holds no lost byte has
to be these bytes (a dummy prefix apart, or a space in the place of what is lost before it).
Misspelt entries are those to whose vocabulary string the oracle gives other bytes."""
ALIGNMENTS = """\
Each pair and text was aligned in batches and compared with brute force over sets and dicts of end
bytes: groups, boundaries, and for each position (a target token to be predicted) the source's row,
what it is, its offset, and whether a boundary is there. Groups have to partition the tokens of both
sides; where both sides reproduce the text, the two sides of a group have to be the same bytes and
every position has to have a row. The first and the last text of each batch were aligned singly,
too, with equal results."""
WITHOUT = """\
Where a source does not reproduce the text, over all targets and corpora: positions without a row by
reason, and shared positions that lie inside a character that the source loses, where its boundary
is interpolated."""


@dataclass
class Readings:
    """One tokenizer's readings of one corpus."""

    texts: int = 0
    lossless: int = 0
    size: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, encoding: Encoding, faults: Sequence[str]) -> None:
        """Count a reading."""
        self.texts += 1
        self.lossless += encoding.lossless
        self.size += len(encoding.data)
        self.lost += sum(end - start for start, end in encoding.lost)
        self.faults += [f"{encoding.model}: {f}" for f in faults]


@dataclass
class Pairs:
    """Alignments of all ordered pairs over one corpus."""

    alignments: int = 0
    groups: int = 0
    kinds: Counter[int] = field(default_factory=Counter)
    lossless: int = 0
    lossless_kinds: Counter[int] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, target: Side, source: Side, aligned: Alignment, names: tuple[str, str]) -> None:
        """Count an alignment."""
        kinds = dict(enumerate(np.bincount(aligned.kind, minlength=3).tolist()))
        self.alignments += 1
        self.groups += len(aligned.groups)
        self.kinds.update(kinds)
        if target.lossless and source.lossless:
            self.lossless += 1
            self.lossless_kinds.update(kinds)
        if not source.lossless:
            found = reasons(target, source, aligned)
            self.reasons.update({(names[1], reason): n for reason, n in found.items()})
        faults = alignment_faults(target, source, aligned)
        self.faults += [f"{names[0]} from {names[1]}: {f}" for f in faults]


def chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut a list of texts into stretches of about `CHUNK` bytes."""
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if sum(len(t.encode()) for t in chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def same(one: Alignment, other: Alignment) -> bool:
    """Tell whether two alignments are equal in every array."""
    names = ("groups", "boundary", "row", "kind", "offset", "at_boundary")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


class Sweep:
    """Tokenizers, each with its oracle, and what was counted."""

    def __init__(self, tokenizers: dict[str, TextTokenizer]) -> None:
        """Take tokenizers by name."""
        self.tokenizers = tokenizers
        self.vocabularies = {n: Vocabulary.of(t._backend) for n, t in tokenizers.items()}
        self.faults_of = {n: reading_faults(v) for n, v in self.vocabularies.items()}
        self.readings: dict[tuple[str, str], Readings] = {}
        self.pairs: dict[str, Pairs] = {}

    def misspelt(self, name: str) -> list[int]:
        """List the ids whose bytes are not those that the oracle reads in the vocabulary."""
        spelt = self.vocabularies[name].spelt
        entries = enumerate(self.tokenizers[name].bytes_of)
        return [i for i, literal in entries if literal not in {None, spelt.get(i)}]

    def faults(self) -> list[str]:
        """List every disagreement."""
        counted = [*self.readings.values(), *self.pairs.values()]
        return [fault for tally in counted for fault in tally.faults]

    def run(self, corpus: str, texts: Sequence[str]) -> None:
        """Read and align the texts of a corpus."""
        pairs = self.pairs.setdefault(corpus, Pairs())
        for chunk in chunks(texts):
            encodings = {n: t.encode_batch(chunk) for n, t in self.tokenizers.items()}
            for name, own in encodings.items():
                tally = self.readings.setdefault((name, corpus), Readings())
                for text, encoding in zip(chunk, own, strict=True):
                    tally.add(encoding, self.faults_of[name](text, encoding))
            sides = {n: [Side(self.vocabularies[n], e) for e in es] for n, es in encodings.items()}
            for names in itertools.permutations(encodings, 2):
                targets, sources = (encodings[n] for n in names)
                batch = by_bytes_batch(targets, sources)
                for target, source, aligned in zip(*(sides[n] for n in names), batch, strict=True):
                    pairs.add(target, source, aligned, names)
                for n in {0, len(chunk) - 1}:
                    if not same(batch[n], by_bytes(targets[n], sources[n])):
                        pairs.faults.append(f"{names}: a batch is not what a single call gives")


def load(testdata: Path) -> dict[str, TextTokenizer]:
    """Load the tokenizers of a folder of test data."""
    folders = sorted(p for p in (testdata / "tokenizers").iterdir() if p.is_dir())
    return {p.name: tokens.load(p, p.name) for p in folders}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Write Markdown lines; the first column is text, the others are counts."""
    cells = [[f"{c:,}" if isinstance(c, int) else c for c in row] for row in rows]
    rule = f"| --- |{' ---: |' * (len(head) - 1)}"
    return ["", f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in cells), ""]


def render(sweep: Sweep) -> str:
    """Write the figures in Markdown."""
    names, pairs = list(sweep.tokenizers), sweep.pairs
    some = {c: sweep.readings[names[0], c] for c in pairs}
    readings = []
    for name in names:
        own = [sweep.readings[name, c] for c in pairs]
        cells = [f"{r.lossless:,} / {r.lost:,}" for r in own]
        wrong = sum(len(r.faults) for r in own)
        readings.append([f"`{name}`", *cells, len(sweep.misspelt(name)), wrong])
    aligned = [
        [c, p.alignments, p.groups, *(p.kinds[k] for k in (1, 2, 0)), len(p.faults)]
        for c, p in pairs.items()
    ]
    whole = [[c, p.lossless, *(p.lossless_kinds[k] for k in (1, 2, 0))] for c, p in pairs.items()]
    reasons: Counter[tuple[str, str]] = sum((p.reasons for p in pairs.values()), Counter())
    why = [
        [f"`{name}`", *(reasons[name, reason] for reason in (LOST, OTHER, CUT))]
        for name in names
        if any(reasons[name, reason] for reason in (LOST, OTHER, CUT))
    ]
    corpus = [f"{c} ({r.texts:,} texts, {r.size:,} bytes)" for c, r in some.items()]
    faults = sweep.faults()
    lines = [
        "# Every tokenizer, every pair",
        "",
        INTRODUCTION.format(
            tokenizers=len(names),
            pairs=len(names) * (len(names) - 1),
            texts=sum(r.texts for r in some.values()),
        ),
        "## Readings",
        "",
        READINGS,
        *table(["tokenizer", *corpus, "entries misspelt", "disagreements"], readings),
        "## Alignments",
        "",
        ALIGNMENTS,
        *table(["corpus", "alignments", "groups", *KINDS, "disagreements"], aligned),
        "Of these, where both sides reproduce the text:",
        *table(["corpus", "alignments", *KINDS], whole),
        WITHOUT,
        *table(["source", LOST, OTHER, CUT], why),
        "## Disagreements",
        "",
        *([f"- {fault}" for fault in faults[:SHOWN]] or ["None."]),
        *([f"- and {len(faults) - SHOWN:,} more"] if len(faults) > SHOWN else []),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print what disagrees, and write the result."""
    folder = os.environ.get("FUSELAB_TESTDATA")
    if not folder:
        sys.exit("FUSELAB_TESTDATA is not set: it names the folder of real test data.")
    sweep = Sweep(load(Path(folder)))
    for corpus, texts in corpora(Path(folder)).items():
        sweep.run(corpus, texts)
        print(f"{corpus}: {len(texts)} texts, {len(sweep.faults())} disagreements so far")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(render(sweep), encoding="utf-8")
    sys.exit(bool(sweep.faults()))


if __name__ == "__main__":
    main()
