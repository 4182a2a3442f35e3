"""`TextTokenizer`: texts -> encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from tokenizers import Tokenizer

from fusion_core.config import utf8
from fusion_core.records import Encoding

from .checks import panics_said
from .python import PythonBackend
from .spans import locate
from .spelling import Speller

if TYPE_CHECKING:
    from .canonical import Canonical
    from .lookup import ByteIndex

TOKENS_BEFORE = 8
"""Tokens that are decoded before one, to see what it adds."""


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


class TextTokenizer(Speller):
    """A tokenizer whose tokens are bytes.

    Attributes:
        name: what the caller calls it.
        size: one more than the largest id; ids below it may be unused.
        bytes_of: for each id the bytes of text that it represents; None for special tokens, the
            unknown token and unused ids.
        unused_ids: ids below `size` that have no token.
        special_ids: ids without text: control tokens and the unknown token.
        unknown_id: token in place of what the vocabulary has not, or None.
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
        """Read a backend; from then on it belongs to this object."""
        super().__init__(backend, name, start_id=start_id, eos_id=eos_id)
        self.render = render

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is looked up behind in copies, and in what goes to other processes."""
        return {k: v for k, v in vars(self).items() if k not in ("byte_index", "canonical")}

    @cached_property
    def byte_index(self) -> ByteIndex:
        """The tokens in the order of their bytes."""
        from .lookup import ByteIndex

        return ByteIndex(enumerate(self.bytes_of))

    @cached_property
    def canonical(self) -> Canonical:
        """How the tokenizer spells the beginnings of texts."""
        from .canonical import Canonical

        return Canonical(self)

    @property
    def eos_id(self) -> int | None:
        """The token that ends a document where one has to be named, or None."""
        return self.end_ids[0] if self.end_ids else None

    @property
    def as_stated(self) -> bool:
        """Whether documents begin and end with what the tokenizer's files name."""
        return (self.start_id, self.end_ids) == self._stated

    def with_document_tokens(self, start_id: int | None, end_ids: Sequence[int]) -> TextTokenizer:
        """Return the same tokenizer with other tokens before and after documents.

        Args:
            start_id: what is read before a document, or None.
            end_ids: what ends it, the token that is taught first.
        """
        changed = copy(self)
        changed.start_id, changed.end_ids = start_id, tuple(dict.fromkeys(end_ids))
        named = {i for i in (start_id, *end_ids) if i is not None}
        if named - self.special_ids:
            changed.special_ids = self.special_ids | named
            changed.bytes_of = self._without({*self.unused_ids.tolist(), *changed.special_ids})
            for of_bytes in ("ids_of", "_first"):
                changed.__dict__.pop(of_bytes, None)
        return changed

    @cached_property
    def _shown(self) -> list[bytes]:
        """What each token adds to a text that is reproduced: the unknown token nothing."""
        shown = list(self._literal)
        if self.unknown_id is not None:
            shown[self.unknown_id] = b""
        return shown

    @cached_property
    def _width(self) -> np.ndarray:
        return np.fromiter(map(len, self._shown), np.int64, self.size)

    def encode(self, text: str, *, template: bool = False) -> Encoding:
        """Encode a text; see `encode_batch`."""
        return self.encode_batch([text], template=template)[0]

    @panics_said
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
        backend = self._with_control if template else self._backend
        # Offsets take time, and only texts that are not reproduced need them.
        raws = backend.encode_batch_fast(list(texts), add_special_tokens=not template)
        return [
            self._encoding(text, string, raw.ids, raw.special_tokens_mask, backend)
            for text, string, raw in zip(texts, data, raws, strict=True)
        ]

    def _encoding(
        self, text: str, data: bytes, raw_ids: list[int], mask: list[int], backend: Any
    ) -> Encoding:
        ids = np.asarray(raw_ids, np.int64)
        special = np.asarray(mask, bool)
        inserted = special.any()
        native = np.flatnonzero(~special) if inserted else np.arange(len(ids))
        listed = [i for i, s in zip(raw_ids, mask, strict=True) if not s] if inserted else raw_ids
        whole = b"".join([self._shown[i] for i in listed])
        dummy = self._opens_with_dummy(listed, data)
        start, end = np.zeros((2, len(ids)), np.int64)
        lost: Sequence[tuple[int, int]] = ()
        extra = False
        if whole[dummy:] == data and len(data):
            width = self._width[ids]
            width[special] = 0
            width[native[:1]] -= dummy
            end = np.cumsum(width)
            start = end - width
        else:
            pieces = self._text_bytes(listed, dummy)
            start[native], end[native], lost, extra = self._located(
                text, data, pieces, native, backend
            )
            if len(native):
                start[native[-1] + 1 :] = end[native[-1] + 1 :] = len(data)
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
        """Spell the text of a whole document's tokens.

        Args:
            ids: tokens; special ones spell nothing.

        Returns:
            The text, without a dummy prefix; None where the bytes are no UTF-8.
        """
        text = [i for i in ids if i < self.size and i not in self.special_ids]
        if not self.spells_spaces:
            return self._decoded(text)
        pieces = self._text_bytes(text, self._opens_with_dummy(text, b""))
        try:
            return b"".join(p or b"" for p in pieces).decode("utf-8")
        except UnicodeDecodeError:
            return None

    def adds(self, before: Sequence[int], token: int) -> bytes:
        """Return what a token adds to a text that ends in other tokens.

        That is the token's bytes, with the space that its place implies where none spells it.
        """
        added = self.bytes_of[token] or b""
        if self.spells_spaces or not added:
            return added
        head = [i for i in before[-TOKENS_BEFORE:] if self.bytes_of[i]]
        more = self._decoded([*head, token]).count(" ") - self._decoded(head).count(" ")
        return b" " + added if more > 0 else added

    @panics_said
    def _decoded(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def _opens_with_dummy(self, ids: Sequence[int], data: bytes) -> bool:
        """Tell whether the first token carries a space that is not in the text."""
        if not self.dummy_prefix or not ids or ids[0] in self.added_ids:
            return False
        if self._spelling.byte_level and data[:1] == b" ":
            return False  # its decoder keeps the space, and it adds none before a space
        return self._shown[ids[0]].startswith(b" ")

    def _text_bytes(self, ids: Sequence[int], dummy: bool) -> list[bytes | None]:
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
        native: np.ndarray,
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
        return locate(text, pieces, everywhere and [everywhere[i] for i in native])

    @cached_property
    def _with_control(self) -> Any:
        """The tokenizer as it reads control tokens that are written in a text."""
        changed = self._copy()
        changed.encode_special_tokens = False
        return changed
