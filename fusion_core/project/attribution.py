"""Fused rows -> where the mass of their tokens came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fusion_core.records import FusedRows, NextTokenRows, Origins, ProjectedRows

from .carrier import Carrier
from .chain_rule import probs_at

NAMED = 3
"""Source tokens that are named for each fused token."""


def origins(
    carriers: Sequence[Carrier],
    carried: Sequence[ProjectedRows],
    fused: FusedRows,
    target: NextTokenRows,
) -> Origins:
    """Trace the tokens of fused rows back to sources and their tokens.

    A fused probability is the weighted sum of what the sources give; a `product` is shared out in
    proportion to what they would have given to the sum.

    Args:
        carriers: of the sources, without the target.
        carried: S carried-over rows that were fused: those of the carriers, changed or not, and
            the target's own where it took part.
        fused: the m fused rows.
        target: the target's own m + 1 rows.

    Returns:
        For each fused token and source what named tokens, further tokens, and the target's own row
        in the source's place gave; they sum to the fused probability.
    """
    ids = fused.rows.ids
    own = target.dense
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    real = ids >= 0
    by_own, part, token, share = [], [], [], []
    for j, rows in enumerate(carried):
        value = rows.kept.new_zeros(ids.shape)
        value[real] = probs_at(rows, own, row[real], ids[real])
        mine = rows.own_share[:, None] * own.at(row, ids.clamp(min=0)) * real
        if j < len(carriers):
            found = carriers[j].origins(ids, NAMED)
        else:
            found = (
                torch.full((*ids.shape, NAMED), -1, device=ids.device),
                rows.kept.new_zeros((*ids.shape, NAMED)),
            )
        by_own.append(mine)
        part.append(value - mine)
        token.append(found[0])
        share.append(found[1])
    weights = fused.weights[:, None]
    own_part, carried_part = (torch.stack(x, dim=2) * weights for x in (by_own, part))
    total = (own_part + carried_part).sum(2)
    scale = torch.where(total > 0, fused.rows.probs / total.clamp(min=1e-30), 0)[..., None]
    own_part, carried_part = own_part * scale, carried_part * scale
    mass = torch.stack(share, dim=2) * carried_part[..., None]
    return Origins(torch.stack(token, dim=2), mass, own_part, carried_part - mass.sum(3))
