"""Documents that a training learns from, and those that are held out to measure it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion_core import corpus, isolated
from fusion_core.config import utf8
from fusion_core.errors import FusionError, InputError, TooLargeError, size_of
from fusion_core.io import documents

from ..limits import Limits
from .form import DOMAINS, Form

USER_TEXT = "your text"
DATA = "data.jsonl"
HELD_BYTES = 3_000
"""Of each toy domain that are evaluated on: three domains take the zoo a seventh of a second."""
HELD_USER_BYTES = 20_000
LEAST_USER_BYTES = 100
PARQUET_BYTES, PARQUET_SECONDS = 1 << 29, 60.0
"""What reading a stranger's Parquet file may take."""


@dataclass(frozen=True)
class Texts:
    """Documents to learn from, and by name those that are held out."""

    train: list[str]
    held: dict[str, list[str]]


def read(form: Form, limits: Limits) -> Texts:
    """Read what is to be learnt from, and hold some of it out.

    Raises:
        FusionError: a text cannot be used.
    """
    texts, held = [], {}
    for domain in form.domains:
        name = DOMAINS[domain]
        share = form.kilobytes * 1000 // len(form.domains)
        some = corpus.text(name, "train", share, seed=form.seed)
        texts += some or [next(corpus.documents(name, "train", seed=form.seed))]
        held[name] = corpus.text(name, "validation", HELD_BYTES, seed=form.seed)
    given = _given(form, limits)
    if given:
        learnt, held[USER_TEXT] = hold_out(given, form.seed)
        texts += learnt
    size = sum(len(t.encode()) for t in texts)
    if size > limits.data_bytes:
        raise TooLargeError(
            f"{size_of(size)} of text are more than the limit of {size_of(limits.data_bytes)}: "
            "give less."
        )
    return Texts(texts, held)


def _given(form: Form, limits: Limits) -> list[str]:
    """Read what was pasted or uploaded; no error says the file's name or path."""
    given: list[str] = []
    if (form.text or "").strip():
        utf8(form.text, limit=limits.data_bytes)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "text.txt")
            file.write_bytes(form.text.encode())
            given += _documents(file, "Your text", limits)
    if form.file:
        given += _documents(Path(form.file), "Your file", limits)
    return given


def _documents(path: Path, name: str, limits: Limits) -> list[str]:
    try:
        if limits.public and path.suffix.lower() == ".parquet":  # its metadata may lie
            return isolated.call(
                "io.documents:read_documents_within",
                str(path),
                limits.data_bytes,
                memory=PARQUET_BYTES,
                seconds=PARQUET_SECONDS,
                what=name,
            )
        return documents.read_documents(path, limit=limits.data_bytes)
    except FusionError as error:
        raise type(error)(str(error).replace(str(path), name)) from None


def hold_out(texts: list[str], seed: int) -> tuple[list[str], list[str]]:
    """Take a tenth of the documents, at least one, away from the text that is learnt.

    A single document is cut, and its end is held out.

    Raises:
        InputError: it is too short for that.
    """
    if len(texts) == 1:
        size = len(texts[0].encode())
        parts = documents.pieces(texts, max(4, size * 9 // 10)) if size >= LEAST_USER_BYTES else []
        if len(parts) < 2:
            raise InputError(
                f"Your text is one document of {size} bytes, too short to hold some of it out: "
                f"give at least {LEAST_USER_BYTES} bytes, or documents apart by blank lines."
            )
        learnt, held = parts[:1], parts[1:]
    else:
        order = np.random.default_rng(seed).permutation(len(texts))
        chosen = set(order[: max(1, len(texts) // 10)].tolist())
        learnt = [t for i, t in enumerate(texts) if i not in chosen]
        held = [t for i, t in enumerate(texts) if i in chosen]
    kept: list[str] = []
    room = HELD_USER_BYTES
    for piece in documents.pieces(held, 4_000):
        room -= len(piece.encode())
        if kept and room < 0:
            break
        kept.append(piece)
    return learnt, kept


def write(texts: Texts, folder: Path) -> None:
    """Write documents into a folder.

    Raises:
        InputError: it cannot be written.
    """
    named = {DATA: texts.train}
    named |= {held_file(i): some for i, some in enumerate(texts.held.values())}
    for name, some in named.items():
        try:
            (folder / name).write_bytes(documents.json_lines(some))
        except OSError as error:
            raise InputError(
                f"The text cannot be written ({error.strerror or error}): make room on the "
                "server's disk."
            ) from error


def held_file(number: int) -> str:
    """Name the file of a held-out text."""
    return f"held-out-{number}.jsonl"
