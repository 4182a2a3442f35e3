"""Is the model that is handed out the one that was trained?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from fusion_core.errors import ModelFormatError, is_out_of_memory
from fusion_core.models import LoadedModel
from fusion_core.numerics import logits_off

from .checkpoints import unsharded

TOKENS = 16
"""Tokens that a network is asked about."""

TOLERANCE, HALF_TOLERANCE = 1e-4, 0.1
"""Share of the logits' spread by which they may be off at the median token, in float32 and where
weights or products have 8 to 11 bits: adapters that are merged into them are rounded. Without
adapters nothing is rounded, and the weights must be the same to the bit besides."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a trained network says of a few tokens.

    Attributes:
        ids: (1, tokens) int64, which tokens.
        logits: (tokens, vocabulary) float32, on the CPU.
        tolerance: share of their spread by which others may be off.
        weights: checksum of every weight by name; None where they lie on several devices.
    """

    ids: torch.Tensor
    logits: torch.Tensor
    tolerance: float
    weights: dict[str, int] | None = None

    @staticmethod
    def of(target: LoadedModel, network: Any, *, half: bool = False) -> Probe:
        """Ask a network that has the target's tokenizer.

        Args:
            target: whose tokens are asked about.
            network: in evaluation mode.
            half: products are taken in half precision.
        """
        size = min(target.tokenizer.size, 1000)
        tokens = min(TOKENS, target.context or TOKENS)
        ids = torch.randint(size, (1, tokens), generator=torch.Generator().manual_seed(0))
        some = next(network.parameters())
        half |= some.dtype != torch.float32
        return Probe(ids, _logits(network, ids, some.device), HALF_TOLERANCE if half else TOLERANCE)

    def check(self, folder: Path, trained: Any) -> None:
        """Load a folder the library's way, and hold it against what was trained.

        Args:
            folder: that has just been written.
            trained: the network, whose memory is given up for that unless it lies in parts.

        Raises:
            ModelFormatError: it is another model.
        """
        device = torch.device("cpu")
        if self.weights is not None:
            device = next(trained.parameters()).device
            trained.to("meta")
        try:
            with unsharded():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder, trust_remote_code=False, use_safetensors=True, output_loading_info=True
                )
            found, info = loaded
            odd = sorted(str(key) for kind in info.values() for key in kind)
            if self.weights is not None and not odd:
                now = checksums(found)
                names = sorted(now.keys() | self.weights.keys())
                odd = [name for name in names if now.get(name) != self.weights.get(name)]
            now_says = _logits(found.to(device).eval(), self.ids, device)
            off = float(logits_off(now_says, self.logits).median())
        except Exception as error:  # the library raises many types here
            if is_out_of_memory(error):
                raise
            raise ModelFormatError(f"{_CANNOT} ({str(error)[:300]}): {_KEPT}") from error
        if odd:
            raise ModelFormatError(f"{_CANNOT} ({odd[0]} is not what it was): {_KEPT}")
        if not off <= self.tolerance:
            raise ModelFormatError(f"{_CANNOT} (its logits are off by {off:.2g}): {_KEPT}")


_CANNOT = "The trained model does not survive being written and loaded again"
_KEPT = "nothing was put into its place, the checkpoints stay; please report this architecture."


def checksums(network: Any) -> dict[str, int]:
    """Return a checksum of every weight by name, the same in any type that holds its values."""
    sums = {}
    for name, weight in network.state_dict().items():
        values = weight.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).contiguous()
        sums[name] = zlib.crc32(values.reshape(-1).view(torch.uint8).numpy())
    return sums


@torch.no_grad()
def _logits(network: Any, ids: torch.Tensor, device: torch.device) -> torch.Tensor:
    return network(input_ids=ids.to(device), use_cache=False).logits[0].float().cpu()
