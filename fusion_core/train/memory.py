"""How large models are, by their configurations alone, and whether a training of them fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusion_core import models
from fusion_core.config import RunConfig
from fusion_core.errors import InputError, ModelFormatError, size_of
from fusion_core.io.documents import LONGEST
from fusion_core.records.reading import KEPT_BYTES

from .arguments import group_size

BASE_BYTES = 600_000_000
"""What Python and its libraries take on the side of the processor."""

LEAST_BYTES = 3
"""Bytes of text to a token, at the least, in a document of ordinary text."""

ACTIVATIONS = 34
"""Bytes in half precision that a layer keeps for each token and unit of its width, where attention
is fused (arXiv 2205.05198)."""


@dataclass(frozen=True)
class Size:
    """A model's shape.

    Attributes:
        parameters: of the whole model.
        vocabulary: of its input embeddings.
        width: units of a layer.
        layers: of the part that reads text.
        context: most tokens that it reads at once; None if unlimited.
    """

    parameters: int
    vocabulary: int
    width: int
    layers: int
    context: int | None

    @staticmethod
    def of(network: Any) -> Size:
        """Measure a network, whether there is anything in its weights or not."""
        text = network.config.get_text_config()
        rows, columns = network.get_input_embeddings().weight.shape
        stacks = (len(m) for m in network.modules() if isinstance(m, torch.nn.ModuleList))
        return Size(
            sum(p.numel() for p in network.parameters()),
            rows,
            getattr(text, "hidden_size", None) or columns,
            getattr(text, "num_hidden_layers", None) or max(stacks, default=1),
            models.context_of(network.config),
        )


def hollow(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """Make a model by its configuration alone: the shapes of its weights, but nothing in them.

    Every weight is one number, repeated: it takes no memory, but lies on a device and has a type,
    so that adapters, optimizers and the like can be built on it.

    Raises:
        FusionError: there is no such model, or its configuration cannot be read.
    """
    from transformers import AutoModelForCausalLM

    models.weights_bytes(name)  # says what is missing, as loading would
    config = models.read_config(models.find(name))
    try:
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except Exception as error:  # transformers raises many types here
        raise ModelFormatError(
            f"{name} cannot be built by its configuration ({type(error).__name__}: "
            f"{str(error)[:200]}): check config.json."
        ) from error
    network._apply(lambda t: torch.zeros((), dtype=t.dtype, device=device).expand(t.shape))
    network.tie_weights()
    return network


def needed(
    config: RunConfig, sizes: Sequence[Size], trained: int, block_size: int, device: torch.device
) -> int:
    """Return bytes at the most: while rows are made, or while the target is trained.

    Args:
        config: the run's.
        sizes: of the target and of the sources that are read.
        trained: parameters that are trained.
        block_size: positions of a block.
        device: that trains.
    """
    target = sizes[0]
    item = 2 if config.dtype in ("bfloat16", "float16") else 4
    base = BASE_BYTES if device.type == "cpu" else 0
    tokens = config.batch_size * block_size
    wide = 2 if device.type == "cuda" else 4  # autocast
    activations = tokens * target.layers * target.width * ACTIVATIONS * wide // 2
    if {"activation_checkpointing", "gradient_checkpointing"} & set(config.arguments):
        activations = activations // 10 + tokens * target.layers * target.width * wide
    logits = 2 * wide * min(tokens * target.vocabulary, KEPT_BYTES // 2)
    shares = group_size() if os.environ.get("ACCELERATE_USE_FSDP") == "true" else 1
    states = (item * target.parameters + (item + 2 * item) * trained) // shares
    training = max(states, item * target.parameters) + activations + logits
    rows = 0
    if len(sizes) > 1:  # every model's rows of a window, and what each source's become
        cells = [_window_cells(s) for s in sizes]
        laid_out = KEPT_BYTES // 4 + sum(cells) + len(cells) * cells[0]
        rows = item * sum(s.parameters for s in sizes) + 4 * laid_out
    return base + max(training, rows)


def _window_cells(size: Size) -> int:
    """Rows times vocabulary of the longest window of a document that a run reads."""
    tokens = min(size.context or LONGEST, LONGEST // LEAST_BYTES)
    return min(tokens * size.vocabulary, models.WINDOW_CELLS)


def free(device: torch.device) -> int:
    """Return the bytes that a device has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def refuse(needs: int, has: int) -> None:
    """Refuse a training that cannot fit.

    Raises:
        InputError: memory is short.
    """
    if needs > has:
        raise InputError(
            f"The training needs about {size_of(needs)} of memory, but {size_of(has)} are free: "
            "choose lora, a smaller batch_size or block_size, or smaller models."
        )
