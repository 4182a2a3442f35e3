"""Incremental reading: one model's rows on a text that grows, with its KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from cachetools import LRUCache

from fusion_core import models
from fusion_core.models import LoadedModel

BACK = 4
"""Boundaries before the text's end from which a source's token may reach beyond it."""

KEPT_ASIDE = 64
"""Rows of paths that leave the text which are remembered."""

KEPT_ROWS = 2 * BACK
"""Rows of a reader that are remembered, counted from the end."""


class Reader:
    """One model's reading of a text that grows: its cache is kept where the tokens are the same."""

    def __init__(self, model: LoadedModel) -> None:
        """Start with nothing read."""
        self.model = model
        self._ids: list[int] = []
        self._cache: Any = None
        self._rows: dict[int, torch.Tensor] = {}
        self._side: Reader | None = None
        self._aside: LRUCache[tuple[int, ...], torch.Tensor] = LRUCache(KEPT_ASIDE)
        taken = inspect.signature(model.network.forward).parameters
        # The logits of a long prompt at once would be the largest thing in memory.
        self._last_rows = {"logits_to_keep": KEPT_ROWS} if "logits_to_keep" in taken else {}

    def row(self, ids: Sequence[int], back: int = 0) -> torch.Tensor:
        """Read tokens of the text, and return the row after all of them, or ``back`` before.

        Args:
            ids: the text's tokens, those of a start token apart.
            back: at most `BACK`.

        Returns:
            (vocabulary,) float32 probabilities. Where a model without a start token has read
            nothing, they are all the same.
        """
        start = self.model.tokenizer.start_id
        read = [*([] if start is None else [start]), *ids]
        wanted = len(read) - back
        read = read[:wanted]
        if not read:
            size = self.model.tokenizer.size
            nothing = torch.zeros(1, size, device=self.model.device)
            return models.log_softmax(self.model, nothing)[0].exp()
        same = 0
        for a, b in zip(self._ids, read, strict=False):
            if a != b:
                break
            same += 1
        if same == wanted and wanted in self._rows:
            return self._rows[wanted]
        self._forward(read, min(same, wanted - 1))
        return self._rows[wanted]

    def row_aside(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the row after tokens that leave the text, which stays as it has been read.

        The last of them are remembered: a text that grows by less than a word asks for the same.
        """
        key = tuple(ids)
        if key not in self._aside:
            self._side = self._side or Reader(self.model)
            self._aside[key] = self._side.row(ids)
        return self._aside[key]

    def forget(self) -> None:
        """Start with nothing read."""
        self._ids, self._cache, self._rows = [], None, {}
        self._side = None
        self._aside.clear()

    def has_read(self, ids: Sequence[int]) -> bool:
        """Tell whether the row after tokens, those of a start token apart, is at hand."""
        start = self.model.tokenizer.start_id
        read = [*([] if start is None else [start]), *ids]
        return self._ids[: len(read)] == read and len(read) in self._rows

    @torch.inference_mode()
    def _forward(self, read: list[int], same: int) -> None:
        """Read the tokens after the first ``same``, which the cache may have."""
        network = self.model.network
        surplus = len(self._ids) - same
        old, self._cache, self._ids = self._cache, None, []
        with models.reading(self.model, len(read)):
            support = models.cache_support(network, self.model.tokenizer)
            if old is None or (surplus and not (support.crops and _cropped(old, surplus))):
                old, same = None, 0  # states that cannot be cut: read all of it again
            batch = torch.as_tensor([read[same:]], device=self.model.device)
            if support.step:
                out = models.read_on(network, batch, old, support.step, **self._last_rows)
                self._cache = getattr(out, "past_key_values", None)
            else:
                out = network(input_ids=batch, use_cache=False, **self._last_rows)
        self._ids = read
        logits = out.logits[0, -KEPT_ROWS:]
        probs = models.log_softmax(self.model, logits).exp()
        first = len(read) - len(probs) + 1
        kept = {n: r for n, r in self._rows.items() if n <= same and n > len(read) - KEPT_ROWS}
        self._rows = kept | {first + n: row for n, row in enumerate(probs)}


def _cropped(cache: Any, surplus: int) -> bool:
    """Cut the last tokens off a cache; a sliding window that has moved on cannot be."""
    try:
        cache.crop(-surplus)
    except Exception:  # caches raise many types
        return False
    return True
