"""Batched decoding: one model continues many prompts at once, with a KV cache."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer

from fusion_core import models
from fusion_core.models import LoadedModel
from fusion_core.models.rows import with_start

DROPPED_SHARE = 8
"""A batch is made smaller when one row of so many has ended: each time, the cache is copied."""

ROOM = 64
"""Positions that a cache has room for at first; it grows by half."""


@dataclass(frozen=True, eq=False)
class Continuation:
    """A prompt and what a model has written behind it.

    Attributes:
        ids: (m,) int64, of the prompt, too; without a start token and an end.
        ended: whether the model ended it; else it is as long as it may be.
    """

    ids: np.ndarray
    ended: bool


@torch.inference_mode()
def continue_batch(
    model: LoadedModel,
    prompts: Sequence[np.ndarray],
    longest: int,
    *,
    seed: int,
    temperature: float = 1.0,
) -> list[Continuation]:
    """Continue prompts, all in step: shorter ones go on while longer ones are still being read.

    No row is padded, so that any network reads what it would read of a row by itself. What is drawn
    for a row depends on its place among the prompts alone, not on where the others end.

    Args:
        model: that writes.
        prompts: b lists of ids, without a start token; none empty where the model has none.
        longest: most tokens of a row, start token included.
        seed: of the draws.
        temperature: what the logits are divided by.
    """
    rows = with_start(model, prompts)
    given = np.full((len(rows), longest), -1, np.int64)
    for line, row in zip(given, rows, strict=True):
        line[: len(row)] = row[:longest]
    written, ended = given.copy(), np.zeros(len(rows), bool)
    ends = np.asarray(model.tokenizer.end_ids)
    draws = torch.Generator().manual_seed(seed)
    reader = _BatchReader(model)
    alive = np.arange(len(rows))  # numbers of the rows that are read, some of which have ended
    first = min(map(len, rows))
    ids = given[:, :first]
    for place in range(first, longest):
        uniform = torch.rand(len(rows), generator=draws, dtype=torch.float64)
        chosen = draw(model, reader.read_on(ids), uniform[alive], temperature)
        forced = given[alive, place]
        chosen = np.where(forced >= 0, forced, chosen)
        ended[alive] |= (forced < 0) & np.isin(chosen, ends)
        running = ~ended[alive]
        written[alive[running], place] = chosen[running]
        if not running.any():
            break
        if DROPPED_SHARE * running.sum() <= (DROPPED_SHARE - 1) * len(alive):
            reader.select(np.flatnonzero(running))
            alive, chosen = alive[running], chosen[running]
        ids = chosen[:, None]
    skipped = len(rows[0]) - len(prompts[0])
    return [
        Continuation(line[skipped:][line[skipped:] >= 0], bool(end))
        for line, end in zip(written, ended, strict=True)
    ]


def draw(
    model: LoadedModel, logits: torch.Tensor, uniform: torch.Tensor, temperature: float
) -> np.ndarray:
    """Draw a token from each row by its cumulated probabilities.

    Args:
        model: whose rows these are.
        logits: (b, head).
        uniform: (b,) float64 draws from [0, 1).
        temperature: what the logits are divided by.

    Returns:
        (b,) int64 ids.
    """
    probs = models.log_softmax(model, logits / temperature).exp()
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    up_to = probs.cumsum(1, dtype=exact)  # (b, vocabulary)
    # Below the sum of all, whatever is rounded: what has no probability is never drawn.
    at = uniform.clamp(max=1 - 2**-20 if exact == torch.float32 else 1 - 2**-50)
    at = at.to(up_to.device, exact)[:, None] * up_to[:, -1:]
    return torch.searchsorted(up_to, at, right=True)[:, 0].cpu().numpy()


class _BatchReader:
    """Reading of a batch of rows of one length that grow, with a cache where it is of use."""

    def __init__(self, model: LoadedModel) -> None:
        self._model, self._cache = model, None
        limited = "logits_to_keep" in inspect.signature(model.network.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if limited else {}
        self._ids: np.ndarray | None = None

    def read_on(self, ids: np.ndarray) -> torch.Tensor:
        """Read (b, n) more tokens: (b, head) logits after the last of them."""
        model = self._model
        with models.reading(model, ids.size):
            step = models.cache_support(model.network, model.tokenizer).step
            if not step:  # all of it again
                ids = ids if self._ids is None else np.concatenate([self._ids, ids], axis=1)
                self._ids = ids
                batch = torch.as_tensor(ids, device=model.device)
                out = model.network(input_ids=batch, use_cache=False, **self._options)
                return out.logits[:, -1]
            batch = torch.as_tensor(ids, device=model.device)
            out = models.read_on(model.network, batch, self._cache, step, **self._options)
            if self._cache is None:
                self._cache = _with_room(getattr(out, "past_key_values", None))
        return out.logits[:, -1]

    def select(self, rows: np.ndarray) -> None:
        """Keep some of the rows."""
        if self._ids is not None:
            self._ids = self._ids[rows]
        if self._cache is not None:
            self._cache.reorder_cache(torch.as_tensor(rows, device=self._model.device))


class _GrowingLayer(DynamicLayer):
    """A layer's keys and values with room to grow: the library's copies all of them each time."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take over what another layer holds."""
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._rooms = [keys, values]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values (b, heads, n, size) behind those so far, and return all."""
        now = self.get_seq_length()
        end = now + key_states.shape[-2]
        for n, states in enumerate((key_states, value_states)):
            if self._rooms[n].shape[2] < end:
                b, heads, _, size = states.shape
                room = states.new_empty(b, heads, max(3 * end // 2, ROOM), size)
                room[:, :, :now] = self._rooms[n][:, :, :now]
                self._rooms[n] = room
            self._rooms[n][:, :, now:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._rooms)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep some of the rows, with their room."""
        now = self.get_seq_length()
        self._rooms = [room[beam_idx] for room in self._rooms]
        self.keys, self.values = (room[:, :, :now] for room in self._rooms)


def _with_room(cache: Any) -> Any:
    """Let the plain layers of a cache grow in place; others stay as they are."""
    for n, layer in enumerate(getattr(cache, "layers", ())):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[n] = _GrowingLayer(layer.keys, layer.values)
    return cache
