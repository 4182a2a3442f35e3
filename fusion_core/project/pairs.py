"""Lists of pairs of tokens, looked up and added up without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from fusion_core.mapping import Consistency
from fusion_core.records import VocabMap

TINY = torch.finfo(torch.float32).tiny


def expand(begin: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay n ranges end to end.

    Args:
        begin: (n,) int64, first index of each range.
        count: (n,) int64, their lengths.

    Returns:
        (N,) the range that each index belongs to, and (N,) the indices.
    """
    whose = torch.repeat_interleave(count)
    first = begin - (count.cumsum(0) - count)
    return whose, torch.arange(len(whose), device=begin.device) + first.index_select(0, whose)


def find(ordered: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Look (n,) keys up in ascending ones: their places, and (n,) bool whether they are there."""
    if not len(ordered):
        return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(ordered, wanted).clamp(max=len(ordered) - 1)
    return place, ordered[place] == wanted


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which source tokens go to which target tokens at one kind of position, in CSR form.

    Attributes:
        candidates: (c,) int64, ascending, source tokens that agree with the bytes already known.
        others: (o,) int64, ascending, source tokens that end within the known bytes.
        indptr: (c + 1,) int64.
        target: (e,) int64, target ids.
        weight: (e,) float32, shares that are fixed; None where the target's own row decides.
    """

    candidates: torch.Tensor
    others: torch.Tensor
    indptr: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None = None

    @staticmethod
    def of(pairs: Consistency | VocabMap) -> Pairs:
        """Read a relation at one kind of position, or a fixed map; done once for each."""
        found = _read.get(pairs)
        if found is None:
            found = _read[pairs] = Pairs._of(pairs)
        return found

    @staticmethod
    def _of(pairs: Consistency | VocabMap) -> Pairs:
        tensor = torch.as_tensor
        if isinstance(pairs, VocabMap):
            return Pairs(
                torch.arange(pairs.shape[0]),
                torch.zeros(0, dtype=torch.int64),
                tensor(pairs.indptr),
                tensor(pairs.indices).long(),
                tensor(pairs.weights),
            )
        order = np.argsort(pairs.candidates, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        source = rank[pairs.edge_source]
        by_source = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=len(order))
        return Pairs(
            tensor(pairs.candidates[order]),
            tensor(np.sort(pairs.others)),
            tensor(np.concatenate([[0], np.cumsum(counts)])),
            tensor(pairs.edge_target[by_source]).long(),
        )

    @cached_property
    def counts(self) -> torch.Tensor:
        """(c,) int64, number of pairs of each candidate."""
        return self.indptr.diff()

    @cached_property
    def source(self) -> torch.Tensor:
        """(e,) int64, index into `candidates` of each pair."""
        return torch.repeat_interleave(self.counts)

    @cached_property
    def _by_target(self) -> tuple[torch.Tensor, torch.Tensor]:
        order = self.target.argsort(stable=True)
        return order, self.target[order]

    def room(self, prior: torch.Tensor) -> torch.Tensor:
        """Add up (target vocabulary, r) over the targets of each candidate: (c, r)."""
        device = prior.device
        return _bags(self.target.to(device), prior, self.indptr.to(device))

    def spread(self, mass: torch.Tensor, size: int) -> torch.Tensor:
        """Send (c, r) to the targets: (``size``, r), each pair by its fixed share, or whole."""
        order, target = self._by_target
        bounds = torch.searchsorted(target, torch.arange(size + 1))
        device = mass.device
        weight = None if self.weight is None else self.weight[order].to(device)
        return _bags(self.source[order].to(device), mass, bounds.to(device), weight)


_read: WeakKeyDictionary[Consistency | VocabMap, Pairs] = WeakKeyDictionary()


def _bags(
    index: torch.Tensor,
    rows: torch.Tensor,
    bounds: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add up rows (n, r) named by ``index`` from bound to bound."""
    return embedding_bag(
        index, rows, bounds, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


class PairTable:
    """The pairs of several kinds of positions in one list, so that one look-up serves them all."""

    def __init__(self, kinds: Sequence[Pairs], source_size: int, target_size: int) -> None:
        """Join the lists, at least one; kind g's token w is ``g * source_size + w`` in them."""
        self.source_size, self.target_size = source_size, target_size
        self.key = _joined([p.candidates for p in kinds], source_size)
        self.other_key = _joined([p.others for p in kinds], source_size)
        counts = torch.cat([p.counts for p in kinds])
        # One more, so that an empty list can be looked into.
        self.indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0), counts.sum()[None]])
        self.target = torch.cat([p.target for p in kinds])
        fixed = [p.weight for p in kinds if p.weight is not None]
        self.weight = torch.cat(fixed) if len(fixed) == len(kinds) else None

    def to(self, device: torch.device) -> PairTable:
        """Move the lists to a device."""
        for name in ("key", "other_key", "indptr", "target", "weight"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value.to(device))
        return self

    def of_kind(self, keys: torch.Tensor, kind: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """List every token of (n,) kinds: (N,) which of the n, and (N,) the source tokens."""
        bounds = torch.searchsorted(keys, torch.stack([kind, kind + 1]) * self.source_size)
        whose, place = expand(bounds[0], bounds[1] - bounds[0])
        return whose, keys[place] % self.source_size

    @cached_property
    def by_target(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(e,) ascending keys ``g * target_size + v`` of all pairs, and (e,) their source keys."""
        source = self.key[torch.repeat_interleave(self.indptr.diff())]
        key = source // self.source_size * self.target_size + self.target
        order = key.argsort(stable=True)
        return key[order], source[order]


def _joined(parts: Sequence[torch.Tensor], step: int) -> torch.Tensor:
    sizes = torch.as_tensor([len(p) for p in parts])
    return torch.cat(list(parts)) + torch.repeat_interleave(torch.arange(len(parts)) * step, sizes)
