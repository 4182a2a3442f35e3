"""Rows of several sources -> one fused row a position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch

from fusion_core.errors import InputError
from fusion_core.numerics import index_sum
from fusion_core.records import (
    FusedRows,
    FusedText,
    NextTokenRows,
    Progress,
    ProjectedRows,
    ProjectedWindow,
    Projection,
    RowKind,
    SparseRows,
)

from .dense import DenseLayout
from .operators import Measures, Operator, operator_of
from .sparse import SparseLayout

PART_CELLS = 1 << 25
"""Rows times vocabulary that are fused at once, where rows are laid out over it: several copies."""

DENSE_CELLS = 1 << 21
"""Rows times vocabulary up to which sparse rows are laid out: sorting them takes longer."""

FLOOR = 1e-9
"""What a probability of zero counts as in a cross-entropy."""

Look = Callable[[ProjectedWindow, list[ProjectedRows], FusedRows], None]
"""Is shown each window, the rows that were fused there (the target's own last, where they took
part), and the window's fused rows."""


def fuse(
    projection: Projection,
    operator: str = "min_ce",
    *,
    level: str = "sequence",
    top_k: int = 10,
    operator_temperature: float = 1.0,
    with_target: bool = False,
    entropy: bool = True,
    look: Look | None = None,
    progress: Progress | None = None,
) -> FusedText:
    """Fuse the sources' rows of a text.

    Args:
        projection: the sources' rows on the target's positions and vocabulary.
        operator: name in `OPERATORS`.
        level: "sequence" or "token"; some operators have none.
        top_k: tokens kept of a fused row.
        operator_temperature: what scores are divided by before a softmax.
        with_target: fuse the target's native rows, too, after those of the sources.
        entropy: work out the entropy of the fused rows.
        look: is shown what was fused in each window.
        progress: told of every window, where there are several.

    Raises:
        InputError: there is no such operator or level, or no source.
    """
    chosen, reading = operator_of(operator, level), projection.reading
    bits = list(reading.bits_per_byte.values())
    sequence_ce = [*bits[1:], *(bits[:1] if with_target else [])]
    number, nats = len(reading.windows), 0.0
    parts, places = list[FusedRows](), list[np.ndarray]()
    for n, (projected, (low, high)) in enumerate(
        zip(projection.windows, reading.scored, strict=True)
    ):
        if progress and number > 1:
            progress(f"fusing window {n + 1} of {number}", n / number)
        window = projected.reading
        rows = [*projected.rows, *([target_rows(window.rows[0])] if with_target else [])]
        fused = fuse_rows(
            rows,
            window.rows[0],
            sequence_ce,
            operator=operator,
            level=level,
            top_k=top_k,
            operator_temperature=operator_temperature,
            entropy=entropy,
        )
        scored = torch.as_tensor(window.scored(0, low, high))
        nats -= float(fused.observed_logprob.cpu()[scored].double().sum())
        where, own = window.owned(0)
        parts.append(fused.at(torch.as_tensor(own, device=fused.winner.device)))
        places.append(where)
        if look:
            look(projected, rows, fused)
    m = len(reading.encodings[0].text_tokens)
    whole = FusedRows.concat(parts).scattered(np.concatenate(places), m)
    return FusedText(projection, operator, chosen.level(level), whole, nats)


def fuse_rows(
    projected: Sequence[ProjectedRows],
    target: NextTokenRows,
    sequence_ce: Sequence[float],
    *,
    operator: str = "min_ce",
    level: str = "sequence",
    top_k: int = 10,
    operator_temperature: float = 1.0,
    entropy: bool = True,
) -> FusedRows:
    """Fuse the projected rows of S sources.

    Args:
        projected: S sources' rows on the same m positions of the target.
        target: the target's own m + 1 rows.
        sequence_ce: S native bits per byte on the document; used at level "sequence".
        operator: name in `OPERATORS`.
        level: "sequence" or "token".
        top_k: tokens kept of a fused row.
        operator_temperature: what scores are divided by before a softmax.
        entropy: work out the entropy of the fused rows.

    Returns:
        m fused rows; each sums to 1 with its tail.

    Raises:
        InputError: there is no such operator or level, or no source.
    """
    chosen = operator_of(operator, level)
    if not projected:
        raise InputError("There is nothing to fuse: name at least one source.")
    return FusedRows.concat(
        [
            _fused(
                _Part(some, rows, sequence_ce, top_k), chosen, level, operator_temperature, entropy
            )
            for some, rows in _parts(projected, target)
        ]
    )


