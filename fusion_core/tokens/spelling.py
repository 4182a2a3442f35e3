"""`Speller`: byte strings -> the tokens with which a tokenizer spells them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from .checks import panics_said
from .python import PythonBackend
from .vocabulary import CHAR_OF, Vocabulary, is_text

MAX_SPELLINGS = 2_000_000
"""Spellings of byte strings that a tokenizer remembers before it starts afresh."""

_INNER = bytes(range(0x80, 0xC0))
"""The bytes that begin no character."""

_SHELL = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}


class Speller(Vocabulary):
    """A vocabulary that spells byte strings in its tokens, as the tokenizer itself would."""

    @cached_property
    def _first(self) -> dict[tuple[bytes, bool, bool], int]:
        """The first tokens of the spellings that have been asked for."""
        return {}

    def first_tokens(
        self, strings: Sequence[bytes], *, at_start: bool = False, before_word: bool = False
    ) -> np.ndarray:
        """Find the first token of the tokenizer's spelling of each byte string.

        Args:
            strings: n byte strings; they need not be whole characters.
            at_start: spell them as the beginning of a text (with a dummy prefix, where the
                tokenizer has one); otherwise as they are spelled within a text.
            before_word: spell white space as it is spelled before a word, which many tokenizers
                cut differently than at a text's end. Other strings are not spelled then.

        Returns:
            (n,) int64 ids; -1 where the string is empty or where the token is not made of the
            string's first bytes (a normaliser changed them, or they are unknown).
        """
        how = at_start and self.dummy_prefix, before_word
        found = {s: self._first.get((s, *how)) for s in set(strings)}
        missing = [s for s, token in found.items() if token is None]
        if missing:
            spelled = [ids[0] if ids else -1 for ids in self.spellings(missing, *how)]
            found.update(zip(missing, spelled, strict=True))
            if len(self._first) > MAX_SPELLINGS:
                self._first.clear()
            self._first.update(((s, *how), t) for s, t in zip(missing, spelled, strict=True))
        return np.asarray([found[s] for s in strings], np.int64)

    @panics_said
    def spellings(
        self, strings: Sequence[bytes], at_start: bool = False, before_word: bool = False
    ) -> list[list[int]]:
        """Spell byte strings in tokens, as the tokenizer itself would.

        Args:
            strings: n byte strings; they need not be whole characters.
            at_start: as for `first_tokens`.
            before_word: as for `first_tokens`.

        Returns:
            n lists of ids; each ends where its tokens cease to be made of the string's bytes.
        """
        if before_word:
            strings = [s if s.isspace() else b"" for s in strings]
        at_start = at_start and self.dummy_prefix
        spelled: list[Sequence[int]] = [()] * len(strings)
        queues: dict[bool, list[tuple[int, str, bytes]]] = {True: [], False: []}
        word = "a" if before_word else ""
        lone = self.dummy_prefix and not self._spelling.byte_level
        for i, string in enumerate(strings):
            text = text_prefix(string)
            head = text.encode()
            if self._spelling.byte_level and head != string:
                spelled[i] = self._spell_bytes(string)
            elif not self.spells_spaces:
                queues[False].append((i, text.lstrip(" "), head))
            elif lone and text[:1] == " " and (at_start or text[1:2] != " "):
                # A dummy prefix is the same piece as a space: spelling the rest with one also
                # survives normalisers that strip leading spaces. Some add none before a space.
                queues[True].append((i, text if at_start else text[1:], head))
            else:
                queues[at_start].append((i, text, head))
        for prefixed, queue in queues.items():
            if not queue:
                continue
            backend = self._backend if prefixed else self._within_text
            readings = backend.encode_batch_fast(
                [t + word if t else t for _, t, _ in queue], add_special_tokens=False
            )
            for (i, text, head), reading in zip(queue, readings, strict=True):
                alone = head or (b" " if at_start and strings[i] else b"")  # a dummy prefix
                ids = reading.ids if text or not alone else [self.id_of(alone)]
                rest = strings[i][len(head) :]
                spelled[i] = [*ids, *(self.id_of(bytes([b])) for b in rest)] if rest else ids
        shown = b" " if at_start else b""
        return [self._agreeing(ids, shown + s) for ids, s in zip(spelled, strings, strict=True)]

    @panics_said
    def prefix_spellings(self, strings: Sequence[bytes], at_start: bool = False) -> list[list[int]]:
        """Spell byte strings within a text, which may begin and end within characters.

        Of a byte alphabet an unfinished character is taken for the last of those that begin so,
        which shows where its word begins; the model spells that word's bytes. Elsewhere the bytes
        of a character are pieces of their own.
        """
        at_start = at_start and self.dummy_prefix
        if not self._spelling.byte_level:
            rests = [s.lstrip(_INNER) for s in strings]
            heads = [
                [self.id_of(s[n : n + 1]) for n in range(len(s) - len(rest))]
                for s, rest in zip(strings, rests, strict=True)
            ]
            spelled = self.spellings(rests, at_start)
            return [
                self._agreeing([*head, *ids], b" " * at_start + s) if head else ids
                for head, ids, s in zip(heads, spelled, strings, strict=True)
            ]
        texts = [completed(s) for s in strings]
        whole = [s if t is None else b"" for s, t in zip(strings, texts, strict=True)]
        spelled = self.spellings(whole, at_start)
        places = [n for n, t in enumerate(texts) if t is not None]
        if places and not isinstance(self._backend, PythonBackend):
            backend = self._backend if at_start else self._within_text
            words = [t for t in texts if t is not None]
            readings = backend.encode_batch(words, add_special_tokens=False)
            for n, read in zip(places, readings, strict=True):
                last = read.word_ids.index(read.word_ids[-1])
                string = b" " * at_start + strings[n]
                head = sum(len(self.bytes_of[i] or b"") for i in read.ids[:last])
                ids = [*read.ids[:last], *self._spell_bytes(string[head:])]
                spelled[n] = self._agreeing(ids, string)
        return spelled

    def _agreeing(self, ids: Sequence[int], string: bytes) -> list[int]:
        """Return the tokens up to the first that is not made of the string's next bytes."""
        if not self.spells_spaces:
            string = string.lstrip(b" ")
        place = 0
        for n, i in enumerate(ids):
            spelled = self.bytes_of[i] if i >= 0 else None
            if not spelled or not string.startswith(spelled, place):
                return list(ids[:n])
            place += len(spelled)
        return list(ids)

    def _spell_bytes(self, string: bytes) -> list[int]:
        """Spell bytes that are no text with the model of a byte-level vocabulary."""
        try:
            tokens = self._backend.model.tokenize("".join(CHAR_OF[b] for b in string))
        except (
            Exception
        ):  # the Rust side knows one type only, beside panics; slow ones have no model
            return [self.id_of(string[n : n + 1]) for n in range(len(string))]
        return [t.id for t in tokens]

    @cached_property
    def _within_text(self) -> Any:
        """The tokenizer as it works within a text: without dummy prefixes."""
        if not self.dummy_prefix:
            return self._backend
        if isinstance(self._backend, PythonBackend):
            return self._backend.within_text()
        changed = ("normalizer", "pre_tokenizer")
        return self._copy(**{p: without_prefix(self._parts[p]) for p in changed})

    def _copy(self, **changed: Any) -> Any:
        if isinstance(self._backend, PythonBackend):
            return self._backend.copy()
        return copy_of(self._backend, **changed)


def text_prefix(string: bytes) -> str:
    """Return the longest beginning of a byte string that is whole characters."""
    try:
        return string.decode("utf-8")
    except UnicodeDecodeError as error:
        return string[: error.start].decode("utf-8")


def completed(string: bytes) -> str | None:
    """Return bytes that end within a character as the last text that begins so; None for others."""
    if is_text(string):
        return None
    head = string[len(text_prefix(string).encode()) :]
    if not 0 < len(head) < 4 or head[0] < 0xC2:
        return None
    missing = 1 + (head[0] >= 0xE0) + (head[0] >= 0xF0) + 1 - len(head)
    for first in (0xBF, 0x9F, 0x8F):  # some characters' second bytes end earlier
        whole = string + (bytes([first]) + b"\xbf" * 3)[:missing]
        if is_text(whole):
            return whole.decode()
    return None


def copy_of(backend: Tokenizer, **changed: Any) -> Tokenizer:
    """Copy a tokenizer; the model, which holds the entries, is shared.

    Args:
        backend: what is copied.
        **changed: a ``normalizer`` or ``pre_tokenizer`` in the words of a file, in its place.
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
