"""Tokenizers of `transformers` that have no Rust form, behind the calls that `TextTokenizer` makes.

They are described in the parts of a `tokenizers` file, so that one reading serves both kinds. Byte
vocabularies (ByT5), SentencePiece models, WordPiece and the byte alphabet of GPT-2 are known; an
entry of any other kind means its characters, and what that does not reproduce is lost text, named
as such.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .vocabulary import BYTE_OF, CHAR_OF, MARKER, RAW_BYTES

_PROBE = "é1"
_SEPARATORS = ("\n", "(", "0", ".", "“", "a")
_ENDINGS = {"end_of_word_suffix": "</w>", "continuing_suffix": "@@"}


@dataclass(frozen=True)
class PythonReading:
    """What a text became; `offsets` are unknown."""

    ids: list[int]
    special_tokens_mask: list[int]
    offsets: None = None


class PythonBackend:
    """A slow tokenizer with the methods of `tokenizers.Tokenizer` that are used here."""

    def __init__(self, tokenizer: Any) -> None:
        """Take a tokenizer of `transformers`."""
        self._tokenizer = tokenizer
        self.encode_special_tokens = True

    @property
    def sentencepiece(self) -> Any:
        """The SentencePiece model behind it, or None."""
        return getattr(self._tokenizer, "sp_model", None)

    def no_truncation(self) -> None:
        """Do nothing: a call truncates only on request."""

    def no_padding(self) -> None:
        """Do nothing: a call pads only on request."""

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Return entry -> id, added tokens included."""
        return self._tokenizer.get_vocab()

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """Return id -> added token."""
        return self._tokenizer.added_tokens_decoder

    def parts(self) -> dict[str, Any]:
        """Describe the tokenizer in the parts of a `tokenizers` file."""
        native = self._tokenizer
        model: dict[str, Any] = {"type": "Python", "unk_token": native.unk_token}
        decoder: dict[str, Any] | None = None
        pieces = native.convert_ids_to_tokens(self._ids(_PROBE, False))
        if pieces == [chr(b) for b in _PROBE.encode()]:
            decoder = {"type": RAW_BYTES}
        elif hasattr(native, "sp_model"):
            marks = {"type": "Replace", "pattern": {"String": MARKER}, "content": " "}
            decoder = {"type": "Sequence", "decoders": [marks, {"type": "ByteFallback"}]}
        elif hasattr(native, "wordpiece_tokenizer"):
            model |= {"type": "WordPiece", "continuing_subword_prefix": "##"}
        elif "".join(pieces) == "".join(CHAR_OF[b] for b in _PROBE.encode()) and set(
            "".join(pieces)
        ) <= set(BYTE_OF):
            decoder = {"type": "ByteLevel"}
        else:
            model |= {name: mark for name, mark in _ENDINGS.items() if self._drops(mark)}
        return {"model": model, "decoder": decoder, "normalizer": None, "pre_tokenizer": None}

    def _drops(self, mark: str) -> bool:
        """Tell whether a mark at a token's end says only whether its word goes on."""
        try:
            text = self._tokenizer.convert_tokens_to_string([f"a{mark}", "b"])
        except Exception:  # of any kind: a tokenizer that knows no such tokens
            return False
        return text.replace(" ", "") == "ab"

    def to_str(self) -> str:
        """Describe the tokenizer as a file would, its vocabulary by its hash."""
        native = self._tokenizer
        added = [
            (i, str(t), getattr(t, "special", False))
            for i, t in self.get_added_tokens_decoder().items()
        ]
        content = json.dumps(sorted(self.get_vocab().items()))
        if hasattr(native, "sp_model"):
            content += native.sp_model.serialized_model_proto().hex()
        described = {
            "added_tokens": added,
            "class": type(native).__name__,
            "content": hashlib.sha256(content.encode()).hexdigest(),
        }
        return json.dumps(self.parts() | described, sort_keys=True)

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=self.encode_special_tokens,
            verbose=False,
        )["input_ids"]

    def encode(self, text: str, add_special_tokens: bool = True) -> PythonReading:
        """Encode a text; of the ids, those are special that are not there without specials."""
        plain = self._ids(text, False)
        if not add_special_tokens:
            return PythonReading(plain, [0] * len(plain))
        ids = self._ids(text, True)
        more = len(ids) - len(plain)
        before = next((n for n in range(more + 1) if ids[n : n + len(plain)] == plain), 0)
        mask = [1] * before + [0] * len(plain) + [1] * (more - before)
        return PythonReading(ids, mask)

    def encode_batch_fast(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[PythonReading]:
        """Encode texts one after the other."""
        return [self.encode(t, add_special_tokens) for t in texts]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Write tokens as a text, as the tokenizer itself does."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def copy(self) -> PythonBackend:
        """Return another backend of the same tokenizer."""
        return PythonBackend(self._tokenizer)

    def within_text(self) -> _WithinText:
        """Return the tokenizer as it works within a text, after something else."""
        return _WithinText(self)


class _WithinText:
    """Spells texts after a separator that remains a token by itself."""

    def __init__(self, backend: PythonBackend) -> None:
        self._backend = backend

    def encode_batch_fast(
        self, texts: Sequence[str], add_special_tokens: bool = False
    ) -> list[PythonReading]:
        return [self._encode(t) for t in texts]

    def _encode(self, text: str) -> PythonReading:
        for separator in _SEPARATORS:
            head = self._backend.encode(separator, False).ids
            ids = self._backend.encode(separator + text, False).ids
            if ids[: len(head)] == head:
                return PythonReading(ids[len(head) :], [0] * (len(ids) - len(head)))
        return PythonReading([], [])
