"""Shard of a cache: some documents' rows in one safetensors file, named after its content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows

from .codec import decode, encode, width

ABOUT = "fuselab"
DIGITS = 16
_KINDS = {"BOOL", "F16", "F32", "F64", *(f"{sign}{n}" for sign in "IU" for n in (8, 16, 32, 64))}
_BROKEN = (
    AttributeError,
    InputError,
    LookupError,
    OSError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, eq=False)
class StoredDocument:
    """A document's rows, as they are stored.

    Attributes:
        rows: m rows by name: "fused", or one a source, "0", "1", …, and at will "target".
        observed: (m,) int64, the tokens that the rows predict.
        extras: small arrays, kept as they are: all of a cache's documents have the same, each with
            m entries, or each of one shape.
    """

    rows: dict[str, SparseRows]
    observed: torch.Tensor
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there are as many rows as observed tokens."""
        if not self.rows or any(len(r) != len(self.observed) for r in self.rows.values()):
            raise FusionError(
                f"A document to store has {len(self.observed)} tokens, but rows "
                f"{ {name: len(r) for name, r in self.rows.items()} }."
            )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.observed)


def pack(documents: Sequence[StoredDocument], about: Mapping[str, Any]) -> tuple[str, bytes]:
    """Write documents as the content of a shard.

    Args:
        documents: at least one; all have rows of the same names, k, vocabulary and temperature.
        about: JSON values that say which shard of which cache this is.

    Returns:
        The digest in its name, and the content.

    Raises:
        FusionError: the documents differ in kind, or a row is no distribution.
    """
    head = documents[0]
    if any(
        d.rows.keys() != head.rows.keys() or d.extras.keys() != head.extras.keys()
        for d in documents
    ):
        raise FusionError("Documents of one shard have rows or extras of different names.")
    observed = torch.cat([d.observed for d in documents])
    arrays = {"lengths": np.array([len(d) for d in documents], np.uint32)}
    about = {**about, "rows": {}, "extras": {}}
    for name in head.rows:
        rows = [d.rows[name] for d in documents]
        kinds = {(r.ids.shape[1], r.vocab_size, r.temperature) for r in rows}
        if len(kinds) > 1:
            raise FusionError(f"Rows {name!r} differ in (k, vocabulary, temperature): {kinds}.")
        _, size, temperature = kinds.pop()
        ids, probs, tail = (
            torch.cat([getattr(r, x) for r in rows]) for x in ("ids", "probs", "tail")
        )
        codes = encode(SparseRows(ids, probs, tail, size, temperature), observed)
        arrays |= {f"rows.{name}.{part}": array for part, array in codes.items()}
        about["rows"][name] = {"vocab_size": size, "temperature": temperature}
    for name in head.extras:
        parts = [np.asarray(d.extras[name]) for d in documents]
        by_row = all(x.shape[:1] == (len(d),) for x, d in zip(parts, documents, strict=True))
        same = {(x.dtype, x.shape[by_row:]) for x in parts}
        if len(same) > 1 or parts[0].dtype.kind not in "biuf":
            raise FusionError(
                f"The extra {name!r} has {same}: one number type and shape is needed."
            )
        arrays[f"extras.{name}"] = np.concatenate(parts) if by_row else np.stack(parts)
        about["extras"][name] = "row" if by_row else "document"
    content = save(arrays, {ABOUT: json.dumps(about, sort_keys=True)})
    return hashlib.sha256(content).hexdigest()[:DIGITS], content


