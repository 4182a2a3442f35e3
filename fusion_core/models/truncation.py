"""Truncation of next-token rows: some tokens of each stay, and what is cut off is its tail."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from fusion_core.config import Truncation
from fusion_core.errors import InputError
from fusion_core.records import DenseRows, SparseRows

CHUNK_CELLS = 1 << 26
"""Rows times vocabulary that are normalised or cut at once."""


def truncated(rows: DenseRows, cut: Truncation, ids: np.ndarray) -> SparseRows:
    """Keep some tokens of each of a text's rows; the first ones as `read_rows_batch` does."""
    generator = generator_of(ids, cut, rows.logprobs.device)
    parts = rows.logprobs.split(max(1, CHUNK_CELLS // rows.vocab_size))
    return SparseRows.concat([truncate_rows(p, cut, rows.temperature, generator) for p in parts])


def generator_of(ids: np.ndarray, cut: Truncation | None, device: torch.device) -> torch.Generator:
    """Return what draws a text's tokens, the same for the same text."""
    generator = torch.Generator(device)
    if cut is not None and cut.samples:
        generator.manual_seed(zlib.crc32(ids.tobytes(), cut.seed))
    return generator


def truncate_rows(
    logprobs: torch.Tensor,
    cut: Truncation,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> SparseRows:
    """Keep some tokens of each row; what is cut off becomes its tail.

    Args:
        logprobs: (n, vocabulary) nats.
        cut: the k most probable tokens; the fewest whose probabilities reach p; or N draws with
            replacement, each of which counts 1/N, so that the rows are right on average and have
            no tail (sparse logit sampling, arXiv 2503.16870).
        temperature: what the logits were divided by.
        generator: for the draws.

    Raises:
        InputError: the cut keeps nothing that could be named.
    """
    size = logprobs.shape[1]
    if cut.samples:
        drawn = torch.multinomial(
            logprobs.exp(), cut.samples, replacement=True, generator=generator
        )
        drawn = drawn.sort(dim=1).values
        new = torch.ones_like(drawn, dtype=torch.bool)
        new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        counts = torch.zeros_like(drawn).scatter_add_(1, new.cumsum(1) - 1, torch.ones_like(drawn))
        ids = torch.full_like(drawn, -1).scatter_(1, new.cumsum(1) - 1, drawn)
        counts, order = counts.sort(dim=1, descending=True, stable=True)
        width = int((counts > 0).sum(1).max())
        probs = counts[:, :width].to(logprobs.dtype) / cut.samples
        ids = ids.gather(1, order)[:, :width]
        return SparseRows(ids, probs, probs.new_zeros(len(probs)), size, temperature)
    if cut.top_k:
        top, ids = logprobs.topk(min(cut.top_k, size), dim=1)
        probs = top.exp()
    elif cut.top_p:
        probs, ids = logprobs.exp().sort(dim=1, descending=True)
        reached = probs.cumsum(1) - probs < cut.top_p
        width = int(reached.sum(1).max())
        probs = torch.where(reached, probs, 0)[:, :width]
        ids = ids.masked_fill(~reached, -1)[:, :width]
    else:
        raise InputError("A cut keeps top_k tokens, top_p of the mass, or draws: name one of them.")
    ids = ids.masked_fill(probs <= 0, -1)
    return SparseRows(ids, probs, (1 - probs.sum(1)).clamp(min=0), size, temperature)
