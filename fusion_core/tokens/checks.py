"""Checks of a tokenizer before a text goes through it: sizes, ids, and what becomes longer.

Its files come from strangers. The library believes them: one large id makes a table of that size,
and a normaliser may write a million characters for one.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from tokenizers import Tokenizer

from fusion_core.errors import ModelFormatError, TooLargeError, shown, size_of
from fusion_core.io.files import TOKENIZER_FILES

from .parts import components

MOST_BYTES = 64_000_000
"""Of one file of a tokenizer; those of 262,144 entries have 33 MB."""

MOST_IDS = 1 << 21
"""Largest id, and one more; the largest vocabularies have a million entries."""

MOST_GROWTH = 100
"""Characters that a tokenizer may make of one."""

MOST_INSERTED = 100
"""Tokens that a template may put around a text."""

_log = logging.getLogger(__name__)
_READ = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json")


def check_sizes(name: str, files: Mapping[str, int]) -> None:
    """Refuse a tokenizer of which a file is too large to be read.

    Args:
        name: what the caller calls the model.
        files: bytes by name; those that are no tokenizer's may be any.

    Raises:
        TooLargeError: there is one.
    """
    for file, size in files.items():
        read = file in TOKENIZER_FILES or file.endswith((".model", ".tiktoken"))
        if read and size > MOST_BYTES:
            raise TooLargeError(
                f"{name}/{file} has {size_of(size)}, more than the limit of {size_of(MOST_BYTES)} "
                "for a tokenizer: choose another model."
            )


def check_files(name: str, folder: Path) -> None:
    """Read a folder's tokenizer as JSON, and refuse what the library would choke on.

    Raises:
        TooLargeError: a file is too large.
        ModelFormatError: ids or normalisers are such that memory would run out.
    """
    files = [f for f in folder.glob("*") if f.is_file()]
    check_sizes(name, {f.name: f.stat().st_size for f in files})
    for file in files:
        if file.name not in _READ:
            continue
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue  # the library says what is wrong with it
        plain = file.name in ("vocab.json", "added_tokens.json")
        check_ids(name, max(_ids(content, plain=plain), default=0))
        if file.name == "tokenizer.json" and isinstance(content, dict):
            check_growth(name, content)


def fetched(name: str, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch the tokenizer of a hub's model, check it, and name the revision that was checked.

    Args:
        name: what the caller calls the model.
        source: its hub id.
        options: ``revision``, ``token``, as `from_pretrained` takes them.

    Raises:
        FusionError: as `check_files`.
    """
    from huggingface_hub import snapshot_download

    files = [*TOKENIZER_FILES, "config.json", "*.model", "*.tiktoken"]
    folder = Path(snapshot_download(source, allow_patterns=files, **options))
    check_files(name, folder)
    return {**options, "revision": folder.name}


def check_ids(name: str, largest: int) -> None:
    """Refuse a vocabulary with an id that no vocabulary has.

    Raises:
        ModelFormatError: it has one.
    """
    if largest >= MOST_IDS:
        raise ModelFormatError(
            f"The tokenizer of {name} has the id {shown(largest)}, beyond the limit of "
            f"{MOST_IDS:,}: fetch its files again."
        )


def _ids(content: Any, *, plain: bool) -> Iterator[int]:
    """Yield the ids of one of the files in `_READ`, and of what its template inserts."""
    if not isinstance(content, dict):
        return
    model = content.get("model")
    listed = content if plain else model.get("vocab") if isinstance(model, dict) else None
    if isinstance(listed, dict):
        yield from (i for i in listed.values() if isinstance(i, int))
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield token["id"]
    decoder = content.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        yield from (int(key) for key in decoder if key.isdecimal() and len(key) < 20)
    yield from _numbers(content.get("post_processor"))


def _numbers(part: Any) -> Iterator[int]:
    if isinstance(part, int) and not isinstance(part, bool):
        yield part
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in values:
        yield from _numbers(value)


