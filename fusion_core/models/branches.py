"""Texts that a model has read -> next-token rows on short side paths of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fusion_core.errors import FusionError, InputError, TooLargeError

from .checks import probe_ids, same_logits
from .load import LoadedModel
from .rows import (
    batch_tokens,
    batches,
    check_length,
    forward,
    log_softmax,
    padded,
    reading,
    with_start,
)

COPIED_BYTES = 1 << 28
"""Keys and values of prefixes that are copied at once."""

FILLERS = 24
"""Siblings between a text and the nodes that a trial looks at: where places in the input are taken
for positions, this many make an error that no rounding hides, in half precision either."""

TAIL = 4
"""Tokens of the longest path that a trial looks at."""

SLACK = 16
"""Tokens beyond the longest text up to which a trial vouches for paths, at least."""

Way = Literal["tree", "copies", "again"]
_WAYS: tuple[Way, ...] = ("tree", "copies", "again")

_found: WeakKeyDictionary[Any, tuple[Way, int]] = WeakKeyDictionary()
"""The best way that is right for a network, and the tokens of the longest path it was tried on."""


@dataclass(frozen=True)
class _Node:
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
class _Line:
    """A side path that is read by itself.

    Attributes:
        text: number of the text.
        prefix: as in `_Node`.
        tokens: those of its nodes.
        wanted: its last nodes, whose rows are asked for.
    """

    text: int
    prefix: int
    tokens: list[int]
    wanted: list[int]


class Branches:
    """Next-token rows on side paths of texts that a model has read.

    Three ways lead to the same rows; the first is taken that a trial of the network finds right:

    - tree: keys and values of the texts are kept, and all nodes follow them at once; a mask lets
      each see its path alone (tree attention, arXiv 2305.09781).
    - copies: each path follows a copy of its prefix's keys and values, for networks whose positions
      are places in the input (ALiBi).
    - again: each path is read from the start, for networks without keys that are kept.

    Attributes:
        model: the model.
        way: the way that is taken.
    """

    def __init__(self, model: LoadedModel, read: list[np.ndarray], way: Way, tried: int) -> None:
        """Start without nodes and with nothing read; see `read`."""
        self.model = model
        self.way: Way = way
        self._read = read
        self._tried = tried
        self._nodes: list[list[_Node]] = [[] for _ in read]
        self._cache: Any = None
        lengths = max(map(len, read))
        self._positions = np.tile(np.arange(lengths), (len(read), 1))  # of the keys (b, kept)
        self._places: list[list[int]] = [[] for _ in read]  # of the nodes among the keys

    @classmethod
    @torch.inference_mode()
    def read(cls, model: LoadedModel, ids: Sequence[np.ndarray]) -> tuple[torch.Tensor, Branches]:
        """Read texts, and keep what is needed to branch off.

        Args:
            model: the model.
            ids: at least one text's tokens, start token apart.

        Returns:
            (b, longest, head) logits as `forward` gives them after the start token, if the model
            has one; those of padding are junk.

        Raises:
            TooLargeError: a text is longer than the model's context, or memory is short.
            ModelFormatError: the network cannot read the texts.
        """
        read = with_start(model, ids)
        branches = cls(model, read, *_find_way(model, max(map(len, read))))
        return branches._main(), branches

    @torch.inference_mode()
    def rows(self, nodes: Sequence[Sequence[tuple[int, int]]]) -> list[torch.Tensor]:
        """Read further tokens on side paths.

        Args:
            nodes: for each text (parent, token), where parent is the row that the token follows: i
                stands after i tokens of the text, n + 1 + j after the j-th node asked of this text,
                which has n tokens, over all calls and earlier in this list.

        Returns:
            For each text (f, vocabulary) float32 log-probabilities of what follows its f tokens.

        Raises:
            InputError: there is no such parent; without a start token nothing follows row 0.
            TooLargeError: a path is longer than the model's context, or memory is short.
            ModelFormatError: the network cannot read the tokens, or gives no numbers.
        """
        first = [len(known) for known in self._nodes]
        grown = [self._grown(*given) for given in zip(range(len(first)), nodes, strict=True)]
        deepest = max((n.position + 1 for known in grown for n in known), default=0)
        check_length(self.model, deepest)
        self._nodes = grown
        if deepest > self._tried:
            self.way = "again"
        size = self.model.tokenizer.size
        out = [torch.empty(len(asked), size, device=self.model.device) for asked in nodes]
        with reading(self.model, sum(map(len, nodes))):
            if self.way == "tree":
                self._read_tree(first, out)
            else:
                self._read_lines(first, out)
        return out

    def _main(self) -> torch.Tensor:
        """Read the texts: (b, longest, head) logits."""
        if self.way == "again":
            return forward(self.model, self._read)
        from transformers import DynamicCache

        batch = padded(self.model, self._read)
        self._cache = DynamicCache()  # knows no configuration, so that windows forget no keys
        with reading(self.model, batch.numel()):
            return self.model.network(
                input_ids=batch, past_key_values=self._cache, use_cache=True
            ).logits

    def _grown(self, text: int, asked: Sequence[tuple[int, int]]) -> list[_Node]:
        """Return the nodes of a text with new ones behind them."""
        nodes = list(self._nodes[text])
        has_start = int(self.model.tokenizer.start_id is not None)
        n_rows = len(self._read[text]) - has_start + 1
        for parent, token in asked:
            own = len(nodes)
            if not 0 <= parent < n_rows + own:
                raise InputError(
                    f"Row {parent} is none that a token could follow: the text has {n_rows} rows "
                    f"and {own} nodes so far."
                )
            if parent + has_start == 0:
                raise InputError(
                    f"{self.model.name} has no start token and so reads nothing before a text: "
                    "branch off after its first token or later."
                )
            if parent < n_rows:
                nodes.append(_Node(token, parent + has_start, (own,)))
            else:
                before = nodes[parent - n_rows]
                nodes.append(_Node(token, before.prefix, (*before.path, own)))
        return nodes

    def _read_tree(self, first: list[int], out: list[torch.Tensor]) -> None:
        """Read nodes behind the texts' keys, as many columns at once as memory allows."""
        width = max(1, batch_tokens(self.model) // len(out))
        for done in range(0, max(map(len, out)), width):
            parts = [
                known[f + done : f + done + width]
                for known, f in zip(self._nodes, first, strict=True)
            ]
            logits = self._follow(parts)
            logprobs = log_softmax(
                self.model, torch.cat([row[: len(p)] for row, p in zip(logits, parts, strict=True)])
            )
            split = logprobs.split([len(p) for p in parts])
            for rows, part in zip(out, split, strict=True):
                rows[done : done + len(part)] = part

    def _follow(self, parts: list[list[_Node]]) -> torch.Tensor:
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
        device = self.model.device
        return self.model.network(
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
        network = self.model.network
        text = network.config.get_text_config(decoder=True)
        window = getattr(text, "sliding_window", None)
        kinds = set(getattr(text, "layer_types", None) or ["sliding_attention"])
        masks = {}
        for kind in kinds:
            windowed = window and kind == "sliding_attention"
            hidden = torch.as_tensor(~(seen & (back < window) if windowed else seen))
            mask = torch.zeros(hidden.shape, dtype=network.dtype)
            mask.masked_fill_(hidden, torch.finfo(network.dtype).min)
            masks[kind] = mask[:, None].to(self.model.device)
        return masks if len(masks) > 1 else masks.popitem()[1]

    def _read_lines(self, first: list[int], out: list[torch.Tensor]) -> None:
        """Read each path that leads to a new node and no further, by itself."""
        lines = [line for text, f in enumerate(first) for line in self._lines(text, f)]
        read = self._copied if self.way == "copies" else self._reread
        for batch, logits in read(lines):
            logprobs = log_softmax(self.model, torch.cat(logits))
            split = logprobs.split([len(line.wanted) for line in batch])
            for line, rows in zip(batch, split, strict=True):
                out[line.text][[n - first[line.text] for n in line.wanted]] = rows

    def _lines(self, text: int, first: int) -> Iterator[_Line]:
        nodes = self._nodes[text]
        inner = {node.path[-2] for node in nodes[first:] if len(node.path) > 1}
        known = set(range(first))
        for number in range(first, len(nodes)):
            if number not in inner:
                path = nodes[number].path
                wanted = [n for n in path if n not in known]
                known.update(wanted)
                yield _Line(text, nodes[number].prefix, [nodes[n].token for n in path], wanted)

    def _reread(self, lines: list[_Line]) -> Iterator[tuple[list[_Line], list[torch.Tensor]]]:
        """Read lines from the start: batches of them, and their logits (wanted, head)."""
        read = [np.append(self._read[line.text][: line.prefix], line.tokens) for line in lines]
        for batch in batches([len(r) for r in read], batch_tokens(self.model)):
            logits = forward(self.model, [read[i] for i in batch])
            yield (
                [lines[i] for i in batch],
                [
                    row[len(read[i]) - len(lines[i].wanted) : len(read[i])]
                    for row, i in zip(logits, batch, strict=True)
                ],
            )

    def _copied(self, lines: list[_Line]) -> Iterator[tuple[list[_Line], list[torch.Tensor]]]:
        """Read lines behind copies of keys and values; otherwise as `_reread`."""
        per_token = sum(
            part[0, :, 0].numel() * part.element_size()
            for layer in self._cache.layers
            for part in (layer.keys, layer.values)
        )
        for n in sorted({len(line.tokens) for line in lines}):
            alike = [line for line in lines if len(line.tokens) == n]
            at_once = max(1, batch_tokens(self.model) // n)
            for batch in batches([line.prefix for line in alike], COPIED_BYTES // per_token):
                for done in range(0, len(batch), at_once):
                    chosen = [alike[i] for i in batch[done : done + at_once]]
                    logits = self._follow_copies(chosen)
                    yield (
                        chosen,
                        [x[n - len(c.wanted) :] for x, c in zip(logits, chosen, strict=True)],
                    )

    def _follow_copies(self, lines: list[_Line]) -> torch.Tensor:
        """Read c lines of n tokens, their prefixes padded at the left: (c, n, head) logits."""
        from transformers import DynamicCache

        device = self.model.device
        text = torch.tensor([line.text for line in lines], device=device)[:, None]
        prefix = torch.tensor([line.prefix for line in lines], device=device)[:, None]
        tokens = torch.tensor([line.tokens for line in lines], device=device)
        longest = int(prefix.max())
        place = torch.arange(longest, device=device) - (longest - prefix)
        copies = DynamicCache()
        for number, layer in enumerate(self._cache.layers):
            keys, values = (
                part[text, :, place.clamp(min=0)].transpose(1, 2)
                for part in (layer.keys, layer.values)
            )
            copies.update(keys, values, number)
        seen = torch.cat([place >= 0, torch.ones_like(tokens, dtype=torch.bool)], dim=1)
        options = {}
        if _takes_positions(self.model.network):
            options["position_ids"] = prefix + torch.arange(tokens.shape[1], device=device)
        return self.model.network(
            input_ids=tokens,
            attention_mask=seen.long(),
            past_key_values=copies,
            use_cache=True,
            **options,
        ).logits


def _takes_positions(network: Any) -> bool:
    return "position_ids" in inspect.signature(network.forward).parameters


def _find_way(model: LoadedModel, longest: int) -> tuple[Way, int]:
    """Try a network's ways once for each power of two that its texts reach.

    What is wrong with a way may show on long texts alone: a window that has moved on, another
    scale of positions. So it vouches for no path that is longer than those of its trial.

    Args:
        model: the model.
        longest: most tokens of a text.

    Returns:
        The best way that is right, and the most tokens of a path for which it is known to be.
    """
    way, tried = _found.get(model.network, (_WAYS[0], 0))
    if way == "again" or longest < tried:
        return way, tried
    length = 1 << (longest + SLACK).bit_length()
    length = length if model.context is None else min(length, model.context)
    if length == tried:
        return way, tried
    better = _WAYS[_WAYS.index(way) : -1]
    way = next((w for w in better if _is_right(model, w, length)), "again")
    _found[model.network] = way, length
    return way, length


@torch.inference_mode()
def _is_right(model: LoadedModel, way: Way, length: int) -> bool:
    """Read two texts and paths of up to ``length`` tokens in a way and again, and compare."""
    if length < 2 * TAIL or (way == "tree" and not _takes_positions(model.network)):
        return False
    drawn = probe_ids(model.network, model.tokenizer, length).cpu().numpy()
    n = length - TAIL
    read = [drawn[0, :n], drawn[1, : n // 2]]
    expected = _probed(Branches(model, read, "again", length), drawn[1], 0)
    try:
        ours = _probed(Branches(model, read, way, length), drawn[1], FILLERS)
    except TooLargeError:
        raise
    except FusionError:  # what networks raise where they cannot
        return False
    return all(same_logits(o, e, model.network.dtype) for o, e in zip(ours, expected, strict=True))


def _probed(branches: Branches, tokens: np.ndarray, fillers: int) -> list[torch.Tensor]:
    """Return the last logits of the first of two texts, and the rows of nodes, in two calls.

    Siblings within the first text, of which ``fillers`` are left out of what is returned and the
    last has a child; a chain of `TAIL` at its end; and one at the end of the second, shorter text.
    """
    model = branches.model
    has_start = int(model.tokenizer.start_id is not None)
    ends = [len(text) - has_start for text in branches._read]
    node = ends[0] + 1 + fillers  # the last of the siblings
    ids = [int(i) for i in tokens]
    siblings = [(ends[1] // 2, ids[i % len(ids)]) for i in range(fillers, -1, -1)]
    chain = list(zip([ends[0], node + 1, node + 2], ids[-3:], strict=True))
    last = branches._main()[0, len(branches._read[0]) - TAIL : len(branches._read[0])].clone()
    rows = branches.rows([siblings + chain, [(ends[1], ids[-1])]])
    more = branches.rows([[(node, ids[-2]), (node + 3, ids[-1])], [(ends[1] + 1, ids[-2])]])
    return [last, rows[0][fillers:], rows[1], *more]
