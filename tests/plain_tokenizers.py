"""Tokenizers in plain Python: entries of a vocabulary, and WordPiece and Unigram written out.

Nothing here shares code with `fusion_core.tokens`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from math import inf
from operator import itemgetter
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from fusion_core.records import Encoding

MARKER = "▁"
IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
IDEOGRAPH = re.compile(
    f"[{IDEOGRAPHS}\U0002b740-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f]"
)

Stream = list[tuple[str, int, bool]]
"""Normalised characters: (character, place in the text that it comes from, it stands there)."""

Reader = Callable[[str], list[tuple[int, int]]]
"""Word -> tokens as (id, number of characters)."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's entries, read without `fusion_core`.

    Attributes:
        backend: the tokenizer.
        parts: its serialised parts.
        spelt: id -> bytes that it gives back; none for the unknown token.
        unknown: id of the unknown token, or -1.
    """

    backend: Tokenizer
    parts: dict[str, Any]
    spelt: dict[int, bytes]
    unknown: int

    @staticmethod
    def of(backend: Tokenizer) -> Vocabulary:
        """Read a tokenizer; the byte alphabet is the one of `transformers`."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        parts = json.loads(backend.to_str())
        model, ids = parts["model"], backend.get_vocab()
        byte_of = {c: b for b, c in bytes_to_unicode().items()}

        def spell(entry: str) -> bytes:
            if parts["decoder"]["type"] == "ByteLevel":
                return bytes(byte_of[c] for c in entry)
            if model.get("byte_fallback") and re.fullmatch("<0x[0-9A-F]{2}>", entry):
                return bytes.fromhex(entry[3:5])
            if model["type"] == "WordPiece":
                entry = entry.removeprefix("##")
            return entry.replace(MARKER, " ").encode()

        added = {a["id"]: a["content"].encode() for a in parts["added_tokens"]}
        spelt = {i: added[i] if i in added else spell(entry) for entry, i in ids.items()}
        unknown = model.get("unk_id", ids.get(model.get("unk_token"), -1))
        return Vocabulary(backend, parts, spelt | {unknown: b""}, unknown)


@dataclass(frozen=True)
class Reading:
    """What a tokenizer makes of a text.

    Attributes:
        tokens: (id, places of the text's characters that the token gives back).
        runs: places of equal spaces of which the tokens give back one, whichever it is.
        dummy: the first token carries a space that the tokenizer put there.
    """

    tokens: list[tuple[int, list[int]]]
    runs: list[set[int]]
    dummy: bool


def bert_words(text: str) -> Iterator[Stream]:
    """Clean, set ideographs apart, strip accents, lower the case, split at spaces, punctuation."""
    word: Stream = []
    for place, c in enumerate(text + " "):
        kind = unicodedata.category(c)
        space = c in "\t\n\r" or (c.isspace() and kind != "Cc")
        if c in "\0\ufffd" or (kind in {"Cc", "Cf", "Co"} and not space):
            continue
        forms = [d for d in unicodedata.normalize("NFD", c) if unicodedata.category(d) != "Mn"]
        for d in "".join(d.lower() for d in forms):
            punctuation = d in "$+<=>^`|~" or unicodedata.category(d)[0] == "P"
            apart = space or punctuation or IDEOGRAPH.match(c)
            if apart and word:
                yield word
                word = []
            if not space:
                word.append((d, place, d == c))
            if apart and word:
                yield word
                word = []


def wordpiece(vocabulary: Vocabulary) -> Reader:
    """Read words greedily from the left."""
    vocab = vocabulary.backend.get_vocab()
    limit = vocabulary.parts["model"]["max_input_chars_per_word"]

    @cache
    def read(word: str) -> list[tuple[int, int]]:
        tokens, at = [], 0
        while at < len(word):
            entries = ((e, "##" * (at > 0) + word[at:e]) for e in range(len(word), at, -1))
            stop, entry = next(((e, s) for e, s in entries if s in vocab), (0, ""))
            if not stop or len(word) > limit:
                return [(vocabulary.unknown, len(word))]
            tokens.append((vocab[entry], stop - at))
            at = stop
        return tokens

    return read


def unigram_text(vocabulary: Vocabulary, text: str) -> tuple[Stream, list[set[int]]]:
    """Apply the normaliser's table by graphemes, strip and join spaces; name the joined ones."""
    graphemes = pre_tokenizers.Split(Regex(r"\X"), "isolated").pre_tokenize_str
    table = vocabulary.backend.normalizer[0].normalize_str
    stream: Stream = []
    for grapheme, (start, stop) in graphemes(text):
        parts = list(zip(grapheme, range(start, stop), strict=True))
        if (whole := table(grapheme)) != "".join(table(c) for c in grapheme):
            stream += [(d, start, False) for d in whole]
        else:
            stream += [(d, at, d == c != MARKER) for c, at in parts for d in table(c)]
    for end in (0, -1):
        while stream and stream[end][0].isspace():
            del stream[end]
    joined: Stream = []
    runs: list[set[int]] = []
    for space, group in groupby(stream, lambda item: item[0] == " "):
        items = list(group)
        same = {at for _, at, found in items if found}
        runs += [same] if space else []
        joined += [(" ", min(same, default=-1), bool(same))] if space else items
    return joined, [run for run in runs if len(run) > 1]


