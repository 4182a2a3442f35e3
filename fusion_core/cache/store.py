"""Reader and writer of a cache: a folder of files that are there whole or not at all."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from fusion_core.errors import FusionError, InputError
from fusion_core.io.documents import json_lines, read_documents
from fusion_core.io.files import write_whole

from .manifest import FILE, Manifest, at_most_3, differences, read_manifest, unexpected
from .shards import Shard, StoredDocument, check_digest, pack

TEXTS = "texts.jsonl"
TEXTS_BYTES = 60_000
"""Text of the first documents, which a cache keeps beside rows to measure models on."""

_SHARD = re.compile(r"(\d{5,})-[0-9a-f]{16}\.safetensors")
_PART = re.compile(rf"\.({re.escape(FILE)}|{re.escape(TEXTS)}|{_SHARD.pattern})\..+\.part")


def first_texts(texts: Iterable[str]) -> list[str]:
    """Take the first documents, at least one, of at most `TEXTS_BYTES`."""
    taken: list[str] = []
    room = TEXTS_BYTES
    for text in texts:
        room -= len(text.encode())
        if taken and room < 0:
            break
        taken.append(text)
    return taken


def sweep(folder: str | Path) -> None:
    """Remove what interrupted writers left; a shard that is being written is written again.

    Raises:
        InputError: a file cannot be removed.
    """
    try:
        for file in Path(folder).iterdir():
            if _PART.fullmatch(file.name):
                file.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


class CacheWriter:
    """Writer of a cache, shard by shard, in as many processes as one likes, or go on with one.

    One process calls `prepare`, and then each of them `missing` and `write`.

    Args:
        folder: a new or empty folder, or one with a cache of the same manifest.
        manifest: what the cache is of.
    """

    def __init__(self, folder: str | Path, manifest: Manifest) -> None:
        self.folder = Path(folder)
        self.manifest = manifest

    def prepare(self, texts: Sequence[str] = ()) -> None:
        """Make the folder ready: write the manifest, remove what interrupted writers left.

        Args:
            texts: the documents, of which the first are kept.

        Raises:
            InputError: the folder holds a cache with other settings, or anything but a cache, or
                cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = sorted(file.name for file in self.folder.iterdir())
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        foreign = [
            n
            for n in names
            if n not in (FILE, TEXTS) and not _SHARD.fullmatch(n) and not _PART.fullmatch(n)
        ]
        if foreign:
            raise InputError(
                f"{self.folder} holds {foreign[0]}, which is no part of a cache: choose an empty "
                "folder."
            )
        if FILE not in names:
            if any(map(_SHARD.fullmatch, names)):
                raise InputError(
                    f"{self.folder} holds shards but no {FILE}: choose an empty folder, or delete "
                    "this one."
                )
            self._write(FILE, self.manifest.to_bytes())
        self._compare()
        if texts and TEXTS not in names:
            self._write(TEXTS, json_lines(first_texts(texts)))
        sweep(self.folder)

    def missing(self, process: int = 0, processes: int = 1) -> list[int]:
        """List the shards that one of several processes has yet to write, dealt out in turn.

        Raises:
            InputError: the folder has no manifest, or another one.
        """
        self._compare()
        done = _shards(self.folder)
        mine = range(process, len(self.manifest.shards), processes)
        return [number for number in mine if number not in done]

    def write(self, number: int, documents: Sequence[StoredDocument]) -> None:
        """Write a shard, unless it is there.

        Args:
            number: which of the plan's shards.
            documents: all of its documents, in order.

        Raises:
            InputError: it cannot be written; finished shards stay.
            FusionError: these are not the documents of that shard.
        """
        first, last = self.manifest.shards[number]
        names = {name for d in documents for name in d.rows}
        if len(documents) != last - first or not _named(self.manifest.kind, names):
            raise FusionError(
                f"Shard {number} takes {last - first} documents of kind {self.manifest.kind}, not "
                f"{len(documents)} with rows {sorted(names)}."
            )
        if number not in _shards(self.folder):
            digest, content = pack(documents, _about(self.manifest, number))
            self._write(f"{number:05d}-{digest}.safetensors", content)

    def _write(self, name: str, content: bytes) -> None:
        for attempt in range(3):
            try:
                write_whole(self.folder / name, content)
                return
            except OSError as error:
                swept = isinstance(error, FileNotFoundError)  # by another writer that starts
                if not swept or attempt == 2:
                    raise _unwritable(self.folder, error) from error

    def _compare(self) -> None:
        there = read_manifest(self.folder)
        if found := differences(there, self.manifest):
            raise InputError(
                f"{self.folder} holds a cache with other settings ({at_most_3(found)}): choose an "
                "empty folder or its settings, or delete this one."
            )
        self.manifest = there  # which may say the same in the words of an earlier version


