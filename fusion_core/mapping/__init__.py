"""Vocabulary x vocabulary -> which target tokens a source token's probability may go to.

Strategies by name in `STRATEGIES`. `exact`, `mined`, `statistical` and `retokenise` are fixed maps;
`prefix` is a relation, and how a source token's mass is shared among its consistent target tokens
is decided at each position by the target's own distribution; `ot` makes its map anew at each
position (both in `project`). Maps are kept on disk (`store`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fusion_core.errors import InputError
from fusion_core.records import VocabMap
from fusion_core.tokens import TextTokenizer

from .maps import by_ids, exact, retokenise, statistical
from .mined import mined
from .prefix import Consistency, PrefixRelation
from .store import cached
from .transport import Transport

__all__ = [
    "MATRICES",
    "STRATEGIES",
    "Consistency",
    "Mapping",
    "PrefixRelation",
    "Strategy",
    "Transport",
    "by_ids",
    "exact",
    "matrix",
    "mined",
    "relate",
    "retokenise",
    "statistical",
    "strategy",
]

Mapping = VocabMap | PrefixRelation | Transport


@dataclass(frozen=True)
class Strategy:
    """A vocab mapping strategy.

    Attributes:
        reference: where it was published.
        build: makes the whole map, control tokens included where the strategy has something to say
            about them; None for strategies that are asked at each position.
        text_build: makes the map that text is carried by, where `build` has control tokens too.
        relation: makes what is asked at each position instead of a fixed map.
        counts: it is counted in a corpus.
    """

    reference: str
    build: Callable[..., VocabMap] | None = None
    text_build: Callable[[TextTokenizer, TextTokenizer], VocabMap] | None = None
    relation: Callable[[TextTokenizer, TextTokenizer], PrefixRelation | Transport] | None = None
    counts: bool = False


STRATEGIES: dict[str, Strategy] = {
    "prefix": Strategy("FuseLab", relation=PrefixRelation),
    "exact": Strategy("EM of FuseLLM, arXiv 2401.10491", exact),
    "mined": Strategy(
        "EM and MinED of FuseLLM, arXiv 2401.10491", mined, partial(mined, text_only=True)
    ),
    "statistical": Strategy("MS of FuseChat, arXiv 2408.07990", statistical, counts=True),
    "retokenise": Strategy("W of X-Token, arXiv 2605.21699", retokenise),
    "ot": Strategy("PTA-LLM, arXiv 2509.17276", relation=Transport),
}


MATRICES = tuple(n for n, s in STRATEGIES.items() if s.build or s.relation is PrefixRelation)
"""Strategies that have a map apart from a position, which `map-vocab` writes."""


def strategy(name: str) -> Strategy:
    """Look a strategy up by name.

    Raises:
        InputError: there is no such strategy.
    """
    if name not in STRATEGIES:
        raise InputError(
            f"There is no strategy called {name!r}: choose one of {', '.join(STRATEGIES)}."
        )
    return STRATEGIES[name]


def matrix(
    name: str, source: TextTokenizer, target: TextTokenizer, texts: Sequence[str] = ()
) -> tuple[VocabMap, bool]:
    """Return the whole map of a pair of vocabularies, from disk where it has been built before.

    Args:
        name: a strategy.
        source: the source's vocabulary.
        target: the target's vocabulary.
        texts: the corpus, for strategies that count.

    Returns:
        The map, and whether it came from disk.

    Raises:
        InputError: there is no such strategy, it has no map apart from a position, or it counts
            and there is no corpus.
    """
    chosen = strategy(name)
    relation = chosen.relation(source, target) if chosen.relation else None
    if isinstance(relation, PrefixRelation):
        return relation.matrix()
    if chosen.build is None:
        raise InputError(
            f"{name} makes its map anew at every position, so that there is none to write: choose "
            f"one of {', '.join(MATRICES)}."
        )
    build = chosen.build
    if chosen.counts:
        return cached(name, source, target, texts, lambda: build(source, target, texts))
    return cached(name, source, target, (), lambda: build(source, target))


def relate(
    name: str, source: TextTokenizer, target: TextTokenizer, texts: Sequence[str] = ()
) -> Mapping:
    """Return what carries rows from one vocabulary to another; no text goes to control tokens.

    Args and errors are those of `matrix`.
    """
    chosen = strategy(name)
    if chosen.relation:
        return chosen.relation(source, target)
    text_build = chosen.text_build
    if text_build:
        return cached(f"{name} text", source, target, (), lambda: text_build(source, target))[0]
    return matrix(name, source, target, texts)[0]
