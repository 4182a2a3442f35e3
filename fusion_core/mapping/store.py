"""Vocab maps on disk: a cache with a limit in bytes, whose files are never trusted when damaged.

A file holds the SHA-256 of the rest, and the rest as an .npz of the map's arrays. Its name is the
SHA-256 of everything that decides the map: both vocabularies' content, the strategy with its
parameters and its version, and the corpus where one is counted. It is written whole, so that
processes that build one map at the same time do each other no harm. What has not been used for
longest is removed when a new map exceeds the limit.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fusion_core.errors import FusionError
from fusion_core.io.files import write_whole
from fusion_core.records import VocabMap
from fusion_core.tokens import TextTokenizer

FORMAT = "fuselab vocab map 2"
"""Changes whenever the file's layout does; a strategy has a version of its own."""

MAX_BYTES = 1 << 30
"""Size of the folder. A map of Qwen (151,000 tokens) to Llama-3 (128,000) has 3 to 5 MB."""


def folder() -> Path:
    """Where maps are kept: FUSELAB_CACHE, else the user's cache folder."""
    named = os.environ.get("FUSELAB_CACHE")
    if named:
        return Path(named).expanduser() / "maps"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "fuselab" / "maps"


def cached(
    strategy: str,
    source: TextTokenizer,
    target: TextTokenizer,
    texts: Sequence[str],
    build: Callable[[], VocabMap],
    *,
    version: int,
    keep: bool = True,
) -> tuple[VocabMap, bool]:
    """Return a map from disk, or build it and keep it.

    Args:
        strategy: its name and parameters.
        source: the source's vocabulary.
        target: the target's vocabulary.
        texts: the corpus that it is counted in, if any.
        build: makes the map.
        version: of the strategy, raised whenever its result for some vocabularies changes.
        keep: look for it on disk and keep it there; otherwise it is built and that is all, as for a
            map that counts a text which may never be read again.

    Returns:
        The map, and whether it came from disk. Where nothing can be kept (no room, a folder that
        may not be written) the map is built all the same.
    """
    if not keep:
        return build(), False
    digest = hashlib.sha256()
    keys = [
        f"{t.key} {t.vocabulary_key} {t.end_ids} {sorted(t.special_ids)}" for t in (source, target)
    ]
    for part in (FORMAT, strategy, str(version), *keys, *texts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    file = folder() / f"{digest.hexdigest()}.map"
    kept = _read(file, strategy.partition(" ")[0], (source.size, target.size))
    if kept is not None:
        with suppress(OSError):
            os.utime(file)  # file systems that note when a file was last read are few
        return kept, True
    built = build()
    _write(file, built)
    return built, False


def _read(file: Path, strategy: str, shape: tuple[int, int]) -> VocabMap | None:
    """Read a map, or None where there is none that is whole."""
    try:
        content = file.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        arrays = np.load(io.BytesIO(content[32:]), allow_pickle=False)
        return VocabMap(strategy, shape=shape, **dict(arrays))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, FusionError):
        return None


def _write(file: Path, built: VocabMap) -> None:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **built.arrays())
    content = stream.getvalue()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, hashlib.sha256(content).digest() + content)
        _evict(file.parent)


def _evict(folder: Path) -> None:
    """Remove the least recently used files beyond the limit, those of killed writers among them.

    Whoever is reading or writing one of them builds the map again, or does not keep it.
    """
    found = []
    for file in folder.iterdir():
        with suppress(OSError):  # another process may have removed it
            if file.suffix in {".map", ".part"}:
                used = file.stat()
                found.append((used.st_mtime_ns, used.st_size, file))
    room = MAX_BYTES
    for _, size, file in sorted(found, reverse=True):
        room -= size
        if room < 0:
            with suppress(OSError):
                file.unlink()
