"""Skeleton of a model: built by its configuration alone, so that its size is known beforehand.

A file of weights may hold next to nothing, and what `config.json` says be made nevertheless.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as hooks

from fusion_core.errors import FusionError, ModelFormatError, TooLargeError, shown, size_of

MOST_LAYERS = 1_000
"""Of a configuration that is believed; the deepest models have a few hundred."""

MOST_TENSORS = 20_000
"""Weights and buffers of a network, however small each of them is."""

_REPEATED = re.compile("layer|label|block|stage")
"""Numbers of such names are repeated in lists when a configuration is read."""


def check_values(name: str, values: Any) -> None:
    """Refuse a configuration that takes long to read, or that asks for other files and code.

    Args:
        name: what the caller calls the model.
        values: of config.json.

    Raises:
        ModelFormatError: it names its weights or code of its own, or so many layers that nobody
            has made them.
    """
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        count = isinstance(value, int | float) and not isinstance(value, bool)
        if count and _REPEATED.search(key) and abs(value) > MOST_LAYERS and "size" not in key:
            raise ModelFormatError(
                f"The config.json of {name} has {shown(value)} for {shown(key)}, more than the "
                f"limit of {MOST_LAYERS:,}: fetch the file again."
            )
        if key == "transformers_weights":
            raise ModelFormatError(
                f"The config.json of {name} names its weights {shown(value)}: call them "
                "model.safetensors and leave transformers_weights out."
            )
        if key.endswith("_implementation") and "/" in str(value):
            raise ModelFormatError(
                f"The config.json of {name} names code of its own for {key}, which is not run: "
                "leave it out."
            )
        check_values(name, value)


def skeleton(name: str, config: Any, dtype: torch.dtype, limit: int | None = None) -> Any:
    """Make a network of shapes: its tensors lie on the device "meta", which has no memory.

    Args:
        name: what the caller calls the model.
        config: of a causal language model.
        dtype: of its weights.
        limit: most bytes of its weights and buffers; None for no limit.

    Raises:
        TooLargeError: it has more; said as soon as that is known.
        ModelFormatError: it cannot be built by its configuration.
    """
    from transformers import AutoModelForCausalLM

    # Tied weights are made twice before they are one.
    most = None if limit is None else 2 * limit
    try:
        with torch.device("meta"), _counted(name, most):
            network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except FusionError:
        raise
    except Exception as error:  # transformers raises many types here
        raise ModelFormatError(
            f"{name} cannot be built by its configuration ({type(error).__name__}: "
            f"{str(error)[:200]}): check config.json."
        ) from error
    size = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    if limit is not None and size > limit:
        raise _too_large(name, size_of(size), limit)
    return network


@contextmanager
def _counted(name: str, limit: int | None) -> Iterator[None]:
    """Count what this thread registers in modules, and end it above a limit."""
    thread, tensors, size = threading.get_ident(), 0, 0

    def count(_: Any, __: str, tensor: torch.Tensor | None) -> None:
        nonlocal tensors, size
        if tensor is None or threading.get_ident() != thread:
            return
        tensors, size = tensors + 1, size + tensor.nbytes
        if tensors > MOST_TENSORS:
            raise ModelFormatError(
                f"The config.json of {name} asks for more than {MOST_TENSORS:,} weights: fetch "
                "the file again."
            )
        if limit is not None and size > limit:
            raise _too_large(name, f"over {size_of(limit // 2)}", limit // 2)

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _too_large(name: str, size: str, limit: int) -> TooLargeError:
    return TooLargeError(
        f"{name} takes {size} in memory by its config.json, more than the limit of "
        f"{size_of(limit)}: choose a smaller model or raise the limit."
    )
