"""The chain rule for the token that followed.

Where the target's next token ends on a source boundary, the source's probability of it along the
text is the product of its steps: known, not approximated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fusion_core.align import positions_of
from fusion_core.mapping.edges import find
from fusion_core.numerics import index_sum
from fusion_core.records import Covers, DenseRows, Encoding, NextTokenRows, ProjectedRows

from .attribution import probs_at

ROOM = 1e-6
"""Least probability of all other tokens between which what is left can be shared."""


def chain_rule(
    projected: ProjectedRows,
    native: DenseRows,
    observed: torch.Tensor,
    native_nats: np.ndarray,
    target: Encoding,
    ids_of: dict[bytes, list[int]],
) -> ProjectedRows:
    """Put the source's own probability of the observed token in the place of the projected one.

    Target tokens that are proper prefixes of the observed text, or reach beyond the observed token
    along it, are other spellings of what is known: they are dropped. The rest is rescaled. Rows in
    which nothing but these is left stay as they are.

    Args:
        projected: m projected rows.
        native: the target's native rows, the first m of them.
        observed: (m,) int64, the tokens that followed.
        native_nats: (m,) of `native_ce`; nan where the rule does not apply.
        target: the target's tokens.
        ids_of: the ids of the target's vocabulary by their bytes.

    Returns:
        m rows that sum to 1.
    """
    rows = np.flatnonzero(~np.isnan(native_nats) & (projected.kind != 0))
    device, size = projected.kept.device, native.vocab_size
    at, dropped = (torch.as_tensor(x, device=device) for x in _along(rows, target, ids_of))
    sure = torch.as_tensor(rows, device=device)
    known = torch.zeros_like(projected.kept)
    known[sure] = torch.as_tensor(np.exp(-native_nats[rows]), device=device).to(known.dtype)
    goal = sure * size + observed[sure]
    keys = torch.cat([at * size + dropped, goal]).unique()  # (n,)
    row, token = keys // size, keys % size
    values = probs_at(projected, native, row, token)
    room = 1 - index_sum(len(known), row, values)  # (m,)
    applies = torch.zeros_like(known, dtype=torch.bool)
    applies[sure] = room[sure] > ROOM
    scale = torch.where(applies, (1 - known) / room.clamp(min=ROOM), 1.0)
    is_goal = find(goal, keys)[1]
    wanted = torch.where(is_goal, known[row], 0) - scale[row] * values
    keep = applies[row]
    return rescaled(projected, scale, row[keep], token[keep], wanted[keep])


def rescaled(
    projected: ProjectedRows,
    scale: torch.Tensor,
    row: torch.Tensor,
    token: torch.Tensor,
    more: torch.Tensor,
) -> ProjectedRows:
    """Multiply rows by (m,) and then add to the probabilities of (n,) tokens of rows."""
    if projected.mapped.is_sparse:
        index, mass = projected.mapped._indices(), projected.mapped._values()
        mapped = torch.sparse_coo_tensor(
            torch.cat([index, torch.stack([row, token])], dim=1),
            torch.cat([mass * scale[index[0]], more]),
            projected.mapped.shape,
            check_invariants=False,
        )
    else:
        mapped = (projected.mapped * scale[:, None]).index_put_((row, token), more, accumulate=True)
    return replace(projected, mapped=mapped, target_share=projected.target_share * scale)


def _along(
    rows: np.ndarray, target: Encoding, ids_of: dict[bytes, list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """List the tokens that spell what follows chosen rows: (n,) rows and (n,) tokens, int64."""
    text = b" " + target.data
    row_bytes = target.row_bytes[:-1] + 1
    longest = max(map(len, ids_of), default=0)
    found: list[tuple[int, int]] = []
    for i in rows.tolist():
        ahead = text[row_bytes[i] : row_bytes[i] + longest]
        for n in range(1, len(ahead) + 1):
            found += [(i, token) for token in ids_of.get(ahead[:n], ())]
    pairs = np.asarray(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def native_ce(target: Encoding, source: Encoding, rows: NextTokenRows) -> np.ndarray:
    """Score the target's tokens with the source's own steps along the text.

    Args:
        target: the target's tokens, m of them not special.
        source: the source's tokens, n of them not special.
        rows: n + 1 rows of the source.

    Returns:
        (m,) nats; nan where the target's token does not span whole tokens of the source.
    """
    nats = -rows.observed_logprob[:-1].cpu().double().numpy()
    sure = np.isfinite(nats)
    along = np.concatenate([[0.0], np.cumsum(np.where(sure, nats, 0.0))])
    unsure = np.concatenate([[0], np.cumsum(~sure)])
    row_bytes = source.row_bytes
    bounds = np.maximum(target.row_bytes, row_bytes[0])
    at = np.searchsorted(row_bytes, bounds, side="right") - 1
    found = row_bytes[at] == bounds
    whole = found[:-1] & found[1:] & (np.diff(bounds) > 0) & (np.diff(unsure[at]) == 0)
    return np.where(whole, along[at[1:]] - along[at[:-1]], np.nan)


def read_ce(target: Encoding, source: Encoding, covers: Covers) -> np.ndarray:
    """Score the target's tokens with the mass of all of the source's tokenisations.

    Args:
        target: the target's tokens, m of them not special.
        source: the source's tokens.
        covers: of the bytes at which the target's rows stand, the last one's included.

    Returns:
        (m,) nats; nan where the source says nothing.
    """
    at = np.searchsorted(covers.positions, positions_of(target, source))
    read = covers.log_mass[at]
    goes_on = read - np.log1p(-covers.noncanonical[at])  # before what is excluded there
    known = np.isfinite(read[:-1]) & np.isfinite(goes_on[1:]) & (np.diff(at) > 0)
    return np.where(known, read[:-1] - np.where(known, goes_on[1:], 0), np.nan).clip(min=0)
