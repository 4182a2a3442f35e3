"""Files of a named model: which `transformers` would load, and their size; nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusion_core import tokens, zoo
from fusion_core.errors import ModelFormatError, ModelNotFoundError, TooLargeError, shown, size_of

from .names import ModelSource, find

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SETTINGS_BYTES, INDEX_BYTES = 1_000_000, 32_000_000
"""Largest configuration, and largest list of the parts of weights, that is read."""

_SHARD = re.compile(r"model-[^/]*\.safetensors")
_PART = re.compile(r"[^/\\\0]+\.safetensors")
_PICKLED = "pickled weights only, which are not loaded: save them as safetensors first."
_ADAPTER = "adapter, not a whole model: merge it into its base model and save that."


def weights_bytes(name: str) -> int:
    """Return the bytes of a model's safetensors; nothing is loaded or downloaded.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: files are missing, broken or of an unsupported kind.
    """
    source = find(name)
    if source.server:
        return 0
    if source.path is None:
        return hub_bytes(source.location)
    if not source.gguf:
        _check_folder(source)
    return sum(f.stat().st_size for f in weight_files(source))


def weight_files(source: ModelSource) -> list[Path]:
    """List the weights of a local model that would be loaded, and no others that lie beside them.

    Raises:
        ModelFormatError: there are none, or some are missing.
    """
    folder = source.path
    assert folder is not None
    if source.gguf:
        return [folder / source.gguf]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickled = any(folder.glob("*.bin"))
        raise ModelFormatError(
            f"The folder {source.name} has "
            + (
                _PICKLED
                if pickled
                else f"no weights: put {WEIGHTS} there, or its parts with {INDEX}, or use it where "
                "a tokenizer will do."
            )
        )
    names = indexed(source.name, _json(source, INDEX))
    missing = next((n for n in names if not (folder / n).is_file()), None)
    if missing:
        raise ModelFormatError(
            f"{source.name}/{INDEX} names {missing}, which is not there: fetch all parts of the "
            "weights."
        )
    return [folder / n for n in names]


def indexed(name: str, index: Mapping[str, Any]) -> list[str]:
    """List the files that an index names, all of them safetensors beside it.

    Args:
        name: what the caller calls the model.
        index: the content of `INDEX`.

    Raises:
        ModelFormatError: it names pickles, files elsewhere, or none.
    """
    parts = index.get("weight_map")
    named = list(parts.values()) if isinstance(parts, dict) else []
    odd = [n for n in named if not isinstance(n, str) or not _PART.fullmatch(n)]
    if odd or not named:
        raise ModelFormatError(
            f"{name}/{INDEX} names {shown(odd[0]) if odd else 'no file'}, which is no safetensors "
            "file beside it: save the model as safetensors, or fetch all parts of the weights."
        )
    return sorted(set(named))


def _check_folder(source: ModelSource) -> None:
    """Refuse a folder that holds no whole model in the `transformers` format."""
    folder = source.path
    assert folder is not None
    if (folder / "adapter_config.json").is_file():
        raise ModelFormatError(f"{source.name} holds an {_ADAPTER}")
    if not (folder / "config.json").is_file():
        raise ModelFormatError(
            f"The folder {source.name} has no config.json: name a model folder in the transformers "
            "format."
        )
    if any(folder.glob("*.distcp")) or (folder / ".metadata").exists():
        raise ModelFormatError(f"The folder {source.name} has {_PICKLED}")
    _check_sizes(source.name, {f.name: f.stat().st_size for f in folder.glob("*.json")})
    _json(source, "config.json")


def _check_sizes(name: str, files: Mapping[str, int]) -> None:
    """Refuse settings and tokenizers that are too large to be read.

    Args:
        name: what the caller calls the model.
        files: bytes by name.
    """
    tokens.checks.check_sizes(name, files)
    for file, size in files.items():
        most = INDEX_BYTES if file.endswith(".index.json") else SETTINGS_BYTES
        settings = file.startswith(("config", "generation_config")) or most == INDEX_BYTES
        if settings and size > most:
            raise TooLargeError(
                f"{name}/{file} has {size_of(size)}, more than the limit of {size_of(most)}: fetch "
                "the file again."
            )


def _json(source: ModelSource, name: str) -> dict[str, Any]:
    assert source.path is not None
    try:
        read = json.loads((source.path / name).read_text(encoding="utf-8"))
        if isinstance(read, dict):
            return read
        reason: Exception | None = None
    except (OSError, ValueError, RecursionError) as error:
        reason = error
    raise ModelFormatError(
        f"{source.name}/{name} is not a readable JSON object: fetch the file again."
    ) from reason


def hub_bytes(name: str) -> int:
    """Return the bytes of a hub model's safetensors, from the hub's metadata.

    Raises:
        ModelNotFoundError: there is no such model, or the hub cannot be reached.
        ModelFormatError: its weights are of an unsupported kind.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=20)
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name} is a gated model: accept its terms on the hub and log in with hf auth login."
        ) from error
    except RepositoryNotFoundError as error:
        raise not_found(name) from error
    except Exception as error:  # offline mode, or whatever the hub's HTTP client raises
        cached = _cached_bytes(name)
        if cached is not None:
            return cached
        raise ModelNotFoundError(
            f"There is no local folder called {name}, and the hub cannot be reached: use one of "
            f"{', '.join(zoo.PREFIX + n for n in zoo.NAMES)} or an existing folder."
        ) from error
    files = {f.rfilename: f.size or 0 for f in info.siblings or []}
    _check_sizes(name, files)
    if "adapter_config.json" in files:
        raise ModelFormatError(f"{name} holds an {_ADAPTER}")
    weights = loaded_of(files)
    if not weights and any(file.endswith(".bin") for file in files):
        raise ModelFormatError(f"{name} has {_PICKLED}")
    if WEIGHTS not in files and INDEX in files:
        _check_hub_index(name)
    return sum(files[file] for file in weights)


def not_found(name: str) -> ModelNotFoundError:
    """Say that a name leads to no folder and to no model of the hub."""
    return ModelNotFoundError(
        f"There is no local folder and no hub model called {name}: check the spelling, or log "
        "in if it is private."
    )


def _check_hub_index(name: str) -> None:
    """Fetch the index of a hub model, and refuse one that names anything but safetensors."""
    from huggingface_hub import hf_hub_download

    try:
        index = json.loads(Path(hf_hub_download(name, INDEX)).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{name}/{INDEX} cannot be read: name another model.") from error
    indexed(name, index if isinstance(index, dict) else {})


def loaded_of(files: Iterable[str]) -> list[str]:
    """Choose the weights among the paths of a hub's repository that would be loaded."""
    weights = [n for n in files if n.endswith(".safetensors") and "/" not in n]
    shards = [n for n in weights if _SHARD.fullmatch(n)]
    return [WEIGHTS] if WEIGHTS in weights else shards or weights  # an index may name any of them


def _cached_bytes(name: str) -> int | None:
    """Return the bytes of a hub model's weights in the local cache, or None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        _check_hub_index(name)
    weights = loaded_of(f.name for f in folder.glob("*.safetensors"))
    return sum((folder / file).stat().st_size for file in weights)
