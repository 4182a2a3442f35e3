"""Where tokens stand in a text that they do not reproduce byte for byte.

Most tokenizers give back the text's bytes, and spans are running sums. Normalisers (NFC,
lower-casing, collapsed spaces), `[UNK]` and vocabularies with missing bytes do not; here the
tokens' bytes are matched with the text, character by character, between anchors that the
tokenizer's own offsets give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rapidfuzz.distance import Indel

MAX_MATCH_CELLS = 400_000_000
"""Largest matrix (characters x characters) that is searched for a longest common subsequence."""


def locate(
    text: str, pieces: Sequence[bytes | None], offsets: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]], bool]:
    """Find the bytes of a text that each token stands for.

    Args:
        text: the text that was encoded, m characters.
        pieces: the n tokens' own bytes, dummy prefixes removed; None for unknown tokens.
        offsets: the tokenizer's character offsets of the n tokens. They are trusted only to say
            which characters a *run* of overlapping tokens came from.

    Returns:
        start: (n,) int64 byte offsets, never decreasing.
        end: (n,) int64 byte offsets, never decreasing, ``start <= end``.
        lost: byte ranges whose characters the tokens do not reproduce.
        extra: whether tokens hold characters that the text has not.
    """
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
        own = b"".join(p or b"" for p in run)
        begin = max(done, min(s for s, _ in offsets[first:last]))
        # Offsets may have leading spaces trimmed; what else lies before them is no one's.
        done = max(done, begin - len(own))
        while not own.startswith(text[done:begin].encode()):
            done += 1
        begins, ends, same, more = _match(own, text[done:stop])
        cuts = np.cumsum([0] + [len(p or b"") for p in run])
        base = byte_at[done]
        start[first:last] = base + begins[cuts[:-1]]
        end[first:last] = base + np.maximum(ends[cuts[1:]], begins[cuts[:-1]])
        kept[base : base + len(same)] = same
        extra |= more
        done = stop
    if extra or not kept.all():
        end = np.maximum.accumulate(end)
        start = np.minimum(np.maximum.accumulate(start), end)
    return start, end, _ranges(~kept), extra


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


def _match(own: bytes, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Map every byte position of the tokens' bytes to the text's.

    Returns:
        begins: (len(own) + 1,) byte in the text where a token that starts there starts.
        ends: (len(own) + 1,) byte in the text where a token that ends there ends.
        same: (bytes of text,) bool, reproduced by the tokens.
        extra: whether some bytes of the tokens stand for nothing in the text.
    """
    data = text.encode()
    n, m = len(own), len(data)
    if own == data:
        identity = np.arange(n + 1)
        return identity, identity, np.ones(m, bool), False
    begins, ends = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    same = np.zeros(m, bool)
    extra = False
    a = b = 0
    for a1, b1, size in _equal_blocks(own, text, data):
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


def _equal_blocks(own: bytes, text: str, data: bytes) -> list[tuple[int, int, int]]:
    """List equal stretches as (byte in own, byte in text, bytes), closed by an empty one."""
    chars = own.decode("utf-8", "surrogateescape")
    own_at = np.cumsum([0] + [len(c.encode("utf-8", "surrogateescape")) for c in chars])
    text_at = np.cumsum([0] + [len(c.encode()) for c in text])
    close = [(len(own), len(data), 0)]
    if len(chars) * len(text) > MAX_MATCH_CELLS:
        return close
    blocks = Indel.editops(chars, text).as_matching_blocks()
    return [
        (int(own_at[k.a]), int(text_at[k.b]), int(own_at[k.a + k.size] - own_at[k.a]))
        for k in blocks
        if k.size
    ] + close


def _ranges(mask: np.ndarray) -> list[tuple[int, int]]:
    """List the half-open ranges in which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(s), int(e)) for s, e in zip(edges[::2], edges[1::2], strict=True)]
