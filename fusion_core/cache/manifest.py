"""Manifest of a cache: the settings of its rows, and which documents stand in which shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fusion_core.errors import InputError

FORMAT = 1
FILE = "manifest.json"
KINDS = ("fused", "sources")
MAX_BYTES = 16_000_000
"""Longest manifest that is read or written."""
_NOTHING = object()


@dataclass(frozen=True, eq=False)
class Manifest:
    """Manifest of a cache, the same however many processes write it.

    Attributes:
        kind: "fused": one row a position; "sources": each source's projected row.
        settings: JSON values that decide the rows: models, operator, versions …; see `settled`.
        data_key: sha256 of the documents.
        shards: half-open ranges [first document, last document), one after the other from 0.
        format: version of the files.

    Raises:
        InputError: a field cannot be used.
    """

    kind: str
    settings: dict[str, Any]
    data_key: str
    shards: Sequence[Sequence[int]]
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Check the fields and that they can be written."""
        if self.format != FORMAT:
            raise InputError(
                f"The cache has format {self.format!r}, not {FORMAT}: build it again with this "
                "version of FuseLab."
            )
        if self.kind not in KINDS:
            raise InputError(f"There is no cache of kind {self.kind!r}: choose one of {KINDS}.")
        ends = [0]
        for shard in self.shards:
            if [type(x) for x in shard] != [int, int] or not ends[-1] == shard[0] < shard[1]:
                raise InputError(f"The plan of shards breaks at {shard!r}: use `plan`.")
            ends.append(shard[1])
        if len(ends) < 2 or not (
            isinstance(self.settings, dict) and isinstance(self.data_key, str)
        ):
            raise InputError("A cache needs settings, a data key and at least one document.")
        if len(self.to_bytes()) > MAX_BYTES:
            raise InputError(f"The cache's {FILE} exceeds {MAX_BYTES:,} bytes: use larger shards.")

    def __len__(self) -> int:
        """Return the number of documents."""
        return self.shards[-1][1]

    def to_bytes(self) -> bytes:
        """Write the manifest as JSON, equal for equal manifests."""
        try:
            text = json.dumps(_plain(asdict(self)), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"The cache's settings are no JSON values ({error}).") from error
        return text.encode() + b"\n"

    @property
    def settled(self) -> dict[str, Any]:
        """The settings, with what they left unsaid before there were exact rows.

        Rows at the sources' boundaries are the same whatever `prune` is.
        """
        config = self.settings.get("config")
        if not isinstance(config, dict):
            return self.settings
        return self.settings | {"config": _settled({"rows": "boundary"} | config)}

    @property
    def digest(self) -> str:
        """First 16 hex digits of the sha256 of the manifest; every shard carries it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]


def plan(documents_bytes: Sequence[int], shard_bytes: int) -> list[tuple[int, int]]:
    """Cut a row of documents into shards of about equal text.

    Args:
        documents_bytes: bytes of each document.
        shard_bytes: most bytes of a shard; a longer document has a shard of its own.

    Returns:
        Half-open ranges of documents, in order.
    """
    ranges: list[tuple[int, int]] = []
    first = total = 0
    for i, size in enumerate(documents_bytes):
        if i > first and total + size > shard_bytes:
            ranges.append((first, i))
            first, total = i, 0
        total += size
    return [*ranges, (first, len(documents_bytes))] if documents_bytes else []


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of a cache.

    Raises:
        InputError: there is none, or it is broken.
    """
    file = Path(folder) / FILE
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        return Manifest(**json.loads(data))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"There is no cache at {folder} (no {FILE}): name the folder that a cache was written "
            "to."
        ) from error
    except (OSError, ValueError, TypeError, RecursionError, InputError) as error:
        raise InputError(
            f"{file} is no manifest of a cache that can be read ({error}): choose another folder, "
            "or delete this one to build its cache again."
        ) from error


def differences(a: Manifest, b: Manifest) -> list[str]:
    """Say in which fields two manifests differ, such as ``settings.top_k: 10, not 20``."""
    return [*_differences(*(_plain(asdict(x) | {"settings": x.settled}) for x in (a, b)))]


def unexpected(manifest: Manifest, expect: Mapping[str, Any]) -> list[str]:
    """Say which settings are not as expected; settings that ``expect`` does not name may be any."""
    if isinstance(config := expect.get("config"), dict):
        expect = {**expect, "config": _settled(config)}
    return [*_differences(_plain(manifest.settled), _plain(expect), "settings", named=True)]


def _settled(config: dict[str, Any]) -> dict[str, Any]:
    """Leave out what does not matter to rows at the sources' boundaries."""
    unused = {"prune"} if config.get("rows") == "boundary" else set()
    return {k: v for k, v in config.items() if k not in unused}


def at_most_3(sentences: Sequence[str]) -> str:
    """Join the first three, and say how many more there are."""
    more = f"; and {len(sentences) - 3} more" if len(sentences) > 3 else ""
    return "; ".join(sentences[:3]) + more


def _differences(a: Any, b: Any, path: str = "", *, named: bool = False) -> Iterator[str]:
    """Walk two JSON values; with ``named`` only the keys of ``b``'s objects count."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = ({str(i): x for i, x in enumerate(side)} for side in (a, b))
        keys = a | b
    elif isinstance(a, dict) and isinstance(b, dict):
        keys = b if named else a | b
    else:
        if type(a) is not type(b) or a != b:
            yield f"{path}: {_shown(a)}, not {_shown(b)}"
        return
    for key in keys:
        inner = f"{path}.{key}" if path else key
        yield from _differences(a.get(key, _NOTHING), b.get(key, _NOTHING), inner, named=named)


def _plain(value: Any) -> Any:
    """Turn a value into what JSON would give back, with whole floats as whole numbers."""
    return json.loads(json.dumps(value), parse_float=_number)


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
