"""Texts, checked once where they enter."""

from __future__ import annotations

import codecs
from pathlib import Path

from fusion_core.errors import InputError, TooLargeError

MAX_TEXT_BYTES = 1_000_000
"""Longest text that `align` and `fuse` take in one piece."""

BYTE_ORDER_MARK = "\ufeff"
"""What some editors write at the start of a UTF-8 file, before its text."""

_OTHER_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decoded(data: bytes, name: str | Path) -> str:
    """Decode UTF-8 exactly as it is, or say what else it is.

    Args:
        data: the bytes of a file or value.
        name: what they are called in an error.

    Raises:
        InputError: they are not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = next((kind for mark, kind in _OTHER_MARKS.items() if data.startswith(mark)), None)
        what = (
            f"{found}, not UTF-8"
            if found
            else f"not UTF-8 (byte {error.start} is {data[error.start]:#04x})"
        )
        raise InputError(f"{name} is {what}: save it as UTF-8.") from error


def utf8(text: str, *, limit: int | None = None) -> bytes:
    """Encode a text as UTF-8, or say why it cannot be read.

    Args:
        text: any string.
        limit: most bytes allowed; None for no limit.

    Raises:
        InputError: the text is empty or holds lone surrogates.
        TooLargeError: the text has more than ``limit`` bytes.
    """
    if not text:
        raise InputError("The text is empty: give at least one character.")
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text holds a lone surrogate at character {error.start}, which is no Unicode: "
            "remove or replace it."
        ) from error
    if limit is not None and len(data) > limit:
        raise TooLargeError(
            f"The text has {len(data):,} bytes, more than the limit of {limit:,}: shorten it or "
            "cut it into documents."
        )
    return data
