"""How fast rows are projected and fused.

    FUSELAB_TESTDATA=… python benchmarks/fusion.py

writes benchmarks/results/fusion.md, all of it measured in this one run on two cores:

*Speed.* The top 10 of three sources' rows at 2,048 positions of the target, from `NextTokenRows`
and `Alignment` to `FusedRows`; vocab mappings are made before. Once with the zoo, whose contexts
cut the text into windows, and, where FUSELAB_TESTDATA is set, once with the vocabularies of real
models and random rows in one piece.

*Loops.* The same rows by the published rule, written from its description in plain Python: for each
position and each of the source's top tokens a look-up in a dict, one-hot where nothing is aligned,
and the dense (length, vocabulary) target of each source that the published collator makes; the same
with the published warping before it, as benchmarks/align.py has it; and the rule of `prefix` in
plain Python. What the rules define alike is compared in the run.
"""

from __future__ import annotations

import os

# Threads that spin while another process has their core make a call up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import CONFIG, OPERATORS, POSITIONS, ROOT, Case, fused, large_case, zoo_case
from fusion_loops import check_ours, check_published, in_python, known_pairs, published, warped
from rows import load, medians

from fusion_core import mapping, models, zoo
from fusion_core.align import by_bytes
from fusion_core.mapping import FixedMapping, PrefixRelation, VocabMapping
from fusion_core.records import Alignment, DenseRows, RowKind

OUT = ROOT / "benchmarks" / "results" / "fusion.md"
LOOPED = 128
"""Positions at which the package's rule runs in Python."""
TARGETS = {"speed": "50 ms", "loops": "100"}


def main() -> None:
    """Measure, and write the tables."""
    torch.set_num_threads(2)
    cases = [zoo_case([models.load(zoo.PREFIX + n) for n in zoo.NAMES])]
    folder = os.environ.get("FUSELAB_TESTDATA")
    if folder:
        cases.append(large_case(Path(folder) / "tokenizers", Path(folder) / "data"))
    else:
        print("FUSELAB_TESTDATA is not set: no large vocabularies.", file=sys.stderr)
    lines = [
        "# Projecting rows and fusing them",
        "",
        "`FUSELAB_TESTDATA=… python benchmarks/fusion.py`; two cores, medians and ratios of one",
        "run.",
        "",
    ]
    for case in cases:
        print(case.name, file=sys.stderr)
        lines += [*speed(case), *loops(case)]
    lines += ["", load()]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def speed(case: Case) -> list[str]:
    """Time every strategy with every operator."""
    lines = []
    for name in mapping.STRATEGIES:
        maps = case.maps(name)
        steps: dict[str, Callable[[], Any]] = {o: partial(fused, case, maps, o) for o in OPERATORS}
        steps["cache"] = partial(fused, case, maps, entropy=False)
        taken = medians(steps, 1 if name == "ot" else 5)
        lines.append(
            f"| `{name}` | " + " | ".join(f"{taken[n] * 1e3:.0f} ms" for n in steps) + " |"
        )
    native = [p.rows[0].dense for p in case.parts]
    alone = medians(
        {
            "their top": lambda: [r.logprobs.topk(CONFIG.top_k, dim=1) for r in native],
            "their entropy": lambda: [DenseRows(r.logprobs).entropy for r in native],
            "their probabilities": lambda: [r.logprobs.exp() for r in native],
        },
        5,
    )
    share = {
        kind: np.mean(np.concatenate([p.kinds.ravel() for p in case.parts]) == kind)
        for kind in (RowKind.SHARED, RowKind.INSIDE)
    }
    sizes = " ← ".join(
        [f"{case.tokenizers[0].size:,}", ", ".join(f"{t.size:,}" for t in case.tokenizers[1:])]
    )
    return [
        f"## Speed: {case.name}",
        "",
        f"{POSITIONS:,} positions, top {CONFIG.source_top_k} of each source's rows; vocabularies",
        f"{sizes}; {share[RowKind.SHARED]:.0%} of the rows at shared boundaries,",
        f"{share[RowKind.INSIDE]:.0%} inside a source token"
        + (". The rows are random, peaked." if len(case.parts) == 1 else "."),
        f"At most {TARGETS['speed']} were aimed at.",
        "",
        "| strategy | " + " | ".join(f"`{o}`" for o in OPERATORS) + " | `min_ce`, no entropy |",
        "| --- |" + " ---: |" * (len(OPERATORS) + 1),
        *lines,
        "",
        "A cache is built without the entropies. What one pass over the target's rows takes,",
        "whoever the sources are: "
        + ", ".join(f"{n} {s * 1e3:.1f} ms" for n, s in alone.items())
        + ".",
        "",
    ]


def loops(case: Case) -> list[str]:
    """Compare with loops in Python."""
    mined, prefix = case.maps("mined"), case.maps("prefix")
    lookups = [
        dict(zip(m.vocab_map.source_ids.tolist(), m.vocab_map.indices.tolist(), strict=True))
        for m in mined
        if isinstance(m, FixedMapping)
    ]
    check_published(case, lookups, mined)
    taken = medians(
        {
            "mined": lambda: fused(case, mined, entropy=False),
            "prefix": lambda: fused(case, prefix, entropy=False),
            "steps": lambda: [published(case, p, lookups) for p in case.parts],
            "once": lambda: [published(case, p, lookups, at_once=True) for p in case.parts],
            "align": lambda: aligned(case),
        },
        3,
    )
    looped, spent = by_loops(case, prefix)
    lines = [
        ("the published rule", taken["steps"], "`mined`", taken["mined"]),
        ("the same, each dense target written at once", taken["once"], "`mined`", taken["mined"]),
        (
            "the published warping and rule",
            warped(case) + taken["steps"],
            "`bytes` and `mined`",
            taken["align"] + taken["mined"],
        ),
        (
            f"the rule of `prefix`, {looped} positions, extrapolated",
            spent * POSITIONS / looped,
            "`prefix`",
            taken["prefix"],
        ),
    ]
    return [
        f"### Against loops: {case.name}",
        "",
        f"`min_ce`; a ratio of {TARGETS['loops']} was aimed at. The published rule has less to do:",
        "it has nothing to say inside a source token, and no tails. No entropies on either side.",
        "",
        "| in Python | seconds | here | seconds | times faster |",
        "| --- | ---: | --- | ---: | ---: |",
        *(
            f"| {name} | {loop:.3f} | {ours} | {here:.3f} | **{loop / here:.1f}** |"
            for name, loop, ours, here in lines
        ),
        "",
    ]


def by_loops(case: Case, prefix: Sequence[VocabMapping]) -> tuple[int, float]:
    """Run the package's rule in Python at some positions: how many, and the seconds."""
    relations = [
        known_pairs(case, j, r) for j, r in enumerate(prefix) if isinstance(r, PrefixRelation)
    ]
    looped, spent = 0, 0.0
    for part, rows in zip(case.parts, fused(case, prefix), strict=True):
        at = range(0, len(rows.rows), POSITIONS // LOOPED)
        began = time.perf_counter()
        slow = in_python(case, part, relations, at)
        spent += time.perf_counter() - began
        looped += len(at)
        check_ours(slow, rows, at)
    return looped, spent


def aligned(case: Case) -> list[Alignment]:
    """Align every window with every source."""
    return [by_bytes(p.encodings[0], e) for p in case.parts for e in p.encodings[1:]]


if __name__ == "__main__":
    main()
