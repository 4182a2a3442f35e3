"""Next-token rows that know only what has been read: a model's covers of a text's bytes.

A row at a boundary of the whole text knows a little of what follows: that a token ends there says
that the text does not go on in a way that would have been merged across the byte. What a model
expects after bytes x[:b] is a sum over its tokenisations of them (covers): the canonical encoding
of x[:c] for some c up to b, and a next token that spells x[c:b] and may go on,

    R_b(y) ~ sum over c of P(enc(x[:c])) * sum over w of P(w | enc(x[:c])) [w = x[c:b] y].

tree      the canonical prefixes of a text, as far as they have been read, and their mass
weighing  a tree -> covers, without what is light and what no tokenizer makes
search    rows of a text -> its covers; asks for rows on side paths
reading   texts -> rows and covers, side paths read by the network
"""

from .reading import check_exact, read_with_covers
from .search import answered, find_covers, known_covers
from .tree import PrefixTree

__all__ = [
    "PrefixTree",
    "answered",
    "check_exact",
    "find_covers",
    "known_covers",
    "read_with_covers",
]
