"""Text -> `Encoding`: token ids with the bytes that each of them covers.

The one room that knows how tokenizers spell bytes: the word-start marker of SentencePiece, the
byte alphabet of GPT-2, byte pieces, `##`, dummy prefixes. What a tokenizer does is read from its
own parts (model, normaliser, pre-tokenizer, decoder) and from what it answers, never from its name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from .config import utf8
from .errors import FusionError, ModelFormatError
from .records import Encoding
from .spans import locate

MARKER = "▁"
MAX_SPELLINGS = 2_000_000
"""Spellings of byte strings that a tokenizer remembers before it starts afresh."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Return the printable stand-ins of byte-level vocabularies (GPT-2): character -> byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()
_CHAR_OF = {b: c for c, b in _BYTE_OF.items()}


class TextTokenizer:
    """A tokenizer whose tokens are bytes.

    Attributes:
        name: what the caller calls it.
        size: one more than the largest id; ids below it may be unused.
        bytes_of: for each id the bytes of text that it stands for; None for special tokens, the
            unknown token and unused ids.
        unused_ids: ids below `size` that have no token.
        special_ids: ids that stand for no text: control tokens and the unknown token.
        is_byte_piece: (size,) bool, ids such as `<0xE6>`, spelled when no other piece fits.
        start_id: token that a model reads first (BOS, else EOS), or None.
        eos_id: end of text, or None.
        dummy_prefix: the tokenizer puts a space before a text that has none there.
        key: SHA-256 of everything that decides ids and bytes.
        vocabulary_key: SHA-256 of what each id stands for.
    """

    def __init__(
        self, backend: Tokenizer, name: str, *, start_id: int | None, eos_id: int | None
    ) -> None:
        """Read a `tokenizers.Tokenizer`; it is from then on owned by this object."""
        self.name = name
        self.start_id, self.eos_id = start_id, eos_id
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        serialised = backend.to_str()
        self.key = hashlib.sha256(f"{serialised}|{start_id}|{eos_id}".encode()).hexdigest()
        self._parts: dict[str, Any] = json.loads(serialised)
        model = self._parts["model"]
        self._byte_level = _holds(self._parts["decoder"], "ByteLevel") or _holds(
            self._parts["pre_tokenizer"], "ByteLevel"
        )
        self._byte_pieces = model.get("byte_fallback") or _holds(
            self._parts["decoder"], "ByteFallback"
        )
        self._continuing = (
            model.get("continuing_subword_prefix") if model["type"] == "WordPiece" else None
        )
        self._suffix = model.get("end_of_word_suffix") or ""
        self._read_vocabulary()
        control = sorted((i, self._strings[i]) for i in self.special_ids)
        meaning = repr((self.bytes_of, control, eos_id))
        self.vocabulary_key = hashlib.sha256(meaning.encode()).hexdigest()
        self._inner: Tokenizer | None = None
        self._id_of: dict[bytes, int] | None = None
        self._first: dict[tuple[bytes, bool], int] = {}
        self.dummy_prefix = self._prefixes_a_space()

    def _prefixes_a_space(self) -> bool:
        """Spell one character that the vocabulary has, and look for a space before it."""
        known = (b for b in self.bytes_of if b and not b.isspace() and _is_text(b))
        probe = min(known, key=lambda b: (b != b"a", len(b), b), default=b"a")
        reading = self._backend.encode(probe.decode(), add_special_tokens=False)
        return b"".join(self._literal[i] for i in reading.ids) == b" " + probe

    def _read_vocabulary(self) -> None:
        vocab = self._backend.get_vocab(with_added_tokens=True)
        if not vocab:
            raise ModelFormatError(f"The tokenizer of {self.name} has an empty vocabulary.")
        added = {a["id"]: a for a in self._parts["added_tokens"]}
        model = self._parts["model"]
        unknown = model.get("unk_token")
        unknown_id = vocab.get(unknown) if unknown else model.get("unk_id")
        self.size = max(vocab.values()) + 1
        self._strings: list[str | None] = [None] * self.size
        self._literal = [b""] * self.size
        self.is_byte_piece = np.zeros(self.size, bool)
        for string, i in vocab.items():
            self._strings[i] = string
            self._literal[i] = (
                added[i]["content"].encode() if i in added else self._spell(string, i)
            )
        special = {i for i, a in added.items() if a["special"]} | {
            i for i in (unknown_id, self.start_id, self.eos_id) if i is not None
        }
        self._unknown_id = unknown_id
        self.unused_ids = np.asarray(
            [i for i, s in enumerate(self._strings) if s is None], dtype=np.int64
        )
        self.special_ids = frozenset(i for i in special if i < self.size)
        self._added_ids = frozenset(added)
        self.bytes_of: tuple[bytes | None, ...] = tuple(
            None if self._strings[i] is None or i in self.special_ids else self._literal[i]
            for i in range(self.size)
        )

    def _spell(self, string: str, token_id: int) -> bytes:
        """Return the bytes of a vocabulary entry that is no added token."""
        if self._byte_level:
            if all(c in _BYTE_OF for c in string):
                return bytes(_BYTE_OF[c] for c in string)
            return string.encode()
        if self._byte_pieces and (match := _BYTE_PIECE.fullmatch(string)):
            self.is_byte_piece[token_id] = True
            return bytes([int(match[1], 16)])
        if self._continuing and string.startswith(self._continuing):
            return string[len(self._continuing) :].encode()
        if self._suffix:
            string = string.removesuffix(self._suffix)
        return string.replace(MARKER, " ").encode("utf-8", "replace")

    def piece(self, token_id: int) -> str:
        r"""Return a token as readable text; bytes that are no text stand as ``\xNN``."""
        if not 0 <= token_id < self.size or self._strings[token_id] is None:
            return f"[{token_id}]"
        return self._literal[token_id].decode("utf-8", "backslashreplace")

    def published_strings(self) -> tuple[list[str | None], str]:
        """Return the vocabulary's raw strings by id, and the character that starts a word."""
        return list(self._strings), _CHAR_OF[0x20] if self._byte_level else MARKER

    def encode(self, text: str) -> Encoding:
        """Encode a text; written special tokens such as ``</s>`` are ordinary bytes.

        Args:
            text: any Unicode text that is not empty.

        Returns:
            The encoding, with the specials that the tokenizer's post-processor inserts.

        Raises:
            InputError: the text is empty or holds lone surrogates.
        """
        data = utf8(text)
        raw = self._backend.encode(text, add_special_tokens=True)
        ids = np.asarray(raw.ids, np.int64)
        special = np.asarray(raw.special_tokens_mask, bool)
        own = np.flatnonzero(~special)
        pieces, dummy = self._own_bytes(ids[own], data)
        lost: Sequence[tuple[int, int]] = ()
        extra = False
        if b"".join(p or b"" for p in pieces) == data:
            stop = np.cumsum([len(p or b"") for p in pieces], dtype=np.int64)
            begin = np.concatenate([[0], stop[:-1]])
        else:
            everywhere = raw.offsets  # a fresh list at every access
            drops = self._byte_level and self._unknown_id is None
            offsets = None if drops else [everywhere[i] for i in own]
            begin, stop, lost, extra = locate(text, pieces, offsets)
        start = np.zeros(len(ids), np.int64)
        end = np.zeros(len(ids), np.int64)
        start[own], end[own] = begin, stop
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
            pieces=tuple(self.piece(i) for i in raw.ids),
            lost=tuple(lost),
            lossless=not lost and not extra,
            dummy_prefix=dummy,
        )

    def _own_bytes(self, ids: np.ndarray, data: bytes) -> tuple[list[bytes | None], bool]:
        """List the tokens' bytes without dummy prefixes, and tell whether the first had one."""
        pieces: list[bytes | None] = [
            None if i == self._unknown_id else self._literal[i] for i in ids
        ]
        if not self.dummy_prefix or not pieces:
            return pieces, False
        if self._byte_level and data[:1] == b" ":
            return pieces, False  # its decoder keeps the space, and it adds none before a space
        dummy = False
        for j, piece in enumerate(pieces):
            opens = j == 0 or (ids[j - 1] in self._added_ids and ids[j - 1] != self._unknown_id)
            if opens and piece and piece.startswith(b" ") and ids[j] not in self._added_ids:
                pieces[j] = piece[1:]
                dummy |= j == 0
        return pieces, dummy

    def id_of(self, string: bytes) -> int:
        """Return the token that is exactly these bytes (a real piece before a byte piece), or -1.

        Among equals the lowest id is taken.
        """
        if self._id_of is None:
            order = sorted(range(self.size), key=lambda i: (self.is_byte_piece[i], i), reverse=True)
            self._id_of = {b: i for i in order if (b := self.bytes_of[i])}
        return self._id_of.get(string, -1)

    def first_tokens(self, strings: Sequence[bytes], *, at_start: bool = False) -> np.ndarray:
        """Find the first token of the tokenizer's own spelling of each byte string.

        Args:
            strings: n byte strings; they need not be whole characters.
            at_start: spell them as the beginning of a text (with a dummy prefix, where the
                tokenizer has one); otherwise as they are spelled within a text.

        Returns:
            (n,) int64 ids; -1 where the string is empty or where the token is not made of the
            string's first bytes (a normaliser changed them, or they are unknown).
        """
        at_start = at_start and self.dummy_prefix
        found = {s: self._first.get((s, at_start), -1 if not s else None) for s in set(strings)}
        missing = [s for s, token in found.items() if token is None]
        if missing:
            spelled = self._spell_first(missing, at_start)
            found.update(zip(missing, spelled, strict=True))
            if len(self._first) > MAX_SPELLINGS:
                self._first = {}
            self._first.update(((s, at_start), t) for s, t in zip(missing, spelled, strict=True))
        return np.asarray([found[s] for s in strings], np.int64)

    def _spell_first(self, strings: Sequence[bytes], at_start: bool) -> list[int]:
        tokens = [-1] * len(strings)
        queues: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
        for i, string in enumerate(strings):
            text = _text_prefix(string)
            if self._byte_level and not _is_text(string):
                tokens[i] = self._first_of_bytes(string)
            elif self._continuing:
                queues[False].append((i, text.lstrip(" ")))
            elif self._marks_spaces and text.startswith(" ") and not at_start:
                # A dummy prefix is the same piece as a space: spelling the rest with one also
                # survives normalisers that strip leading spaces.
                queues[True].append((i, text[1:]))
            else:
                queues[at_start].append((i, text))
        for prefixed, queue in queues.items():
            backend = self._backend if prefixed else self._within_text()
            readings = backend.encode_batch([t for _, t in queue], add_special_tokens=False)
            for (i, text), reading in zip(queue, readings, strict=True):
                tokens[i] = reading.ids[0] if text and reading.ids else self.id_of(strings[i][:1])
        shown = b" " if at_start else b""
        return [
            t if t >= 0 and self._opens(t, shown + s) else -1
            for t, s in zip(tokens, strings, strict=True)
        ]

    @property
    def _marks_spaces(self) -> bool:
        return self.dummy_prefix and not self._byte_level

    def _opens(self, token_id: int, string: bytes) -> bool:
        own = self.bytes_of[token_id]
        if self._continuing:
            string = string.lstrip(b" ")
        return bool(own) and string.startswith(own or b"")

    def _first_of_bytes(self, string: bytes) -> int:
        """Spell bytes that are no text with the model of a byte-level vocabulary."""
        try:
            tokens = self._backend.model.tokenize("".join(_CHAR_OF[b] for b in string))
        except Exception:  # the Rust side knows one exception type only
            return self.id_of(string[:1])
        return tokens[0].id if tokens else -1

    def _within_text(self) -> Tokenizer:
        """Return the tokenizer as it works within a text: without dummy prefixes."""
        if self._inner is None:
            if self.dummy_prefix:
                parts = dict(self._parts)
                parts["normalizer"] = _without_prefix(parts["normalizer"])
                parts["pre_tokenizer"] = _without_prefix(parts["pre_tokenizer"])
                self._inner = Tokenizer.from_str(json.dumps(parts))
                self._inner.encode_special_tokens = True
            else:
                self._inner = self._backend
        return self._inner


