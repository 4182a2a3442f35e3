"""Can a model read several documents in one line without mixing them up?"""

from __future__ import annotations

import torch

from fusion_core.errors import is_out_of_memory
from fusion_core.models import LoadedModel

TOLERANCE = 1e-3
"""Share of the logits' spread by which they may differ."""


@torch.no_grad()
def supports_packing(model: LoadedModel) -> bool:
    """Read a document behind two others, in one line with each, and compare.

    Models whose attention goes by positions that start anew, as most of `transformers` do, see
    each document by itself; others, such as those with ALiBi, see the first from the second.

    Args:
        model: any.

    Returns:
        Whether the logits stay the same within a thousandth of their spread.
    """
    network, device, size = model.network, model.device, min(model.tokenizer.size, 1000)
    half = 8
    if model.context is not None and model.context < 2 * half:
        return False
    ids = torch.randint(size, (3, half), generator=torch.Generator().manual_seed(0)).to(device)
    lines = torch.stack([torch.cat([ids[0], ids[2]]), torch.cat([ids[1], ids[2]])])
    at = torch.arange(half, device=device).repeat(2).expand(2, -1)
    try:
        logits = network(input_ids=lines, position_ids=at, use_cache=False).logits[:, half:]
    except (RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False  # a model that takes no positions
    behind_one, behind_other = logits.float()
    off = (behind_one - behind_other).abs().max()
    return bool(off <= TOLERANCE * behind_one.std().clamp(min=1e-6))
