"""All 13 tokenizers on real texts, and all 156 pairs: do bytes, losses and alignments hold?

    FUSELAB_TESTDATA=<folder of test data> python benchmarks/sweep.py    # writes results/sweep.md

Readings are held against the oracles of `tests/sweep.py`, alignments against the ones here: sets
and dicts of end bytes in plain Python, which share no code with `fusion_core.align`.
"""

from __future__ import annotations

import itertools
import os
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sweep import Vocabulary, corpora, reading_faults

from fusion_core import tokens
from fusion_core.align import by_bytes, by_bytes_batch
from fusion_core.records import Alignment, Encoding, RowKind
from fusion_core.tokens import TextTokenizer

RESULT = ROOT / "benchmarks" / "results" / "sweep.md"
CHUNK = 60_000
"""Bytes of text that are aligned in one batch."""
SHOWN = 30
"""Disagreements that are written out."""
KINDS = ("shared", "inside", "without a row")
LOST = "the source loses a byte between its last boundary and the position, or its next token"
OTHER = "another reason"
CUT = "shared, but inside a character that the source loses"

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


class Side:
    """One reading as plain lists and dicts; of the tokens, those that are not special."""

    def __init__(self, vocabulary: Vocabulary, encoding: Encoding) -> None:
        """Read an encoding."""
        own, dummy = encoding.text_tokens, encoding.dummy_prefix
        self.lossless, self.lost, self.size = encoding.lossless, encoding.lost, len(encoding.data)
        self.first, self.n = int(own[0]) if len(own) else 0, len(own)
        if own.tolist() != list(range(self.first, self.first + self.n)):
            raise ValueError(f"{encoding.model}: special tokens among the text's")
        self.start, self.end = encoding.start[own].tolist(), encoding.end[own].tolist()
        self.all_end = encoding.end.tolist()
        self.upto = {end: n for n, end in enumerate(self.end, 1)}
        self.last = {end: n for n, end in enumerate(self.all_end)}
        self.row_bytes = [-int(dummy), *self.end]
        self.row_at = {stand: row for row, stand in enumerate(self.row_bytes)}
        spelt = [vocabulary.spelt[i] for i in encoding.ids[own].tolist()]
        self.joined, self.skip = b"".join(spelt), int(dummy)
        self.cuts = list(itertools.accumulate(map(len, spelt), initial=0))
        byte = np.frombuffer(encoding.data + b"a", np.uint8)
        self.cuts_a_character = (byte & 0xC0) == 0x80

    def loses(self, start: int, end: int) -> bool:
        """Tell whether a byte of a range is lost."""
        n = bisect_right(self.lost, (start, self.size))
        before = n > 0 and self.lost[n - 1][1] > start
        return end > start and (before or (n < len(self.lost) and self.lost[n][0] < end))

    def bytes_of(self, first: int, stop: int) -> bytes:
        """Join the tokens' own bytes, without the dummy prefix."""
        first, stop = first - self.first, stop - self.first
        return self.joined[max(self.cuts[first], self.skip) : self.cuts[stop]]


def expected_groups(target: Side, source: Side) -> list[list[int]]:
    """Close a group at every byte where tokens of both sides end, and at the text's end."""
    groups, t0, s0 = [], 0, 0
    a, b = target.first, source.first
    for byte in sorted(target.upto.keys() & source.upto.keys() | {target.size}):
        t1, s1 = target.upto.get(byte, target.n), source.upto.get(byte, source.n)
        if t1 > t0 or s1 > s0:
            groups.append([a + t0, a + t1, b + s0, b + s1])
        t0, s0 = t1, s1
    return groups


def expected_rows(target: Side, source: Side) -> list[tuple[int, int, int, bool]]:
    """For each target row (source row, kind, offset, at a boundary), from the definitions.

    A source without a dummy prefix has no boundary before byte 0. Inside a source token its first
    bytes are known if it covers them from the boundary on and loses none.
    """
    rows = []
    first, row_at, row_bytes = source.row_bytes[0], source.row_at, source.row_bytes
    for stand in target.row_bytes[:-1]:
        at = max(stand, first)
        row = row_at.get(at)
        if row is not None:
            rows.append((row, 1, 0, True))
            continue
        row = bisect_right(row_bytes, at) - 1
        begin = max(row_bytes[row], 0)
        covered = row < source.n and source.start[row] == begin and source.end[row] > at
        if covered and not source.loses(begin, at):
            rows.append((row, 2, at - row_bytes[row], at == 0))
        else:
            rows.append((-1, 0, 0, at == 0))
    return rows


def alignment_faults(target: Side, source: Side, aligned: Alignment) -> list[str]:
    """Name what in an alignment is not as the definitions have it."""
    groups = aligned.groups.tolist()
    columns = (aligned.row, aligned.kind, aligned.offset, aligned.at_boundary)
    found = {
        "groups": (groups, expected_groups(target, source)),
        "boundary": (aligned.boundary.tolist(), [source.last.get(e, -1) for e in target.all_end]),
        "rows": (
            list(zip(*(c.tolist() for c in columns), strict=True)),
            expected_rows(target, source),
        ),
    }
    faults = []
    for name, (actual, expected) in found.items():
        if actual != expected:
            both = itertools.zip_longest(actual, expected)
            n, pair = next((n, p) for n, p in enumerate(both) if p[0] != p[1])
            faults.append(f"{name}[{n}] is {pair[0]}, not {pair[1]}")
    edges = aligned.groups
    for side, first, stop in ((target, 0, 1), (source, 2, 3)):
        cuts = np.append(edges[:, first], side.first + side.n)
        if len(edges) and (cuts[0] != side.first or (cuts[1:] != edges[:, stop]).any()):
            faults.append("the groups do not partition the tokens")
    if target.lossless and source.lossless:
        if any(target.bytes_of(a, b) != source.bytes_of(c, d) for a, b, c, d in groups):
            faults.append("the two sides of a group differ in their bytes")
        if aligned.coverage_with_prefix != 1.0 or (aligned.kind == RowKind.NONE).any():
            faults.append("a position of a lossless pair has no row")
    return faults


def reasons(target: Side, source: Side, aligned: Alignment) -> Counter[str]:
    """Say why target rows have no source row, and how many shared ones cut a lost character."""
    found: Counter[str] = Counter()
    for i in np.flatnonzero(aligned.kind == RowKind.NONE).tolist():
        at = max(target.row_bytes[i], 0)
        row = bisect_right(source.row_bytes, at) - 1
        last = max(source.row_bytes[row], 0)
        begin = source.start[row] if row < source.n else source.size
        found[LOST if source.loses(last, max(at, begin)) else OTHER] += 1
    row_bytes = np.maximum(np.asarray(target.row_bytes[:-1], np.int64), 0)
    cut = row_bytes[(aligned.kind == RowKind.SHARED) & source.cuts_a_character[row_bytes]].tolist()
    found[CUT] += sum(source.loses(at, at + 1) for at in cut)
    return found


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
