"""Incremental reading: one model's rows on a text that grows, with its KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from cachetools import LRUCache

from fusion_core import models
from fusion_core.models import LoadedModel

BACK = 4
"""Boundaries before the text's end from which a source's token may reach beyond it."""

KEPT_ROWS = 2 * BACK
"""Rows of a text that are remembered, counted from the end."""

KEPT_PATHS = 64
"""Rows that are remembered, those of paths that leave the text included."""

Path = tuple[int, ...]


class Reader:
    """One model's reading of a text that grows: its cache is kept where the tokens are the same."""

    def __init__(self, model: LoadedModel) -> None:
        """Start with nothing read."""
        self.model = model
        start = model.tokenizer.start_id
        self._start: Path = () if start is None else (start,)
        self._side: Reader | None = None
        self._limited = "logits_to_keep" in inspect.signature(model.network.forward).parameters
        self.forget()

    def forget(self) -> None:
        """Start with nothing read."""
        self._ids: Path = ()
        self._cache: Any = None
        self._rows: LRUCache[Path, torch.Tensor] = LRUCache(KEPT_PATHS)
        if self._side:
            self._side.forget()

    def row(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the row after tokens, those of a start token apart; see `rows`."""
        return self.rows([ids])[0]

    def rows(self, paths: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the rows after paths, those of a text and of what leaves it near its end.

        The last ones are remembered. The others are read at once where the cache allows it.

        Args:
            paths: tokens, those of a start token apart.

        Returns:
            (vocabulary,) float32 probabilities for each. Where a model without a start token has
            read nothing, they are all the same.
        """
        wanted = [(*self._start, *path) for path in paths]
        found = {path: self._rows[path] for path in wanted if path in self._rows}
        missing = sorted({path for path in wanted if path not in found}, key=len, reverse=True)
        if missing and not missing[-1]:
            nothing = torch.zeros(1, self.model.tokenizer.size, device=self.model.device)
            found[missing.pop()] = models.log_softmax(self.model, nothing)[0].exp()
        for read in self._read(missing):
            self._rows.update(read)
            found.update(read)
        return [found[path] for path in wanted]

    def has_read(self, ids: Sequence[int]) -> bool:
        """Tell whether the row after tokens, those of a start token apart, is at hand."""
        return (*self._start, *ids) in self._rows

    def _read(self, paths: Sequence[Path]) -> Iterator[dict[Path, torch.Tensor]]:
        """Read paths, the longest first; yield the rows after their last tokens."""
        if not paths:
            return
        with models.reading(self.model, len(paths[0])):
            support = models.cache_support(self.model.network, self.model.tokenizer)
        if support.forks and self._cache is not None:
            yield self._forward(paths, support)
        elif support.crops:
            for path in paths:
                yield self._forward([path], support)
        else:  # a state that cannot be cut keeps to the text
            yield self._forward(paths[:1], support)
            for path in paths[1:]:
                self._side = self._side or Reader(self.model)
                yield self._side._forward([path], support)

    @torch.inference_mode()
    def _forward(
        self, paths: Sequence[Path], support: models.CacheSupport
    ) -> dict[Path, torch.Tensor]:
        """Read the tokens of paths that the cache has not, and keep the first one's."""
        network, device = self.model.network, self.model.device
        alike = takewhile(lambda ids: len(set(ids)) == 1, zip(self._ids, *paths, strict=False))
        same = min(sum(1 for _ in alike), min(map(len, paths)) - 1)
        surplus = len(self._ids) - same
        old, self._cache, self._ids = self._cache, None, ()
        more = [path[same:] for path in paths]
        with models.reading(self.model, sum(map(len, more))):
            if old is None or (surplus and not (support.crops and _cropped(old, surplus))):
                old, same, more = None, 0, list(paths)  # states that cannot be cut: all of it again
            longest = max(map(len, more))
            batch = torch.zeros(len(more), longest, dtype=torch.int64)
            for line, tokens in zip(batch, more, strict=True):
                line[: len(tokens)] = torch.as_tensor(tokens)
            # The logits of a long prompt at once would be the largest thing in memory.
            fewest = max(KEPT_ROWS, longest - min(map(len, more)) + 1)
            options = {"logits_to_keep": fewest} if self._limited else {}
            if len(more) > 1 and old is not None:
                old.batch_repeat_interleave(len(more))
            if support.step:
                out = models.read_on(network, batch.to(device), old, support.step, **options)
                self._cache = getattr(out, "past_key_values", None)
            else:
                out = network(input_ids=batch.to(device), use_cache=False, **options)
            if len(more) > 1 and self._cache is not None:
                self._cache.batch_select_indices(torch.zeros(1, dtype=torch.int64, device=device))
        self._ids = paths[0]
        ends = [
            (which, end, place)
            for which, tokens in enumerate(more)
            for end in range(max(1, len(tokens) - KEPT_ROWS + 1), len(tokens) + 1)
            if (place := out.logits.shape[1] - longest + end - 1) >= 0
        ]
        lines, _, places = zip(*ends, strict=True)
        probs = models.log_softmax(self.model, out.logits[list(lines), list(places)]).exp()
        return {paths[n][: same + end]: row for (n, end, _), row in zip(ends, probs, strict=True)}


def _cropped(cache: Any, surplus: int) -> bool:
    """Cut the last tokens off a cache; a sliding window that has moved on cannot be."""
    try:
        cache.crop(-surplus)
    except Exception:  # caches raise many types
        return False
    return True
