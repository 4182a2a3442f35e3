"""`Vocabulary`: what a tokenizer is made of -> its entries as bytes of text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fusion_core.errors import ModelFormatError

from .checks import check_growth, check_ids, panics_said, without_chance
from .parts import holds, parts_of, space_mark

MARKER = "▁"
"""What SentencePiece vocabularies write for a space, and published code where it knows no other."""

ENTRIES_LOOKED_AT, WORDS_PROBED = 2000, 32
"""Entries, about, among which words are sought that show how spaces are spelled; words read."""


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
`tokenizers` itself has none."""


class EntrySpelling:
    """The rule by which one vocabulary's entries represent bytes.

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
        literals = list(map(_of_byte_alphabet if self.byte_level else _utf8, strings))
        mark = self.mark.encode()
        return literals if mark == b" " else [b.replace(mark, b" ") for b in literals]


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


class Vocabulary:
    """A tokenizer's entries as bytes of text; the attributes are those of `TextTokenizer`."""

    def __init__(
        self, backend: Any, name: str, *, start_id: int | None, eos_id: int | None
    ) -> None:
        """Read a backend; from then on it belongs to this object."""
        self.name, self.start_id = name, start_id
        self.end_ids: tuple[int, ...] = () if eos_id is None else (eos_id,)
        self._stated = start_id, self.end_ids
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        without_chance(backend, name)
        self._backend: Any = backend
        self._parts = parts_of(backend)
        check_growth(name, self._parts)
        self._spelling = EntrySpelling(self._parts)
        self._read_entries()
        self.dummy_prefix, self.spells_spaces = self._spaces()

    def _read_entries(self) -> None:
        vocab = self._backend.get_vocab(with_added_tokens=True)
        if not vocab:
            raise ModelFormatError(f"The tokenizer of {self.name} has an empty vocabulary.")
        added = self._backend.get_added_tokens_decoder()
        model = self._parts["model"]
        unknown = model.get("unk_token")
        self.unknown_id: int | None = vocab.get(unknown) if unknown else model.get("unk_id")
        self.size = max(vocab.values()) + 1
        check_ids(self.name, self.size - 1)
        self._strings: list[str | None] = [None] * self.size
        for string, i in vocab.items():
            self._strings[i] = string
        self._literal = self._spelling.literals([s or "" for s in self._strings])
        self.is_byte_piece = np.zeros(self.size, bool)
        for string, byte in self._spelling.byte_pieces.items():
            i = vocab.get(string, -1)
            if i >= 0 and i not in added:
                self._literal[i] = bytes([byte])
                self.is_byte_piece[i] = True
        self.added_ids = frozenset(i for i in added if i < self.size)
        for i in self.added_ids:
            self._literal[i] = str(added[i]).encode()
        special = {i for i, token in added.items() if token.special} | {
            i for i in (self.unknown_id, self.start_id, *self.end_ids) if i is not None
        }
        self.special_ids = self._special_ids = frozenset(i for i in special if i < self.size)
        holes = None in self._strings  # rare, and looking for them takes time
        unused = [i for i, s in enumerate(self._strings) if s is None] if holes else []
        self.unused_ids = np.asarray(unused, dtype=np.int64)
        self.bytes_of: tuple[bytes | None, ...] = self._without({*unused, *self.special_ids})

    def _without(self, silent: Set[int]) -> tuple[bytes | None, ...]:
        """List the entries' bytes, None for those without text."""
        found: list[bytes | None] = list(self._literal)
        for i in silent:
            if i < self.size:
                found[i] = None
        return tuple(found)

    @panics_said
    def _spaces(self) -> tuple[bool, bool]:
        """Read some words of the vocabulary, and look for the spaces before and between them.

        Returns:
            Whether a space is put before a text, and whether tokens spell a space between words.
        """
        words = self.words()
        alone = self._spelled(words)
        known = [(w, s) for w, s in zip(words, alone, strict=True) if s.lstrip(b" ") == w.encode()]
        twice = self._spelled([f"{w} {w}" for w, _ in known])
        # What is unknown, a space for one, has a token all the same.
        unknown = b"" if self.unknown_id is None else self._literal[self.unknown_id]
        shown = [
            f"{w} {w}".encode() in s or bool(unknown and unknown in s)
            for (w, _), s in zip(known, twice, strict=True)
        ]
        dummy = bool(known) and known[0][1].startswith(b" ")
        return dummy, 2 * sum(shown) >= len(shown)

    def words(self) -> list[str]:
        """List short entries that are text without white space, plain words first."""
        some = range(0, self.size, max(1, self.size // ENTRIES_LOOKED_AT))
        found = ((self.bytes_of[i] or b"").strip(b" ") for i in some if i not in self.added_ids)
        texts = {b.decode() for b in found if b and is_text(b)}
        words = (t for t in texts if not any(map(str.isspace, t)))
        return sorted(words, key=lambda t: (not t.isalpha(), len(t), t))[:WORDS_PROBED]

    def _spelled(self, texts: Sequence[str]) -> list[bytes]:
        """Join the tokens of each text, as they are written."""
        read = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [b"".join(self._literal[i] for i in r.ids) for r in read]

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that decides ids and bytes, and of the stated BOS and EOS."""
        start, ends = self._stated
        content = f"{self._backend.to_str()}|{start}|{ends[0] if ends else None}"
        return hashlib.sha256(content.encode()).hexdigest()

    @cached_property
    def vocabulary_key(self) -> str:
        """SHA-256 of what each id means, whatever begins and ends documents."""
        silent = self._special_ids
        text = tuple(None if i in silent else b for i, b in enumerate(self._literal))
        meaning = repr((text, sorted((i, self._strings[i]) for i in silent)))
        if not self.spells_spaces:  # then equal bytes may or may not begin a word
            meaning += repr(self._strings)
        return hashlib.sha256(meaning.encode("utf-8", "surrogatepass")).hexdigest()

    def entry(self, token_id: int) -> str:
        """Return a token as the vocabulary writes it."""
        return self._strings[token_id] or ""

    def piece(self, token_id: int) -> str:
        r"""Return a token as readable text; bytes that are no text are written as ``\xNN``."""
        if not 0 <= token_id < self.size or self._strings[token_id] is None:
            return f"[{token_id}]"
        return self._literal[token_id].decode("utf-8", "backslashreplace")

    def published_strings(self) -> tuple[list[str | None], str]:
        """Return the vocabulary's raw strings by id, and the character that starts a word."""
        return list(self._strings), self._marker

    @property
    def _marker(self) -> str:
        if self._spelling.byte_level:
            return CHAR_OF[0x20]
        return MARKER if self._spelling.mark == " " else self._spelling.mark

    @cached_property
    def _bare(self) -> list[str]:
        """The vocabulary's entries by id, as they are written, without word-start markers."""
        return [(s or "").replace(self._marker, "") for s in self._strings]

    @property
    def is_understood(self) -> bool:
        """Whether it is known how entries spell: of all kinds with a Rust form, of some others."""
        return isinstance(self._backend, Tokenizer) or self._parts["decoder"] is not None

    @property
    def marks_continuations(self) -> bool:
        """Whether entries within a word are others than those that begin one (``##``)."""
        return bool(self._spelling._continues)

    @property
    def joins_pairs(self) -> bool:
        """Whether tokens come of merging neighbours, by one list for all texts."""
        return self._parts["model"]["type"] == "BPE"

    def characters(self, token_id: int) -> str:
        """Return a token's whole characters; of a byte alphabet a character for each byte."""
        codec = "latin-1" if self._spelling.byte_level else "utf-8"
        return (self.bytes_of[token_id] or b"").decode(codec, "ignore")

    def id_of(self, string: bytes) -> int:
        """Return the token that is exactly these bytes (a real piece before a byte piece), or -1.

        Among equals the lowest id is taken.
        """
        return self.ids_of.get(string, (-1,))[0]

    @cached_property
    def ids_of(self) -> dict[bytes, list[int]]:
        """The ids of text tokens by their bytes: real pieces before byte pieces, then low ids."""
        found: dict[bytes, list[int]] = {}
        for i in sorted(range(self.size), key=lambda i: (self.is_byte_piece[i], i)):
            if string := self.bytes_of[i]:
                found.setdefault(string, []).append(i)
        return found
