"""Names of models, files and datasets in a run's settings, relative to the settings' folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from fusion_core.errors import InputError, shown

DOCUMENT_FILES = (".txt", ".md", ".jsonl", ".parquet")
OTHER_FILES = (".csv", ".tsv", ".json", ".arrow", ".gz", ".zst", ".zip")
"""Endings that no dataset's id has, beside `DOCUMENT_FILES`."""
_SERVED = {"server", "model", "tokenizer"}
_DATASET_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_path(name: Any, base: str | Path) -> Any:
    """Make a model's name independent of the current folder where it names something in it.

    Args:
        name: a name as `models.find` takes it, or for a server's model a mapping with ``server``,
            ``model`` and ``tokenizer``; what is neither stays.
        base: folder that relative paths start from.

    Raises:
        InputError: a mapping has other keys, or other values than names.
    """
    if isinstance(name, dict):
        if set(name) != _SERVED or not all(isinstance(v, str) and v for v in name.values()):
            raise InputError(
                "A model of a server has the keys server, model and tokenizer, each with a name, "
                f"not {shown(name)}."
            )
        address = f"{name['server'].rstrip('/')}#{name['model']}"
        return f"{address}?tokenizer={model_path(name['tokenizer'], base)}"
    if not isinstance(name, str):
        return name
    plain, mark, asked = name.partition("?")  # the tokens around documents that it asks for
    if mark and "\0" not in name and Path(base, os.path.expanduser(name)).is_dir():
        plain, mark, asked = name, "", ""
    if ":" in plain or "\0" in plain or not plain:
        served, mark, tokenizer = name.partition("?tokenizer=")
        return f"{served}{mark}{model_path(tokenizer, base)}" if mark else name
    path = Path(base, os.path.expanduser(plain))
    local = path.is_dir() or (plain.endswith(".gguf") and path.is_file())
    return f"{path.resolve()}{mark}{asked}" if local else name


def may_be_dataset(name: str, base: str | Path = ".") -> bool:
    """Tell an id of a hub dataset from the name of a file or folder, which may be missing.

    Args:
        name: what a person typed.
        base: folder that relative paths start from.
    """
    path = Path(base, name)
    file = path.suffix.lower() in (*DOCUMENT_FILES, *OTHER_FILES)
    return bool(_DATASET_ID.fullmatch(name)) and not file and not path.parent.is_dir()


def file_path(key: str, value: Any, base: str | Path) -> str:
    """Make the name of a file or folder independent of the current folder.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{key} must be the name of a file or folder, not {shown(value)}.")
    hub = key == "data" and may_be_dataset(value, base)
    return value if hub else str(Path(base, os.path.expanduser(value)).resolve())


def eval_files(value: Any, base: str | Path) -> dict[str, str]:
    """Read a file, a list of files or files by name as files by name.

    Raises:
        InputError: it is none of them.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        value = {Path(value).stem: value}
    if isinstance(value, list):
        stems = [Path(str(v)).stem for v in value]
        if len(set(stems)) < len(stems):
            raise InputError("Two files of eval_data have one name: give them names of their own.")
        value = dict(zip(stems, value, strict=True))
    if not isinstance(value, dict):
        raise InputError(
            f"eval_data must be a file, a list of files, or files by name, not {shown(value)}."
        )
    return {str(name): file_path("eval_data", path, base) for name, path in value.items()}
