"""How fast alignment and vocabulary mapping are, against what is published.

    FUSELAB_TESTDATA=… python benchmarks/align.py

writes benchmarks/results/align.md. Everything is timed in this one run, on one core but for
`mined`, which takes two. The published methods are written here from their descriptions, with the
edit distances of the library that they use, editdistance: token alignment as Python loops over a
table of numbers, the mapping by edit distance as a loop over the target's vocabulary. The golden
files of the published code say how long it took itself, a cell.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = "1"

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import editdistance
import numpy as np
from rapidfuzz.distance import Levenshtein

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import mapping, tokens
from fusion_core.align import by_bytes, by_bytes_batch, by_dtw
from fusion_core.records import Encoding
from fusion_core.tokens import TextTokenizer

OUT = ROOT / "benchmarks" / "results" / "align.md"
PAIRS = (
    ("gpt-neox-20b_mpt", "llama-2-7b-fast"),
    ("gpt2", "llama-2-7b-fast"),
    ("qwen1.5", "llama-3"),
)
TOKENS = (1024, 1536, 2048)
"""Lengths of the texts that are warped, in tokens of the target."""
BATCH = 100
"""Texts of a batch, of 6,000 characters each."""
SAMPLED = 60
"""Source tokens for which the published mapping is timed."""
REPEATS = 7


def main() -> None:
    """Measure, and write the tables."""
    folder = Path(os.environ["FUSELAB_TESTDATA"])
    names = sorted({n for pair in PAIRS for n in pair})
    loaded = {n: tokens.load(folder / "tokenizers" / n, n) for n in names}
    text = (folder / "data" / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    source, target = (loaded[n] for n in PAIRS[0])
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FUSELAB_CACHE"] = cache
        lines = [
            "# Speed of alignment and mapping",
            "",
            "`FUSELAB_TESTDATA=… python benchmarks/align.py`; ratios of one run. One core, but two",
            "for `mined`.",
            "",
            *warping(source, target, text, published_cell(folder)),
            *batches(loaded, text),
            *mapping_times(loaded),
        ]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Time a call: the median of several."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def published_cell(folder: Path) -> float:
    """Return the seconds a cell that the published code took when the golden files were made."""
    spent = cells = 0.0
    for file in sorted((folder / "golden").glob("*.align.json")):
        for text in json.loads(file.read_text(encoding="utf-8"))["texts"]:
            spent += text["reference_seconds"]
            cells += len(text["target_ids"]) * len(text["source_ids"])
    return spent / cells


def published_alignment(
    target: Sequence[str], source: Sequence[str], markers: tuple[str, str]
) -> tuple[list[tuple[int, int]], int]:
    """Warp two token sequences as described: the edit distance of every pair, cell by cell."""
    total = np.full((len(target) + 1, len(source) + 1), np.inf)
    total[0, 0] = 0
    for i, a in enumerate(target):
        for j, b in enumerate(source):
            cost = editdistance.eval(a.replace(markers[0], ""), b.replace(markers[1], ""))
            total[i + 1, j + 1] = cost + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = len(target), len(source)
    path = [(i - 1, j - 1)]
    while i > 1 or j > 1:
        step = int(np.argmin((total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])))
        i, j = i - (step != 2), j - (step != 1)
        path.append((i - 1, j - 1))
    return path[::-1], int(total[-1, -1])


def warping(source: TextTokenizer, target: TextTokenizer, text: str, cell: float) -> list[str]:
    """Compare the published alignment with ours, text by text."""
    strings, markers = [], []
    for tokenizer in (target, source):
        entries, marker = tokenizer.published_strings()
        strings.append(entries)
        markers.append(marker)
    lines, cells, spent = [], 0, 0.0
    for number, length in enumerate(TOKENS):
        read = target.encode(text[number * 40_000 :][: length * 8])
        stop = int(read.end[read.text_tokens[length - 1]])
        part = read.data[:stop].decode("utf-8", "ignore")
        pair = target.encode(part), source.encode(part)
        raw = [
            [own[i] or "" for i in e.ids[e.text_tokens]]
            for own, e in zip(strings, pair, strict=True)
        ]
        began = time.perf_counter()
        path, cost = published_alignment(raw[0], raw[1], (markers[0], markers[1]))
        reference = time.perf_counter() - began
        ours = by_dtw(*pair)
        assert (ours.cost, walked(ours.target_to_source, pair)) == (cost, path)
        cells, spent = cells + len(raw[0]) * len(raw[1]), spent + reference
        warped = seconds(lambda pair=pair: by_dtw(*pair))
        single = seconds(lambda pair=pair: by_bytes(*pair), 50)
        batch = [[e] * 32 for e in pair]
        batched = seconds(lambda batch=batch: by_bytes_batch(*batch)) / 32
        lines.append(
            f"| {len(raw[0]):,} x {len(raw[1]):,} | {reference:.2f} s | {warped * 1e3:.1f} ms | "
            f"**{reference / warped:.0f}** | {single * 1e3:.2f} ms | "
            f"**{reference / single:,.0f}** | {batched * 1e3:.2f} ms | "
            f"**{reference / batched:,.0f}** |"
        )
    return [
        f"## Aligning one text: {target.name} ← {source.name}, WikiText",
        "",
        "| tokens | published DTW | `dtw` | times faster | `bytes` | times faster | `bytes`, in a "
        "batch of 32 | times faster |",
        "| --- |" + " ---: |" * 7,
        *lines,
        "",
        "`dtw` walks the same path at the same cost as the published method, checked in the run.",
        f"The loop written for this comparison takes {spent / cells * 1e6:.1f} µs a cell; the",
        f"published code itself took {cell * 1e6:.1f} µs when the golden files were made, on short",
        "texts and another machine.",
        "",
    ]


def walked(
    lists: Sequence[Sequence[int]] | None, pair: tuple[Encoding, Encoding]
) -> list[tuple[int, int]]:
    """Return an alignment's pairs as places among the tokens that are not special."""
    target, source = (np.cumsum(~e.special) - 1 for e in pair)
    return [(int(target[t]), int(source[s])) for t, row in enumerate(lists or ()) for s in row]


