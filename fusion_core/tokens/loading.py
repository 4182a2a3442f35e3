"""Tokenizers of folders, the hub and `transformers`, as `TextTokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusion_core.errors import FusionError, ModelFormatError

from .checks import check_files, fetched, is_panic
from .python import PythonBackend
from .tokenizer import TextTokenizer


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
        **options: passed to `AutoTokenizer.from_pretrained` (``revision``, ``token``, or
            ``gguf_file``, a file of the folder that holds the tokenizer).

    Raises:
        ModelFormatError: there is no usable tokenizer.
    """
    from transformers import AutoTokenizer

    shown = name or str(source)
    try:
        if "gguf_file" in options:
            pass
        elif Path(source).is_dir():
            check_files(shown, Path(source))
        else:
            options = fetched(shown, str(source), options)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
        return from_transformers(tokenizer, shown)
    except FusionError:
        raise
    except BaseException as error:  # transformers and the Rust side raise many types here
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ModelFormatError(
            f"The tokenizer of {shown} cannot be loaded ({type(error).__name__}: "
            f"{str(error)[:200]}): check that tokenizer.json is there and whole."
        ) from error
