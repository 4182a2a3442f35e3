"""`Canonical`: how a tokenizer spells the beginnings of a text, and which tokens it puts in a row.

A text's tokens say what follows: "hel" is spelled otherwise than the beginning of "hello". What is
read of a text up to byte c is ``encode(text[:c])``. Of that only the last word or so differs from
the whole text's tokens, so only a piece before c is spelled:

- byte-pair encoding: tokens are canonical where all neighbours are. A piece that begins at one of
  the text's boundaries and goes on with the text's tokens there joins what comes before.
- other models: a piece begins where no token could lie across, since two characters meet there
  that no token has side by side; before a space where there is one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from fusion_core.records import Encoding

from .tokenizer import TextTokenizer

WORDS_BACK, TOKENS_BACK = 2, 8
"""Words, and tokens where words are long, that are spelled again before a byte; at first."""

LONG_BACK = 32
"""The same tokens for models that are not pairwise: sums of scores over equal pieces can differ in
their last digits, and a word that is read from its begin adds them up as the whole text does."""

AGREED_WITHIN = 4
"""Tokens of the text with which a piece must go on that begins within a word."""

KEPT_PIECES, KEPT_PAIRS = 5_000, 500_000
"""Pieces and pairs that are remembered; of pairs, up to twice as many."""

OPENERS = 4
"""Letters that are put before a token within a word, where those are tokens of their own."""

AFTER_SPACE = (b"a", b"1", "\U0010fffd".encode())
"""What may follow white space, which many tokenizers spell otherwise at a text's end: a letter, a
digit, and a sign that is merged with no space."""

PROBES = (
    "Don't  stop: 12345 times,\n\n   she's\tat 10.50 (x == y).  ",
    "naïve café, 東京都に行く。 привет!!! ======  🙂 hahahaha",
)
"""Texts whose beginnings show whether a tokenizer is understood."""

Spelled = tuple[tuple[int, ...], bool]
"""Tokens up to the first that is not made of the string's bytes, and whether they are all."""


