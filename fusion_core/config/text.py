"""Texts, checked once where they enter."""

from __future__ import annotations

from fusion_core.errors import InputError, TooLargeError

MAX_TEXT_BYTES = 1_000_000
"""Longest text that `align` and `fuse` take in one piece."""


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
