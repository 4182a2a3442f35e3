"""`TextTokenizer`: texts -> encodings, byte strings -> the spelling that a tokenizer gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cached_property
from typing import Any, overload

import numpy as np
from tokenizers import Tokenizer

from fusion_core.config import utf8
from fusion_core.errors import ModelFormatError
from fusion_core.records import Encoding
from fusion_core.tokens.spans import locate

from .parts import copy_of, parts_of, without_prefix
from .python import PythonBackend
from .spelling import CHAR_OF, MARKER, Spelling, is_text, text_prefix

ENTRIES_LOOKED_AT, WORDS_PROBED = 2000, 32
"""Entries, about, among which words are sought that show how spaces are spelled; words read."""

TOKENS_BEFORE = 8
"""Tokens that are decoded before one, to see what it adds."""

MAX_SPELLINGS = 2_000_000
"""Spellings of byte strings that a tokenizer remembers before it starts afresh."""


class Pieces(Sequence[str]):
    """Tokens as readable text, looked up when they are asked for."""

    def __init__(self, ids: Sequence[int], piece: Callable[[int], str]) -> None:
        """Keep the ids and what names them."""
        self._ids, self._piece = ids, piece

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """Name one token, or several."""
        if isinstance(index, slice):
            return tuple(map(self._piece, self._ids[index]))
        return self._piece(self._ids[index])

    def __iter__(self) -> Iterator[str]:
        """Name all tokens in order."""
        return map(self._piece, self._ids)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the tokenizer behind when it is pickled: a tuple of the strings."""
        return tuple, (list(self),)


