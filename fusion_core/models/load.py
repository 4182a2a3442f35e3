"""Load causal language models safely."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusion_core import tokens, zoo
from fusion_core.errors import (
    InputError,
    ModelFormatError,
    ModelNotFoundError,
    TooLargeError,
)
from fusion_core.tokens import TextTokenizer

MAX_BYTES = 32_000_000_000
"""Largest weights that are loaded unless the caller says otherwise."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PICKLED = "pickled weights only, which are not loaded: save them as safetensors first."
_ADAPTER = "adapter, not a whole model: merge it into its base model and save that."
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model with its tokenizer, ready to read.

    Attributes:
        name: as the caller typed it.
        tokenizer: the tokenizer as bytes.
        network: the `transformers` model, in evaluation mode.
        context: most tokens it reads at once, its start token included; None if unlimited.
        size_bytes: size of its parameters in memory.
    """

    name: str
    tokenizer: TextTokenizer
    network: Any
    context: int | None
    size_bytes: int

    @property
    def device(self) -> torch.device:
        """Device on which the model expects its input."""
        return next(self.network.parameters()).device


@dataclass(frozen=True)
class ModelSource:
    """Where a model name leads.

    Attributes:
        name: as typed.
        path: a local folder, or None for a hub id.
    """

    name: str
    path: Path | None

    @property
    def location(self) -> str:
        """What `from_pretrained` takes."""
        return str(self.path) if self.path else self.name


def find(name: str) -> ModelSource:
    """Resolve a model name: ``zoo:NAME``, a local folder, or a hub id.

    Raises:
        ModelNotFoundError: the name is none of these.
    """
    if not name or "\0" in name:
        raise ModelNotFoundError(
            "A model name is missing: give zoo:NAME, a local folder or a hub id."
        )
    if name.startswith(zoo.PREFIX):
        return ModelSource(name, zoo.path(name.removeprefix(zoo.PREFIX)))
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError):  # a name too long; no such user
        is_folder = is_file = False
    if is_folder:
        return ModelSource(name, path)
    if is_file:
        raise ModelFormatError(
            f"{name} is a file: name the folder that holds config.json, the weights as safetensors "
            "and the tokenizer."
        )
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise ModelNotFoundError(
            f"There is no folder {name!r}: give an existing folder, a hub id such as "
            f"organisation/model, or one of {', '.join(zoo.PREFIX + n for n in zoo.NAMES)}."
        )
    return ModelSource(name, None)


def load_tokenizer(name: str) -> TextTokenizer:
    """Load the tokenizer of a named model; no weights are needed.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: the tokenizer cannot be used.
    """
    source = find(name)
    if source.path is None:
        _hub_size(name)  # asks whether the model exists before anything is downloaded
    return tokens.load(source.location, name)


def load(
    name: str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    max_bytes: int | None = MAX_BYTES,
) -> LoadedModel:
    """Load a causal language model and its tokenizer, safetensors only, no remote code.

    Args:
        name: ``zoo:NAME``, a local folder in the `transformers` format, or a hub id.
        device: "cpu", "cuda", "cuda:1", "mps", "auto" (CUDA, else MPS, else CPU), or "spread" (over
            all devices and the CPU's memory, for models larger than one device).
        dtype: "float32", "bfloat16" or "float16"; by default float32 on the CPU, whatever the file
            holds, and the file's own elsewhere.
        max_bytes: largest size of the weights that is accepted, checked before they are read or
            downloaded; None for no limit.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: files are missing, broken or of an unsupported kind.
        TooLargeError: the weights exceed ``max_bytes``.
        InputError: the device or dtype is not to be had.
    """
    from transformers import AutoModelForCausalLM

    spread = device == "spread"
    where = find_device("auto" if spread else device)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"There is no dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    source, size = find(name), weights_bytes(name)
    if max_bytes is not None and size > max_bytes:
        raise TooLargeError(
            f"{name} has {size / 1e9:.2f} GB of weights, more than the limit of "
            f"{max_bytes / 1e9:.2f} GB: choose a smaller model or raise the limit."
        )
    tokenizer = tokens.load(source.location, name)
    wanted = DTYPES[dtype] if dtype else torch.float32 if where.type == "cpu" else "auto"
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=wanted,
            device_map="auto" if spread else None,
        )
        network = (network if spread else network.to(device=where)).eval().requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise TooLargeError(
            f"{name} does not fit into the memory of {where}: choose a smaller model or another "
            "device."
        ) from error
    except Exception as error:  # transformers, safetensors and the hub raise many types here
        raise ModelFormatError(
            f"{name} cannot be loaded as a causal language model ({type(error).__name__}: "
            f"{str(error)[:200]}): check config.json and the safetensors files."
        ) from error
    return LoadedModel(
        name=name,
        tokenizer=tokenizer,
        network=network,
        context=context(network.config),
        size_bytes=sum(p.numel() * p.element_size() for p in network.parameters()),
    )


def weights_bytes(name: str) -> int:
    """Return the bytes of a model's safetensors; nothing is loaded or downloaded.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: files are missing, broken or of an unsupported kind.
    """
    source = find(name)
    return _folder_size(source) if source.path else _hub_size(name)


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


def _folder_size(source: ModelSource) -> int:
    """Return the bytes of a folder's weights, or say what the folder lacks."""
    folder = source.path
    assert folder is not None
    if (folder / "adapter_config.json").is_file():
        raise ModelFormatError(f"{source.name} holds an {_ADAPTER}")
    if not (folder / "config.json").is_file():
        raise ModelFormatError(
            f"The folder {source.name} has no config.json: name a model folder in the transformers "
            "format."
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFormatError(
            f"{source.name}/config.json is not readable JSON: fetch the file again."
        ) from error
    files = list(folder.glob("*.safetensors"))
    if not files:
        pickled = any(folder.glob("*.bin"))
        raise ModelFormatError(
            f"The folder {source.name} has "
            + (
                _PICKLED
                if pickled
                else "no weights: put model.safetensors there, or use it where a tokenizer will do."
            )
        )
    return sum(f.stat().st_size for f in files)


def _hub_size(name: str) -> int:
    """Return the bytes of a hub model's safetensors, from the hub's metadata."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=20)
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name} is a gated model: accept its terms on the hub and log in with hf auth login."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no local folder and no hub model called {name}: check the spelling, or log "
            "in if it is private."
        ) from error
    except Exception as error:  # offline mode, or whatever the hub's HTTP client raises
        cached = _cached_size(name)
        if cached is not None:
            return cached
        raise ModelNotFoundError(
            f"There is no local folder called {name}, and the hub cannot be reached: use one of "
            f"{', '.join(zoo.PREFIX + n for n in zoo.NAMES)} or a local folder."
        ) from error
    files = {f.rfilename: f.size or 0 for f in info.siblings or []}
    if "adapter_config.json" in files:
        raise ModelFormatError(f"{name} holds an {_ADAPTER}")
    weights = [size for file, size in files.items() if file.endswith(".safetensors")]
    if not weights and any(file.endswith(".bin") for file in files):
        raise ModelFormatError(f"{name} has {_PICKLED}")
    return sum(weights)


def _cached_size(name: str) -> int | None:
    """Return the bytes of a hub model's weights in the local cache, or None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    return sum(f.stat().st_size for f in Path(config).parent.glob("*.safetensors"))


def context(config: Any) -> int | None:
    """Return the most tokens that a model of a configuration reads at once; None if unlimited."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, field, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def identity(model: LoadedModel) -> dict[str, Any]:
    """Say which model this is, so that what was made with it is not taken for another's.

    Returns:
        ``revision`` (commit of a hub model), ``weights`` (sha256 of a local folder's configuration
        and safetensors), ``tokenizer`` (its content key) and ``dtype``; None for what is not known.
    """
    try:
        path = find(model.name).path
    except ModelNotFoundError:  # made in the process
        path = None
    digest = None
    if path is not None:
        whole = hashlib.sha256()
        for file in [path / "config.json", *sorted(path.glob("*.safetensors"))]:
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        digest = whole.hexdigest()
    return {
        "revision": getattr(model.network.config, "_commit_hash", None),
        "weights": digest,
        "tokenizer": model.tokenizer.key,
        "dtype": str(model.network.dtype).removeprefix("torch."),
    }
