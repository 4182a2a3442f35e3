"""Atomic writing of files and folders: whoever looks finds all of one, or what was before."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "prophetnet.tokenizer",
    "emoji.json",
    "normalizer.json",
    "word_shape.json",
    "word_pronunciation.json",
    "chat_template.jinja",
)
"""What a tokenizer may consist of beside a model."""


DOCUMENT_TOKENS = "fuselab.json"
"""What a model's documents began and ended with while it was trained here."""


@contextmanager
def folder_whole(folder: Path) -> Iterator[Path]:
    """Fill another folder beside one, then put it in its place.

    Whoever looks finds what was there before, nothing, or all of the content; nothing is left of an
    attempt that fails.

    Args:
        folder: which is replaced.

    Yields:
        The folder to fill.

    Raises:
        OSError: it cannot be written, or is a link or a file.
    """
    _check_replaceable(folder, stat.S_ISDIR)
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name in its folder, then rename it.

    Whoever reads the path finds what was there before or all of the content, also where several
    processes write it at once.

    Raises:
        OSError: the file cannot be written, or is a link or a device; nothing is left of the
            attempt.
    """
    _check_replaceable(path, stat.S_ISREG)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _check_replaceable(path: Path, fits: Callable[[int], bool]) -> None:
    """Refuse to put something in the place of a link, a device or what is of another kind.

    Args:
        path: what would be replaced, if it is there.
        fits: tells whether a mode is of the kind that may be.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not fits(mode):
            kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFREG: "a file"}
            kind = kinds.get(stat.S_IFMT(mode), "a device")
            raise OSError(errno.EEXIST, f"{kind} is there, which is not replaced")
