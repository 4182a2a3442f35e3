"""A vocabulary's byte strings: how they begin, and what they go on with."""

from __future__ import annotations

from bisect import bisect_left
from codecs import utf_8_decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from .tokenizer import TextTokenizer

KEPT_SPANS = 10_000
"""Beginnings whose tokens an index remembers."""

KEPT_BEGINNINGS = 1000
"""Known bytes whose continuations a table remembers."""


class ByteIndex:
    """Tokens in the order of their bytes, equal bytes in the order of their ids."""

    def __init__(self, items: Iterable[tuple[int, bytes | None]]) -> None:
        """Sort pairs (id, bytes); those without bytes are left out."""
        items = list(items)
        self._size = 1 + max((i for i, _ in items), default=-1)
        self._entries: list[tuple[bytes, int]] = sorted((b, i) for i, b in items if b)
        self.span = lru_cache(KEPT_SPANS)(self._span)

    @cached_property
    def ids(self) -> np.ndarray:
        """(t,) int64, the tokens in this order."""
        return np.asarray([i for _, i in self._entries], np.int64)

    @cached_property
    def begins_character(self) -> np.ndarray:
        """(vocabulary,) bool, tokens whose first byte begins a character."""
        begins = np.zeros(self._size, bool)
        begins[[i for b, i in self._entries if b[0] & 0xC0 != 0x80]] = True
        return begins

    @cached_property
    def _longest(self) -> dict[bytes, int]:
        longest: dict[bytes, int] = {}
        for string, _ in self._entries:
            head = string[:2]
            longest[head] = max(len(string), longest.get(head, 1))
        return longest

    def longest(self, head: bytes) -> int:
        """Return the most bytes of a token that begins with two bytes; 1 where there is none."""
        return self._longest.get(head, 1)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """Yield all pairs (bytes, id) in order."""
        return iter(self._entries)

    def extending(self, head: bytes) -> list[tuple[bytes, int]]:
        """List the pairs (bytes, id) whose bytes begin with ``head`` and go on."""
        first, stop = self.span(head)
        return self._entries[first:stop]

    def _span(self, head: bytes) -> tuple[int, int]:
        """Return the half-open range of the tokens whose bytes begin with ``head`` and go on."""
        after = head.rstrip(b"\xff")
        stop = self._place(after[:-1] + bytes([after[-1] + 1])) if after else len(self._entries)
        return self._place(head + b"\0"), stop

    def prefixes_of(self, string: bytes) -> list[tuple[bytes, int]]:
        """List the pairs (bytes, id) with whose bytes ``string`` begins, itself included."""
        heads = (string[:n] for n in range(1, len(string) + 1))
        return [
            pair for s in heads for pair in self._entries[self._place(s) : self._place(s + b"\0")]
        ]

    def _place(self, string: bytes) -> int:
        return bisect_left(self._entries, (string, -1))


@dataclass(frozen=True, eq=False)
class Continuations:
    """What a vocabulary's tokens go on with after known bytes.

    Attributes:
        candidates: (t,) int64, the tokens that go on after them.
        label: (t,) int64, index into `labels` of what each goes on with.
        labels: l characters, or bytes that are none; see `first_character`.
        next_byte: (l,) int64, the byte after the known ones.
        others: (o,) int64, tokens that end within the known bytes; where none are known, those that
            have no bytes.
        end: (e,) int64, tokens that end the text, where no bytes are known.
    """

    candidates: np.ndarray
    label: np.ndarray
    labels: tuple[str | bytes, ...]
    next_byte: np.ndarray
    others: np.ndarray
    end: np.ndarray


class CharacterTable:
    """A vocabulary by the characters with which its tokens go on after known bytes."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Sort a vocabulary; the tokenizer itself is not kept."""
        self._index = tokenizer.byte_index
        self._end = [i for i in tokenizer.end_ids if i < tokenizer.size]
        silent = (i for i, b in enumerate(tokenizer.bytes_of) if not b)
        self._silent = [i for i in silent if i not in self._end]
        self.continuations = lru_cache(KEPT_BEGINNINGS)(self._continuations)

    def _continuations(self, known: bytes, head: bytes) -> Continuations:
        """Find the continuations after known bytes.

        Args:
            known: the bytes with which the next token is known to begin.
            head: the bytes that the text already has of the next character.
        """
        entries = self._index.extending(known)
        cut = slice(len(known), len(known) + 4)  # no character is longer
        places: dict[str | bytes, int] = {}
        label = [places.setdefault(first_character(head + b[cut]), len(places)) for b, _ in entries]
        spelled = (s.encode() if isinstance(s, str) else s for s in places)
        others = [i for _, i in self._index.prefixes_of(known)] if known else self._silent
        return Continuations(
            candidates=np.asarray([i for _, i in entries], np.int64),
            label=np.asarray(label, np.int64),
            labels=tuple(places),
            next_byte=np.asarray([s[len(head)] for s in spelled], np.int64),
            others=np.asarray(others, np.int64),
            end=np.asarray([] if known else self._end, np.int64),
        )


def first_character(string: bytes) -> str | bytes:
    """Return the first character of a byte string in UTF-8, or bytes that are none.

    The bytes are the whole string, where it ends within a character; and where no character begins
    so, as many as show it.
    """
    for n in range(1, len(string) + 1):
        part = string[:n]
        try:
            character, used = utf_8_decode(part, "strict", False)
        except UnicodeDecodeError:
            return part
        if used:
            return character
        if part[0] == 0xED and part[1:] >= b"\xa0":
            return part  # a surrogate; Python waits for its third byte
    return string
