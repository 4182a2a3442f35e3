"""Read texts and documents from files, as they are."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .config import MAX_TEXT_BYTES, utf8
from .errors import InputError, TooLargeError
from .files import write_whole

SEPARATOR = re.compile(r"^<\|endoftext\|>[ \t]*\r?$\n?", re.MULTILINE)


def read_text(path: str | Path, *, limit: int = MAX_TEXT_BYTES) -> str:
    """Read one text file exactly as it is: no newline is changed, no byte-order mark removed.

    Args:
        path: a UTF-8 file.
        limit: most bytes that are read.

    Raises:
        InputError: the file cannot be read, or is not UTF-8.
        TooLargeError: it has more than ``limit`` bytes.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): give an "
            "existing text file."
        ) from error
    if len(data) > limit:
        raise TooLargeError(
            f"{path} has more than the limit of {limit:,} bytes: shorten it or cut it into "
            "documents."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start} is {data[error.start]:#04x}): save it as "
            "UTF-8."
        ) from error


def read_documents(path: str | Path, *, limit: int = 1 << 30) -> list[str]:
    """Read a file of documents.

    ``.txt``: documents are separated by lines that are only ``<|endoftext|>``, or, where there are
    none, by blank lines. ``.jsonl``: one object with a ``text`` a line. ``.parquet``: a ``text``
    column. Empty documents are left out.

    Raises:
        InputError: the file cannot be read, is of another kind, or holds no document.
        TooLargeError: it has more than ``limit`` bytes.
    """
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        texts = list(_parquet(path, limit))
    elif kind == ".jsonl":
        texts = list(_json_lines(path, limit))
    elif kind in {".txt", ".md", ""}:
        text = read_text(path, limit=limit)
        parts = SEPARATOR.split(text)
        if len(parts) == 1:
            parts = re.split(r"\r?\n(?:[ \t]*\r?\n)+", text)
        texts = [p.strip("\r\n") for p in parts]
    else:
        raise InputError(f"{path} is no .txt, .jsonl or .parquet file: save the documents as one.")
    documents = [t for t in texts if t.strip()]
    for number, document in enumerate(documents, 1):
        try:
            utf8(document)
        except InputError as error:
            raise InputError(f"{path}, document {number}: {error}") from error
    if not documents:
        raise InputError(f"{path} holds no document: give at least one that is not empty.")
    return documents


def read_messages(path: str | Path) -> list[dict[str, str]]:
    """Read a JSON list of chat messages; what is in them is checked where they are used.

    Raises:
        InputError: the file cannot be read, or holds no list of objects.
    """
    try:
        messages = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: give a list of messages.") from error
    if not isinstance(messages, list) or not messages:
        raise InputError(
            f'{path} holds no list of messages: give [{{"role": …, "content": …}}, …].'
        )
    return messages


def _json_lines(path: str | Path, limit: int) -> Iterator[str]:
    lines = read_text(path, limit=limit).removeprefix("\ufeff").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}, is no JSON: mend or remove the line."
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise InputError(f'{path}, line {number}, has no "text": every line needs one.')
        yield record["text"]


def _parquet(path: str | Path, limit: int) -> Iterator[str]:
    import pandas as pd

    try:
        if Path(path).stat().st_size > limit:
            raise TooLargeError(f"{path} has more than the limit of {limit:,} bytes: split it.")
        column = pd.read_parquet(path, columns=["text"])["text"]
    except TooLargeError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: give an existing one.") from error
    except Exception as error:  # pyarrow raises its own types for broken files and missing columns
        raise InputError(
            f"{path} cannot be read as a Parquet file with a text column ({type(error).__name__}): "
            "check the file."
        ) from error
    yield from (t for t in column if isinstance(t, str))


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an .npz file, whole or not at all.

    Raises:
        InputError: the file cannot be written (no such folder, no room).
    """
    file = Path(path)
    if file.is_dir() or not file.name:
        raise InputError(f"{path} is a folder: name a file to write, such as map.npz.")
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    try:
        write_whole(file, stream.getvalue())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): choose an existing folder with "
            "enough room."
        ) from error
