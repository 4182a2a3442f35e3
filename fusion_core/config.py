"""The settings of a fusion, checked once where they enter."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError, TooLargeError

MAX_TEXT_BYTES = 1_000_000
"""Longest text that `align` and `fuse` take in one piece."""


@dataclass(frozen=True)
class FusionConfig:
    """How rows are carried over and fused.

    Names of strategies and operators are looked up in `vocab.STRATEGIES` and `fuse.OPERATORS`
    where they are used.

    Attributes:
        strategy: vocab mapping that carries a source's mass to the target's vocabulary.
        operator: fusion operator.
        level: "sequence" (one weight a document) or "token"; ignored by `mean`.
        top_k: tokens kept of a fused row; the rest is its tail.
        source_top_k: tokens kept of a source's row before projection; None keeps all.
        overlap: share of a window that is read again as context of the next one, where a text is
            longer than a model's context.

    Raises:
        InputError: a number is outside its range.
    """

    strategy: str = "prefix"
    operator: str = "min_ce"
    level: str = "sequence"
    top_k: int = 10
    source_top_k: int | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in (("top_k", self.top_k), ("source_top_k", self.source_top_k)):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and (name == "top_k" or value is not None):
                raise InputError(
                    f"{name} must be a whole number of at least 1, not {value!r}: choose how many "
                    "tokens of a row to keep."
                )
        if not 0 <= self.overlap <= 0.75:
            raise InputError(
                f"overlap must lie between 0 and 0.75, not {self.overlap!r}: choose the share of a "
                "window to read again."
            )


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
