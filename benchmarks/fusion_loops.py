"""The rules of fusion in plain Python, and whether they give what the package gives.

The published rule, written from its description: for each position and each of the source's top
tokens a look-up in a dict, one-hot where nothing is aligned, and the dense (length, vocabulary)
target of each source that the published collator makes. And the package's rule, position by
position. fusion.py times them.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cases import CONFIG, Case, Part

from fusion_core import fuse, project
from fusion_core.mapping import PrefixRelation, VocabMapping
from fusion_core.project.rows import TINY
from fusion_core.records import FusedRows, RowKind, SparseRows


def warped(case: Case) -> float:
    """Time the published token alignment of every window and source, as align.py has it."""
    from align import published_alignment

    strings = [t.published_strings() for t in case.tokenizers]
    spent = 0.0
    for part in case.parts:
        target, *sources = (
            ([entries[i] or "" for i in e.ids[e.text_tokens]], marker)
            for e, (entries, marker) in zip(part.encodings, strings, strict=True)
        )
        began = time.perf_counter()
        for source in sources:
            published_alignment(target[0], source[0], (target[1], source[1]))
        spent += time.perf_counter() - began
    return spent


def published(
    case: Case, part: Part, lookups: Sequence[dict[int, int]], at_once: bool = False
) -> tuple[torch.Tensor, list[list[dict[int, float]]]]:
    """Project by the published rule, and choose by MinCE.

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
    case: Case, lookups: Sequence[dict[int, int]], maps: Sequence[VocabMapping]
) -> None:
    """Compare what arrives at shared boundaries; tails and one-hots differ."""
    for part in case.parts:
        _, arrived = published(case, part, lookups)
        for j, masses in enumerate(arrived, start=1):
            rows = project.project_rows(
                part.rows[j], part.rows[0], part.alignments[j - 1], maps[j - 1]
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
    """One position by the package's rule: the fused top, and each source's kept mass and nats."""

    top: list[tuple[int, float]]
    kept: list[float]
    ce: list[float]


def in_python(case: Case, part: Part, relations: Sequence[Known], at: Sequence[int]) -> list[Plain]:
    """Project by Jeffrey's rule and fuse by MinCE, one position after another."""
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
                if room > TINY:
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
