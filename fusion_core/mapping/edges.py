"""What a mapping is: which tokens of a source may give their probability to which of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import embedding_bag

from fusion_core.records import VocabMap


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
class Edges:
    """Which source tokens go to which target tokens at one kind of position, in CSR form.

    Attributes:
        candidates: (c,) int64, ascending, source tokens that agree with the bytes already known.
        others: (o,) int64, ascending, source tokens that end within the known bytes: other paths of
            the source, on which it has not been asked.
        indptr: (c + 1,) int64.
        target: (e,) int64, target ids.
        weight: (e,) float32, shares that are fixed; None where the target's row is the prior.
    """

    candidates: torch.Tensor
    others: torch.Tensor
    indptr: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None = None

    @cached_property
    def counts(self) -> torch.Tensor:
        """(c,) int64, number of edges of each candidate."""
        return self.indptr.diff()

    @cached_property
    def source(self) -> torch.Tensor:
        """(e,) int64, index into `candidates` of each edge."""
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
        """Send (c, r) to the targets: (``size``, r), each edge by its fixed share, or whole."""
        order, target = self._by_target
        bounds = torch.searchsorted(target, torch.arange(size + 1))
        device = mass.device
        weight = None if self.weight is None else self.weight[order].to(device)
        return _bags(self.source[order].to(device), mass, bounds.to(device), weight)


def _bags(
    index: torch.Tensor,
    rows: torch.Tensor,
    bounds: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add up rows (n, r) named by ``index`` from bound to bound."""
    if not rows.shape[1]:  # which torch refuses where several threads share the bags
        return rows.new_zeros(len(bounds) - 1, 0)
    return embedding_bag(
        index, rows, bounds, mode="sum", per_sample_weights=weight, include_last_offset=True
    )


class EdgeTable:
    """The edges of several kinds of positions in one list, so that one look-up serves them all."""

    def __init__(self, kinds: Sequence[Edges], source_size: int, target_size: int) -> None:
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

    def to(self, device: torch.device) -> EdgeTable:
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
        """(e,) ascending keys ``g * target_size + v`` of all edges, and (e,) their source keys."""
        source = self.key[torch.repeat_interleave(self.indptr.diff())]
        key = source // self.source_size * self.target_size + self.target
        order = key.argsort(stable=True)
        return key[order], source[order]


def _joined(parts: Sequence[torch.Tensor], step: int) -> torch.Tensor:
    sizes = torch.as_tensor([len(p) for p in parts])
    return torch.cat(list(parts)) + torch.repeat_interleave(torch.arange(len(parts)) * step, sizes)


class VocabMapping:
    """What carries rows from one vocabulary to another; strategies make them.

    Attributes:
        identity: at shared boundaries every id stands for itself, and no edge is asked for.
        inside: it has edges inside a source's token, too, where its first bytes are known.
        transported: of each row so many of the most probable tokens are moved by `destinations`,
            and no edge is asked for; 0 for none.
    """

    identity = False
    inside = False
    transported = 0

    def edges(self, known: bytes = b"", *, target_start: bool = False) -> Edges:
        """Return the edges where the source's next token is known to begin with bytes.

        Args:
            known: bytes of the text from the source's last boundary to the target's boundary;
                empty at a shared boundary, and always where the mapping is not `inside`.
            target_start: the target is at the start of a text and has yet to spell its dummy
                prefix.
        """
        raise NotImplementedError

    def destinations(
        self, source_ids: torch.Tensor, mass: torch.Tensor, native: torch.Tensor
    ) -> torch.Tensor:
        """Choose the target token to which each of a row's tokens goes.

        Args:
            source_ids: (r, transported) the source's most probable tokens; -1 where there are
                fewer.
            mass: (r, transported) their probabilities.
            native: (r, target vocabulary), the target's rows.

        Returns:
            (r, transported) int64 target tokens.
        """
        raise NotImplementedError


class IdentityMapping(VocabMapping):
    """Ids of both vocabularies mean the same, and both tokenizers cut texts alike."""

    identity = True


class FixedMapping(VocabMapping):
    """A map that is the same at every shared boundary."""

    def __init__(self, vocab_map: VocabMap) -> None:
        """Read the map as edges of fixed weight."""
        self.vocab_map = vocab_map
        self._edges = Edges(
            torch.arange(vocab_map.shape[0]),
            torch.zeros(0, dtype=torch.int64),
            torch.as_tensor(vocab_map.indptr),
            torch.as_tensor(vocab_map.indices).long(),
            torch.as_tensor(vocab_map.weights),
        )

    def edges(self, known: bytes = b"", *, target_start: bool = False) -> Edges:
        """Return the map's entries."""
        return self._edges