def _is_text(string: bytes) -> bool:
    try:
        string.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text_prefix(string: bytes) -> str:
    """Return the longest beginning of a byte string that is whole characters."""
    try:
        return string.decode("utf-8")
    except UnicodeDecodeError as error:
        return string[: error.start].decode("utf-8")


def _holds(part: Any, kind: str) -> bool:
    """Tell whether a serialised tokenizer part is, or contains, a component of this type."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(_holds(v, kind) for v in part.values())
    return isinstance(part, list) and any(_holds(v, kind) for v in part)


def _without_prefix(part: Any) -> Any:
    """Return a normaliser or pre-tokenizer that adds no space before the text."""
    if not isinstance(part, dict):
        return part
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace":
        return part | {"prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return part | {"add_prefix_space": False}
    if part["type"] == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        return part | {key: [p for p in map(_without_prefix, part[key]) if p is not None]}
    return part


def from_transformers(tokenizer: Any, name: str) -> TextTokenizer:
    """Wrap a tokenizer of `transformers`.

    Raises:
        ModelFormatError: it has no `tokenizers` backend.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelFormatError(
            f"The tokenizer of {name} has no fast (Rust) form: save it as tokenizer.json with "
            "PreTrainedTokenizerFast.save_pretrained and name that folder."
        )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = bos if bos is not None else eos
    return TextTokenizer(backend, name, start_id=start, eos_id=eos)


def load(source: str | Path, name: str | None = None, **options: Any) -> TextTokenizer:
    """Load the tokenizer of a local folder or hub id; no weights are read.

    Args:
        source: folder or hub id.
        name: what to call it; the source by default.
        **options: passed to `AutoTokenizer.from_pretrained` (``revision``, ``token``).

    Raises:
        ModelFormatError: there is no usable tokenizer.
    """
    from transformers import AutoTokenizer

    shown = name or str(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        return from_transformers(tokenizer, shown)
    except FusionError:
        raise
    except Exception as error:  # transformers and the Rust side raise many types here
        raise ModelFormatError(
            f"The tokenizer of {shown} cannot be loaded ({type(error).__name__}: "
            f"{str(error)[:200]}): check that tokenizer.json is there and whole."
        ) from error
