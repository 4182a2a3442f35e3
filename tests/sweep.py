"""Oracles of the full sweep: real tokenizers on real texts, worked out without `fusion_core`.

Nothing here shares code with the package's own spans or alignment. A reading's bytes come from the
vocabulary by `own_bytes`; what is lost comes from the tokenizer's own decoder, or, where a decoder
adds or hides text (WordPiece, Unigram), from the normaliser's definition and a tokenizer written out
in plain Python; an alignment comes from sets and dicts of end bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, pre_tokenizers

from fusion_core.records import Alignment, Encoding, RowKind
from fusion_core.tokens import TextTokenizer

MARKER = "▁"
HEADING = re.compile(r"^ = [^=\n]+ = ?$", re.MULTILINE)


def corpora(testdata: Path) -> dict[str, list[str]]:
    """Read the texts: declarations, naughty strings, prompts, and articles of WikiText."""
    data = testdata / "data"
    naughty = json.loads((data / "naughty-strings" / "blns.json").read_text(encoding="utf-8"))
    prompts = (data / "humaneval" / "HumanEval.jsonl").read_text(encoding="utf-8").splitlines()
    wiki = (data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    cuts = [0, *(m.start() for m in HEADING.finditer(wiki))][2:]
    return {
        "UDHR": [p.read_text(encoding="utf-8") for p in sorted((data / "udhr").glob("*.txt"))],
        "naughty": [s for s in naughty if s and encodable(s)],
        "HumanEval": [json.loads(line)["prompt"] for line in prompts],
        "WikiText": [wiki[a:b] for a, b in pairwise([0, *cuts, len(wiki)])],
    }


def encodable(text: str) -> bool:
    """Tell whether a text has a UTF-8 form."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def parts_of(backend: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer's serialised parts."""
    return json.loads(backend.to_str())


def own_bytes(backend: Tokenizer) -> dict[int, bytes]:
    """Spell every entry of a vocabulary; the byte alphabet is the one of `transformers`."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    parts = parts_of(backend)
    added = {a["id"]: a["content"].encode() for a in parts["added_tokens"]}
    byte_of = {c: b for b, c in bytes_to_unicode().items()}
    byte_level = (parts["decoder"] or {}).get("type") == "ByteLevel"

    def spell(entry: str) -> bytes:
        if byte_level:
            return bytes(byte_of[c] for c in entry)
        if parts["model"].get("byte_fallback") and re.fullmatch("<0x[0-9A-F]{2}>", entry):
            return bytes.fromhex(entry[3:5])
        if parts["model"]["type"] == "WordPiece":
            entry = entry.removeprefix("##")
        return entry.replace(MARKER, " ").encode()

    vocab = backend.get_vocab(with_added_tokens=True)
    return {i: added[i] if i in added else spell(entry) for entry, i in vocab.items()}


# --- what is lost -------------------------------------------------------------------------------


def is_subsequence(short: str, long: str) -> bool:
    """Tell whether the characters of one string stand in another in order."""
    rest = iter(long)
    return all(c in rest for c in short)


def common_length(one: str, other: str) -> int:
    """Return the length of a longest common subsequence (Myers, O(ND))."""
    a, b = len(one), len(other)
    reach = {1: 0}
    for edits in range(a + b + 1):
        for k in range(-edits, edits + 1, 2):
            down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            while x < a and x - k < b and one[x] == other[x - k]:
                x += 1
            reach[k] = x
            if x >= a and x - k >= b:
                return (a + b - edits) // 2
    raise AssertionError("unreachable")


Read = list[tuple[int, list[int]]]
"""Tokens as (id, places of the characters that it gives back)."""


Stream = list[tuple[str, int, bool]]
"""Normalised characters: (character, place in the text it comes from, it is the text's own)."""


def is_ideograph(c: str) -> bool:
    """Tell whether BERT puts spaces around a character."""
    blocks = (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)
    more = (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)
    return any(a <= ord(c) <= b for a, b in blocks + more)


def bert_stream(text: str) -> Stream:
    """Normalise as BERT does: clean, set ideographs apart, strip accents, lower the case."""
    stream: Stream = []
    for place, c in enumerate(text):
        if c.isspace() and (c in "\t\n\r" or unicodedata.category(c)[0] != "C"):
            stream.append((" ", place, False))
        elif c not in "\0\ufffd" and unicodedata.category(c)[0] != "C":
            apart = [(" ", place, False)] * is_ideograph(c)
            plain = [d for d in unicodedata.normalize("NFD", c) if unicodedata.category(d) != "Mn"]
            lower = [(e, place, e == c) for d in plain for e in d.lower()]
            stream += [*apart, *lower, *apart]
    return stream


def bert_words(stream: Stream) -> Iterator[Stream]:
    """Split at spaces, and at each punctuation character."""
    word: Stream = []
    for item in [*stream, (" ", -1, False)]:
        c = item[0]
        punctuation = unicodedata.category(c)[0] == "P" or (c.isascii() and c in "$+<=>^`|~")
        if punctuation or c.isspace():
            if word:
                yield word
            word = []
            if punctuation:
                yield [item]
        else:
            word.append(item)


def wordpiece(backend: Tokenizer) -> Callable[[str], list[tuple[int, int]]]:
    """Return the greedy reading of a word as (id, characters)."""
    vocab = backend.get_vocab()
    model = parts_of(backend)["model"]
    unknown, limit = vocab[model["unk_token"]], model["max_input_chars_per_word"]

    @cache
    def read(word: str) -> list[tuple[int, int]]:
        tokens, at = [], 0
        while at < len(word):
            stops = range(len(word), at, -1)
            entries = ((e, "##" * (at > 0) + word[at:e]) for e in stops)
            stop, entry = next(((e, s) for e, s in entries if s in vocab), (0, ""))
            if not stop or len(word) > limit:
                return [(unknown, len(word))]
            tokens.append((vocab[entry], stop - at))
            at = stop
        return tokens

    return read


def unigram(backend: Tokenizer) -> Callable[[str], list[tuple[int, int]]]:
    """Return the most probable reading of a word as (id, characters); unknown ones are joined."""
    model = parts_of(backend)["model"]
    unknown = model["unk_id"]
    entries = {s: (i, score) for i, (s, score) in enumerate(model["vocab"])}
    longest = max(map(len, entries))
    penalty = min(score for _, score in model["vocab"]) - 10.0

    @cache
    def read(word: str) -> list[tuple[int, int]]:
        best: list[tuple[float, int, int] | None] = [(0.0, 0, -1)] + [None] * len(word)
        for at in range(len(word)):
            stops = range(at + 1, min(len(word), at + longest) + 1)
            found = [(e, *entries[word[at:e]]) for e in stops if word[at:e] in entries]
            if word[at] not in entries:
                found.append((at + 1, unknown, penalty))
            for stop, i, score in found:
                total = best[at][0] + score
                if best[stop] is None or total > best[stop][0]:
                    best[stop] = (total, at, i)
        tokens: list[tuple[int, int]] = []
        at = len(word)
        while at:
            _, begin, i = best[at]
            if i == unknown and tokens and tokens[-1][0] == unknown:
                tokens[-1] = (unknown, tokens[-1][1] + at - begin)
            else:
                tokens.append((i, at - begin))
            at = begin
        return tokens[::-1]

    return read
