"""How fast rows are carried over and fused.

    FUSELAB_TESTDATA=… python benchmarks/fusion.py

writes benchmarks/results/fusion.md, all of it measured in this one run on two cores:

*Speed.* The top 10 of three sources' rows at 2,048 positions of the target, from `NextTokenRows`
and `Alignment` to `FusedRows`; vocab mappings are made before. Once with the zoo, whose contexts
cut the text into windows, and, where FUSELAB_TESTDATA is set, once with the vocabularies of real
models and random rows in one piece.

*Loops.* The same rows by the published rule, written from its description in plain Python: for each
position and each of the source's top tokens a look-up in a dict, one-hot where nothing is aligned,
and the dense (length, vocabulary) target of each source that the published collator makes; the same
with the published warping before it, as benchmarks/align.py has it; and our own rule in plain
Python. What the rules define alike is compared in the run.
"""

from __future__ import annotations

import os

# Threads that spin while another process has their core make a call up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import heapq
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import load, medians

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import corpus, fuse, mapping, models, project, tokens, zoo
from fusion_core.align import by_bytes
from fusion_core.config import FusionConfig
from fusion_core.mapping import Mapping, PrefixRelation
from fusion_core.models import LoadedModel
from fusion_core.reading import JointText
from fusion_core.records import (
    Alignment,
    DenseRows,
    Encoding,
    FusedRows,
    NextTokenRows,
    RowKind,
    SparseRows,
    VocabMap,
)
from fusion_core.tokens import TextTokenizer

OUT = ROOT / "benchmarks" / "results" / "fusion.md"
POSITIONS = 2048
CONFIG = FusionConfig(source_top_k=10, overlap=0)
OPERATORS = ("min_ce", "mean", "product")
LARGE = ("llama-2-7b-fast", "gpt-neox-20b_mpt", "open_llama_3b-fast", "llama-3")
"""The target and the sources whose vocabularies are large."""
SPREAD, LIFT = 2.5, 4.0
"""Random rows: standard deviation of their logits, and how much the next token's is raised, in
nats. The target's most probable token has 0.1 to 0.6."""
LOOPED = 128
"""Positions at which our own rule runs in Python."""
TARGETS = {"speed": "50 ms", "loops": "100"}


@dataclass(frozen=True, eq=False)
class Part:
    """A window, ready to be carried over and fused.

    Attributes:
        encodings: of the target and of each source.
        rows: of the target, whole, and of each source, cut.
        alignments: of the target with each source.
    """

    encodings: list[Encoding]
    rows: list[NextTokenRows]
    alignments: list[Alignment]

    @property
    def kinds(self) -> np.ndarray:
        """(S, m) of `RowKind`."""
        return np.stack([a.kind for a in self.alignments])


@dataclass(frozen=True, eq=False)
class Case:
    """A text as a target and three sources read it."""

    name: str
    tokenizers: list[TextTokenizer]
    text: str
    parts: list[Part]
    bits: list[float]

    def maps(self, strategy: str) -> list[Mapping | None]:
        """Return the sources' vocab mappings."""
        target, *sources = self.tokenizers
        return [mapping.mapping_between(s, target, strategy, [self.text]) for s in sources]


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
        "# Carrying rows over and fusing them",
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


def exactly(tokenizer: TextTokenizer, text: str) -> str:
    """Cut a text so that it has exactly POSITIONS tokens."""
    whole = tokenizer.encode(text)
    for last in whole.end[whole.text_tokens][POSITIONS - 8 :].tolist():
        part = whole.data[:last].decode("utf-8", "ignore")
        if len(tokenizer.encode(part).text_tokens) == POSITIONS:
            return part
    raise ValueError(f"no beginning of the text has {POSITIONS} tokens")


def zoo_case(readers: Sequence[LoadedModel]) -> Case:
    """Let the zoo read documents in which its domains meet."""
    text = exactly(readers[0].tokenizer, "\n\n".join(corpus.text("mixed", "test", 12_000)))
    read = JointText.of(readers, text, CONFIG)
    parts = [
        Part(r.encodings, r.rows, [r.align(j) for j in range(1, len(readers))])
        for r in read.readings()
    ]
    bits = [nats / math.log(2) / read.scored_bytes for nats in read.nats()]
    name = f"the zoo, {len(parts)} windows"
    return Case(name, [m.tokenizer for m in readers], text, parts, bits)


