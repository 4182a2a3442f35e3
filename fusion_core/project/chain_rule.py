"""The chain rule for the token that followed.

Where the target's next token ends on a source boundary, the source's probability of it along the
text is the product of its steps: known, not approximated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fusion_core.numerics import index_sum
from fusion_core.records import DenseRows, Encoding, ProjectedRows

from .pairs import find

ROOM = 1e-6
"""Least probability of all other tokens between which what is left can be shared."""


def chain_rule(
    projected: ProjectedRows,
    own: DenseRows,
    observed: torch.Tensor,
    native_nats: np.ndarray,
    target: Encoding,
    ids_of: dict[bytes, list[int]],
) -> ProjectedRows:
    """Put the source's own probability of the observed token in the place of the carried one.

    Target tokens that are proper prefixes of the observed text, or reach beyond the observed token
    along it, are other spellings of what is known: they are dropped. The rest is rescaled. Rows in
    which nothing but these is left stay as they are.

    Args:
        projected: m carried-over rows.
        own: the target's own rows, the first m of them.
        observed: (m,) int64, the tokens that followed.
        native_nats: (m,) of `evaluate.native_ce`; nan where the rule does not apply.
        target: the target's tokens.
        ids_of: the ids of the target's vocabulary by their bytes.

    Returns:
        m rows that sum to 1.
    """
    rows = np.flatnonzero(~np.isnan(native_nats) & (projected.kind != 0))
    text = b" " + target.data
    row_bytes = target.row_bytes[:-1] + 1
    longest = max(map(len, ids_of), default=0)
    at: list[int] = []
    dropped: list[int] = []
    for i in rows.tolist():
        ahead = text[row_bytes[i] : row_bytes[i] + longest]
        for n in range(1, len(ahead) + 1):
            same = ids_of.get(ahead[:n], ())
            at += [i] * len(same)
            dropped += same
    device = projected.kept.device
    sure = torch.as_tensor(rows, device=device)
    known = torch.zeros_like(projected.kept)
    known[sure] = torch.as_tensor(np.exp(-native_nats[rows]), device=device).to(known.dtype)
    size = own.vocab_size
    taken = torch.as_tensor(at, dtype=torch.int64, device=device) * size
    taken = taken + torch.as_tensor(dropped, dtype=torch.int64, device=device)
    goal = sure * size + observed[sure]
    keys = torch.cat([taken, goal]).unique()
    row, token = keys // size, keys % size
    values = probs_at(projected, own, row, token)
    room = 1 - index_sum(len(known), row, values)
    applies = torch.zeros_like(known, dtype=torch.bool)
    applies[sure] = room[sure] > ROOM
    scale = torch.where(applies, (1 - known) / room.clamp(min=ROOM), 1.0)
    is_goal = find(goal, keys)[1]
    wanted = torch.where(is_goal, known[row], 0) - scale[row] * values
    keep = applies[row]
    row, token, wanted = row[keep], token[keep], wanted[keep]
    if projected.carried.is_sparse:
        index, mass = projected.carried._indices(), projected.carried._values()
        carried = torch.sparse_coo_tensor(
            torch.cat([index, torch.stack([row, token])], dim=1),
            torch.cat([mass * scale[index[0]], wanted]),
            projected.carried.shape,
            check_invariants=False,
        )
    else:
        carried = (projected.carried * scale[:, None]).index_put_(
            (row, token), wanted, accumulate=True
        )
    return replace(projected, carried=carried, own_share=projected.own_share * scale)


def probs_at(
    projected: ProjectedRows, own: DenseRows, row: torch.Tensor, token: torch.Tensor
) -> torch.Tensor:
    """Look up probabilities of carried-over rows.

    Args:
        projected: m rows.
        own: the target's own rows, the first m of them.
        row: (n,) int64.
        token: (n,) int64; no pair of row and token stands twice.

    Returns:
        (n,) probabilities.
    """
    if projected.carried.is_sparse:
        size = own.vocab_size
        index, mass = projected.carried._indices(), projected.carried._values()
        keys, order = (row * size + token).sort()
        place, found = find(keys, index[0] * size + index[1])
        carried = torch.zeros_like(token, dtype=mass.dtype)
        carried.index_add_(0, order[place[found]], mass[found])
    else:
        carried = projected.carried[row, token]
    return carried + projected.own_share[row] * own.at(row, token)
