"""Trial of a stranger's model or tokenizer, in a process that may die of it (`isolated`).

The libraries are imported here, before the limits: an import that runs out of memory half way
leaves an interpreter that fails anyhow, or never ends.
"""

from __future__ import annotations

import safetensors.torch  # noqa: F401
import torch  # noqa: F401
from transformers import (  # noqa: F401
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from .load import load, load_tokenizer

PROBES = ("the cat sat on the mat", "def add(a, b):\n    return a + b\n", "naïve 東京 🐈", "a" * 99)
"""Texts that a tokenizer is tried on."""


def try_tokenizer(name: str) -> None:
    """Load a tokenizer, and encode a few texts with it.

    Raises:
        FusionError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(name)
    encodings = tokenizer.encode_batch(PROBES)
    tokenizer.spellings([e.data for e in encodings])


def try_model(name: str, max_bytes: int | None) -> None:
    """Load a model on the CPU, which runs it on a few tokens.

    Raises:
        FusionError: as `load`.
    """
    load(name, max_bytes=max_bytes)
