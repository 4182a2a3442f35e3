"""Alignments in plain Python: sets and dicts of end bytes, no code of `fusion_core.align`."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter

import numpy as np
from plain_tokenizers import Vocabulary

from fusion_core.records import Alignment, Encoding, RowKind

LOST = "the source loses a byte between its last boundary and the position, or its next token"
OTHER = "another reason"
CUT = "shared, but inside a character that the source loses"


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
