"""What do rows at a source's own boundaries know of the future, and what do exact rows cost?

    python benchmarks/exact.py

writes benchmarks/results/exact.md: all ordered pairs of the zoo on test documents of each of its
three domains, and, where FUSELAB_TESTDATA names the folder of test data, both directions of its two
models of children's stories. It fails where a source's rows predict single bytes better than the
source itself does.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import corpus, models, zoo
from fusion_core.config import FusionConfig
from fusion_core.covers import read_with_covers
from fusion_core.fuse.rows import projected_ce
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.project import project_rows
from fusion_core.project.text import aligned
from fusion_core.reading import read, read_documents
from fusion_core.records import ProjectedWindow, TextReading

OUT = ROOT / "benchmarks" / "results" / "exact.md"
DOCUMENTS = 12
CHANGED = 0.01
"""Total variation from which a row counts as changed."""
CUTS = 40
"""Texts whose end is replaced, for each pair."""
REPEATS = 5
STORIES = {"stories260K": "BPE-512", "babyllama-tok105": "characters"}
BOUNDARY, EXACT, ALL = (
    FusionConfig(rows="boundary"),
    FusionConfig(),
    FusionConfig(prune=0),
)


@dataclass(frozen=True)
class Pair:
    """A source, a target and what they read."""

    name: str
    text: str
    target: LoadedModel
    source: LoadedModel
    read: Sequence[str]

    def readings(self, config: FusionConfig) -> Iterator[TextReading]:
        """Read the texts."""
        return read_documents([self.target, self.source], self.read, config)


def pairs() -> list[Pair]:
    """List all pairs; those of the zoo in the source's own domain come first."""
    loaded = {n: models.load(zoo.PREFIX + n) for n in zoo.NAMES}
    found = [
        Pair(f"{s} → {t}", d, loaded[t], loaded[s], texts(d))
        for (s, t), d in product(permutations(loaded, 2), corpus.DOMAINS)
    ]
    found.sort(key=lambda p: zoo.DOMAIN_OF.get(p.name.split()[0]) != p.text)
    if folder := os.environ.get("FUSELAB_TESTDATA"):
        stories = {n: models.load(f"{folder}/models/{n}") for n in STORIES}
        windows = documents.read_documents(Path(folder) / "data" / "tinystories" / "windows.txt")
        found += [
            Pair(f"{STORIES[s]} → {STORIES[t]}", "stories", stories[t], stories[s], windows)
            for s, t in permutations(STORIES, 2)
        ]
    return found


def texts(domain: str) -> list[str]:
    """Take test documents of a domain."""
    return list(islice(corpus.documents(domain, "test"), DOCUMENTS))


def ce(windows: Iterator[ProjectedWindow]) -> tuple[float, int, float, int]:
    """Sum cross-entropy and positions, and kept mass and positions inside source tokens."""
    nats = kept = 0.0
    n = n_inside = 0
    for window in windows:
        found, _ = projected_ce(window.rows[0], window.reading.rows[0])
        inside = window.rows[0].kind == 2
        nats, n = nats + float(found.double().sum()), n + len(found)
        kept += float(window.rows[0].kept.cpu()[inside].sum())
        n_inside += int(inside.sum())
    return nats, n, kept, n_inside


def measure(pair: Pair, config: FusionConfig) -> dict[str, float]:
    """Project a pair's texts: cross-entropy, kept mass inside, side positions, impossible mass."""
    nats = kept = never = 0.0
    n = n_inside = extra = tokens = places = 0
    for reading in pair.readings(config):
        more = ce(iter(reading.project().windows))
        nats, n, kept, n_inside = nats + more[0], n + more[1], kept + more[2], n_inside + more[3]
        for window in reading.windows:
            tokens += len(window.rows[1].rows)
            if covers := window.covers[1]:
                extra += len(covers.rows) - len(window.rows[1].rows)
                never += float(covers.noncanonical.sum())
                places += len(covers.positions)
    return {
        "ce": nats / n,
        "kept": kept / max(1, n_inside),
        "extra": extra / tokens,
        "never": never / max(1, places),
    }


