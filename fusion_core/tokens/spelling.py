"""How vocabularies spell bytes, and the serialised parts of a tokenizer that tell which way it is.

The parts are those of a `tokenizers` file: model, normaliser, pre-tokenizer, decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MARKER = "▁"
"""What SentencePiece vocabularies write for a space."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return the printable stand-ins of byte-level vocabularies (GPT-2): character -> byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_alphabet()
CHAR_OF = {b: c for c, b in BYTE_OF.items()}


class Spelling:
    """The rule by which one vocabulary's entries stand for bytes.

    Attributes:
        byte_level: entries are written in the byte alphabet of GPT-2.
        continuing: what marks an entry that continues a word (WordPiece), or None.
    """

    def __init__(self, parts: dict[str, Any]) -> None:
        """Read the rule from a tokenizer's parts."""
        model = parts["model"]
        self.byte_level = holds(parts["decoder"], "ByteLevel") or holds(
            parts["pre_tokenizer"], "ByteLevel"
        )
        self._byte_pieces = model.get("byte_fallback") or holds(parts["decoder"], "ByteFallback")
        self.continuing: str | None = (
            model.get("continuing_subword_prefix") if model["type"] == "WordPiece" else None
        )
        self._suffix = model.get("end_of_word_suffix") or ""
        self._raw = holds(parts["decoder"], RAW_BYTES)

    def byte_piece(self, string: str) -> int | None:
        """Return the byte that an entry such as ``<0xE6>`` stands for, or None."""
        match = _BYTE_PIECE.fullmatch(string) if self._byte_pieces else None
        return int(match[1], 16) if match else None

    def literal(self, string: str) -> bytes:
        """Return the bytes of a vocabulary entry that is no added token."""
        if self.byte_level:
            if all(c in BYTE_OF for c in string):
                return bytes(BYTE_OF[c] for c in string)
            return string.encode("utf-8", "surrogatepass")
        if self._raw:
            return string.encode("latin-1", "ignore")
        byte = self.byte_piece(string)
        if byte is not None:
            return bytes([byte])
        if self.continuing and string.startswith(self.continuing):
            string = string[len(self.continuing) :]
        elif self._suffix:
            string = string.removesuffix(self._suffix)
        return string.replace(MARKER, " ").encode("utf-8", "surrogatepass")


RAW_BYTES = "Latin1"
"""Decoder type of vocabularies whose entries are single bytes, written as the characters 0 to 255;
`tokenizers` has none of its own."""


def is_text(string: bytes) -> bool:
    """Tell whether bytes are whole characters."""
    try:
        string.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def text_prefix(string: bytes) -> str:
    """Return the longest beginning of a byte string that is whole characters."""
    try:
        return string.decode("utf-8")
    except UnicodeDecodeError as error:
        return string[: error.start].decode("utf-8")


def holds(part: Any, kind: str) -> bool:
    """Tell whether a serialised tokenizer part is, or contains, a component of this type."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(holds(v, kind) for v in part.values())
    return isinstance(part, list) and any(holds(v, kind) for v in part)


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
