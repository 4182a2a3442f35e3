"""Texts that a model has read -> next-token rows on short side paths of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fusion_core.errors import FusionError, InputError

from .branch_ways import WAYS, Node, Way, takes_positions
from .checks import probe_ids, same_logits
from .load import LoadedModel
from .rows import check_length, reading, with_start

FILLERS = 24
"""Siblings between a text and the nodes that a trial looks at: where places in the input are taken
for positions, this many make an error that no rounding hides, in half precision either."""

TAIL = 4
"""Tokens of the longest path that a trial looks at."""

SLACK = 16
"""Tokens beyond the longest text up to which a trial vouches for paths, at least."""

_found: WeakKeyDictionary[Any, tuple[Way, int]] = WeakKeyDictionary()
"""The best way that is right for a network, and the tokens of the longest path it was tried on."""


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
        self._nodes: list[list[Node]] = [[] for _ in read]
        self._reader = WAYS[way](model, read)

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
        return branches._reader.main(), branches

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
        if deepest > self._tried and self.way != "again":
            self.way, self._reader = "again", WAYS["again"](self.model, self._read)
        with reading(self.model, sum(map(len, nodes))):
            return self._reader.rows(grown, first)

    def _grown(self, text: int, asked: Sequence[tuple[int, int]]) -> list[Node]:
        """Return the nodes of a text with new ones behind them."""
        nodes = list(self._nodes[text])  # a copy: what is refused leaves no trace
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
                nodes.append(Node(token, parent + has_start, (own,)))
            else:
                before = nodes[parent - n_rows]
                nodes.append(Node(token, before.prefix, (*before.path, own)))
        return nodes


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
    way, tried = _found.get(model.network, (next(iter(WAYS)), 0))
    length = 1 << (longest + SLACK - 1).bit_length()
    length = length if model.context is None else min(length, model.context)
    if way != "again" and length > tried:
        ways = list(WAYS)
        better = ways[ways.index(way) : -1]
        way, tried = next((w for w in better if _is_right(model, w, length)), "again"), length
        _found[model.network] = way, tried
    return way, tried


@torch.inference_mode()
def _is_right(model: LoadedModel, way: Way, length: int) -> bool:
    """Read two texts and paths of up to ``length`` tokens in a way and again, and compare."""
    if length < 2 * TAIL or (way == "tree" and not takes_positions(model.network)):
        return False
    drawn = probe_ids(model.network, model.tokenizer, length).cpu().numpy()
    n = length - TAIL
    read = [drawn[0, :n], drawn[1, : n // 2]]
    try:
        expected = _probed(Branches(model, read, "again", length), drawn[1], 0)
        ours = _probed(Branches(model, read, way, length), drawn[1], FILLERS)
    except FusionError:  # the network cannot, or not in this memory
        return False
    return all(same_logits(o, e, model.network.dtype) for o, e in zip(ours, expected, strict=True))


def _probed(branches: Branches, tokens: np.ndarray, fillers: int) -> list[torch.Tensor]:
    """Read two texts, and side paths of them in two calls, or at once where there are no fillers.

    They are siblings within the first text, the last with a child; a chain of `TAIL` at its end;
    and one of two at the end of the second text, which is shorter.

    Args:
        branches: of the two texts, not read yet.
        tokens: ids for the nodes.
        fillers: siblings that are left out of what is returned.

    Returns:
        (rows, head) logits after the first text's last tokens, and rows of the nodes.
    """
    model = branches.model
    has_start = int(model.tokenizer.start_id is not None)
    ends = [len(text) - has_start for text in branches._read]
    node = ends[0] + 1 + fillers  # the last of the siblings
    ids = [int(i) for i in tokens]
    siblings = [(ends[1] // 2, ids[i % len(ids)]) for i in range(fillers, -1, -1)]
    chain = list(zip([ends[0], node + 1, node + 2], ids[-3:], strict=True))
    first, then = (
        [siblings + chain, [(ends[1], ids[-1])]],
        [[(node, ids[-2]), (node + 3, ids[-1])], [(ends[1] + 1, ids[-2])]],
    )
    # What is read from the start anyway is read once, the longest paths alone.
    calls = [first, then] if fillers else [[a + b for a, b in zip(first, then, strict=True)]]
    last = branches._reader.main()[0, -TAIL:].clone()
    of_first, of_second = (torch.cat(x) for x in zip(*map(branches.rows, calls), strict=True))
    return [last, of_first[fillers:], of_second]