class Canonical:
    """A tokenizer's canonical spellings of prefixes and pairs, found by asking it; kept."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        """Take a tokenizer; it is asked when something is looked up."""
        self._tokenizer = tokenizer
        self._spelled: dict[tuple[bytes, bool, bytes], Spelled] = {}
        self._recent = self._older = np.empty(0, np.int64)
        self._opened: dict[int, list[int]] = {}
        self._lock = threading.RLock()

    def paths(
        self, encoding: Encoding, ends: Sequence[int], then: Sequence[bytes] = ()
    ) -> list[tuple[int, tuple[int, ...]] | None]:
        """Spell beginnings of a text, as they would be spelled if nothing followed.

        An unfinished character is spelled in bytes, at the place of the last character of its kind.

        Args:
            encoding: a text's, or a window's (`align.cut`), which is spelled as within a text.
            ends: n byte places as in `Encoding.row_bytes`: -1 is before a dummy prefix.
            then: n strings before which they stand, nothing by default; those of `AFTER_SPACE`
                change how white space is spelled. None where it joins bytes before it then.

        Returns:
            n pairs (k, tokens): the encoding's first k text tokens, then other tokens, the first of
            which is not the encoding's next. None where tokens' bytes are not exactly the text's.
        """
        text = _Text(encoding, self._tokenizer, self._joined)
        places = [c + text.dummy for c in ends]
        found: list[tuple[int, tuple[int, ...]] | None] = [None if p else (0, ()) for p in places]
        waiting = [n for n, p in enumerate(places) if 0 < p <= text.known]
        reach = 1
        while waiting:
            starts = [text.start(places[n], reach) for n in waiting]
            pieces = [
                (*text.piece(j, places[n]), then[n] if then else b"")
                for j, n in zip(starts, waiting, strict=True)
            ]
            again = []
            for n, start, (tokens, whole) in zip(waiting, starts, self._spell(pieces), strict=True):
                agreed = text.agreed(start, tokens)
                if agreed is None:
                    again.append(n)
                elif whole:
                    found[n] = start + agreed, tokens[agreed:]
            waiting, reach = again, 2 * reach
        return found

    def stays(self, pairs: np.ndarray) -> np.ndarray:
        """Tell which tokens the tokenizer itself would put side by side.

        Args:
            pairs: (n, 2) int64, token ids.

        Returns:
            (n,) bool, whether the bytes of both, one after the other within a text, are cut into
            exactly these two; true where one has no bytes.
        """
        size = self._tokenizer.size
        ids = np.asarray(pairs, np.int64).reshape(-1, 2)
        first, second = np.where((ids < 0) | (ids > size), size, ids).T  # size: has no bytes
        spelled = self._has_bytes[first] & self._has_bytes[second]
        stays = np.ones(len(spelled), bool)
        with self._lock:
            stays[spelled] = self._looked_up((first * size + second)[spelled])
        return stays

    def _looked_up(self, asked: np.ndarray) -> np.ndarray:
        """Return what is known of pairs, ``first * size + second``; ask for the rest."""
        stays, recent = _find(self._recent, asked)
        if recent.all():
            return stays
        asked, place = np.unique(asked, return_inverse=True)
        stays, recent = _find(self._recent, asked)
        older, known = _find(self._older, asked)
        stays = np.where(recent, stays, older)
        if (missing := ~recent & ~known).any():
            stays[missing] = self._ask(asked[missing])
        fresh = (2 * asked + stays)[~recent]
        self._recent = np.insert(self._recent, np.searchsorted(self._recent, fresh), fresh)
        if len(self._recent) > KEPT_PAIRS:
            self._older, self._recent = self._recent, self._recent[:0]
        return stays[place]

    def _ask(self, keys: np.ndarray) -> np.ndarray:
        of = self._tokenizer.bytes_of
        pairs = [divmod(k, self._tokenizer.size) for k in keys.tolist()]
        strings = [(of[u] or b"") + (of[w] or b"") for u, w in pairs]
        found = self._spell([(s, False, b"") for s in strings])
        stays = [s == (p, True) for s, p in zip(found, pairs, strict=True)]
        for then in AFTER_SPACE:
            spaces = [n for n, s in enumerate(strings) if not stays[n] and s[-1:].isspace()]
            found = self._spell([(strings[n], False, then) for n in spaces])
            for n, s in zip(spaces, found, strict=True):
                stays[n] = s == (pairs[n], True)
        if self._tokenizer.marks_continuations:
            self._ask_within(pairs, stays)
        return np.asarray(stays, bool)

    def _ask_within(self, pairs: Sequence[tuple[int, int]], stays: list[bool]) -> None:
        """Ask again for pairs that do not stay by themselves, after a letter that begins a word."""
        of = self._tokenizer.bytes_of
        tries = []
        for n, (u, w) in enumerate(pairs):
            spaces = AFTER_SPACE if (of[w] or b"")[-1:].isspace() else ()
            openers = [] if stays[n] else self._openers(u)
            tries += [(n, x, then) for x in openers for then in (b"", *spaces)]
        strings = [b"".join(of[i] or b"" for i in (x, *pairs[n])) for n, x, _ in tries]
        pieces = [(s, False, then) for s, (_, _, then) in zip(strings, tries, strict=True)]
        for (n, x, _), found in zip(tries, self._spell(pieces), strict=True):
            stays[n] |= found == ((x, *pairs[n]), True)

    def _openers(self, token: int) -> list[int]:
        """List some letters with which words begin that go on with a token."""
        if token not in self._opened:
            of = self._tokenizer.bytes_of
            string = of[token] or b""
            strings = [string, *((of[x] or b"") + string for x in self._letters)]
            alone, *found = self._spell([(s, False, b"") for s in strings])
            fit = [x for x, s in zip(self._letters, found, strict=True) if s == ((x, token), True)]
            self._opened[token] = [] if alone == ((token,), True) else fit[:OPENERS]
        return self._opened[token]

    @cached_property
    def _letters(self) -> list[int]:
        """The tokens of one byte that begin a word."""
        of = self._tokenizer.bytes_of
        single = [i for i, b in enumerate(of) if b and len(b) == 1]
        spelled = self._spell([(of[i] or b"", False, b"") for i in single])
        return [i for i, s in zip(single, spelled, strict=True) if s == ((i,), True)]

    @cached_property
    def fault(self) -> str | None:
        """Why canonical beginnings cannot be had, to be put after the model's name; or None."""
        tokenizer = self._tokenizer
        if not tokenizer.spells_spaces:
            return "its tokens do not spell the spaces between words"
        if not tokenizer.is_understood:
            return "it is a Python tokenizer of an unknown kind"
        for text in (" ".join(tokenizer.words()), *PROBES):
            encoding = tokenizer.encode(text)
            ids = encoding.ids[encoding.text_tokens].tolist()
            prefixes = [text[:n] for n in range(1, len(text) + 1)]
            paths = self.paths(encoding, [len(p.encode()) for p in prefixes])
            whole = tokenizer.encode_batch(prefixes)
            for prefix, path, read in zip(prefixes, paths, whole, strict=True):
                spelled = path and [*ids[: path[0]], *path[1]]
                if spelled is not None and spelled != read.ids[read.text_tokens].tolist():
                    return f"the beginnings of a text are not spelled alike ({prefix[-20:]!r})"
        return None

    @cached_property
    def _has_bytes(self) -> np.ndarray:  # (size + 1,) bool
        return np.asarray([*map(bool, self._tokenizer.bytes_of), False])

    @cached_property
    def _joined(self) -> frozenset[str] | None:
        """The pairs of characters that some token has side by side; None for byte-pair encoding."""
        if self._tokenizer.joins_pairs:
            return None
        texts = map(self._tokenizer.characters, range(self._tokenizer.size))
        return frozenset(a + b for text in texts for a, b in pairwise(text))

    def _spell(self, pieces: Sequence[tuple[bytes, bool, bytes]]) -> list[Spelled]:
        """Spell pieces (bytes, at a text's start, what follows); those of late are remembered."""
        with self._lock:
            kept = self._spelled
            dummy = self._tokenizer.id_of(b" ")
            for then in (b"", *AFTER_SPACE):
                kept[b"", True, then] = ((dummy,) if dummy >= 0 else ()), dummy >= 0
            for at_start in (False, True):
                missing = [p for p in dict.fromkeys(pieces) if p[1] == at_start and p not in kept]
                if not missing:
                    continue
                strings = [string + then for string, _, then in missing]
                spelled = self._tokenizer.prefix_spellings(strings, at_start)
                for piece, ids in zip(missing, spelled, strict=True):
                    kept[piece] = self._up_to(ids, len(piece[0]) + at_start)
            found = [kept[p] for p in pieces]
            for piece in set(pieces):
                kept[piece] = kept.pop(piece)
            while len(kept) > KEPT_PIECES:
                del kept[next(iter(kept))]
            return found

    def _up_to(self, ids: Sequence[int], length: int) -> Spelled:
        """Return the tokens of so many bytes, and whether they are just so many."""
        done = 0
        for n, i in enumerate(ids):
            if done >= length:
                return tuple(ids[:n]), done == length
            done += len(self._tokenizer.bytes_of[i] or b"")
        return tuple(ids), done == length


