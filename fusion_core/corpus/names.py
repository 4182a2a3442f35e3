"""Who and what the texts speak of, dealt out to the splits so that no two share a name.

Names are built from two parts. The parts are common to all splits, so that a vocabulary learned on
the training split spells the others with familiar pieces; the combinations are not.
"""

import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

SPLITS: tuple[str, ...] = ("train", "validation", "test")

_PARTS: dict[str, tuple[str, str]] = {
    "pupil": (
        "Ma Ti Lo Re Ka Jo Pe Sa Ni Du Ha Vi Be Fa Mi Gu Te Ro Na Si Ve Ra Da Li Pa Su To Ya",
        "ra lo nna mas rik vin ta bel nor dia ssa mon lina ko resh gan tto zel phie bo",
    ),
    "villager": (
        "Al Bren Cor Del El Fen Gwen Hol Is Jas Kel Lind Mor Nev Os Per Quin Ros Sel Thar Ul Vern "
        "Wil Ys",
        "a ric wyn ia mund ette don ora is ert una win bald eth gar ild and inda",
    ),
    "town": (
        "Ash Brook Clay Dun East Fox Green Hazel Iron King Long Mill North Oak Park Quarry Red "
        "South Thorn Upper West Yarrow",
        "ford ham bury mere stead well wick ton dale combe field port gate holm ley moor",
    ),
    "pet": (
        "Bim Dot Fizz Gip Hob Jin Kip Lum Mop Nub Pip Tuf Zim Wug",
        "bo by el er kin le my o sy us ling pet",
    ),
    "identifier": (
        "al bar cal dex ed fal gor hex il jun kel lam mod nat or pel qu ras sol tan ul ver wex yor",
        "ax bel cor dan en fix gal ism ket lum mer nod on per rim sat tor us vec wit",
    ),
}

_ACCENTED: dict[str, dict[str, str]] = {
    "pupil": {"train": "Zoë José Renée Jürgen", "validation": "Søren Noël", "test": "Chloë André"},
    "villager": {"train": "Élise Márta Björn", "validation": "Ingrún", "test": "Zoltán Åsa"},
    "town": {"train": "Zürich 東京 Århus", "validation": "京都 Malmö", "test": "大阪 Kraków"},
    "pet": {"train": "Café", "validation": "Crêpe", "test": "Flambé"},
    "identifier": {"train": "", "validation": "", "test": ""},
}

ENTITY_KINDS: tuple[str, ...] = tuple(_PARTS)


def split_of(number: int) -> str:
    """Returns the split that owns a residue class: eight of ten train, one each for the others."""
    residue = number % 10
    return "train" if residue < 8 else SPLITS[residue - 7]


def entities(kind: str, split: str) -> tuple[str, ...]:
    """Lists the names of one kind that belong to one split.

    Args:
        kind: one of `ENTITY_KINDS`.
        split: one of `SPLITS`.

    Returns:
        The names in a fixed order; the lists of two splits have no name in common.
    """
    heads, tails = (part.split() for part in _PARTS[kind])
    plain = [
        head + tail
        for i, head in enumerate(heads)
        for j, tail in enumerate(tails)
        if split_of(7 * i + 3 * j) == split
    ]
    return tuple(dict.fromkeys(plain + _ACCENTED[kind][split].split()))


_ENTITIES = {(kind, split): entities(kind, split) for kind in ENTITY_KINDS for split in SPLITS}


class Draw:
    """A seeded stream of choices for one split.

    Attributes:
        rng: the random source; seeded by a string, so the same on every Python version.
        split: whose names and number pairs are drawn.
    """

    def __init__(self, key: str, split: str) -> None:
        """Seeds the stream.

        Args:
            key: any text; equal keys give equal streams.
            split: one of `SPLITS`.
        """
        self.rng = random.Random(key)
        self.split = split

    def one(self, options: Sequence[T]) -> T:
        """Draws one of the options."""
        return self.rng.choice(options)

    def some(self, options: Sequence[T], n: int) -> list[T]:
        """Draws n different options."""
        return self.rng.sample(options, n)

    def chance(self, p: float) -> bool:
        """Is true with probability p."""
        return self.rng.random() < p

    def number(self, low: int, high: int) -> int:
        """Draws an integer from low to high, both included."""
        return self.rng.randint(low, high)

    def pair(self, first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
        """Draws two integers from two ranges whose combination belongs to the split."""
        while True:
            a, b = self.number(*first), self.number(*second)
            if split_of(zlib.crc32(f"{a},{b}".encode())) == self.split:
                return a, b

    def name(self, kind: str) -> str:
        """Draws one of the split's names."""
        return self.one(_ENTITIES[kind, self.split])

    def names(self, kind: str, n: int) -> list[str]:
        """Draws n different names of the split."""
        return self.some(_ENTITIES[kind, self.split], n)
