"""How vocabularies spell bytes: vocabulary entries -> what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from .parts import holds, space_mark

MARKER = "▁"
"""What SentencePiece vocabularies write for a space, and published code where it knows no other."""


def _byte_alphabet() -> dict[str, int]:
    """Return the printable stand-ins of byte-level vocabularies (GPT-2): character -> byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


BYTE_OF = _byte_alphabet()
CHAR_OF = {b: c for c, b in BYTE_OF.items()}

_NO_BYTE = 0x100
_BYTES_AS_LATIN = dict.fromkeys(range(256), _NO_BYTE) | {ord(c): b for c, b in BYTE_OF.items()}
"""Translates entries in the byte alphabet to the characters 0 to 255."""

_HEX = "0123456789abcdefABCDEF"
_BYTE_PIECES = {f"<0x{a}{b}>": int(a + b, 16) for a, b in product(_HEX, _HEX)}

RAW_BYTES = "Latin1"
"""Decoder type of vocabularies whose entries are single bytes, written as the characters 0 to 255;
`tokenizers` has none of its own."""


class Spelling:
    """The rule by which one vocabulary's entries stand for bytes.

    Attributes:
        byte_level: entries are written in the byte alphabet of GPT-2.
        byte_pieces: entries such as ``<0xE6>``, where there are any, and their bytes.
        mark: what entries have for a space.
    """

    def __init__(self, parts: dict[str, Any]) -> None:
        """Read the rule from a tokenizer's parts."""
        model, decoder = parts["model"], parts["decoder"]
        self.byte_level = holds(decoder, "ByteLevel") or holds(parts["pre_tokenizer"], "ByteLevel")
        spelled = model.get("byte_fallback") or holds(decoder, "ByteFallback")
        self.byte_pieces = _BYTE_PIECES if spelled else {}
        self.mark = space_mark(parts)
        self._raw = holds(decoder, RAW_BYTES)
        self._continues = model.get("continuing_subword_prefix") or ""
        self._suffixes = [
            model[k] for k in ("end_of_word_suffix", "continuing_suffix") if model.get(k)
        ]

    def literals(self, strings: Sequence[str]) -> list[bytes]:
        """Return the bytes of vocabulary entries that are neither added tokens nor byte pieces."""
        if self._continues:
            strings = [s.removeprefix(self._continues) for s in strings]
        for suffix in self._suffixes:
            strings = [s.removesuffix(suffix) for s in strings]
        if self._raw:
            return [s.encode("latin-1", "ignore") for s in strings]
        own = list(map(_of_byte_alphabet if self.byte_level else _utf8, strings))
        mark = self.mark.encode()
        return own if mark == b" " else [b.replace(mark, b" ") for b in own]


def _of_byte_alphabet(string: str) -> bytes:
    try:
        return string.translate(_BYTES_AS_LATIN).encode("latin-1")
    except UnicodeEncodeError:  # a character that is not of the alphabet
        return _utf8(string)


def _utf8(string: str) -> bytes:
    return string.encode("utf-8", "surrogatepass")


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
