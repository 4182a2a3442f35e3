"""Optimal transport between the most probable tokens of two rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from fusion_core.tokens import TextTokenizer

from .edges import VocabMapping

TOP_K = 10
"""Tokens of either row between which mass is transported (PTA-LLM)."""

SHARPNESS = 5.0
"""λ of the kernel exp(-λ · edit distance). Of 0.1 to 5 the largest carried over best."""

ERROR = 1e-5
"""Largest error of a marginal at which Sinkhorn's iterations stop (PTA-LLM), and their number."""
STEPS = 500


class Transport(VocabMapping):
    """Sends each of a row's top tokens, whole, to where a plan of transport sends most of it.

    The plan is made anew at each position, between the top tokens of the source's row and of the
    target's.

    Source: PTA-LLM (arXiv 2509.17276).
    """

    transported = TOP_K

    def __init__(self, source: TextTokenizer, target: TextTokenizer) -> None:
        """Keep the two vocabularies' readable tokens."""
        self._source, self._target = cache(source.piece), cache(target.piece)

    def costs(self, source_ids: Sequence[int], target_ids: Sequence[int]) -> np.ndarray:
        """(n,) int64 edit distances of n pairs of tokens, as readable text."""
        return process.cpdist(
            [self._source(i) for i in source_ids],
            [self._target(i) for i in target_ids],
            scorer=Levenshtein.distance,
            dtype=np.int64,
        )

    def destinations(
        self, source_ids: torch.Tensor, mass: torch.Tensor, native: torch.Tensor
    ) -> torch.Tensor:
        """Choose the target token to which each of a row's tokens goes."""
        size = native.shape[1]
        room, target_ids = native.topk(min(TOP_K, size), dim=1)  # (r, l)
        pairs = source_ids.clamp(min=0)[:, :, None] * size + target_ids[:, None, :]  # (r, k, l)
        distinct, place = pairs.unique(return_inverse=True)
        both = (distinct // size).tolist(), (distinct % size).tolist()
        cost = torch.as_tensor(self.costs(*both), device=native.device)[place]
        return target_ids.gather(1, transport_plan(mass, room, cost).argmax(dim=2))


def transport_plan(mass: torch.Tensor, room: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """Solve r small problems of entropic optimal transport by Sinkhorn's iterations.

    Args:
        mass: (r, k) what there is to carry; scaled to sum to 1.
        room: (r, l) where it is to go; scaled to sum to 1.
        cost: (r, k, l) of carrying one unit.

    Returns:
        (r, k, l) float64 plans, not negative; their sums over l are the scaled masses, and over k
        the scaled rooms, to within ERROR unless the iterations run out.
    """
    rows, columns = (
        x.double() / x.double().sum(1, keepdim=True).clamp(min=1e-30) for x in (mass, room)
    )
    # The cheapest way of each source token costs nothing more: scales change no plan.
    cost = cost.double() - cost.double().min(dim=2, keepdim=True).values
    kernel = torch.exp(-SHARPNESS * cost).clamp(min=1e-30)
    right = torch.ones_like(columns)
    across = kernel.sum(2)
    for _ in range(STEPS):
        left = rows / across.clamp(min=1e-300)
        right = columns / (left[:, None, :] @ kernel)[:, 0].clamp(min=1e-300)
        across = (kernel @ right[:, :, None])[:, :, 0]
        if float((left * across - rows).abs().max()) < ERROR:
            break
    return left[:, :, None] * kernel * right[:, None, :]
