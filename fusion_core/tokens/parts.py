"""Parts of a tokenizer: model, normaliser, pre-tokenizer, decoder.

They are read in the words of a `tokenizers` file. A file of a large vocabulary has tens of
megabytes, nearly all of them entries and merges: they are left where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

_MODEL_FIELDS = (
    "unk_token",
    "byte_fallback",
    "continuing_subword_prefix",
    "end_of_word_suffix",
)


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
    """Read what only the serialised form of a Unigram model has, without its entries."""
    opens, closes = state.index(b'"vocab":['), state.rindex(b"]")
    return json.loads(state[:opens] + b'"vocab":[' + state[closes:])


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
