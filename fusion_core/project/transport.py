"""Optimal transport between the most probable tokens of two rows."""

from __future__ import annotations

import torch

from fusion_core.mapping import Transport

TOP_K = 10
"""Tokens of either row between which mass is transported (PTA-LLM)."""

SHARPNESS = 5.0
"""λ of the kernel exp(-λ · edit distance). Of 0.1 to 5 the largest carried over best."""

ERROR = 1e-5
"""Largest error of a marginal at which Sinkhorn's iterations stop (PTA-LLM), and their number."""
STEPS = 500


def destinations(
    source_ids: torch.Tensor, mass: torch.Tensor, own: torch.Tensor, costs: Transport
) -> torch.Tensor:
    """Say where each source token goes: whole, to where the plan sends most of it.

    Args:
        source_ids: (r, k) the source's most probable tokens; -1 where there are fewer.
        mass: (r, k) their probabilities.
        own: (r, target vocabulary), the target's rows.
        costs: of the pairs of tokens.

    Returns:
        (r, k) int64 target tokens.

    Source: PTA-LLM (arXiv 2509.17276).
    """
    room, target_ids = own.topk(min(TOP_K, own.shape[1]), dim=1)
    size = own.shape[1]
    pairs = source_ids.clamp(min=0)[:, :, None] * size + target_ids[:, None, :]
    distinct, place = pairs.unique(return_inverse=True)
    both = (distinct // size).tolist(), (distinct % size).tolist()
    cost = torch.as_tensor(costs.costs(*both), device=own.device)[place]
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