def _parts(
    projected: Sequence[ProjectedRows], target: NextTokenRows
) -> Iterator[tuple[Sequence[ProjectedRows], NextTokenRows]]:
    """Cut rows that will be laid out into parts of which memory can hold several copies."""
    m, step = len(projected[0]), max(1, PART_CELLS // target.rows.vocab_size)
    if m <= step or all(p.mapped.is_sparse for p in projected):
        yield projected, target
        return
    for first in range(0, m, step):
        last = min(first + step, m)
        yield [p.part(first, last) for p in projected], target.part(first, last + 1)


class _Part:
    """Rows of S sources that are fused at once, and what they can be weighed by."""

    def __init__(
        self,
        projected: Sequence[ProjectedRows],
        target: NextTokenRows,
        sequence_ce: Sequence[float],
        top_k: int,
    ) -> None:
        self.projected, self._target = projected, target
        self._sequence_ce, self._top_k = sequence_ce, top_k

    @cached_property
    def layout(self) -> DenseLayout | SparseLayout:
        """The rows side by side."""
        sparse = all(p.mapped.is_sparse for p in self.projected)
        few = len(self.projected[0]) * self._target.rows.vocab_size <= DENSE_CELLS
        kind = SparseLayout if sparse and not few else DenseLayout
        return kind(self.projected, self._target, self._top_k)

    @cached_property
    def ce(self) -> torch.Tensor:
        """(m, S) nats, of each row on the token that followed."""
        return torch.stack([projected_ce(p, self._target)[0] for p in self.projected], dim=1)

    @property
    def measures(self) -> Measures:
        """What the sources can be weighed by."""
        return Measures(
            token_ce=lambda: self.ce,
            sequence_ce=lambda: self.ce.new_tensor(list(self._sequence_ce)).expand_as(self.ce),
            entropy=self.layout.entropies,
            top=self.layout.tops,
        )


def _fused(
    part: _Part, chosen: Operator, level: str, operator_temperature: float, entropy: bool
) -> FusedRows:
    weights = chosen.weights(part.measures, level, operator_temperature)  # (m, S)
    combination = chosen.combine if len(part.projected) > 1 else None
    kept, p = part.layout.combine(weights, combination)
    return FusedRows(
        rows=kept,
        sources=tuple(p.source for p in part.projected),
        weights=weights,
        winner=_winner(weights, part.projected),
        kept=torch.stack([p.kept for p in part.projected], dim=1),
        ce=part.ce,
        entropy=part.layout.entropy() if entropy else torch.full_like(p, torch.nan),
        observed_logprob=-_nats(p)[0],
    )


def _winner(weights: torch.Tensor, projected: Sequence[ProjectedRows]) -> torch.Tensor:
    """Name the source with the largest weight, where it is alone and has a row."""
    winner = weights.argmax(dim=1)
    alone = (weights == weights.max(dim=1, keepdim=True).values).sum(dim=1) == 1
    has_row = torch.as_tensor(
        np.stack([p.kind != RowKind.NONE for p in projected], axis=1), device=winner.device
    )
    return torch.where(alone & has_row.gather(1, winner[:, None])[:, 0], winner, -1)


def projected_ce(projected: ProjectedRows, target: NextTokenRows) -> tuple[torch.Tensor, int]:
    """Score projected rows on the tokens that followed, without laying them out.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.

    Returns:
        (m,) cross-entropies in nats, and how many probabilities were zero and floored at 1e-9.
    """
    mapped, m = projected.mapped, len(projected)
    observed = target.observed[:m]
    if mapped.is_sparse:
        (row, token), mass = mapped._indices(), mapped._values()
        hits = torch.nonzero(token == observed.index_select(0, row))[:, 0]
        p = index_sum(m, row[hits], mass[hits])
    else:
        p = mapped.gather(1, observed[:, None])[:, 0]
    native = target.dense.at(torch.arange(m, device=observed.device), observed)
    return _nats(p + projected.target_share * native)


def _nats(p: torch.Tensor) -> tuple[torch.Tensor, int]:
    return -torch.where(p > 0, p, FLOOR).log(), int((p <= 0).sum())


def entropies(projected: Sequence[ProjectedRows], target: NextTokenRows) -> torch.Tensor:
    """Return (m, S) nats, the entropies of S sources' projected rows."""
    parts = _parts(projected, target)
    return torch.cat([_Part(some, rows, (), 1).layout.entropies() for some, rows in parts])


def top_rows(projected: ProjectedRows, target: NextTokenRows, k: int) -> SparseRows:
    """Keep the k most probable tokens of projected rows.

    Args:
        projected: m rows.
        target: the target's own m + 1 rows.
        k: tokens to keep.
    """
    return SparseRows.concat(
        [
            _Part(some, rows, (), k).layout.combine(some[0].kept.new_ones(len(some[0]), 1), None)[0]
            for some, rows in _parts([projected], target)
        ]
    )


def target_rows(target: NextTokenRows) -> ProjectedRows:
    """Let the target's native rows stand beside those of the sources: m rows of m + 1."""
    m, size = len(target.rows) - 1, target.rows.vocab_size
    ones = target.dense.logprobs.new_ones(m)
    nothing = torch.zeros((2, 0), dtype=torch.int64, device=ones.device)
    mapped = torch.sparse_coo_tensor(nothing, ones[:0], (m, size), check_invariants=False)
    kind = np.full(m, int(RowKind.SHARED))
    return ProjectedRows(target.model, mapped, ones, ones, kind, ones)
