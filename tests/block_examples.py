"""Documents with rows that name their tokens, and blocks of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fusion_core.records import SparseRows
from fusion_core.training import (
    Blocks,
    Example,
)

START, END, PAD, SIZE = 1, 2, 0, 1000
TEXTS = ["the cats sat, the cat 東京 sat", "a", "the " * 12, "sat thesat", "he sat"]


class Given:
    """Dataset of examples that are there."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        self.lengths = np.array([len(x.ids) for x in examples], np.int64)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Example:
        return self._examples[i]


def example(m: int, number: int = 0, *, taught: bool = True, kept: bool = True) -> Example:
    """Make a document of tokens that occur nowhere else; each row names its token first."""
    ids = torch.arange(m) + 10 + 50 * number
    if not taught:
        return Example(ids)
    probs = torch.stack([0.5 + ids / 4000, torch.full((m,), 0.125)], 1)
    rows = SparseRows(torch.stack([ids, ids + 1], 1), probs, 1 - probs.sum(1), SIZE, 1.5)
    mass = (torch.arange(m) % 4) / 4
    return Example(ids, rows, mass if kept else None)


def blocks_of(lengths: Sequence[int], size: int, *, taught: bool = True, **options) -> Blocks:
    examples = Given([example(m, i, taught=taught) for i, m in enumerate(lengths)])
    return Blocks(examples, size, **({"start_id": START, "end_id": END} | options))