def batches(loaded: dict[str, TextTokenizer], text: str) -> list[str]:
    """Compare encoding with spans and aligning with the two bare calls of `tokenizers`."""
    texts = [text[i : i + 6000] for i in range(0, BATCH * 6000, 6000)]
    lines = []
    for source, target in PAIRS:
        backends = [loaded[n]._backend for n in (target, source)]
        steps: dict[str, Callable[[], Any]] = {
            "bare": lambda b=backends: [x.encode_batch(texts) for x in b],
            "fast": lambda b=backends: [x.encode_batch_fast(texts) for x in b],
            "ours": lambda s=source, t=target: by_bytes_batch(
                loaded[t].encode_batch(texts), loaded[s].encode_batch(texts)
            ),
        }
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(REPEATS):  # in turn, so that all share the machine's moods
            for name, call in steps.items():
                taken[name].append(seconds(call, 1))
        middle = {name: statistics.median(t) for name, t in taken.items()}
        number = sum(len(e) for e in loaded[target].encode_batch(texts))
        lines.append(
            f"| {target} ← {source} | {number:,} | {middle['bare']:.3f} s | "
            f"{middle['fast']:.3f} s | {middle['ours']:.3f} s | "
            f"**{middle['ours'] / middle['bare']:.2f}** | "
            f"**{middle['ours'] / middle['fast']:.2f}** |"
        )
    return [
        f"## Encoding {BATCH} texts of 6,000 characters with spans, and aligning them",
        "",
        "Against the two bare calls of `tokenizers`, `encode_batch` and the quicker",
        "`encode_batch_fast`, which gives no offsets.",
        "",
        "| pair | target tokens | `encode_batch` | `encode_batch_fast` | spans and alignment | "
        "ratio | ratio to fast |",
        "| --- |" + " ---: |" * 6,
        *lines,
        "",
    ]


def mapping_times(loaded: dict[str, TextTokenizer]) -> list[str]:
    """Time the mappings, built and read back, and the published search by edit distance."""
    lines = []
    for source, target in (PAIRS[0], PAIRS[2]):
        published, quicker = (
            published_mapping(loaded[source], loaded[target], distance)
            for distance in (editdistance.eval, Levenshtein.distance)
        )
        for name in mapping.MATRICES:
            if mapping.STRATEGIES[name].counts:
                continue
            spent = []
            for from_cache in (False, True):
                began = time.perf_counter()
                _, was = mapping.matrix(name, loaded[source], loaded[target])
                spent.append(time.perf_counter() - began)
                assert was == from_cache
            compared = [
                cell
                for whole in (published, quicker)
                for cell in (f"{whole:,.0f} s", f"**{whole / spent[0]:,.0f}**")
            ]
            lines.append(
                f"| {source} → {target} | `{name}` | {spent[0]:.2f} s | {spent[1]:.3f} s | "
                + " | ".join(compared if name == "mined" else ["–"] * 4)
                + " |"
            )
    return [
        "## Mapping vocabularies",
        "",
        f"The published search is timed on {SAMPLED} source tokens without an equal target token",
        "and extrapolated to all of them; beside it the same loop with rapidfuzz, a quicker",
        "library. `mined` takes two cores.",
        "",
        "| pair | strategy | built | second call | published search | times faster | rapidfuzz | "
        "times faster |",
        "| --- | --- |" + " ---: |" * 6,
        *lines,
    ]


def published_mapping(
    source: TextTokenizer, target: TextTokenizer, distance: Callable[[str, str], int]
) -> float:
    """Extrapolate the seconds that a loop over both vocabularies takes."""
    (own, marker), (others, target_marker) = source.published_strings(), target.published_strings()
    choices = [s for s in others if s is not None]
    equal = set(choices)
    queries = [s.replace(marker, target_marker) for s in own if s is not None]
    left = [q for q in queries if q not in equal]
    began = time.perf_counter()
    for query in random.Random(0).sample(left, SAMPLED):
        min([(c, distance(query, c)) for c in choices], key=lambda pair: pair[1])
    return (time.perf_counter() - began) / SAMPLED * len(left)


if __name__ == "__main__":
    main()