def unfiltered(pair: Pair) -> float:
    """Cross-entropy of exact rows that do not know the target's own boundary."""
    nats, n = 0.0, 0
    for reading in pair.readings(EXACT):
        projection = reading.project()
        for window in reading.windows:
            alignment = aligned(reading, window, 1)
            rows = project_rows(
                window.rows[1], window.rows[0], alignment, projection.mappings[0], window.covers[1]
            )
            found, _ = projected_ce(rows, window.rows[0])
            nats, n = nats + float(found.double().sum()), n + len(found)
    return nats / n


def changed(pair: Pair, config: FusionConfig) -> float:
    """Share of rows that change where only the text right behind them is replaced by another's."""
    differ, n = 0, 0
    for number in range(CUTS):
        text, other = (pair.read[(number + k) % len(pair.read)] for k in (0, 1))
        whole = read(text, pair.target, pair.source, config)
        ends = whole.encodings[0].row_bytes[2:-1]
        cut = int(ends[(7 * number + 5) % len(ends)])
        try:
            again = text.encode()[:cut].decode() + other[len(other) // 2 :]
        except UnicodeDecodeError:
            continue
        replaced = read(again, pair.target, pair.source, config)
        same = int(np.searchsorted(whole.encodings[0].row_bytes, cut)) + 1
        one, two = (first_rows(r, same) for r in (whole, replaced))
        ids = [
            r.encodings[0].ids[r.encodings[0].text_tokens][: same - 1] for r in (whole, replaced)
        ]
        if one is None or two is None or not np.array_equal(*ids):
            continue
        differ += bool(0.5 * (one[-1] - two[-1]).abs().sum() > CHANGED)
        n += 1
    return differ / max(1, n)


def first_rows(reading: TextReading, number: int):
    """Return the first whole projected rows of a text that one window holds."""
    if len(reading.windows) > 1:
        return None
    window = next(iter(reading.project().windows))
    native = window.reading.rows[0].logprobs[:-1].exp()
    return window.rows[0].probs(native)[:number]


def seconds(pair: Pair) -> dict[str, float]:
    """CPU seconds of reading and projecting the texts, in turns; medians, and their ratio."""
    taken: dict[str, list[float]] = {"boundary": [], "exact": []}
    for _ in range(REPEATS + 1):
        for name, config in (("boundary", BOUNDARY), ("exact", EXACT)):
            began = time.process_time()
            for reading in pair.readings(config):
                for _ in reading.project().windows:
                    pass
            taken[name].append(time.process_time() - began)
    ratios = [b / a for a, b in zip(taken["boundary"][1:], taken["exact"][1:], strict=True)]
    return {n: statistics.median(t[1:]) for n, t in taken.items()} | {
        "ratio": statistics.median(ratios)
    }


def telescoped(source: LoadedModel, read_: Sequence[str]) -> tuple[float, float, float, int]:
    """Add up -log R(next byte) over texts and their ends.

    Returns:
        Nats of the sum, of the source's own tokens and end, and of what its tokenizer never makes;
        and the number of bytes.
    """
    total = own = never = 0.0
    size = 0
    tokenizer = source.tokenizer
    for text in read_:
        encoding = tokenizer.encode(text)
        at = np.arange(int(encoding.row_bytes[0]), len(encoding.data) + 1)
        ((rows, covers),) = read_with_covers(source, [encoding], [at], prune=0.0)
        probs, shown = covers.dense.probs, b" " + encoding.data
        next_ = np.zeros(len(at))
        for e, place in enumerate(covers.place.tolist()):
            byte, known = int(at[place]) + 1, int(covers.known[e])
            goes_on = shown[byte - known : byte + 1]
            if byte < len(shown):
                low, high = tokenizer.byte_index.span(goes_on)
                ids = [*tokenizer.byte_index.ids[low:high], *tokenizer.ids_of.get(goes_on, ())]
            else:
                ids = [] if known else list(tokenizer.end_ids)
            ids = np.setdiff1d(np.asarray(ids, np.int64), covers.excluded_of(e))
            next_[place] += covers.weight[e] * float(probs[int(covers.row[e]), ids].sum())
        end = float(rows.logprobs[-1, list(tokenizer.end_ids)].exp().sum())
        total -= float(np.log(next_).sum())
        own -= float(rows.observed_logprob[:-1].double().sum()) + math.log(end)
        never -= float(np.log1p(-covers.noncanonical.astype(float)).sum())
        size += len(encoding.data)
    return total, own, never, size


def main() -> None:
    """Measure, and write the tables."""
    found = pairs()
    lines = [*rows_table(found), *cost_table(found), *sums_table(found)]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a Markdown table whose first two columns are text."""
    lines = [head, ("---", "---", *["---:"] * (len(head) - 2)), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def in_domain(pair: Pair) -> bool:
    """Whether the source knows what it reads."""
    return zoo.DOMAIN_OF.get(pair.name.split()[0], pair.text) == pair.text


def rows_table(found: Sequence[Pair]) -> list[str]:
    """Cross-entropies, and what changes with the text behind a row."""
    rows = []
    for pair in found:
        print(pair.name, pair.text, file=sys.stderr)
        boundary, exact, every = (measure(pair, c) for c in (BOUNDARY, EXACT, ALL))
        future = (
            [f"{changed(pair, c):.1%}" for c in (BOUNDARY, ALL)] if in_domain(pair) else ["", ""]
        )
        rows.append(
            (
                pair.name,
                pair.text,
                f"{boundary['ce']:.3f}",
                f"{exact['ce']:.3f}",
                f"{exact['ce'] / boundary['ce'] - 1:+.1%}",
                f"{exact['ce'] / every['ce'] - 1:+.2%}",
                f"{unfiltered(pair):.3f}",
                f"{exact['kept']:.4f}",
                f"{exact['extra']:.3f}",
                f"{every['extra']:.2f}",
                f"{exact['never']:.2%}",
                *future,
            )
        )
    return [
        "# Rows that know only what has been read",
        "",
        "`python benchmarks/exact.py`. Transfer cross-entropy by `prefix` over all positions of",
        "the target, nats per target token: of rows at the source's own boundaries (*boundary*),",
        "which know a little of what follows, and of exact rows. *prune* is what leaving covers",
        "below 1 % out changes; *no filter* is without the target's own boundary; *kept* the mean",
        "kept mass inside source tokens; *extra* positions a source token that are read on side",
        "paths, with covers below 1 % left out and with all; *never* the mean share of the mass on",
        "spellings that the source's tokenizer never makes. The last two columns are the share",
        f"of {CUTS} rows that change (total variation above {CHANGED}) where only the text right",
        "behind them is replaced, with all covers; sources in their own domain.",
        "",
        *table(
            (
                *("source → target", "text", "boundary", "exact", "change", "prune", "no filter"),
                *("kept", "extra", "all", "never", "boundary", "exact"),
            ),
            rows,
        ),
    ]


def cost_table(found: Sequence[Pair]) -> list[str]:
    """CPU time of both kinds of rows, sources in their own domain."""
    rows = []
    for pair in filter(in_domain, found):
        taken = seconds(pair)
        times = (f"{taken[k]:.2f}" for k in ("boundary", "exact", "ratio"))
        rows.append((pair.name, pair.text, *times))
    return [
        "",
        "## Cost",
        "",
        "CPU seconds of reading the texts with both models and projecting them, in turns, medians",
        f"of {REPEATS} after one that is not counted; *ratio* is the median of the ratios.",
        "",
        *table(("source → target", "text", "boundary", "exact", "ratio"), rows),
    ]


def sums_table(found: Sequence[Pair]) -> list[str]:
    """Add up single bytes: no marginal of a model beats the model."""
    rows, seen = [], set()
    for pair in filter(in_domain, found):
        if pair.source.name in seen:
            continue
        seen.add(pair.source.name)
        total, own, never, size = telescoped(pair.source, pair.read[:4])
        assert total >= own - never - 1e-3 * size, f"{pair.source.name} beats itself"
        figures = (f"{x / size:.5f}" for x in (total, own, own - total, never))
        rows.append((pair.name.split()[0], pair.text, *figures))
    return [
        "",
        "## No marginal of a model beats the model",
        "",
        "-log R(next byte), added up over a text and its end, nats a byte, with all covers, and",
        "the source's own cross-entropy of its tokens and end. They differ by the mass of",
        "spellings that its tokenizer never makes, which is what the last column adds up.",
        "",
        *table(("source", "text", "sum", "own", "difference", "never made"), rows),
    ]


if __name__ == "__main__":
    main()