class TextTokenizer:
    """A tokenizer whose tokens are bytes.

    Attributes:
        name: what the caller calls it.
        size: one more than the largest id; ids below it may be unused.
        bytes_of: for each id the bytes of text that it stands for; None for special tokens, the
            unknown token and unused ids.
        unused_ids: ids below `size` that have no token.
        special_ids: ids that stand for no text: control tokens and the unknown token.
        unknown_id: token that stands for what the vocabulary has not, or None.
        is_byte_piece: (size,) bool, ids such as `<0xE6>`, spelled when no other piece fits.
        start_id: token that a model reads before a document (by default BOS, else EOS), or None.
        end_ids: tokens that end a document, the one that is taught first; none where it is empty.
        dummy_prefix: the tokenizer puts a space before a text that has none there.
        spells_spaces: a space between words belongs to some token. Where none has it (``</w>``,
            WordPiece, `@@`, words cut at white space), tokens' bytes say too little to carry rows
            over by.
        render: renders messages in the model's chat template, as `apply_chat_template` does; None
            where it has none.
        added_ids: ids of tokens that are read whole, control tokens and others.
    """

    def __init__(
        self,
        backend: Tokenizer | PythonBackend,
        name: str,
        *,
        start_id: int | None,
        eos_id: int | None,
        render: Callable[..., Any] | None = None,
    ) -> None:
        """Read a backend; it is from then on owned by this object."""
        self.name = name
        self.start_id, self.render = start_id, render
        self.end_ids: tuple[int, ...] = () if eos_id is None else (eos_id,)
        self._stated = start_id, self.end_ids
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend: Any = backend
        self._parts = parts_of(backend)
        self._spelling = Spelling(self._parts)
        self._read_vocabulary()
        self._inner: Any = None
        self._templated: Any = None
        self._first: dict[tuple[bytes, bool, bool], int] = {}
        self.dummy_prefix, self.spells_spaces = self._spaces()

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that decides ids and bytes, and of the stated BOS and EOS."""
        start, ends = self._stated
        told = f"{self._backend.to_str()}|{start}|{ends[0] if ends else None}"
        return hashlib.sha256(told.encode()).hexdigest()

    @cached_property
    def vocabulary_key(self) -> str:
        """SHA-256 of what each id stands for, whatever begins and ends documents."""
        silent = self._special_ids
        own = tuple(None if i in silent else b for i, b in enumerate(self._literal))
        meaning = repr((own, sorted((i, self._strings[i]) for i in silent)))
        if not self.spells_spaces:  # then equal bytes may or may not begin a word
            meaning += repr(self._strings)
        return hashlib.sha256(meaning.encode("utf-8", "surrogatepass")).hexdigest()

    def _spaces(self) -> tuple[bool, bool]:
        """Read some of the vocabulary's own words, and look for the spaces before and between.

        Returns:
            Whether a space stands before a text, and whether tokens spell a space between words.
        """
        words = self._words()
        alone = self._spelled(words)
        known = [(w, s) for w, s in zip(words, alone, strict=True) if s.lstrip(b" ") == w.encode()]
        twice = self._spelled([f"{w} {w}" for w, _ in known])
        # What is unknown, a space for one, has a token of its own all the same.
        unknown = b"" if self.unknown_id is None else self._literal[self.unknown_id]
        shown = [
            f"{w} {w}".encode() in s or bool(unknown and unknown in s)
            for (w, _), s in zip(known, twice, strict=True)
        ]
        dummy = bool(known) and known[0][1].startswith(b" ")
        return dummy, 2 * sum(shown) >= len(shown)

    def _words(self) -> list[str]:
        """List short entries that are text without white space, plain words first."""
        some = range(0, self.size, max(1, self.size // ENTRIES_LOOKED_AT))
        own = ((self.bytes_of[i] or b"").strip(b" ") for i in some if i not in self.added_ids)
        texts = {b.decode() for b in own if b and is_text(b)}
        words = (t for t in texts if not any(map(str.isspace, t)))
        return sorted(words, key=lambda t: (not t.isalpha(), len(t), t))[:WORDS_PROBED]

    def _spelled(self, texts: Sequence[str]) -> list[bytes]:
        """Join the tokens of each text, as they are written."""
        read = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [b"".join(self._literal[i] for i in r.ids) for r in read]

    def _read_vocabulary(self) -> None:
        vocab = self._backend.get_vocab(with_added_tokens=True)
        if not vocab:
            raise ModelFormatError(f"The tokenizer of {self.name} has an empty vocabulary.")
        added = self._backend.get_added_tokens_decoder()
        model = self._parts["model"]
        unknown = model.get("unk_token")
        self.unknown_id: int | None = vocab.get(unknown) if unknown else model.get("unk_id")
        self.size = max(vocab.values()) + 1
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
        own: list[bytes | None] = list(self._literal)
        for i in (*unused, *self.special_ids):
            own[i] = None
        self.bytes_of: tuple[bytes | None, ...] = tuple(own)
        # What a token adds to a text that is reproduced: the unknown token nothing.
        self._shown = list(self._literal)
        if self.unknown_id is not None:
            self._shown[self.unknown_id] = b""
        self._width = np.fromiter(map(len, self._shown), np.int64, self.size)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a document where one has to be named, or None."""
        return self.end_ids[0] if self.end_ids else None

    def with_document_tokens(self, start_id: int | None, end_ids: Sequence[int]) -> TextTokenizer:
        """Return the same tokenizer with other tokens before and after documents.

        Args:
            start_id: what is read before a document, or None.
            end_ids: what ends it, the token that is taught first.
        """
        changed = copy(self)
        changed.start_id, changed.end_ids = start_id, tuple(dict.fromkeys(end_ids))
        named = {i for i in (start_id, *end_ids) if i is not None}
        changed.special_ids = self.special_ids | named
        if named - self.special_ids:
            changed.bytes_of = tuple(
                None if i in named else own for i, own in enumerate(self.bytes_of)
            )
        changed.__dict__.pop("ids_of", None)
        return changed

    @property
    def as_stated(self) -> bool:
        """Whether documents begin and end with what the tokenizer's own files name."""
        return (self.start_id, self.end_ids) == self._stated

    def entry(self, token_id: int) -> str:
        """Return a token as the vocabulary writes it."""
        return self._strings[token_id] or ""

    def piece(self, token_id: int) -> str:
        r"""Return a token as readable text; bytes that are no text stand as ``\xNN``."""
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

    def encode(self, text: str, *, template: bool = False) -> Encoding:
        """Encode a text; see `encode_batch`."""
        return self.encode_batch([text], template=template)[0]

    def encode_batch(self, texts: Sequence[str], *, template: bool = False) -> list[Encoding]:
        """Encode texts; written special tokens such as ``</s>`` are ordinary bytes.

        Args:
            texts: any Unicode texts that are not empty.
            template: the texts are rendered chat templates: control tokens written in them are
                read as such, and none are added.

        Returns:
            The encodings, with the specials that the tokenizer's post-processor inserts.

        Raises:
            InputError: a text is empty or holds lone surrogates.
        """
        data = [utf8(t) for t in texts]
        backend = self._with_control() if template else self._backend
        # Offsets take time, and only texts that are not reproduced need them.
        raws = backend.encode_batch_fast(list(texts), add_special_tokens=not template)
        return [
            self._encoding(text, own, raw.ids, raw.special_tokens_mask, backend)
            for text, own, raw in zip(texts, data, raws, strict=True)
        ]

    def _encoding(
        self, text: str, data: bytes, raw_ids: list[int], mask: list[int], backend: Any
    ) -> Encoding:
        ids = np.asarray(raw_ids, np.int64)
        special = np.asarray(mask, bool)
        inserted = special.any()
        own = np.flatnonzero(~special) if inserted else np.arange(len(ids))
        listed = [i for i, s in zip(raw_ids, mask, strict=True) if not s] if inserted else raw_ids
        whole = b"".join([self._shown[i] for i in listed])
        dummy = self._opens_with_dummy(listed, data)
        start, end = np.zeros((2, len(ids)), np.int64)
        lost: Sequence[tuple[int, int]] = ()
        extra = False
        if whole[dummy:] == data and len(data):
            width = self._width[ids]
            width[special] = 0
            width[own[:1]] -= dummy
            end = np.cumsum(width)
            start = end - width
        else:
            pieces = self._own_bytes(listed, dummy)
            start[own], end[own], lost, extra = self._located(text, data, pieces, own, backend)
            if len(own):
                start[own[-1] + 1 :] = end[own[-1] + 1 :] = len(data)
            else:
                lost = ((0, len(data)),)
        return Encoding(
            model=self.name,
            data=data,
            ids=ids,
            start=start,
            end=end,
            special=special,
            pieces=Pieces(raw_ids, self.piece),
            lost=tuple(lost),
            lossless=not lost and not extra,
            dummy_prefix=dummy,
            published=Pieces(raw_ids, lambda i: self._bare[i]),
        )

    def text_of(self, ids: Sequence[int]) -> str | None:
        """Spell the text that a whole document's tokens stand for.

        Args:
            ids: tokens; special ones spell nothing.

        Returns:
            The text, without a dummy prefix; None where the bytes are no UTF-8.
        """
        own = [i for i in ids if i < self.size and i not in self.special_ids]
        if not self.spells_spaces:
            return self._decoded(own)
        pieces = self._own_bytes(own, self._opens_with_dummy(own, b""))
        try:
            return b"".join(p or b"" for p in pieces).decode("utf-8")
        except UnicodeDecodeError:
            return None

    def adds(self, before: Sequence[int], token: int) -> bytes:
        """Return what a token adds to a text that ends in other tokens.

        That is the token's own bytes, with the space that its place implies where none spells it.
        """
        own = self.bytes_of[token] or b""
        if self.spells_spaces or not own:
            return own
        head = [i for i in before[-TOKENS_BEFORE:] if self.bytes_of[i]]
        more = self._decoded([*head, token]).count(" ") - self._decoded(head).count(" ")
        return b" " + own if more > 0 else own

    def _decoded(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def _opens_with_dummy(self, ids: Sequence[int], data: bytes) -> bool:
        """Tell whether the first token carries a space that is not in the text."""
        if not self.dummy_prefix or not ids or ids[0] in self.added_ids:
            return False
        if self._spelling.byte_level and data[:1] == b" ":
            return False  # its decoder keeps the space, and it adds none before a space
        return self._shown[ids[0]].startswith(b" ")

    def _own_bytes(self, ids: Sequence[int], dummy: bool) -> list[bytes | None]:
        """List the tokens' bytes without dummy prefixes; None for the unknown token."""
        pieces: list[bytes | None] = [
            None if i == self.unknown_id else self._literal[i] for i in ids
        ]
        for j, piece in enumerate(pieces):
            # Some tokenizers put a space after every added token, too.
            after = self.dummy_prefix and j and ids[j - 1] in self.added_ids
            opens = dummy if j == 0 else after and ids[j - 1] != self.unknown_id
            if opens and piece and piece[:1] == b" " and ids[j] not in self.added_ids:
                pieces[j] = piece[1:]
        return pieces

    def _located(
        self,
        text: str,
        data: bytes,
        pieces: list[bytes | None],
        own: np.ndarray,
        backend: Any,
    ) -> tuple[np.ndarray, np.ndarray, Sequence[tuple[int, int]], bool]:
        """Find the spans of tokens whose bytes, dummy prefixes included, are not the text's."""
        if b"".join(p or b"" for p in pieces) == data:
            stop = np.cumsum([len(p or b"") for p in pieces], dtype=np.int64)
            return np.concatenate([[0], stop[:-1]]).astype(np.int64), stop, (), False
        drops = self._spelling.byte_level and self.unknown_id is None
        everywhere = (
            None
            if drops
            else backend.encode(text, add_special_tokens=backend is self._backend).offsets
        )
        return locate(text, pieces, everywhere and [everywhere[i] for i in own])

    def _with_control(self) -> Any:
        """Return the tokenizer as it reads control tokens that are written in a text."""
        if self._templated is None:
            self._templated = self._copy()
            self._templated.encode_special_tokens = False
        return self._templated

    def _copy(self, **changed: Any) -> Any:
        if isinstance(self._backend, PythonBackend):
            return self._backend.copy()
        return copy_of(self._backend, **changed)

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
            if own := self.bytes_of[i]:
                found.setdefault(own, []).append(i)
        return found

    def first_tokens(
        self, strings: Sequence[bytes], *, at_start: bool = False, before_word: bool = False
    ) -> np.ndarray:
        """Find the first token of the tokenizer's own spelling of each byte string.

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
                self._first = {}
            self._first.update(((s, *how), t) for s, t in zip(missing, spelled, strict=True))
        return np.asarray([found[s] for s in strings], np.int64)

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
        for i, string in enumerate(strings):
            text = text_prefix(string)
            head = text.encode()
            if self._spelling.byte_level and not is_text(string):
                spelled[i] = self._spell_bytes(string)
            elif not self.spells_spaces:
                queues[False].append((i, text.lstrip(" "), head))
            elif self.dummy_prefix and not self._spelling.byte_level and text[:1] == " ":
                # A dummy prefix is the same piece as a space: spelling the rest with one also
                # survives normalisers that strip leading spaces.
                queues[True].append((i, text if at_start else text[1:], head))
            else:
                queues[at_start].append((i, text, head))
        for prefixed, queue in queues.items():
            backend = self._backend if prefixed else self._within_text()
            readings = backend.encode_batch_fast(
                [t + word if t else t for _, t, _ in queue], add_special_tokens=False
            )
            for (i, text, head), reading in zip(queue, readings, strict=True):
                ids = reading.ids if text or not head else [self.id_of(head)]
                rest = strings[i][len(head) :]
                spelled[i] = [*ids, *(self.id_of(bytes([b])) for b in rest)] if rest else ids
        shown = b" " if at_start else b""
        return [self._agreeing(ids, shown + s) for ids, s in zip(spelled, strings, strict=True)]

    def _agreeing(self, ids: Sequence[int], string: bytes) -> list[int]:
        """Return the tokens up to the first that is not made of the string's next bytes."""
        if not self.spells_spaces:
            string = string.lstrip(b" ")
        place = 0
        for n, i in enumerate(ids):
            own = self.bytes_of[i] if i >= 0 else None
            if not own or not string.startswith(own, place):
                return list(ids[:n])
            place += len(own)
        return list(ids)

    def _spell_bytes(self, string: bytes) -> list[int]:
        """Spell bytes that are no text with the model of a byte-level vocabulary."""
        try:
            tokens = self._backend.model.tokenize("".join(CHAR_OF[b] for b in string))
        except Exception:  # the Rust side knows one exception type only; slow ones have no model
            return [self.id_of(string[n : n + 1]) for n in range(len(string))]
        return [t.id for t in tokens]

    def _within_text(self) -> Any:
        """Return the tokenizer as it works within a text: without dummy prefixes."""
        if self._inner is None:
            self._inner = self._backend
            if self.dummy_prefix and isinstance(self._backend, PythonBackend):
                self._inner = self._backend.within_text()
            elif self.dummy_prefix:
                changed = ("normalizer", "pre_tokenizer")
                self._inner = self._copy(**{p: without_prefix(self._parts[p]) for p in changed})
        return self._inner
