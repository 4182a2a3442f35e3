"""Rows for the codec and the cache, and what coding them costs."""

from __future__ import annotations

import math

import numpy as np
import torch

from fusion_core.cache import (
    decode,
    encode,
)
from fusion_core.records import SparseRows


def rows_of(mass: np.ndarray, vocab_size: int = 1000, seed: int = 0) -> SparseRows:
    """Make rows of (m, k + 1) masses, the tail last, with ids drawn at random."""
    rng = np.random.default_rng(seed)
    mass = mass / mass.sum(1, keepdims=True)
    probs = -np.sort(-mass[:, :-1], axis=1)
    k = probs.shape[1]
    ids = np.stack([rng.choice(vocab_size, k, replace=False) for _ in range(len(mass))])
    ids[probs[:, 0] == 0] = -1
    return SparseRows(
        torch.from_numpy(ids),
        torch.from_numpy(probs.astype(np.float32)),
        torch.from_numpy(mass[:, -1].astype(np.float32)),
        vocab_size,
    )


def random_rows(m: int, k: int, vocab_size: int = 1000, seed: int = 0) -> SparseRows:
    return rows_of(np.random.default_rng(seed).dirichlet(np.ones(k + 1), m), vocab_size, seed)


def through(rows: SparseRows, observed: torch.Tensor | None = None) -> SparseRows:
    seen = torch.arange(len(rows)) % rows.vocab_size if observed is None else observed
    back, again = decode(encode(rows, seen), rows.ids.shape[1], rows.vocab_size, rows.temperature)
    assert torch.equal(again, seen)
    return back


def divergence(p: SparseRows, q: SparseRows) -> np.ndarray:
    """KL(p || q) of each row in nats, by the definition, the tail as one bucket."""
    result = []
    for a, b in zip(
        torch.cat([p.probs, p.tail[:, None]], 1).double().tolist(),
        torch.cat([q.probs, q.tail[:, None]], 1).double().tolist(),
        strict=True,
    ):
        total = sum(a)
        pairs = zip(a, b, strict=True)
        result.append(sum(x / total * math.log(x / total / y) for x, y in pairs if x > 0))
    return np.array(result)
