"""Load causal language models safely."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from fusion_core import tokens
from fusion_core.errors import (
    FusionError,
    InputError,
    ModelFormatError,
    TooLargeError,
    is_out_of_memory,
    size_of,
)
from fusion_core.tokens import TextTokenizer

from .checks import check_causal, check_complete, context_of
from .document_tokens import choose, scored_by, stated_ends, token_of
from .files import hub_bytes, weights_bytes
from .loaded import LoadedModel
from .names import ModelSource, find
from .served import connected
from .skeleton import check_values, skeleton

MAX_BYTES = 32_000_000_000
"""Largest weights that are loaded unless the caller says otherwise."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_tokenizer(name: str, tokenizer: str | None = None) -> TextTokenizer:
    """Load the tokenizer of a named model; no weights are needed.

    Args:
        name: see `find`.
        tokenizer: see `find`.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: the tokenizer cannot be used.
    """
    source = find(name, tokenizer)
    if source.path is None:
        hub_bytes(source.location)  # asks whether the model exists before anything is downloaded
    found = tokens.load(source.location, name, **source.options)
    if source.start is None and source.end is None:
        return found
    start, end = (source.start, found.start_id), (source.end, found.eos_id)
    start_id, end_id = (token_of(found, n) if n else i for n, i in (start, end))
    return found.with_document_tokens(start_id, [] if end_id is None else [end_id])


def load(
    name: str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    max_bytes: int | None = MAX_BYTES,
    start: str | None = None,
    end: str | None = None,
    tokenizer: str | None = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer, safetensors only, no remote code.

    Args:
        name: ``zoo:NAME``, a local folder in the `transformers` format, a GGUF file, whose weights
            are dequantised, a hub id, or a server's model; see `find`.
        device: "cpu", "cuda", "cuda:1", "mps", "auto" (CUDA, else MPS, else CPU), or "spread" (over
            all devices and the CPU's memory, for models larger than one device).
        dtype: "float32", "bfloat16" or "float16"; by default float32 on the CPU, whatever the file
            holds, and that of the file elsewhere.
        max_bytes: largest size of the weights that is accepted, in their files and in memory as the
            configuration says, checked before they are read or downloaded; None for no limit.
        start: token that is read before a document, as the vocabulary writes it, or "none"; by
            default what the name asks for, else the best of those that it could be, see
            `document_tokens.choose`.
        end: token that ends a document and is taught there, or "none".
        tokenizer: of a server's model; see `find`.

    Raises:
        ModelNotFoundError: the name leads nowhere, or a server does not answer.
        ModelFormatError: files are missing, broken or of an unsupported kind; not all weights are
            there; or the model sees what it is to predict.
        TooLargeError: the weights exceed ``max_bytes``, or the memory.
        InputError: the device, dtype or token is not to be had.
    """
    spread = device == "spread"
    where = find_device("auto" if spread else device)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"There is no dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    source = find(name, tokenizer)
    if source.server:
        return connected(replace(source, start=start or source.start, end=end or source.end))
    _check_size(name, max_bytes)
    config = read_config(source)
    wanted = DTYPES[dtype] if dtype else torch.float32 if where.type == "cpu" else "auto"
    held: Any = (config.dtype or torch.float32) if wanted == "auto" else wanted
    skeleton(name, config, held, max_bytes)  # whatever the files hold, all of it would be made
    spelled = tokens.load(source.location, name, **source.options)
    try:
        network = _network(source, wanted, None if spread else where)
        context = context_of(network.config, check_causal(name, network, spelled))
        named = {"start": start or source.start, "end": end or source.end}
        folder = None if source.gguf else source.path
        ends = stated_ends(network, spelled)
        options: dict[str, Any] = {"context": context, "folder": folder, **named}
        chosen = choose(spelled, ends, scored_by(network), **options)
    except FusionError:
        raise
    except Exception as error:  # transformers, safetensors and the hub raise many types here
        raise _fault(name, error, where) from error
    return LoadedModel(
        name=name,
        tokenizer=spelled.with_document_tokens(chosen.start, chosen.ends),
        network=network,
        context=context,
        size_bytes=sum(p.numel() * p.element_size() for p in network.parameters()),
        document_tokens=chosen,
    )


def _check_size(name: str, limit: int | None) -> None:
    size = weights_bytes(name)
    if limit is None or size <= limit:
        return
    shown = size_of(size), size_of(limit)
    if shown[0] == shown[1]:
        shown = f"{size:,} bytes", f"{limit:,} bytes"
    raise TooLargeError(
        f"{name} has {shown[0]} of weights, more than the limit of {shown[1]}: choose a "
        "smaller model or raise the limit."
    )


def read_config(source: ModelSource) -> Any:
    """Read a model's configuration.

    Raises:
        ModelFormatError: it cannot be read, or is of no causal language model that is known here.
    """
    if source.server:
        raise InputError(
            f"{source.name} is a server's model, which can be a source of rows alone: load the "
            "model itself."
        )
    from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    try:
        values, _ = PretrainedConfig.get_config_dict(source.location, **source.options)
        check_values(source.name, values)
        kind = str(values.get("model_type"))
        if kind not in CONFIG_MAPPING:
            raise ModelFormatError(
                f"{source.name} needs code of its own, which is not run: name a model that "
                "transformers knows by itself."
                if values.get("auto_map")
                else f"{source.name} is of the architecture {kind!r}, which transformers "
                f"{__version__} does not know: install a newer one, or check config.json."
            )
        if source.gguf:
            config = CONFIG_MAPPING[kind].from_dict(values)
        else:
            config = AutoConfig.from_pretrained(source.location, trust_remote_code=False)
    except FusionError:
        raise
    except Exception as error:  # transformers and the hub raise many types here
        raise ModelFormatError(
            f"The configuration of {source.name} cannot be read ({_reason(error)}): check "
            "config.json."
        ) from error
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelFormatError(
            f"{source.name} is a {kind} model, which predicts no next token: name a causal "
            "language model."
        )
    return config


def _network(source: ModelSource, dtype: Any, where: torch.device | None) -> Any:
    """Load a network whole, on one device or, where that is None, spread over all."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source.location,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        device_map="auto" if where is None else None,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # `check_complete` says it better
        **source.options,
    )
    network, info = loaded
    check_complete(source.name, network, info)
    if source.gguf:
        _forget_quantization(network)
    return (network if where is None else network.to(device=where)).eval().requires_grad_(False)


def _forget_quantization(network: Any) -> None:
    """Let a network whose weights were dequantised be trained and saved as any other."""
    for owner in (network, network.config):
        for key in [k for k in vars(owner) if "quant" in k]:
            delattr(owner, key)


def _fault(name: str, error: Exception, where: torch.device) -> FusionError:
    """Say why a model could not be loaded or tried."""
    if is_out_of_memory(error):
        return TooLargeError(
            f"{name} does not fit into the memory of {where}: choose a smaller model or another "
            "device."
        )
    if isinstance(error, ImportError):
        return ModelFormatError(
            f"{name} needs a library that is not installed ({_reason(error)}): install it, or "
            "name another model."
        )
    return ModelFormatError(
        f"{name} cannot be loaded as a causal language model ({_reason(error)}): check "
        "config.json and the safetensors files."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def find_device(name: str) -> torch.device:
    """Find a device by name, "auto" among them.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # one process a device
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(
            f"There is no device {name!r}: choose cpu, cuda, cuda:N, mps, auto or spread."
        ) from error
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available()
        and (device.index or 0) < max(torch.cuda.device_count(), 1),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise InputError(f"The device {name!r} is not to be had on this machine: choose cpu.")
    return device
