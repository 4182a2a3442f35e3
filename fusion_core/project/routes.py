"""From which source rows, and along which edges, each of a target's rows is projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fusion_core.align import positions_of
from fusion_core.mapping import VocabMapping
from fusion_core.mapping.edges import Edges, EdgeTable, expand, find
from fusion_core.records import (
    Alignment,
    Covers,
    DenseRows,
    NextTokenRows,
    RowKind,
    SparseRows,
)


@dataclass(frozen=True, eq=False)
class Route:
    """Which source rows give to each of the target's m rows, and along which edges.

    An entry is a source row of which a target row takes a part: one at most where the source is
    asked at its boundaries, one a cover where it is asked for what has been read.

    Attributes:
        given: the source's rows, on the target's device.
        native: the target's rows, the first m of them.
        mapping: from the source's vocabulary to the target's.
        kind: (m,) int64 of `RowKind`, NONE where the mapping has nothing to say.
        position: (e,) int64, ascending, the target row of each entry.
        row: (e,) int64, its source row.
        group: (e,) int64, which list of the table counts, 0 where nothing is known of the source's
            next token.
        weight: (e,) float32, what the row is multiplied by; None where it is normalised over what
            agrees with the bytes that are known.
        cover: (e,) int64, the number of the entry's cover.
        excluded: `Covers.excluded`.
        shared: edges where nothing is known; None where ids stand for themselves.
        table: edges of all groups; the first list is empty where `shared` is None.
    """

    given: DenseRows | SparseRows
    native: DenseRows
    mapping: VocabMapping
    kind: np.ndarray
    position: torch.Tensor
    row: torch.Tensor
    group: torch.Tensor
    weight: torch.Tensor | None
    cover: torch.Tensor
    excluded: torch.Tensor
    shared: Edges | None
    table: EdgeTable

    @staticmethod
    def of(
        source: NextTokenRows,
        target: NextTokenRows,
        alignment: Alignment,
        mapping: VocabMapping,
        covers: Covers | None = None,
    ) -> Route:
        """Find the route of every row; arguments as for `project_rows`."""
        native = target.dense.part(0, len(alignment.row))
        device, size = native.logprobs.device, source.rows.vocab_size
        entries = (
            _at_boundaries(alignment, mapping)
            if covers is None
            else _of_covers(alignment, mapping, covers)
        )
        group, known = _groups(entries, alignment, mapping)
        nothing = torch.zeros(0, dtype=torch.int64)
        empty = Edges(nothing, nothing, torch.zeros(1, dtype=torch.int64), nothing)
        shared = None if mapping.identity or mapping.transported else mapping.edges()
        lists = [mapping.edges(b, target_start=start) for b, start in known[1:]]
        table = EdgeTable([shared or empty, *lists], size, native.vocab_size).to(device)
        given, weight, excluded = source.rows, None, np.zeros(0, np.int64)
        if covers is not None:
            given, excluded = covers.rows, covers.excluded
            weight = torch.as_tensor(covers.weight[entries.cover], device=device)
        position, row, cover, group_, excluded_ = (
            torch.as_tensor(x, device=device)
            for x in (entries.position, entries.row, entries.cover, group, excluded)
        )
        return Route(
            given.to(device),
            native,
            mapping,
            entries.kind,
            position,
            row,
            group_,
            weight,
            cover,
            excluded_,
            shared,
            table,
        )

    def excluded_of(self, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """List what is excluded of (n,) entries: (x,) which of the n, and (x,) source tokens."""
        size = self.given.vocab_size
        first = self.cover[entries] * size
        bounds = torch.searchsorted(self.excluded, torch.stack([first, first + size]))
        which, place = expand(bounds[0], bounds[1] - bounds[0])
        return which, self.excluded[place] % size

    def allowed(self, entry: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        """(n,) bool, whether source tokens count after the rows of entries."""
        return ~find(self.excluded, self.cover[entry] * self.given.vocab_size + token)[1]


class _Entries(NamedTuple):
    """Source rows of which target rows take a part, and what each target row is.

    Attributes:
        kind: (m,) int64 of `RowKind`.
        position: (e,) int64, target rows.
        row: (e,) int64, source rows.
        known: (e,) int64, bytes known of the source's next token.
        cover: (e,) int64, numbers of covers.
    """

    kind: np.ndarray
    position: np.ndarray
    row: np.ndarray
    known: np.ndarray
    cover: np.ndarray


def _at_boundaries(alignment: Alignment, mapping: VocabMapping) -> _Entries:
    """Take the source's row at the target's byte, or at its last boundary before it."""
    kind = alignment.kind.copy()
    if not mapping.inside:
        kind[kind == RowKind.INSIDE] = RowKind.NONE
    some = np.flatnonzero(kind != RowKind.NONE)
    return _Entries(kind, some, alignment.row[some], alignment.offset[some], some)


def _of_covers(alignment: Alignment, mapping: VocabMapping, covers: Covers) -> _Entries:
    """Take all covers of the target's bytes; where a mapping says nothing inside, those there."""
    position, cover = covers.at(positions_of(alignment.target, alignment.source)[:-1])
    shared = alignment.kind == RowKind.SHARED
    if not mapping.inside:
        keep = (covers.known[cover] == 0) & shared[position]
        position, cover = position[keep], cover[keep]
    kind = np.full(len(shared), int(RowKind.NONE))
    kind[position] = np.where(shared[position], int(RowKind.SHARED), int(RowKind.INSIDE))
    return _Entries(kind, position, covers.row[cover], covers.known[cover], cover)


def _groups(
    entries: _Entries, alignment: Alignment, mapping: VocabMapping
) -> tuple[np.ndarray, list[tuple[bytes, bool]]]:
    """Gather entries by what is known of the source's next token.

    A dummy prefix that the source has yet to spell is known to come; where only the target has one,
    its first token is read without it.

    Returns:
        (e,) groups, see `Route`, and for each group the bytes that are known, and whether the
        target has yet to spell a dummy prefix that the source has not.
    """
    source, target = alignment.source, alignment.target
    group = np.zeros(len(entries.position), np.int64)
    known: dict[tuple[bytes, bool], int] = {(b"", False): 0}
    if mapping.inside:
        text = b" " + target.data  # the source's dummy prefix counts as a byte before the text
        at = positions_of(target, source) + 1
        first = target.dummy_prefix and not source.dummy_prefix
        special = (entries.known > 0) | (first & (entries.position == 0))
        for e in np.flatnonzero(special).tolist():
            i = entries.position[e]
            bytes_known = text[at[i] - entries.known[e] : at[i]]
            group[e] = known.setdefault((bytes_known, first and i == 0), len(known))
    return group, list(known)
