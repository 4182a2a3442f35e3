"""Vocabulary x vocabulary -> which target tokens a source token's probability may go to.

A strategy in `STRATEGIES` makes a `VocabMapping`, and says of itself what anyone needs to know.
`exact`, `mined`, `statistical` and `retokenise` are fixed maps; `prefix` is a relation, and how a
source token's mass is shared among its consistent target tokens is decided at each position by the
target's own distribution; `ot` makes its plan anew at each position. `store` keeps maps on disk.

A new strategy is a `VocabMapping`, or a function that builds a `VocabMap`, and an entry here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cachetools import LRUCache

from fusion_core.errors import InputError, ModelFormatError
from fusion_core.records import VocabMap
from fusion_core.tokens import TextTokenizer

from .edges import Edges, FixedMapping, IdentityMapping, VocabMapping
from .maps import by_ids, exact, retokenise, statistical
from .mined import mined
from .prefix import Consistency, PrefixRelation
from .store import cached
from .transport import Transport

__all__ = [
    "MATRICES",
    "STRATEGIES",
    "Consistency",
    "Edges",
    "FixedMapping",
    "IdentityMapping",
    "PrefixRelation",
    "Strategy",
    "Transport",
    "VocabMapping",
    "by_ids",
    "check_spaces",
    "corpus_key",
    "exact",
    "mapping_between",
    "matrix",
    "mined",
    "retokenise",
    "statistical",
    "strategy",
]

KEPT_MAPPINGS = 24
"""Mappings of pairs of vocabularies that are kept in memory."""

Make = Callable[..., VocabMapping]
Matrix = Callable[[TextTokenizer, TextTokenizer, Sequence[str]], tuple[VocabMap, bool]]


@dataclass(frozen=True)
class Strategy:
    """A vocab mapping strategy.

    Attributes:
        reference: where it was published.
        make: source, target, corpus, and whether what is counted in it is kept on disk -> the
            mapping; nothing of a text goes to control tokens.
        matrix: the same -> the whole map, control tokens included where the strategy has something
            to say about them, and whether it came from disk; None where there is none apart from a
            position.
        inside: it says something inside a source's token.
        counts: it is counted in a corpus.
        version: of its map, raised whenever that changes, so that none from disk is out of date.
    """

    reference: str
    make: Make
    matrix: Matrix | None = None
    inside: bool = False
    counts: bool = False
    version: int = 1


def _fixed(
    name: str,
    reference: str,
    build: Callable[..., VocabMap],
    *,
    version: int,
    of_text: Callable[..., VocabMap] | None = None,
    counts: bool = False,
) -> Strategy:
    """Make the strategy of a fixed map.

    Args:
        name: of the strategy.
        reference: where it was published.
        build: makes the whole map of two vocabularies, and of a corpus where one is counted.
        version: of what it makes.
        of_text: makes the map of text alone, where ``build`` has control tokens, too.
        counts: it is counted in a corpus.
    """

    def kept(
        label: str,
        function: Callable[..., VocabMap],
        source: TextTokenizer,
        target: TextTokenizer,
        texts: Sequence[str],
        keep: bool = True,
    ) -> tuple[VocabMap, bool]:
        texts = texts if counts else ()
        make_map = partial(function, source, target, *([texts] if counts else []))
        keep = keep or not counts
        return cached(label, source, target, texts, make_map, version=version, keep=keep)

    def make(
        source: TextTokenizer, target: TextTokenizer, texts: Sequence[str], keep: bool = False
    ) -> VocabMapping:
        named = (f"{name} text", of_text) if of_text else (name, build)
        return FixedMapping(kept(*named, source, target, texts, keep)[0])

    return Strategy(reference, make, partial(kept, name, build), counts=counts, version=version)


STRATEGIES: dict[str, Strategy] = {
    "prefix": Strategy(
        "FuseLab",
        lambda source, target, *_: PrefixRelation(source, target),
        lambda source, target, _: PrefixRelation(source, target).matrix(),
        inside=True,
    ),
    "exact": _fixed("exact", "EM of FuseLLM, arXiv 2401.10491", exact, version=1),
    "mined": _fixed(
        "mined",
        "EM and MinED of FuseLLM, arXiv 2401.10491",
        mined,
        version=1,
        of_text=partial(mined, text_only=True),
    ),
    "statistical": _fixed(
        "statistical", "MS of FuseChat, arXiv 2408.07990", statistical, version=1, counts=True
    ),
    "retokenise": _fixed("retokenise", "W of X-Token, arXiv 2605.21699", retokenise, version=1),
    "ot": Strategy(
        "PTA-LLM, arXiv 2509.17276", lambda source, target, *_: Transport(source, target)
    ),
}
"""Vocab mapping strategies by name."""

MATRICES = tuple(name for name, entry in STRATEGIES.items() if entry.matrix)
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
    make = strategy(name).matrix
    if make is None:
        raise InputError(
            f"{name} makes its map anew at every position, so that there is none to write: choose "
            f"one of {', '.join(MATRICES)}."
        )
    return make(source, target, texts)


_kept: LRUCache[tuple[Any, ...], VocabMapping] = LRUCache(KEPT_MAPPINGS)
_lock = threading.Lock()


def mapping_between(
    source: TextTokenizer,
    target: TextTokenizer,
    name: str,
    corpus: Sequence[str] = (),
    *,
    keep: bool = False,
) -> VocabMapping:
    """Return the mapping of a pair of vocabularies, kept in memory.

    Tokenizers with one vocabulary that cut texts differently still need a strategy that speaks
    inside a source's token.

    Args:
        source: the source's vocabulary.
        target: the target's vocabulary.
        name: a strategy.
        corpus: texts for strategies that count.
        keep: keep what is counted in them on disk, because they will be named again.

    Raises:
        InputError: there is no such strategy.
        ModelFormatError: the vocabularies differ, and one spells no spaces.
    """
    entry = strategy(name)
    if source.vocabulary_key == target.vocabulary_key:
        by_bytes = entry.inside and source.spells_spaces
        if not by_bytes or source.key == target.key:
            ends = set(source.end_ids) <= set(target.end_ids)
            return IdentityMapping() if ends else FixedMapping(by_ids(source, target))
    else:
        check_spaces(source, target)
    pair = [x for t in (source, target) for x in (t.key, t.end_ids, t.special_ids)]
    key = (*pair, name, corpus_key(corpus) if entry.counts else "")
    with _lock:
        found = _kept.get(key)
    if found is None:
        found = entry.make(source, target, corpus, keep)  # outside the lock: it may take long
    with _lock:
        return _kept.setdefault(key, found)


def corpus_key(texts: Sequence[str]) -> str:
    """Hash texts, where they begin and end included: hexadecimal SHA-256."""
    key = hashlib.sha256()
    for text in texts:
        data = text.encode()
        key.update(len(data).to_bytes(8, "big") + data)
    return key.hexdigest()


def check_spaces(*tokenizers: TextTokenizer) -> None:
    """Refuse vocabularies that say by other means than bytes where words begin or end.

    Raises:
        ModelFormatError: a vocabulary's tokens spell no space between words, so that by their bytes
            "the cat" and "thecat" are the same.
    """
    for tokenizer in tokenizers:
        if not tokenizer.spells_spaces:
            raise ModelFormatError(
                f"The tokens of {tokenizer.name} do not spell the spaces between words, so that "
                "its rows cannot be compared with or projected to another vocabulary: align it, "
                "fuse it with models of the same vocabulary, train it with mode clm, or name "
                "another."
            )