class _Text:
    """A text's tokens, and the places among them at which a piece can begin.

    Attributes:
        dummy: bytes before the text, 1 with a dummy prefix.
        ids: the text tokens.
        known: places up to here are looked up: soon after tokens cease to be made of the text's
            bytes, no beginning is.
    """

    def __init__(
        self, encoding: Encoding, tokenizer: TextTokenizer, joined: frozenset[str] | None
    ) -> None:
        tokens = encoding.text_tokens
        self.ids: list[int] = encoding.ids[tokens].tolist()
        self.dummy = int(encoding.dummy_prefix)
        self._shown = b" " * self.dummy + encoding.data
        pieces = [tokenizer.bytes_of[i] for i in self.ids]
        if encoding.dummy_prefix and encoding.data[:1] == b" " and not _doubles(tokenizer):
            pieces = []
        self._bounds = self._reproduced(pieces)
        self.known = len(self._shown)
        far = len(self._bounds) - 1 + TOKENS_BACK
        if len(self._bounds) <= len(self.ids) and far < len(self.ids):
            self.known = self.dummy + int(encoding.end[tokens[far]])
        if len(self._bounds) == 1 and tokenizer.dummy_prefix > encoding.dummy_prefix:
            self.known = 0  # what is put before the text is no space
        opens = [j for j, b in enumerate(self._bounds) if self._shown[b : b + 1] not in _INSIDE]
        self._first = opens[0] if opens else 0
        self._apart = opens[1:]
        self._back = TOKENS_BACK
        if joined is not None:
            ends = [tokenizer.characters(i) for i in self.ids[: len(self._bounds)]]
            inner = (j for j in self._apart if j < len(ends))
            self._apart = [j for j in inner if ends[j - 1][-1:] + ends[j][:1] not in joined]
            self._back = LONG_BACK
        self._words = [self._first, *(j for j in self._apart if self._opens_word(self._bounds[j]))]
        self._word_bytes = [self._bounds[j] for j in self._words]

    def _reproduced(self, pieces: Sequence[bytes | None]) -> list[int]:
        """List the byte places between the tokens, as far as they are made of the text's bytes."""
        bounds = [0]
        for piece in pieces:
            if not piece or not self._shown.startswith(piece, bounds[-1]):
                break
            bounds.append(bounds[-1] + len(piece))
        return bounds

    def _opens_word(self, byte: int) -> bool:
        around = self._shown[byte - 1 : byte + 1]
        return around[1:] == b" " and not around[:1].isspace()

    def start(self, place: int, reach: int) -> int:
        """Return the number of tokens before a piece that ends at a place, counted with a dummy."""
        if place < self._word_bytes[0]:
            return 0
        word = bisect_left(self._word_bytes, place) - WORDS_BACK * reach
        back = bisect_right(self._bounds, place) - 1 - self._back * reach
        token = bisect_right(self._apart, back) - 1
        return max(self._words[max(word, 0)], self._apart[token] if token >= 0 else 0)

    def piece(self, start: int, place: int) -> tuple[bytes, bool]:
        """Return the bytes of a piece, and whether a dummy prefix comes before them."""
        at_start = self.dummy > 0 and not start
        return self._shown[max(self._bounds[start], self.dummy) : place], at_start

    def agreed(self, start: int, tokens: Sequence[int]) -> int | None:
        """Count the tokens with which a piece goes on as the text does; None where too few do."""
        n = 0
        for ours, theirs in zip(tokens, self.ids[start : start + len(tokens)], strict=False):
            if ours != theirs:
                break
            n += 1
        if start <= self._first:
            return n
        word = self._words[bisect_right(self._words, start) - 1] == start
        return n if n >= (1 if word else AGREED_WITHIN) else None


def _doubles(tokenizer: TextTokenizer) -> bool:
    """Tell whether a dummy prefix is put before a space, too."""
    (ids,) = tokenizer.prefix_spellings([b" "], at_start=True)
    return b"".join(tokenizer.bytes_of[i] or b"" for i in ids) == b"  "


_INSIDE = frozenset(bytes([b]) for b in range(0x80, 0xC0))
"""The bytes that begin no character."""


def _find(table: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look up numbers in a sorted table of ``2 * number + value``.

    Returns:
        The values, and whether there are any.
    """
    if not len(table):
        return np.zeros(len(asked), bool), np.zeros(len(asked), bool)
    entries = table[np.minimum(np.searchsorted(table, 2 * asked), len(table) - 1)]
    return (entries & 1).astype(bool), entries >> 1 == asked
