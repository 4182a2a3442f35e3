"""Tokenizers alone, shared by all visitors; those of strangers are tried elsewhere first."""

from __future__ import annotations

import threading
from functools import lru_cache

from cachetools import LRUCache, cached

from fusion_core import isolated, models
from fusion_core.tokens import TextTokenizer

from ..limits import Limits

ID_BYTES = 600
"""Memory that an id of a vocabulary takes: its strings, bytes and tables, measured."""

TRIAL_BYTES, TRIAL_SECONDS = 1 << 30, 60.0
"""What the trial of a tokenizer may take; those of 262,144 ids take half of both."""

KEPT_NAMES = 256


class Trials:
    """Trials of models that strangers name: each is loaded once in a process that may die of it."""

    def __init__(self, limits: Limits) -> None:
        """Start with nothing tried; ``limits`` say whether strangers come here, and how large."""
        self._limits = limits
        self._lock = {"tokenizer": threading.Lock(), "model": threading.Lock()}
        self._tried = lru_cache(maxsize=KEPT_NAMES)(self._try)

    def tokenizer(self, name: str) -> None:
        """Try a tokenizer, unless it is embedded or lived through that before.

        Raises:
            FusionError: it cannot be used, or its process did not live.
        """
        self._check("tokenizer", name)

    def model(self, name: str) -> None:
        """Try a model likewise."""
        self._check("model", name)

    def _check(self, kind: str, name: str) -> None:
        if self._limits.public and not name.startswith("zoo:") and not _made_here(name):
            with self._lock[kind]:  # one at a time, so that their memory does not add up
                self._tried(kind, name)

    def _try(self, kind: str, name: str) -> None:
        if kind == "tokenizer":
            isolated.call(
                "models.trial:try_tokenizer",
                name,
                memory=TRIAL_BYTES,
                seconds=TRIAL_SECONDS,
                what=f"The tokenizer of {name}",
            )
            return
        most = self._limits.model_bytes
        isolated.call(
            "models.trial:try_model",
            name,
            most,
            memory=TRIAL_BYTES + 2 * (most or models.MAX_BYTES),
            what=f"The model {name}",
        )


def _made_here(name: str) -> bool:
    """Tell whether a model was trained here: a visitor's request names no folder on a public page.

    `requests` sees to that; what is left are the folders that `JobStore.resolve` returned.
    """
    return name.startswith("/")


class TokenizerCache:
    """Tokenizers, the most recently used ones within a limit of memory."""

    def __init__(self, limits: Limits, trials: Trials) -> None:
        """Start empty."""
        most = limits.tokenizer_bytes
        kept: LRUCache[str, TextTokenizer] = LRUCache(
            most, getsizeof=lambda tokenizer: min(most, tokenizer.size * ID_BYTES)
        )

        def load(name: str) -> TextTokenizer:
            trials.tokenizer(name)
            return models.load_tokenizer(name)

        self.get = cached(kept, key=str, condition=threading.Condition())(load)
