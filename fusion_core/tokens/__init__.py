"""Text -> `Encoding`: token ids with the bytes that each of them covers.

The one room that knows how tokenizers spell bytes: the word-start marker of SentencePiece, the
byte alphabet of GPT-2, byte pieces, `##`, dummy prefixes. What a tokenizer does is read from its
parts (model, normaliser, pre-tokenizer, decoder) and from what it answers, never from its name.

    checks      files of strangers -> what memory and time allow
    parts       a tokenizer -> what it is made of, in the words of a file
    vocabulary  parts -> entries as bytes
    python      tokenizers without a Rust form, behind the same calls
    spelling    byte strings -> tokens
    tokenizer   texts -> encodings; `TextTokenizer` is a vocabulary that spells and encodes
    loading     folders, the hub, `transformers` -> `TextTokenizer`
    spans       encodings of texts that tokens do not reproduce
    canonical   beginnings of texts -> tokens, as they are spelled if nothing follows
    lookup      known bytes -> the tokens that go on after them, and with which characters
    chat        messages in a model's chat template -> an encoding of their contents
"""

from __future__ import annotations

from .canonical import AFTER_SPACE, Canonical
from .chat import encode_chat
from .loading import from_transformers, load
from .lookup import ByteIndex, CharacterTable, Continuations
from .tokenizer import TextTokenizer

__all__ = [
    "AFTER_SPACE",
    "ByteIndex",
    "Canonical",
    "CharacterTable",
    "Continuations",
    "TextTokenizer",
    "encode_chat",
    "from_transformers",
    "load",
]
