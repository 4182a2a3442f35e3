"""Documents: texts read from files and the hub, as they are; arrays written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_core.config import BYTE_ORDER_MARK, MAX_TEXT_BYTES, decoded, may_be_dataset, utf8
from fusion_core.errors import FusionError, InputError, TooLargeError, is_out_of_memory, shown

from .files import write_whole
from .parquet import read_texts

IN_MEMORY = 1 << 30
"""Bytes of text that are held at once."""

LONGEST = 32_768
"""Bytes of a document above which training cuts it."""

SHUFFLED = 10_000
"""Documents of a stream among which the next one is drawn."""

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
    return decoded(data, path)


def _without_mark(path: str | Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a text file without the byte-order mark at its start.

    Raises:
        InputError: as in `read_text`, or most of it are zero bytes.
        TooLargeError: as in `read_text`.
    """
    text = read_text(path, limit=limit).removeprefix(BYTE_ORDER_MARK)
    if text.count("\0") * 4 > len(text):  # every second one of Latin letters in UTF-16
        raise InputError(f"{path} looks like UTF-16 without its mark: save it as UTF-8.")
    return text


def read_documents(path: str | Path, *, limit: int = IN_MEMORY) -> list[str]:
    """Read a file of documents; a byte-order mark at its start is no part of them.

    ``.txt``: documents are separated by lines that are only ``<|endoftext|>``, or, where there are
    none, by blank lines. ``.jsonl``: one object with a ``text`` a line. ``.parquet``: a ``text``
    column of strings, or of bytes that are UTF-8. Empty documents and nulls are left out.

    Raises:
        InputError: the file cannot be read, is of another kind, or holds no document.
        TooLargeError: it has more than ``limit`` bytes.
    """
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        texts = [_text_of({"text": value}, str(path)) for value in read_texts(path, limit)]
    elif kind == ".jsonl":
        texts = list(_json_lines(path, limit))
    elif kind in {".txt", ".md", ""}:
        text = _without_mark(path, limit)
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


def read_documents_within(path: str, limit: int) -> list[str]:
    """Read a file of documents, for a call in a process of its own."""
    return read_documents(path, limit=limit)


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
    if not path.exists() and not may_be_dataset(name):
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

    name = file or builder
    try:
        stream = datasets.load_dataset(builder, data_files=file, split="train", streaming=True)
        for record in stream.shuffle(seed=seed, buffer_size=SHUFFLED):
            text = _text_of(record, name)
            if text.strip():
                yield text
    except FusionError:
        raise
    except Exception as error:  # the library and the hub raise many types here
        if is_out_of_memory(error):
            raise
        what = f"{file} cannot be read as documents"
        if file is None:
            what = f"There is no file {builder}, and no hub dataset of this name can be read"
        raise InputError(
            f"{what} ({type(error).__name__}: {str(error)[:200]}): give a .txt, .jsonl or .parquet "
            "file, or a hub dataset with a column text."
        ) from error


def _text_of(record: Any, where: str) -> str:
    """Return the text of a record, which may be bytes; "" where it is null.

    Raises:
        InputError: there is none, or it is of another kind.
    """
    if not isinstance(record, dict) or "text" not in record:
        has = f"it has {shown(list(record))}" if isinstance(record, dict) else "it is no object"
        raise InputError(f'{where} has no "text" ({has}): name the column text.')
    text = record["text"]
    if isinstance(text, bytes):
        return decoded(text, f'The "text" of {where}')
    if not isinstance(text, str | None):
        raise InputError(f'The "text" of {where} must be text, not {shown(text)}.')
    return text or ""


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
        messages = json.loads(_without_mark(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: give a list of messages.") from error
    if not isinstance(messages, list) or not messages:
        raise InputError(
            f'{path} holds no list of messages: give [{{"role": …, "content": …}}, …].'
        )
    return messages


def _json_lines(path: str | Path, limit: int) -> Iterator[str]:
    lines = _without_mark(path, limit).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}, is no JSON: mend or remove the line."
            ) from error
        yield _text_of(record, f"{path}, line {number}")


def json_lines(texts: Iterable[str]) -> bytes:
    """Return documents as the content of a .jsonl file, which `read_documents` reads."""
    return "".join(f"{json.dumps({'text': t}, ensure_ascii=False)}\n" for t in texts).encode()


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an .npz file, whole or not at all.

    Raises:
        InputError: the file cannot be written (no such folder, no room).
    """
    file = Path(path)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    try:
        if file.is_dir() or not file.name:
            raise InputError(f"{path} is a folder: name a file to write, such as map.npz.")
        write_whole(file, stream.getvalue())
    except OSError as error:
        raise InputError(
            f"{shown(str(path))} cannot be written ({error.strerror or error}): choose an existing "
            "folder with enough room."
        ) from error