def check_digest(path: Path) -> None:
    """Compare a shard's content with the digest in its name, a piece at a time.

    Raises:
        InputError: they differ, or the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()[:DIGITS]
    except OSError as error:
        raise _unusable(path, error) from error
    if not path.stem.endswith(f"-{digest}"):
        raise _unusable(path, ValueError("its content is not what its name says"))


class Shard:
    """A finished shard. Nothing but its documents' lengths is read until it is asked for.

    Args:
        path: the file.
        documents: how many it has to hold.
        about: as in `pack`.

    Attributes:
        lengths: (documents,) int64, rows of each document.
        names: names of the rows.

    Raises:
        InputError: it is damaged, or of another cache.
    """

    def __init__(self, path: Path, documents: int, about: Mapping[str, Any]) -> None:
        self.path = path
        self._handle: Any = None
        try:
            self._about = json.loads(self._open().metadata()[ABOUT])
            if {key: self._about.get(key) for key in about} != dict(about):
                raise ValueError("it does not belong to the manifest beside it")
            self.lengths = self._checked(documents)
        except _BROKEN as error:
            raise _unusable(path, error) from error
        self.names = frozenset(self._about["rows"])
        self._ends = np.concatenate([[0], self.lengths.cumsum()])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: another process opens its own."""
        return self.__dict__ | {"_handle": None}

    def __getitem__(self, i: int) -> StoredDocument:
        """Read document i of the shard."""
        first, last = int(self._ends[i]), int(self._ends[i + 1])
        rows, extras = {}, {}
        observed = torch.empty(0, dtype=torch.int64)
        try:
            for name, of in self._about["rows"].items():
                arrays = {x: self._part(f"rows.{name}.{x}", first, last) for x in ("ids", "probs")}
                rows[name], observed = decode(arrays, arrays["probs"].shape[1], **of)
            for name, by in self._about["extras"].items():
                part = (first, last) if by == "row" else (i, i + 1)
                array = self._part(f"extras.{name}", *part)
                extras[name] = array if by == "row" else array[0]
        except _BROKEN as error:
            raise _unusable(self.path, error) from error
        return StoredDocument(rows, observed, extras)

    def _open(self) -> Any:
        if self._handle is None:
            self._handle = safe_open(self.path, framework="numpy")
        return self._handle

    def _part(self, name: str, first: int, last: int) -> np.ndarray:
        """Read entries [first, last) of an array; an empty array cannot be sliced."""
        part = self._open().get_slice(name)
        if part.get_shape()[0] == 0:
            return self._open().get_tensor(name)
        return part[first:last] if first < last else part[0:0]

    def _checked(self, documents: int) -> np.ndarray:
        """Check that every array is of the type and shape that the others ask for."""
        handle = self._open()
        kinds, shapes = {}, {}
        for name in handle.keys():  # noqa: SIM118 - it is no dict
            part = handle.get_slice(name)
            kinds[name], shapes[name] = part.get_dtype(), list(part.get_shape())
        if kinds["lengths"] != "U32" or shapes["lengths"] != [documents]:
            raise ValueError(f"it does not hold {documents:,} documents")
        lengths = handle.get_tensor("lengths").astype(np.int64)
        total = int(lengths.sum())
        wanted = {"lengths": [documents]}
        for name, of in self._about["rows"].items():
            size, temperature = of["vocab_size"], of["temperature"]
            if type(size) is not int or not 0 < size < 1 << 31 or not 0 < temperature < math.inf:
                raise ValueError(f"the vocabulary or temperature of {name!r} is impossible")
            k = max(1, shapes[f"rows.{name}.probs"][1])
            wanted[f"rows.{name}.ids"] = [total, width(k, size)]
            wanted[f"rows.{name}.probs"] = [total, k]
        packed = all(kinds[name] == "U8" for name in wanted if name != "lengths")
        for name, by in self._about["extras"].items():
            shape = shapes[f"extras.{name}"]
            wanted[f"extras.{name}"] = [total if by == "row" else documents, *shape[1:]]
        if shapes != wanted or not packed or not set(kinds.values()) <= _KINDS:
            raise ValueError("its arrays do not fit one another")
        return lengths


def _unusable(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError):
        return InputError(f"{path} cannot be read ({error.strerror or error}): check the disk.")
    return InputError(
        f"{path} is damaged ({error}): delete this file and run the same command again to rebuild "
        "it."
    )