def unigram(vocabulary: Vocabulary) -> Reader:
    """Read words as the most probable entries; characters without one are joined."""
    model, unknown = vocabulary.parts["model"], vocabulary.unknown
    entries = {s: (i, score) for i, (s, score) in enumerate(model["vocab"])}
    longest = max(map(len, entries))
    penalty = min(score for _, score in entries.values()) - 10.0

    @cache
    def read(word: str) -> list[tuple[int, int]]:
        best = [(0.0, 0, -1)] + [(-inf, 0, -1)] * len(word)
        for at, c in enumerate(word):
            stops = range(at + 1, min(len(word), at + longest) + 1)
            found = [(e, *entries[word[at:e]]) for e in stops if word[at:e] in entries]
            if c not in entries:
                found.append((at + 1, unknown, penalty))
            for stop, i, score in found:
                best[stop] = max(best[stop], (best[at][0] + score, at, i), key=itemgetter(0))
        tokens: list[tuple[int, int]] = []
        at = len(word)
        while at:
            stop, (_, at, i) = at, best[at]
            merged = tokens.pop()[1] if i == unknown and tokens and tokens[-1][0] == i else 0
            tokens.append((i, stop - at + merged))
        return tokens[::-1]

    return read


def unigram_words(stream: Stream) -> Iterator[Stream]:
    """Split before each space, written as a marker, of which one stands before the text."""
    word: Stream = []
    for c, place, found in stream:
        opens = c in {" ", MARKER}
        if opens and word:
            yield word
        if opens or not word:
            word = [] if opens else [(MARKER, -1, False)]
        word.append((MARKER if opens else c, place, found))
    if word:
        yield word


def written_out(vocabulary: Vocabulary) -> Callable[[str], Reading]:
    """Return the reading of a WordPiece or Unigram tokenizer in plain Python."""
    by_word = {"WordPiece": wordpiece, "Unigram": unigram}[vocabulary.parts["model"]["type"]]
    read = by_word(vocabulary)

    def reading(text: str) -> Reading:
        runs: list[set[int]] = []
        if by_word is wordpiece:
            words = list(bert_words(text))
        else:
            stream, runs = unigram_text(vocabulary, text)
            words = list(unigram_words(stream))
        dummy = bool(words) and words[0][0][:2] == (MARKER, -1)
        tokens = []
        for word in words:
            at = 0
            for i, size in read("".join(c for c, _, _ in word)):
                given = [place for _, place, found in word[at : at + size] if found]
                tokens.append((i, [] if i == vocabulary.unknown else given))
                at += size
        return Reading(tokens, runs, dummy)

    return reading


def replayed_faults(read: Callable[[str], Reading], text: str, encoding: Encoding) -> Iterator[str]:
    """Hold a reading against the one that was written out, token by token.

    Of several spaces that became one, any one may be the one that is not lost.
    """
    reading = read(text)
    own = encoding.text_tokens
    if encoding.ids[own].tolist() != [i for i, _ in reading.tokens]:
        yield "the oracle reads other ids"
        return
    at = list(accumulate((len(c.encode()) for c in text), initial=0))
    lost = {b for start, end in encoding.lost for b in range(start, end)}
    given = {b for _, places in reading.tokens for p in places for b in range(at[p], at[p + 1])}
    for run in reading.runs:
        if len(kept := {at[p] for p in run} - lost) != 1:
            yield f"of the spaces at {sorted(at[p] for p in run)} {sorted(kept)} are kept"
    free = {at[p] for run in reading.runs for p in run}
    if wrong := (set(range(at[-1])) - given ^ lost) - free:
        yield f"lost is not {sorted(given & lost - free)[:5]}, is {sorted(wrong - lost)[:5]}"
    if encoding.lossless != (not lost):
        yield f"lossless is {encoding.lossless}, with {len(lost)} bytes lost"
    if encoding.dummy_prefix != reading.dummy:
        yield f"dummy_prefix is {encoding.dummy_prefix}"
    spans = zip(encoding.start[own].tolist(), encoding.end[own].tolist(), strict=True)
    for (_, places), (start, end) in zip(reading.tokens, spans, strict=True):
        fixed = [p for p in places if at[p] not in free]
        if fixed and not start <= at[fixed[0]] < at[fixed[-1] + 1] <= end:
            yield f"a token of bytes {at[fixed[0]]} to {at[fixed[-1] + 1]} has {start} to {end}"