class Cache:
    """Finished cache: a sequence of documents, each read when it is asked for.

    It can be pickled and handed to the workers of a torch DataLoader.

    Attributes:
        folder: where it is.
        manifest: what it is of.
        lengths: (documents,) int64, rows of each document.
        tokens: rows of all documents.
        bytes: of all its files.
        rows_bytes: of manifest and rows alone.
    """

    def __init__(self, folder: Path, manifest: Manifest, shards: Sequence[Shard]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.lengths = np.concatenate([shard.lengths for shard in shards])
        self.tokens = int(self.lengths.sum())
        files = [folder / FILE, *(shard.path for shard in shards)]
        self.rows_bytes = sum(file.stat().st_size for file in files)
        texts = folder / TEXTS
        self.bytes = self.rows_bytes + (texts.stat().st_size if texts.is_file() else 0)
        self._shards = shards
        self._firsts = [first for first, _ in manifest.shards]

    @classmethod
    def open(
        cls, folder: str | Path, expect: Mapping[str, Any] | None = None, verify: bool = True
    ) -> Cache:
        """Open a finished cache.

        Args:
            folder: where it is.
            expect: settings that it must have, nested as in the manifest; others may be any.
            verify: compare every shard with its digest, which reads all of it once.

        Raises:
            InputError: there is no cache, a setting differs, or a shard is missing or damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        found = unexpected(manifest, expect or {})
        if found:
            raise InputError(
                f"The cache at {folder} has other settings ({at_most_3(found)}): build one with "
                "these settings in another folder."
            )
        files = _shards(folder)
        absent = [str(n) for n in range(len(manifest.shards)) if n not in files]
        if absent:
            raise InputError(
                f"The cache at {folder} lacks {len(absent)} of {len(manifest.shards)} shards "
                f"({at_most_3(absent)}): run the same command again to finish it."
            )
        shards = []
        for number, paths in sorted(files.items()):
            if number >= len(manifest.shards) or len(paths) > 1:
                raise InputError(
                    f"{paths[-1]} is one shard too many: delete this file and run the same command "
                    "again."
                )
            if verify:
                check_digest(paths[0])
            first, last = manifest.shards[number]
            shard = Shard(paths[0], last - first, _about(manifest, number))
            if not _named(manifest.kind, shard.names):
                raise InputError(f"{paths[0]} has rows of another kind: delete this file.")
            shards.append(shard)
        return cls(folder, manifest, shards)

    def texts(self) -> list[str] | None:
        """Read the first documents' texts; None where an earlier version has not kept them.

        Raises:
            InputError: they cannot be read.
        """
        file = self.folder / TEXTS
        return read_documents(file) if file.is_file() else None

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.manifest)

    def __getitem__(self, i: int) -> StoredDocument:
        """Read one document.

        Raises:
            InputError: its shard was damaged after the cache was opened.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"There is no document {i} among {len(self)}.")
        number = bisect_right(self._firsts, i) - 1
        return self._shards[number][i - self._firsts[number]]

    def __iter__(self) -> Iterator[StoredDocument]:
        """Read the documents in order."""
        return (self[i] for i in range(len(self)))


def _about(manifest: Manifest, number: int) -> dict[str, Any]:
    """Say in a shard which one of which cache it is."""
    return {"manifest": manifest.digest, "shard": number}


def _named(kind: str, names: Set[str]) -> bool:
    """Tell whether rows are named as those of a kind of cache are."""
    if kind == "fused":
        return names == {"fused"}
    sources = names - {"target"}
    return bool(sources) and sources == {str(i) for i in range(len(sources))}


def _shards(folder: Path) -> dict[int, list[Path]]:
    """Find the finished shards by number."""
    found: dict[int, list[Path]] = {}
    try:
        for path in sorted(folder.iterdir()):
            match = _SHARD.fullmatch(path.name)
            if match and path.is_file():
                found.setdefault(int(match[1]), []).append(path)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be read ({error.strerror or error}): check the disk."
        ) from error
    return found


def _unwritable(folder: str | Path, error: OSError) -> InputError:
    return InputError(
        f"The cache at {folder} cannot be written ({error.strerror or error}): choose a folder "
        "with enough room and run the same command again; finished shards stay."
    )
