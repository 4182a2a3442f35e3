"""Files of a named model: which `transformers` would load, and their size; nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusion_core import tokens, zoo
from fusion_core.errors import ModelFormatError, ModelNotFoundError, TooLargeError, shown, size_of

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
GGUF = ".gguf"
SETTINGS_BYTES, INDEX_BYTES = 1_000_000, 32_000_000
"""Largest configuration, and largest list of the parts of weights, that is read."""

_SHARD = re.compile(r"model-[^/]*\.safetensors")
_PART = re.compile(r"[^/\\\0]+\.safetensors")
_PICKLED = "pickled weights only, which are not loaded: save them as safetensors first."
_ADAPTER = "adapter, not a whole model: merge it into its base model and save that."
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model name leads.

    Attributes:
        name: as typed.
        path: a local folder, or None for a hub id.
        location: what `from_pretrained` takes, a folder or a hub id.
        gguf: name of the one file in the folder that holds all of the model, or None.
        start: token before documents that the name asks for, or None.
        end: token after documents that the name asks for, or None.
    """

    name: str
    path: Path | None
    location: str
    start: str | None = None
    end: str | None = None
    gguf: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """What `from_pretrained` takes besides the location."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def find(name: str) -> ModelSource:
    """Resolve a model name: ``zoo:NAME``, a local folder, a GGUF file, or a hub id.

    Each may be followed by ``?start=TOKEN``, ``?end=TOKEN`` or ``?start=TOKEN&end=TOKEN``, which
    name the tokens that the model reads before and after documents.

    Raises:
        ModelNotFoundError: the name is none of these.
    """
    plain, asked = (name, {}) if _is_folder(name) else split_name(name)
    found = _find(plain)
    if found and found.suffix == GGUF:
        return ModelSource(name, found.parent, str(found.parent), gguf=found.name, **asked)
    return ModelSource(name, found, str(found) if found else plain, **asked)


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and "\0" not in name and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError):  # a name too long; no such user
        return False


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """Part a model's name from the document tokens that it asks for.

    Raises:
        ModelNotFoundError: what follows the name is something else.
    """
    plain, mark, asked = name.partition("?")
    if not mark:
        return name, {}
    pairs = [part.partition("=") for part in re.split("&(?=start=|end=)", asked)]
    values = {key: value for key, _, value in pairs}
    if len(values) < len(pairs) or not set(values) <= {"start", "end"} or not all(values.values()):
        raise ModelNotFoundError(
            f"{name!r} is no model name: write NAME, or NAME?start=TOKEN&end=TOKEN to name the "
            "tokens before and after documents."
        )
    return plain, values


def _find(name: str) -> Path | None:
    if not name or "\0" in name:
        raise ModelNotFoundError(
            "A model name is missing: give zoo:NAME, a local folder, a GGUF file or a hub id."
        )
    if name.startswith(zoo.PREFIX):
        return zoo.path(name.removeprefix(zoo.PREFIX))
    if _is_folder(name):
        return Path(name).expanduser()
    try:
        is_file = Path(name).expanduser().is_file()
    except (OSError, RuntimeError):
        is_file = False
    if is_file and name.endswith(GGUF):
        return _gguf(name)
    if is_file:
        raise ModelFormatError(
            f"{name} is a file: name the folder that holds config.json, the weights as safetensors "
            f"and the tokenizer, or a {GGUF} file."
        )
    if not _HUB_ID.fullmatch(name) or ".." in name or not _is_repository(name):
        raise ModelNotFoundError(
            f"There is no folder {shown(name)}: give an existing folder, a hub id such as "
            f"organisation/model, or one of {', '.join(zoo.PREFIX + n for n in zoo.NAMES)}."
        )
    return None


def _gguf(name: str) -> Path:
    """Return a GGUF file that can be read."""
    path = Path(name).expanduser()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFormatError(
            f"{name} cannot be read ({error.strerror}): check its rights."
        ) from error
    if magic != b"GGUF":
        raise ModelFormatError(f"{name} is no GGUF file: fetch it again.")
    if find_spec("gguf") is None:
        raise ModelFormatError(
            f"{name} needs the package gguf, which is not installed: run pip install gguf."
        )
    return path


def _is_repository(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def weights_bytes(name: str) -> int:
    """Return the bytes of a model's safetensors; nothing is loaded or downloaded.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        ModelFormatError: files are missing, broken or of an unsupported kind.
    """
    source = find(name)
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
