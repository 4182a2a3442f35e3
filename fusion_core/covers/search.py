"""A model's next-token rows on a text -> its covers of the text's bytes.

Most covers begin on the path of the whole text, whose rows are at hand. Others branch off it: of
those the first step's probability, which stands in a row at hand as well, bounds the weight; where
that is small they are dropped, and the rows of the rest are asked for. Pairs of last and next token
that the tokenizer never makes count nothing. (Covers: arXiv 2410.09303; canonical encodings form a
narrow tree: 2506.14123.)
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch

from fusion_core.records import Covers, Encoding, NextTokenRows
from fusion_core.tokens import TextTokenizer

from .tree import PrefixTree
from .weighing import weighed

Nodes = list[tuple[int, int]]
"""Rows of a text, and a token that is read after each: what branches off there."""


def find_covers(
    rows: NextTokenRows,
    encoding: Encoding,
    tokenizer: TextTokenizer,
    positions: np.ndarray,
    *,
    prune: float,
    context: int | None = None,
    first: int = 0,
) -> Generator[Nodes, torch.Tensor, Covers]:
    """Find the covers of bytes of a text; a generator that asks for rows on side paths.

    Args:
        rows: the model's n + 1 whole rows on the text.
        encoding: the text in the model's tokens.
        tokenizer: the model's.
        positions: (p,) int64 bytes, ascending, each once; as in `Encoding.row_bytes`.
        prune: covers and side paths below this share of the mass are dropped; 0 drops none.
        context: most tokens of a path, a start token included.
        first: text tokens before the first row, where only the last rows are at hand; covers begin
            at theirs.

    Yields:
        Tokens to read after rows: 0 to n of the text, and from n + 1 on those that were asked for.
        Sent to it are their (f, vocabulary) log-probabilities.

    Returns:
        The covers.
    """
    tree = PrefixTree(rows, encoding, tokenizer, positions, prune, context, first)
    frontier = tree.main()
    while nodes := tree.children(frontier):
        frontier = tree.add(nodes, (yield [(parent, token) for parent, token, _ in nodes]))
    return weighed(tree)


def known_covers(
    rows: NextTokenRows,
    encoding: Encoding,
    tokenizer: TextTokenizer,
    positions: np.ndarray,
    *,
    prune: float,
) -> Covers:
    """Find the covers whose rows are at hand; arguments as for `find_covers`.

    A side path has what its first step weighs, the most that it can: its covers have row -1.
    """
    tree = PrefixTree(rows, encoding, tokenizer, positions, prune)
    tree.count_unread(tree.children(tree.main()))
    return weighed(tree)
