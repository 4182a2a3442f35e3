"""Can a model read several documents in one line without mixing them up?"""

from __future__ import annotations

import torch

from fusion_core.models import LoadedModel

TOLERANCE = 1e-3


@torch.no_grad()
def reads_packed(model: LoadedModel) -> bool:
    """Read two documents in one line and apart, and compare.

    Models whose attention goes by positions that start anew, as most of `transformers` do, see
    each document by itself; others, such as those with ALiBi, see the first from the second.

    Args:
        model: any.

    Returns:
        Whether the logits are the same within a thousandth of their spread.
    """
    network, device = model.network, model.device
    size = min(model.tokenizer.size, 1000)
    half = 8
    if model.context is not None and model.context < 2 * half:
        return False
    ids = torch.randint(size, (2, half), generator=torch.Generator().manual_seed(0)).to(device)
    at = torch.arange(half, device=device)
    try:
        together = network(
            input_ids=ids.reshape(1, -1), position_ids=at.repeat(2)[None], use_cache=False
        ).logits
    except (RuntimeError, TypeError, ValueError):  # a model that takes no positions
        return False
    apart = network(input_ids=ids, use_cache=False).logits.reshape(1, 2 * half, -1)
    spread = float(apart.float().std())
    return bool((together - apart).abs().max() <= TOLERANCE * max(spread, 1e-6))
