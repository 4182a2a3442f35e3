"""The target's own boundaries.

That the target has a boundary where a row stands says, truly, that the text does not go on in a way
that the target would have merged with its last token. What is taught is a source's row given that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fusion_core.numerics import index_sum
from fusion_core.records import DenseRows, ProjectedRows
from fusion_core.tokens import Canonical

from .attribution import probs_at
from .chain_rule import rescaled

DOUBT = 1e-3
"""Share of what is taken away that the target's own row gets: where a source expects next to
nothing but tokens that would have been merged, what is left of its row is noise."""

CHUNK_CELLS = 1 << 24
"""Rows times vocabulary that are searched at once."""


def at_boundaries(
    projected: ProjectedRows,
    native: DenseRows,
    last: np.ndarray,
    canonical: Canonical,
    least: float,
) -> ProjectedRows:
    """Take away the tokens with which the target's last token would have been merged.

    Args:
        projected: m projected rows.
        native: the target's native rows, the first m of them.
        last: (m,) int64, the target's token before each row; -1 for none.
        canonical: of the target's tokenizer.
        least: probability above which a token is tried.

    Returns:
        m rows that sum to 1, with kept mass as it was.
    """
    with_doubt = replace(projected, target_share=projected.target_share + DOUBT)
    row, token = _heavy(with_doubt, native, least)
    last = last[row]
    tried = (last >= 0) & (projected.kind[row] != 0)
    row, token, last = row[tried], token[tried], last[tried]
    merges = ~canonical.stays(np.stack([last, token], axis=1))
    at, gone = (torch.as_tensor(x[merges], device=projected.kept.device) for x in (row, token))
    taken = index_sum(len(projected), at, probs_at(projected, native, at, gone))  # (m,)
    share = projected.target_share + DOUBT * taken
    projected = replace(projected, target_share=share)
    values = probs_at(projected, native, at, gone)
    room = 1 + DOUBT * taken - index_sum(len(projected), at, values)
    scale = 1 / room.clamp(min=torch.finfo(room.dtype).tiny)
    return rescaled(projected, scale, at, gone, -scale[at] * values)


def _heavy(
    projected: ProjectedRows, native: DenseRows, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """List the tokens of rows above a probability: (n,) rows and (n,) tokens."""
    step, rows, tokens = max(1, CHUNK_CELLS // native.vocab_size), [], []
    for first in range(0, len(projected), step):
        part = projected.part(first, min(first + step, len(projected)))
        given = native.logprobs[first : first + len(part)].exp()
        row, token = (part.probs(given) > least).nonzero(as_tuple=True)
        rows.append(row.cpu().numpy() + first)
        tokens.append(token.cpu().numpy())
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *rows]), np.concatenate([nothing, *tokens])