def check_growth(name: str, parts: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that makes a text many times longer before it cuts it.

    Args:
        name: what the caller calls the model.
        parts: ``normalizer``, ``pre_tokenizer`` and ``post_processor`` as in a file.

    Raises:
        ModelFormatError: it does.
    """
    factor = _growth(parts.get("normalizer")) * _growth(parts.get("pre_tokenizer"))
    if factor > MOST_GROWTH:
        raise ModelFormatError(
            f"The tokenizer of {name} may write {factor:,.0f} characters for one, more than the "
            f"limit of {MOST_GROWTH}: fetch its files again."
        )
    for part in components(parts.get("post_processor")):
        inserted = max((len(part.get(k) or ()) for k in ("single", "pair")), default=0)
        if inserted > MOST_INSERTED:
            raise ModelFormatError(
                f"The tokenizer of {name} puts {inserted:,} tokens around a text, more than the "
                f"limit of {MOST_INSERTED}: fetch its files again."
            )


def _growth(part: Any) -> float:
    """Return how many characters one may become, at the most."""
    return math.prod(map(_growth_of, components(part)))


def _growth_of(component: dict[str, Any]) -> float:
    kind = component.get("type")
    if kind == "Replace":
        written, shortest = len(str(component.get("content", ""))), _shortest(component)
        return max(1.0, written / shortest) if shortest else 1.0 + written
    if kind == "Prepend":
        return 1.0 + len(str(component.get("prepend", "")))
    if kind == "Precompiled":
        return _longest_replacement(str(component.get("precompiled_charsmap") or ""))
    return {"ByteLevel": 2.0, "Metaspace": 2.0, "BertNormalizer": 3.0}.get(str(kind), 1.0)


def _shortest(replace: dict[str, Any]) -> int:
    """Return the characters of the shortest match of what is replaced, or less."""
    pattern = replace.get("pattern")
    pattern = pattern if isinstance(pattern, dict) else {}
    if "String" in pattern:
        return len(str(pattern["String"]))
    try:
        return 0 if re.search(str(pattern.get("Regex", "")), "") else 1
    except (re.error, RecursionError, OverflowError):  # an expression that Python has not
        return 0


def _longest_replacement(charsmap: str) -> float:
    """Read the longest string of SentencePiece's table of replacements, behind its index."""
    try:
        table = base64.b64decode(charsmap)
    except (binascii.Error, ValueError):
        return 1.0
    index = int.from_bytes(table[:4], "little")
    written = table[4 + index :].decode("utf-8", "replace").split("\0")
    return float(max(1, *map(len, written)))


def without_chance(backend: Any, name: str) -> None:
    """Switch off what draws tokens by chance, which is meant for training, and say so.

    Args:
        backend: a tokenizer, with a Rust form or without; it is changed.
        name: what the caller calls the model.
    """
    model = backend.model if isinstance(backend, Tokenizer) else backend.sentencepiece
    off = {"dropout": None, "nbest_size": None, "alpha": None, "_enable_sampling": False}
    drawn = [field for field in off if getattr(model, field, None)]
    for field in drawn:
        setattr(model, field, off[field])
    if drawn:
        kind = "BPE dropout" if "dropout" in drawn else "sampling"
        _log.warning("The tokenizer of %s has %s, which is switched off here.", name, kind)


def is_panic(error: BaseException) -> bool:
    """Tell whether the Rust side of a tokenizer gave up; such an error is no `Exception`."""
    return type(error).__name__ == "PanicException"


F = TypeVar("F", bound=Callable[..., Any])


def panics_said(method: F) -> F:
    """Turn a panic within a method of a named tokenizer into one sentence.

    An expression of a tokenizer may search for ever; the Rust side ends that by a panic, which
    nothing that waits for an `Exception` would hear of.
    """

    @wraps(method)
    def guarded(tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(tokenizer, *args, **kwargs)
        except BaseException as error:
            if not is_panic(error):
                raise
            raise ModelFormatError(
                f"The tokenizer of {tokenizer.name} gave up on a text ({str(error)[:200]}): choose "
                "another model."
            ) from error

    return cast(F, guarded)
