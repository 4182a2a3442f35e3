"""Read texts and documents from files, as they are."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .config import MAX_TEXT_BYTES, utf8
from .errors import FusionError, InputError, TooLargeError
from .files import write_whole

IN_MEMORY = 1 << 30
"""Bytes of text that are held at once."""

LONGEST = 32_768
"""Bytes of a document above which training cuts it."""

SHUFFLED = 10_000
"""Documents of a stream among which the next one is drawn."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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


def read_documents(path: str | Path, *, limit: int = IN_MEMORY) -> list[str]:
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


def load_documents(
    name: str, *, seed: int = 0, at_most: int = IN_MEMORY, held: int = IN_MEMORY
) -> list[str]:
    """Read a file of documents, or draw as many as are asked for from a large one or the hub.

    Args:
        name: a file as in `read_documents`, or the id of a hub dataset whose split ``train`` has a
            column ``text``.
        seed: of the order in which a stream is drawn from.
        at_most: bytes of text that are drawn.
        held: bytes of a file up to which it is read as a whole.

    Raises:
        InputError: the file cannot be read, or there is no such dataset.
    """
    path = Path(name)
    try:
        kind, size = path.suffix.lower(), path.stat().st_size
    except (OSError, ValueError):
        kind, size = "", 0
    builder = {".jsonl": "json", ".parquet": "parquet"}.get(kind)
    if path.exists() and (size <= held or builder is None):
        return read_documents(path, limit=held)
    if not path.exists() and not _HUB_ID.fullmatch(name):
        return read_documents(path)  # which says what is missing
    texts: list[str] = []
    room = min(at_most, IN_MEMORY)
    for text in _streamed(builder or name, str(path) if builder else None, seed):
        room -= len(utf8(text))
        if room < 0:
            break
        texts.append(text)
    if not texts:
        raise InputError(f"{name} holds no document: give one with a text that is not empty.")
    return texts


def _streamed(builder: str, file: str | None, seed: int) -> Iterator[str]:
    """Draw documents from what is too large to be held, or far away."""
    import datasets

    shown = file or builder
    try:
        stream = datasets.load_dataset(builder, data_files=file, split="train", streaming=True)
        for record in stream.shuffle(seed=seed, buffer_size=SHUFFLED):
            text = record["text"]
            if isinstance(text, str) and text.strip():
                yield text
    except FusionError:
        raise
    except Exception as error:  # the library and the hub raise many types here
        raise InputError(
            f"{shown} cannot be read as documents ({type(error).__name__}: {str(error)[:200]}): "
            "give a .txt, .jsonl or .parquet file, or a hub dataset with a column text."
        ) from error


def pieces(texts: Iterable[str], longest: int = LONGEST) -> list[str]:
    """Cut long documents at the last line end, space or character that keeps them short enough.

    Args:
        texts: documents.
        longest: most bytes of a piece.

    Returns:
        Pieces that, joined, are the documents; none is empty or white space alone.
    """
    out: list[str] = []
    for text in texts:
        data = text.encode()
        while len(data) > longest:
            ends = (data.rfind(mark, longest // 2, longest) + 1 for mark in (b"\n", b" "))
            cut = next(filter(None, ends), longest)
            if cut == longest:
                while data[cut] & 0xC0 == 0x80:  # not within a character
                    cut -= 1
            out.append(data[:cut].decode())
            data = data[cut:]
        out.append(data.decode())
    return [piece for piece in out if piece.strip()]


def sample(texts: Sequence[str], n_bytes: int) -> list[str]:
    """Take documents from the whole length of a row of them, about so many bytes.

    Args:
        texts: at least one document.
        n_bytes: of text; at least one document is taken.
    """
    size = sum(len(t.encode()) for t in texts)
    step = max(1, round(size / n_bytes))
    return list(texts[::step])


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
