"""Ways to read side paths of texts: as a tree, behind copies of keys and values, or again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .load import LoadedModel
from .rows import batch_tokens, batches, forward, log_softmax, padded, reading

COPIED_BYTES = (1 << 25, 1 << 28)
"""Least and most bytes of keys and values that are copied at once: as many as the weights between
them, which each batch reads. Less would read weights too often; more is more padding."""


@dataclass(frozen=True)
class Node:
    """A token on a side path.

    Attributes:
        token: its id.
        prefix: tokens of the text's input that its path follows, the start token among them.
        path: numbers of the text's nodes that lead to it, its own at the end.
    """

    token: int
    prefix: int
    path: tuple[int, ...]

    @property
    def position(self) -> int:
        """Tokens before it on its path."""
        return self.prefix + len(self.path) - 1


@dataclass(frozen=True)
class Line:
    """A side path that is read by itself.

    Attributes:
        text: number of the text.
        prefix: as in `Node`.
        tokens: those of its nodes.
        wanted: its last nodes, whose rows are asked for.
    """

    text: int
    prefix: int
    tokens: list[int]
    wanted: list[int]


class Again:
    """Each path is read from the start; always right."""

    def __init__(self, model: LoadedModel, read: list[np.ndarray]) -> None:
        """Start with the texts' input, of which nothing has been read."""
        self._model = model
        self._read = read

    def main(self) -> torch.Tensor:
        """Read the texts: (b, longest, head) logits."""
        return forward(self._model, self._read)

    def rows(self, nodes: list[list[Node]], first: list[int]) -> list[torch.Tensor]:
        """Read the nodes of b texts from a number on, which is that of the nodes read before.

        Returns:
            (f, vocabulary) log-probabilities for each text.
        """
        out = _empty(self._model, nodes, first)
        lines = [line for text, n in enumerate(first) for line in _lines(text, nodes[text], n)]
        for batch, logits in self._logits(lines):
            logprobs = log_softmax(self._model, torch.cat(logits))
            split = logprobs.split([len(line.wanted) for line in batch])
            for line, rows in zip(batch, split, strict=True):
                out[line.text][[n - first[line.text] for n in line.wanted]] = rows
        return out

    def _logits(self, lines: list[Line]) -> Iterator[tuple[list[Line], list[torch.Tensor]]]:
        """Read lines from the start: batches of them, and their logits (wanted, head)."""
        read = [np.append(self._read[line.text][: line.prefix], line.tokens) for line in lines]
        for batch in batches([len(r) for r in read], batch_tokens(self._model)):
            logits = forward(self._model, [read[i] for i in batch])
            yield (
                [lines[i] for i in batch],
                [
                    row[len(read[i]) - len(lines[i].wanted) : len(read[i])]
                    for row, i in zip(logits, batch, strict=True)
                ],
            )


