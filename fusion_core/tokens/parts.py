"""What a tokenizer is made of, in the words of a `tokenizers` file, and copies with changed parts.

The parts are model, normaliser, pre-tokenizer and decoder. A file of a large vocabulary has tens of
megabytes, nearly all of them entries and merges: they are left where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer

_MODEL_FIELDS = (
    "unk_token",
    "byte_fallback",
    "continuing_subword_prefix",
    "end_of_word_suffix",
)
_SHELL = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}


def parts_of(backend: Any) -> dict[str, Any]:
    """Read the parts of a tokenizer, with or without a Rust form; the model without its entries."""
    if not isinstance(backend, Tokenizer):
        return backend.parts()
    model: Any = backend.model
    known = {"type": type(model).__name__} | {n: getattr(model, n, None) for n in _MODEL_FIELDS}
    if known["type"] == "Unigram":
        known |= _unigram(model.__getstate__())
    return {
        "model": known,
        "normalizer": _state(backend.normalizer),
        "pre_tokenizer": _state(backend.pre_tokenizer),
        "decoder": _state(backend.decoder),
    }


def _state(component: Any) -> Any:
    return None if component is None else json.loads(component.__getstate__())


def _unigram(state: bytes) -> dict[str, Any]:
    """Read what a Unigram model tells in its serialised form alone, without its entries."""
    opens, closes = state.index(b'"vocab":['), state.rindex(b"]")
    return json.loads(state[:opens] + b'"vocab":[' + state[closes:])


def copy_of(backend: Tokenizer, **changed: Any) -> Tokenizer:
    """Copy a tokenizer; the model, which holds the entries, is shared.

    Args:
        backend: what is copied.
        **changed: a ``normalizer`` or ``pre_tokenizer`` in the words of a file, to stand in.
    """
    copy = Tokenizer.from_str(json.dumps(_SHELL | changed))
    copy.model = backend.model
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        if part not in changed:
            setattr(copy, part, getattr(backend, part))
    added = (t for _, t in sorted(backend.get_added_tokens_decoder().items()))
    for special, some in groupby(added, key=lambda t: t.special):
        (copy.add_special_tokens if special else copy.add_tokens)(list(some))
    copy.encode_special_tokens = True
    return copy


def components(part: Any) -> Iterator[dict[str, Any]]:
    """Yield a part's components, itself included, in the order in which they work."""
    if isinstance(part, dict):
        if "type" in part:
            yield part
        for value in part.values():
            yield from components(value)
    elif isinstance(part, list):
        for value in part:
            yield from components(value)


def holds(part: Any, kind: str) -> bool:
    """Tell whether a part is, or contains, a component of this type."""
    return any(c["type"] == kind for c in components(part))


def space_mark(parts: dict[str, Any]) -> str:
    """Return what the vocabulary writes for a space; a space where it writes that.

    What happens to a text goes before what a decoder does to tokens.
    """
    for component in components(parts["normalizer"]):
        if component["type"] == "Replace" and _matches_a_space(component["pattern"]):
            return component["content"] or " "
    for part in ("pre_tokenizer", "decoder"):
        for component in components(parts[part]):
            if component["type"] == "Metaspace":
                return component["replacement"]
    for component in components(parts["decoder"]):
        if component["type"] == "Replace" and component["content"] == " ":
            return component["pattern"].get("String") or " "
    return " "


def _matches_a_space(pattern: dict[str, str]) -> bool:
    if "Regex" not in pattern:
        return pattern.get("String") == " "
    try:
        return re.fullmatch(pattern["Regex"], " ") is not None
    except re.error:  # an expression that Python has not
        return False


def without_prefix(part: Any) -> Any:
    """Return a normaliser or pre-tokenizer that adds no space before the text."""
    if not isinstance(part, dict):
        return part
    changed: dict[str, Callable[[], Any]] = {
        "Prepend": lambda: None,
        "Metaspace": lambda: part | {"prepend_scheme": "never"},
        "ByteLevel": lambda: part | {"add_prefix_space": False},
    }
    if part["type"] == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        return part | {key: [p for p in map(without_prefix, part[key]) if p is not None]}
    return changed.get(part["type"], lambda: part)()
