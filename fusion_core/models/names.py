"""Names of models -> where they lead: a folder, a GGUF file, the hub, or a server."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from fusion_core import zoo
from fusion_core.errors import ModelFormatError, ModelNotFoundError, shown

GGUF = ".gguf"

_SERVER = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?#[^\s?#]+")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class ModelSource:
    """Where a model name leads.

    Attributes:
        name: as typed.
        path: a local folder, or None for a hub id.
        location: what `from_pretrained` takes, a folder or a hub id.
        gguf: name of the one file in the folder that holds all of the model, or None.
        server: address of the server that holds the model, of which only the tokenizer is here, as
            ``http://HOST/v1#MODEL``; or None.
        start: token before documents that the name asks for, or None.
        end: token after documents that the name asks for, or None.
    """

    name: str
    path: Path | None
    location: str
    start: str | None = None
    end: str | None = None
    gguf: str | None = None
    server: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """What `from_pretrained` takes besides the location."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def find(name: str, tokenizer: str | None = None) -> ModelSource:
    """Resolve a model name: ``zoo:NAME``, a local folder, a GGUF file, a hub id, or a server's.

    Each may be followed by ``?start=TOKEN``, ``?end=TOKEN`` or ``?start=TOKEN&end=TOKEN``, which
    name the tokens that the model reads before and after documents. A model behind an
    OpenAI-compatible server is called ``http://HOST/v1#MODEL?tokenizer=NAME``.

    Args:
        name: the name.
        tokenizer: name of a model whose tokenizer a server's model has, where its name says none.

    Raises:
        ModelNotFoundError: the name is none of these.
    """
    plain, asked = (name, {}) if _is_folder(name) else split_name(name)
    named = asked.pop("tokenizer", tokenizer)
    if is_server(plain):
        if named is None:
            raise ModelNotFoundError(
                f"{name} needs a tokenizer: name the folder or hub id of one with --tokenizer "
                f"{name}=FOLDER, or call the model {name}?tokenizer=FOLDER."
            )
        held = find(named)
        return replace(
            held, name=name, server=plain, start=asked.get("start"), end=asked.get("end")
        )
    if named is not None:
        raise ModelNotFoundError(f"{name} has a tokenizer of its own: name none for it.")
    found = _find(plain)
    if found and found.suffix == GGUF:
        return ModelSource(name, found.parent, str(found.parent), gguf=found.name, **asked)
    return ModelSource(name, found, str(found) if found else plain, **asked)


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and "\0" not in name and Path(name).expanduser().is_dir()
    except (OSError, RuntimeError):  # a name too long; no such user
        return False


def is_server(name: str) -> bool:
    """Tell whether a model's name, without what follows it, is that of a server's."""
    return _SERVER.fullmatch(name) is not None


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """Part a model's name from the document tokens, and the tokenizer, that it asks for.

    Raises:
        ModelNotFoundError: what follows the name is something else.
    """
    plain, mark, asked = name.partition("?")
    if not mark:
        return name, {}
    pairs = [part.partition("=") for part in re.split("&(?=start=|end=|tokenizer=)", asked)]
    values = {key: value for key, _, value in pairs}
    known = {"start", "end", "tokenizer"} if is_server(plain) else {"start", "end"}
    if len(values) < len(pairs) or not set(values) <= known or not all(values.values()):
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
