"""Copies of the keys and values of texts' prefixes, with room for what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _CopiedLayer(DynamicLayer):
    """A layer's keys and values, whose room is filled in place: growing would copy them again."""

    def __init__(self, layer: Any, prefixes: Sequence[tuple[int, int]], room: int) -> None:
        """Copy a layer's prefixes; see `copy_prefixes`."""
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._length = max(n for _, n in prefixes)
        self.keys, self.values = (
            _padded_left(part, prefixes, self._length, room) for part in (layer.keys, layer.values)
        )

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put keys and values (c, heads, n, size) behind those so far, and return all."""
        end = self._length + key_states.shape[-2]
        assert self.keys is not None and self.values is not None
        self.keys[:, :, self._length : end] = key_states
        self.values[:, :, self._length : end] = value_states
        self._length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Return how many tokens there are, padding included and room apart."""
        return self._length


def _padded_left(
    part: torch.Tensor, prefixes: Sequence[tuple[int, int]], longest: int, room: int
) -> torch.Tensor:
    """Copy prefixes of (b, heads, n, size) to (c, heads, longest + room, size), zeros before."""
    _, heads, _, size = part.shape
    out = part.new_zeros(len(prefixes), heads, longest + room, size)
    for line, (text, n) in zip(out, prefixes, strict=True):
        line[:, longest - n : longest] = part[text, :, :n]
    return out


def copy_prefixes(cache: Any, prefixes: Sequence[tuple[int, int]], room: int) -> Any:
    """Copy keys and values to a cache of c lines, padded at the left.

    Args:
        cache: of b texts.
        prefixes: c times the number of a text and how many of its tokens to take.
        room: tokens that will follow.
    """
    return Cache(layers=[_CopiedLayer(layer, prefixes, room) for layer in cache.layers])
