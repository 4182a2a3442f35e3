"""Text -> `Encoding`: token ids with the bytes that each of them covers.

The one room that knows how tokenizers spell bytes: the word-start marker of SentencePiece, the
byte alphabet of GPT-2, byte pieces, `##`, dummy prefixes. What a tokenizer does is read from its
own parts (model, normaliser, pre-tokenizer, decoder) and from what it answers, never from its name.

    parts      tokenizer -> what it is made of, and copies with changed parts
    spelling   vocabulary entries -> bytes
    python     tokenizers without a Rust form, behind the same calls
    tokenizer  `TextTokenizer`: texts -> encodings, byte strings -> spellings
    lookup     known bytes -> the tokens that go on after them, and with which characters
    chat       messages in a model's own chat template -> an encoding of their contents
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusion_core.errors import FusionError, ModelFormatError

from .chat import encode_chat
from .lookup import ByteIndex, CharacterTable, Continuations
from .python import PythonBackend
from .tokenizer import TextTokenizer

__all__ = [
    "ByteIndex",
    "CharacterTable",
    "Continuations",
    "TextTokenizer",
    "encode_chat",
    "from_transformers",
    "load",
]


def from_transformers(tokenizer: Any, name: str) -> TextTokenizer:
    """Wrap a tokenizer of `transformers`, fast or slow.

    Raises:
        ModelFormatError: it is neither.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None and hasattr(tokenizer, "added_tokens_decoder"):
        backend = PythonBackend(tokenizer)
    if backend is None:
        raise ModelFormatError(
            f"The tokenizer of {name} is of an unknown kind: save it as tokenizer.json with "
            "PreTrainedTokenizerFast.save_pretrained and name that folder."
        )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = bos if bos is not None else eos
    render = tokenizer.apply_chat_template if getattr(tokenizer, "chat_template", None) else None
    return TextTokenizer(backend, name, start_id=start, eos_id=eos, render=render)


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