def large_case(tokenizers: Path, data: Path) -> Case:
    """Give the vocabularies of real models random rows along a real text."""
    loaded = [tokens.load(tokenizers / name, name) for name in LARGE]
    raw = (data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    encodings = [t.encode(exactly(loaded[0], raw[:20_000])) for t in loaded]
    generator = torch.Generator().manual_seed(0)
    rows = [
        random_rows(e, t.size, generator, CONFIG.source_top_k if j else None)
        for j, (e, t) in enumerate(zip(encodings, loaded, strict=True))
    ]
    part = Part(encodings, rows, [by_bytes(encodings[0], e) for e in encodings[1:]])
    text = encodings[0].data.decode("utf-8")
    return Case(f"{LARGE[0]} ← {', '.join(LARGE[1:])}", loaded, text, [part], [1.0, 0.9, 0.8, 1.0])


def random_rows(
    encoding: Encoding,
    size: int,
    generator: torch.Generator,
    top_k: int | None,
    device: str = "cpu",
) -> NextTokenRows:
    """Draw peaked rows: the text's own token frequencies times log-normal noise.

    Rows of independent noise alone would name rare long tokens, which hardly go anywhere.

    Args:
        encoding: a text of n tokens.
        size: of the vocabulary.
        generator: of the noise.
        top_k: tokens kept of a row; None for whole rows.
        device: where the rows are to be.
    """
    ids = torch.as_tensor(encoding.ids[encoding.text_tokens])
    observed = torch.cat([ids, torch.tensor([-1])])
    frequency = (torch.bincount(ids, minlength=size) + 0.01).log()
    parts: list[tuple[torch.Tensor, ...]] = []
    for some in observed.split(256):
        logits = frequency + SPREAD * torch.randn(len(some), size, generator=generator)
        logits[torch.arange(len(some)), some.clamp(min=0)] += LIFT
        logprobs = torch.log_softmax(logits, dim=1)
        parts.append((logprobs,) if top_k is None else logprobs.topk(top_k, dim=1))
    joined = [torch.cat(x) for x in zip(*parts, strict=True)]
    rows: DenseRows | SparseRows
    if top_k is None:
        rows = DenseRows(joined[0])
        picked = rows.logprobs.gather(1, observed.clamp(min=0)[:, None])[:, 0]
    else:
        probs = joined[0].exp()
        rows = SparseRows(joined[1], probs, 1 - probs.sum(1), size)
        picked = torch.full((len(observed),), torch.nan)
    where = torch.device(device)
    boundary = encoding.row_bytes.clip(0)
    return NextTokenRows(
        encoding.model, rows.to(where), observed.to(where), picked.to(where), boundary
    )


def fused(
    case: Case,
    maps: Sequence[Mapping | None],
    operator: str = CONFIG.operator,
    *,
    entropy: bool = True,
) -> list[FusedRows]:
    """Carry over and fuse: one record a part.

    Args:
        case: the text.
        maps: the sources' vocab mappings.
        operator: name in `fuse.OPERATORS`.
        entropy: as for `fuse.fuse`.
    """
    out = []
    for part in case.parts:
        # New rows forget what they have been asked before.
        target = replace(part.rows[0], rows=DenseRows(part.rows[0].logprobs))
        carried = [
            project.project(
                part.rows[j],
                target,
                part.alignments[j - 1],
                pairs,
                source_encoding=part.encodings[j],
                target_encoding=part.encodings[0],
            )
            for j, pairs in enumerate(maps, start=1)
        ]
        out.append(
            fuse.fuse_rows(
                carried,
                target,
                case.bits[1:],
                operator=operator,
                top_k=CONFIG.top_k,
                entropy=entropy,
            )
        )
    return out


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
    own = [p.rows[0].dense for p in case.parts]
    alone = medians(
        {
            "their top": lambda: [r.logprobs.topk(CONFIG.top_k, dim=1) for r in own],
            "their entropy": lambda: [DenseRows(r.logprobs).entropy for r in own],
            "their probabilities": lambda: [r.logprobs.exp() for r in own],
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
        "A cache is built without the entropies. What one pass over the target's own rows takes,",
        "whoever the sources are: "
        + ", ".join(f"{n} {s * 1e3:.1f} ms" for n, s in alone.items())
        + ".",
        "",
    ]


def loops(case: Case) -> list[str]:
    """Compare with loops in Python."""
    mined, prefix = case.maps("mined"), case.maps("prefix")
    lookups = [
        dict(zip(m.source_ids.tolist(), m.indices.tolist(), strict=True))
        for m in mined
        if isinstance(m, VocabMap)
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
    relations = [
        known_pairs(case, j, r) for j, r in enumerate(prefix) if isinstance(r, PrefixRelation)
    ]
    step = POSITIONS // LOOPED
    looped, spent = 0, 0.0
    for part, rows in zip(case.parts, fused(case, prefix), strict=True):
        at = range(0, len(rows.rows), step)
        began = time.perf_counter()
        slow = in_python(case, part, relations, at)
        spent += time.perf_counter() - began
        looped += len(at)
        check_ours(slow, rows, at)
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
            f"our rule, {looped} positions, extrapolated",
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


def warped(case: Case) -> float:
    """Time the published token alignment of every window and source, as align.py has it."""
    from align import published_alignment

    strings = [t.published_strings() for t in case.tokenizers]
    spent = 0.0
    for part in case.parts:
        target, *sources = (
            ([own[i] or "" for i in e.ids[e.text_tokens]], marker)
            for e, (own, marker) in zip(part.encodings, strings, strict=True)
        )
        began = time.perf_counter()
        for source in sources:
            published_alignment(target[0], source[0], (target[1], source[1]))
        spent += time.perf_counter() - began
    return spent


def aligned(case: Case) -> list[Alignment]:
    """Align every window with every source."""
    return [by_bytes(p.encodings[0], e) for p in case.parts for e in p.encodings[1:]]


def published(
    case: Case, part: Part, lookups: Sequence[dict[int, int]], at_once: bool = False
) -> tuple[torch.Tensor, list[list[dict[int, float]]]]:
    """Carry over by the published rule, and choose by MinCE.

    Args:
        case: the text.
        part: its window.
        lookups: for each source the target token of each of its tokens.
        at_once: write a source's dense targets in one go; the published collator writes a position
            at a time.

    Returns:
        (m, target vocabulary) the dense target, and for each source what arrived at each position.
    """
    following = part.rows[0].observed.tolist()
    targets, arrived = [], []
    for rows, alignment, lookup in zip(part.rows[1:], part.alignments, lookups, strict=True):
        assert isinstance(rows.rows, SparseRows)
        ids, probs = rows.rows.ids.tolist(), rows.rows.probs.tolist()
        masses: list[dict[int, float]] = []
        for row, kind in zip(alignment.row.tolist(), alignment.kind.tolist(), strict=True):
            mass: dict[int, float] = {}
            if kind == RowKind.SHARED:
                for token, p in zip(ids[row], probs[row], strict=True):
                    if token in lookup:
                        goes = lookup[token]
                        mass[goes] = mass.get(goes, 0.0) + p
            masses.append(mass)
        dense = torch.zeros(len(masses), case.tokenizers[0].size)
        if at_once:
            full = [m or {following[i]: 1.0} for i, m in enumerate(masses)]
            at = [i for i, m in enumerate(full) for _ in m]
            sums = [sum(m.values()) for m in full]
            values = [p / total for m, total in zip(full, sums, strict=True) for p in m.values()]
            dense[at, [v for m in full for v in m]] = torch.tensor(values)
        else:
            for i, mass in enumerate(masses):
                found = mass or {following[i]: 1.0}
                p = torch.tensor(list(found.values()))
                dense[i].scatter_(0, torch.tensor(list(found)), p / p.sum())
        targets.append(dense)
        arrived.append(masses)
    return targets[case.bits.index(min(case.bits[1:]), 1) - 1], arrived


def check_published(
    case: Case, lookups: Sequence[dict[int, int]], maps: Sequence[Mapping | None]
) -> None:
    """Compare what arrives at shared boundaries; tails and one-hots are the rules' own."""
    for part in case.parts:
        _, arrived = published(case, part, lookups)
        for j, masses in enumerate(arrived, start=1):
            rows = project.project(
                part.rows[j],
                part.rows[0],
                part.alignments[j - 1],
                maps[j - 1],
                source_encoding=part.encodings[j],
                target_encoding=part.encodings[0],
            )
            some = torch.arange(0, len(masses), 7)
            where, mass = rows.mapped._indices(), rows.mapped._values()
            size = case.tokenizers[0].size
            ours: dict[int, float] = {}
            for key, p in zip((where[0] * size + where[1]).tolist(), mass.tolist(), strict=True):
                ours[key] = ours.get(key, 0.0) + p
            for i in some.tolist():
                for token, p in masses[i].items():
                    assert abs(ours[i * size + token] - p) < 1e-5
                assert abs(sum(masses[i].values()) - float(rows.kept[i])) < 1e-5


Known = dict[tuple[bytes, bool], tuple[dict[int, list[int]], set[int], set[int]]]
"""For the bytes known of a source's next token: target tokens of each source token, source tokens
that agree, and those that end within the known bytes."""


def known_at(case: Case, part: Part, source: int) -> list[tuple[bytes, bool]]:
    """List what is known of a source's next token at every position of a window."""
    target, other = part.encodings[0], part.encodings[source + 1]
    text, alignment = b" " + target.data, part.alignments[source]
    unspelt = target.dummy_prefix and not other.dummy_prefix
    first = int(other.row_bytes[0])
    return [
        (text[at - back : at] if back else b"", unspelt and i == 0)
        for i, (at, back) in enumerate(
            zip(
                (target.row_bytes[:-1].clip(first) + 1).tolist(),
                alignment.offset.tolist(),
                strict=True,
            )
        )
    ]


def known_pairs(case: Case, source: int, relation: PrefixRelation) -> Known:
    """Lay the relation out in dicts; like the mappings, this is not timed."""
    out: Known = {}
    for part in case.parts:
        for known, start in known_at(case, part, source):
            if (known, start) in out:
                continue
            pairs = relation.conditioned_on(known, target_start=start)
            mates: dict[int, list[int]] = {}
            tokens_of = pairs.candidates[pairs.edge_source].tolist()
            for w, v in zip(tokens_of, pairs.edge_target.tolist(), strict=True):
                mates.setdefault(w, []).append(v)
            out[known, start] = mates, set(pairs.candidates.tolist()), set(pairs.others.tolist())
    return out


@dataclass(frozen=True)
class Plain:
    """One position by our own rule: the fused top, and each source's kept mass and nats."""

    top: list[tuple[int, float]]
    kept: list[float]
    ce: list[float]


def in_python(case: Case, part: Part, relations: Sequence[Known], at: Sequence[int]) -> list[Plain]:
    """Carry over by Jeffrey's rule and fuse by MinCE, one position after another."""
    best = case.bits.index(min(case.bits[1:]), 1) - 1
    following = part.rows[0].observed.tolist()
    knowns = [known_at(case, part, j) for j in range(len(relations))]
    sources = []
    for rows in part.rows[1:]:
        assert isinstance(rows.rows, SparseRows)
        sources.append([x.tolist() for x in (rows.rows.ids, rows.rows.probs, rows.rows.tail)])
    lines = [(a.row.tolist(), a.kind.tolist()) for a in part.alignments]
    out = []
    for i in at:
        prior = part.rows[0].dense.probs[i].tolist()
        carried: list[tuple[dict[int, float], float]] = []
        for (ids, probs, tails), (rows_at, kinds), known, table in zip(
            sources, lines, knowns, relations, strict=True
        ):
            if kinds[i] == RowKind.NONE:
                carried.append(({}, 1.0))
                continue
            mates, agree, others = table[known[i]]
            r = rows_at[i]
            total = tails[r]
            for w, p in zip(ids[r], probs[r], strict=True):
                if w in agree or w in others:
                    total += p
            mass: dict[int, float] = {}
            kept = 0.0
            for w, p in zip(ids[r], probs[r], strict=True):
                goes = mates.get(w, ())
                room = sum([prior[v] for v in goes])
                if room > project.TINY:
                    kept += p / total
                    share = p / total / room
                    for v in goes:
                        mass[v] = mass.get(v, 0.0) + share * prior[v]
            carried.append((mass, 1 - kept))
        y = following[i]
        q = [p * carried[best][1] for p in prior]
        for v, p in carried[best][0].items():
            q[v] += p
        top = heapq.nlargest(CONFIG.top_k, range(len(q)), key=q.__getitem__)
        out.append(
            Plain(
                [(v, q[v]) for v in top],
                [1 - own for _, own in carried],
                [-math.log(max(m.get(y, 0.0) + own * prior[y], fuse.FLOOR)) for m, own in carried],
            )
        )
    return out


def check_ours(slow: Sequence[Plain], fast: FusedRows, at: Sequence[int]) -> None:
    """Compare fused rows, kept masses and cross-entropies."""
    for i, row in zip(at, slow, strict=True):
        ids, probs = fast.rows.ids[i].tolist(), fast.rows.probs[i].tolist()
        assert np.allclose(probs, [p for _, p in row.top], atol=1e-5), (i, probs, row.top)
        both = dict(row.top)
        assert all(abs(both[v] - p) < 1e-5 for v, p in zip(ids, probs, strict=True) if v in both)
        assert np.allclose(fast.kept[i].tolist(), row.kept, atol=1e-4)
        assert np.allclose(fast.ce[i].tolist(), row.ce, atol=1e-3)


if __name__ == "__main__":
    main()