class Copies(Again):
    """Each path follows a copy of the keys and values of its prefix."""

    def main(self) -> torch.Tensor:
        """Read the texts, and keep their keys and values."""
        logits, self._cache = _read_and_keep(self._model, self._read)
        return logits

    def _logits(self, lines: list[Line]) -> Iterator[tuple[list[Line], list[torch.Tensor]]]:
        """Read lines of one length at a time behind copies; otherwise as `Again` does."""
        per_token = sum(
            part[0, :, 0].numel() * part.element_size()
            for layer in self._cache.layers
            for part in (layer.keys, layer.values)
        )
        most = int(np.clip(self._model.size_bytes, *COPIED_BYTES)) // per_token
        for n in sorted({len(line.tokens) for line in lines}):
            alike = [line for line in lines if len(line.tokens) == n]
            at_once = max(1, batch_tokens(self._model) // n)
            for batch in batches([line.prefix for line in alike], most):
                for done in range(0, len(batch), at_once):
                    chosen = [alike[i] for i in batch[done : done + at_once]]
                    logits = self._follow(chosen)
                    yield (
                        chosen,
                        [x[n - len(c.wanted) :] for x, c in zip(logits, chosen, strict=True)],
                    )

    def _follow(self, lines: list[Line]) -> torch.Tensor:
        """Read c lines of n tokens, their prefixes padded at the left: (c, n, head) logits."""
        from .copied_keys import copy_prefixes

        device = self._model.device
        tokens = torch.tensor([line.tokens for line in lines], device=device)
        prefix = torch.tensor([line.prefix for line in lines], device=device)[:, None]
        longest = max(line.prefix for line in lines)
        place = torch.arange(longest + tokens.shape[1], device=device)
        prefixes = [(line.text, line.prefix) for line in lines]
        options = {}
        if takes_positions(self._model.network):
            options["position_ids"] = prefix + torch.arange(tokens.shape[1], device=device)
        return self._model.network(
            input_ids=tokens,
            attention_mask=(place >= longest - prefix).long(),
            past_key_values=copy_prefixes(self._cache, prefixes, tokens.shape[1]),
            use_cache=True,
            **options,
        ).logits


class Tree:
    """All nodes follow the texts' keys at once; a mask lets each see its path alone."""

    def __init__(self, model: LoadedModel, read: list[np.ndarray]) -> None:
        """Start with the texts' input, of which nothing has been read."""
        self._model = model
        self._read = read
        longest = max(map(len, read))
        self._positions = np.tile(np.arange(longest), (len(read), 1))  # of the keys (b, kept)
        self._places: list[list[int]] = [[] for _ in read]  # of the nodes among the keys

    def main(self) -> torch.Tensor:
        """Read the texts, and keep their keys and values: (b, longest, head) logits."""
        logits, self._cache = _read_and_keep(self._model, self._read)
        return logits

    def rows(self, nodes: list[list[Node]], first: list[int]) -> list[torch.Tensor]:
        """Read nodes behind all keys so far, as many as memory allows; otherwise as `Again`."""
        out = _empty(self._model, nodes, first)
        width = max(1, batch_tokens(self._model) // len(out))
        for done in range(0, max(map(len, out)), width):
            parts = [n[f + done : f + done + width] for n, f in zip(nodes, first, strict=True)]
            logits = zip(self._follow(parts), parts, strict=True)
            logprobs = log_softmax(self._model, torch.cat([x[: len(part)] for x, part in logits]))
            split = logprobs.split([len(part) for part in parts])
            for rows, part in zip(out, split, strict=True):
                rows[done : done + len(part)] = part
        return out

    def _follow(self, parts: list[list[Node]]) -> torch.Tensor:
        """Read up to f nodes of each text, and keep their keys: (b, f, head) logits."""
        b, f = len(parts), max(map(len, parts))
        kept = self._positions.shape[1]
        tokens, positions = np.zeros((b, f), np.int64), np.zeros((b, f), np.int64)
        prefixes = np.ones((b, f), np.int64)
        seen = np.zeros((b, f, kept + f), bool)
        for text, part in enumerate(parts):
            places = self._places[text]
            for column, node in enumerate(part):
                places.append(kept + column)
                tokens[text, column], positions[text, column] = node.token, node.position
                prefixes[text, column] = node.prefix
                seen[text, column, [places[n] for n in node.path]] = True
        longest = max(map(len, self._read))
        seen[:, :, :longest] = np.arange(longest) < prefixes[:, :, None]
        self._positions = np.concatenate([self._positions, positions], axis=1)
        device = self._model.device
        return self._model.network(
            input_ids=torch.as_tensor(tokens, device=device),
            position_ids=torch.as_tensor(positions, device=device),
            attention_mask=self._masks(seen, positions[:, :, None] - self._positions[:, None]),
            past_key_values=self._cache,
            use_cache=True,
        ).logits

    def _masks(self, seen: np.ndarray, back: np.ndarray) -> Any:
        """Turn what nodes see into what networks add to scores.

        Args:
            seen: (b, f, keys) bool, whatever the layer's window.
            back: by how many tokens each key stands before each node.

        Returns:
            (b, 1, f, keys), one for each kind of layer where there are several.
        """
        network = self._model.network
        text = network.config.get_text_config(decoder=True)
        window = getattr(text, "sliding_window", None)
        kinds = set(getattr(text, "layer_types", None) or ["sliding_attention"])
        masks = {}
        for kind in kinds:
            windowed = window and kind == "sliding_attention"
            hidden = torch.as_tensor(~(seen & (back < window) if windowed else seen))
            mask = torch.zeros(hidden.shape, dtype=network.dtype)
            mask.masked_fill_(hidden, torch.finfo(network.dtype).min)
            masks[kind] = mask[:, None].to(self._model.device)
        return masks if len(masks) > 1 else masks.popitem()[1]


def _read_and_keep(model: LoadedModel, read: list[np.ndarray]) -> tuple[torch.Tensor, Any]:
    """Read texts as `forward` does; their keys and values are returned besides."""
    from transformers import DynamicCache

    batch = padded(model, read)
    cache = DynamicCache()  # knows no configuration, so that windows forget no keys
    with reading(model, batch.numel()):
        out = model.network(input_ids=batch, past_key_values=cache, use_cache=True)
    return out.logits, cache


def _empty(model: LoadedModel, nodes: list[list[Node]], first: list[int]) -> list[torch.Tensor]:
    """Make room for the rows of nodes from a number on."""
    asked = [len(known) - n for known, n in zip(nodes, first, strict=True)]
    return [torch.empty(n, model.tokenizer.size, device=model.device) for n in asked]


def _lines(text: int, nodes: list[Node], first: int) -> Iterator[Line]:
    """Yield the paths of a text that lead to a new node and no further."""
    inner = {node.path[-2] for node in nodes[first:] if len(node.path) > 1}
    known = set(range(first))
    for number in range(first, len(nodes)):
        if number not in inner:
            path = nodes[number].path
            wanted = [n for n in path if n not in known]
            known.update(wanted)
            yield Line(text, nodes[number].prefix, [nodes[n].token for n in path], wanted)


def takes_positions(network: Any) -> bool:
    """Tell whether a network can be given the positions of its tokens."""
    return "position_ids" in inspect.signature(network.forward).parameters


Way = Literal["tree", "copies", "again"]
WAYS: dict[Way, type[Again | Tree]] = {"tree": Tree, "copies": Copies, "again": Again}
"""The ways, the cheapest first."""
