"""A model's next-token rows on a text -> its covers of the text's bytes.

Most covers begin on the path of the whole text, whose rows are at hand. Others branch off it: of
those the first step's probability, which stands in a row at hand as well, bounds the weight; where
that is small they are dropped, and the rows of the rest are asked for. Pairs of last and next token
that the tokenizer never makes count nothing. (Covers: arXiv 2410.09303; canonical encodings form a
narrow tree: 2506.14123.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch

from fusion_core.records import Covers

from .tree import PrefixTree
from .weighing import weighed

Nodes = list[tuple[int, int]]
"""Rows of a text, and a token that is read after each: what branches off there."""

Search = Generator[Nodes, torch.Tensor, Covers]


def find_covers(tree: PrefixTree) -> Search:
    """Find the covers of bytes of a text; a generator that asks for rows on side paths.

    Yields:
        Tokens to read after rows: 0 to n of the text, and from n + 1 on those that were asked for.
        Sent to it are their (f, vocabulary) log-probabilities.

    Returns:
        The covers.
    """
    frontier = tree.main()
    while nodes := tree.children(frontier):
        frontier = tree.add(nodes, (yield [(parent, token) for parent, token, _ in nodes]))
    return weighed(tree)


def answered(
    searches: Sequence[Search], ask: Callable[[list[Nodes]], Sequence[torch.Tensor]]
) -> list[Covers]:
    """Let searches ask together until all have found their covers.

    Args:
        searches: one for each text.
        ask: reads what each search asks for, nothing where one has its covers.
    """
    found: dict[int, Covers] = {}
    asked: list[Nodes] = [[] for _ in searches]

    def go_on(n: int, answer: torch.Tensor | None) -> None:
        try:
            asked[n] = searches[n].send(answer)  # type: ignore[arg-type]
        except StopIteration as done:
            found[n], asked[n] = done.value, []

    for n in range(len(searches)):
        go_on(n, None)
    while len(found) < len(searches):
        for n, answer in enumerate(ask(asked)):
            if n not in found:
                go_on(n, answer)
    return [found[n] for n in range(len(searches))]


def known_covers(tree: PrefixTree) -> Covers:
    """Find the covers of which all rows are at hand.

    Side paths count with what their first steps weigh: their covers have row -1.
    """
    first = len(tree.log_p)
    nodes = tree.children(tree.main())
    tree.count_unread([end for _, _, end in nodes], tree.log_p[first:])
    return weighed(tree)
