"""Vocab maps on disk: built once for a pair of vocabularies, and never trusted when damaged.

A file holds the SHA-256 of the rest, and the rest as an .npz of the map's arrays. Its name is the
SHA-256 of everything that decides the map: both vocabularies' content, the strategy with its
parameters, and the corpus where one is counted. It is written whole, so that processes that build
one map at the same time do each other no harm.
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

FORMAT = "fuselab vocab map 1"
"""Changes whenever a strategy's result or the file's layout does."""


def folder() -> Path:
    """Where maps are kept: FUSELAB_CACHE, else the user's cache folder."""
    own = os.environ.get("FUSELAB_CACHE")
    if own:
        return Path(own).expanduser() / "maps"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "fuselab" / "maps"


def cached(
    strategy: str,
    source: TextTokenizer,
    target: TextTokenizer,
    texts: Sequence[str],
    build: Callable[[], VocabMap],
) -> tuple[VocabMap, bool]:
    """Return a map from disk, or build it and keep it.

    Args:
        strategy: its name and parameters.
        source: the source's vocabulary.
        target: the target's vocabulary.
        texts: the corpus that it is counted in, if any.
        build: makes the map.

    Returns:
        The map, and whether it came from disk. Where nothing can be kept (no room, a folder that
        may not be written) the map is built all the same.
    """
    digest = hashlib.sha256()
    keys = (k for t in (source, target) for k in (t.key, t.vocabulary_key, str(t.end_ids)))
    for part in (FORMAT, strategy, *keys, *texts):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    file = folder() / f"{digest.hexdigest()}.map"
    kept = _read(file, strategy.partition(" ")[0], (source.size, target.size))
    if kept is not None:
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
