"""Byte spans of tokens in a text that they do not reproduce byte for byte.

Most tokenizers give back the text's bytes, and spans are running sums. Normalisers (NFC,
lower-casing, collapsed spaces), `[UNK]` and vocabularies with missing bytes do not; here the
tokens' bytes are matched with the text, character by character, as a longest common subsequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rapidfuzz.distance import Indel

WINDOW = 2000
"""Characters that are matched at once; longer texts are matched window by window."""


def locate(
    text: str, pieces: Sequence[bytes | None], offsets: Sequence[tuple[int, int]] | None
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], bool]:
    """Find the span of each token in the bytes of a text.

    Args:
        text: the text that was encoded, m characters.
        pieces: the n tokens' bytes, dummy prefixes removed; None for unknown tokens.
        offsets: the tokenizer's character offsets of the n tokens, to say which characters a *run*
            of overlapping tokens came from; None where unknown characters leave no token, because
            `tokenizers` then gives offsets that are short of them.

    Returns:
        start: (n,) int64 byte offsets, never decreasing.
        end: (n,) int64 byte offsets, never decreasing, ``start <= end``.
        lost: byte ranges whose characters the tokens do not reproduce.
        extra: whether tokens hold characters that the text has not.
    """
    anywhere = [(0, len(text))] * len(pieces)
    placed = _locate(text, pieces, anywhere if offsets is None else offsets)
    if placed[3] and offsets is not None and None not in pieces:
        # Offsets can fall short where a normaliser drops characters: what loses less is right.
        again = _locate(text, pieces, anywhere)
        if sum(e - s for s, e in again[2]) < sum(e - s for s, e in placed[2]):
            return again
    return placed


def _locate(
    text: str, pieces: Sequence[bytes | None], offsets: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], bool]:
    data = np.frombuffer(text.encode(), np.uint8)
    byte_at = np.append(np.flatnonzero((data & 0xC0) != 0x80), len(data))
    start = np.zeros(len(pieces), np.int64)
    end = np.zeros(len(pieces), np.int64)
    kept = np.zeros(byte_at[-1], bool)
    extra = False
    done = 0
    for first, last in _runs(offsets):
        stop = max(done, *(e for _, e in offsets[first:last]))
        run = pieces[first:last]
        if all(p is None for p in run):
            begin = max(done, min(s for s, _ in offsets[first:last]))
            start[first:last], end[first:last] = byte_at[begin], byte_at[stop]
            start[first + 1 : last] = byte_at[stop]
            done = stop
            continue
        spelled = b"".join(p or b"" for p in run)
        begin = max(done, min(s for s, _ in offsets[first:last]))
        # Offsets may have leading spaces trimmed; what else lies before them is no one's.
        done = max(done, begin - len(spelled))
        while not spelled.startswith(text[done:begin].encode()):
            done += 1
        begins, ends, same, more = _match(spelled, text[done:stop])
        cuts = np.cumsum([0] + [len(p or b"") for p in run])
        base = byte_at[done]
        starts, stops = begins[cuts[:-1]], np.maximum(ends[cuts[1:]], begins[cuts[:-1]])
        _fill_gaps(run, cuts, begins, ends, starts, stops)
        start[first:last], end[first:last] = base + starts, base + stops
        kept[base : base + len(same)] = same
        extra |= more
        done = stop
    if extra or not kept.all():
        end = np.maximum.accumulate(end)
        start = np.minimum(np.maximum.accumulate(start), end)
    return start, end, ranges(~kept), extra


def _fill_gaps(
    run: Sequence[bytes | None],
    cuts: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
) -> None:
    """Give what the text has between two tokens to the unknown token at that place.

    ``starts`` and ``stops`` are changed in place: the first unknown token at a place covers the
    gap, tokens without bytes before it have the gap's begin.
    """
    opened = filled = -1
    for n, piece in enumerate(run):
        cut = cuts[n]
        if n == 0 or cut != cuts[opened]:
            opened = n
        gap = starts[n] == stops[n] == begins[cut] > ends[cut]
        if piece is None and gap and filled != opened:
            starts[opened : n + 1] = stops[opened:n] = ends[cut]
            filled = opened


def _runs(offsets: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield half-open token ranges whose character offsets do not reach into one another."""
    first, reach = 0, -1
    for i, (s, e) in enumerate(offsets):
        if i > first and s >= reach:
            yield first, i
            first = i
        reach = max(reach, e)
    if offsets:
        yield first, len(offsets)


def _match(spelled: bytes, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Map every byte position of the tokens' bytes to the text's.

    Returns:
        begins: (len(spelled) + 1,) byte in the text where a token that starts there starts.
        ends: (len(spelled) + 1,) byte in the text where a token that ends there ends.
        same: (bytes of text,) bool, reproduced by the tokens.
        extra: whether some bytes of the tokens are not in the text.
    """
    data = text.encode()
    n, m = len(spelled), len(data)
    if spelled == data:
        identity = np.arange(n + 1)
        return identity, identity, np.ones(m, bool), False
    begins, ends = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    same = np.zeros(m, bool)
    extra = False
    a = b = 0
    for a1, b1, size in _equal_blocks(spelled, text, data):
        gap = np.arange(a1 - a + 1) * (b1 - b) // max(a1 - a, 1)
        begins[a : a1 + 1] = b + gap
        ends[a + 1 : a1 + 1] = b + gap[1:]
        extra |= a1 > a
        if a1 == a:  # only the text has something here: what ended, ended before it
            begins[a] = b1
        block = np.arange(size + 1)
        begins[a1 : a1 + size + 1] = b1 + block
        ends[a1 + 1 : a1 + size + 1] = b1 + block[1:]
        same[b1 : b1 + size] = True
        a, b = a1 + size, b1 + size
    return begins, ends, same, extra


def _equal_blocks(spelled: bytes, text: str, data: bytes) -> list[tuple[int, int, int]]:
    """List equal stretches as (byte in spelled, byte in text, bytes), closed by an empty one."""
    chars = spelled.decode("utf-8", "surrogateescape")
    spelled_at = np.cumsum([0] + [len(c.encode("utf-8", "surrogateescape")) for c in chars])
    text_at = np.cumsum([0] + [len(c.encode()) for c in text])
    return [
        (int(spelled_at[a]), int(text_at[b]), int(spelled_at[a + size] - spelled_at[a]))
        for a, b, size in _common(chars, text)
    ] + [(len(spelled), len(data), 0)]


def _common(one: str, other: str) -> Iterator[tuple[int, int, int]]:
    """Yield equal stretches of two strings as (place in one, place in the other, characters).

    Within a window they are a longest common subsequence. What is found in its last quarter is
    looked at again in the next window, unless nothing else was found.
    """
    a = b = 0
    while a < len(one) and b < len(other):
        left, right = one[a : a + WINDOW], other[b : b + WINDOW]
        last = a + WINDOW >= len(one) and b + WINDOW >= len(other)
        blocks = [k for k in Indel.editops(left, right).as_matching_blocks() if k.size]
        sure = [k for k in blocks if last or max(k.a, k.b) < 0.75 * WINDOW] or blocks
        for k in sure:
            yield a + k.a, b + k.b, k.size
        if last:
            return
        if sure:
            a, b = a + sure[-1].a + sure[-1].size, b + sure[-1].b + sure[-1].size
        else:
            a, b = a + len(left), b + len(right)


def ranges(mask: np.ndarray) -> list[tuple[int, int]]:
    """List the half-open ranges in which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(s), int(e)) for s, e in zip(edges[::2], edges[1::2], strict=True)]
