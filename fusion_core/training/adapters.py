"""Low-rank adapters (LoRA): put on a model, and merged into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from fusion_core.config import RunConfig
from fusion_core.errors import InputError


def with_adapters(config: RunConfig, network: Any) -> Any:
    """Put adapters on a model, whose own weights are frozen.

    They are drawn from the run's seed, whatever was drawn before.

    Raises:
        InputError: they do not fit it, or could not be merged into it.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    assert config.lora is not None
    lora = config.lora
    modules = lora.target_modules
    set_seed(config.seed)
    try:
        adapted = get_peft_model(
            network,
            LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,  # type: ignore[arg-type] # a fraction will do
                lora_dropout=lora.dropout,
                target_modules=modules if isinstance(modules, str) else list(modules),
                task_type="CAUSAL_LM",
            ),
        )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"These adapters cannot be put on the target: {error}") from error
    _check_mergeable(adapted)
    return adapted


def merged(network: Any) -> Any:
    """Merge adapters into the model that they are on, and take them off.

    Where one of them is on a weight that several layers share, as input and output embeddings often
    do, each layer gets a copy of its own first: what one has learnt is nothing to the other.
    """
    owners = Counter(map(id, dict(network.named_parameters(remove_duplicate=False)).values()))
    if any(owners[id(p)] > 1 for _, layer in _adapted(network) for p in layer.parameters(False)):
        untie(network)
    return network.merge_and_unload()


def untie(network: Any) -> None:
    """Give layers that share a weight a copy each, and say so in the configuration."""
    seen = set()
    for name, weight in list(network.named_parameters(remove_duplicate=False)):
        if id(weight) in seen:
            parent, _, last = name.rpartition(".")
            copy = torch.nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
            setattr(network.get_submodule(parent), last, copy)
        seen.add(id(weight))
    for module in network.modules():
        if getattr(module, "all_tied_weights_keys", None):
            module.all_tied_weights_keys = {}
        settings: Any = getattr(module, "config", None)
        if getattr(settings, "tie_word_embeddings", False):
            settings.tie_word_embeddings = False


def _adapted(network: Any) -> Iterator[tuple[str, Any]]:
    """Give the layers that have an adapter by name, without it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in network.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module.get_base_layer()


def _check_mergeable(network: Any) -> None:
    """Refuse an adapter on a layer that the model has in several places.

    Raises:
        InputError: merged, it would change all of them.
    """
    places = Counter(id(m) for _, m in network.named_modules(remove_duplicate=False))
    for name, layer in _adapted(network):
        if places[id(layer)] > 1:
            raise InputError(
                f"The target uses its layer {name.removeprefix('base_model.model.')} in several "
                "places, and an adapter would be on one of them alone: choose other "
                "target_modules, or leave out lora."
            )
