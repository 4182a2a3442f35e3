"""Oracles of the full sweep: what real tokenizers make of real texts, worked out a second way.

Nothing here shares code with the package's spans. Bytes come from the vocabulary's entries. What is
lost comes from the tokenizer's decoder, or, where that adds and hides text (WordPiece, Unigram),
from a reading written out in plain Python that has to give the same ids (`plain_tokenizers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from plain_tokenizers import Vocabulary, replayed_faults, written_out

from fusion_core.records import Encoding

HEADING = re.compile(r"^ = [^=\n]+ = ?$", re.MULTILINE)


def corpora(testdata: Path) -> dict[str, list[str]]:
    """Read declarations, naughty strings that are not empty, prompts, and WikiText's articles."""
    data = testdata / "data"
    naughty = json.loads((data / "naughty-strings" / "blns.json").read_text(encoding="utf-8"))
    prompts = (data / "humaneval" / "HumanEval.jsonl").read_text(encoding="utf-8").splitlines()
    wiki = (data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    cuts = [m.start() for m in HEADING.finditer(wiki)][1:]
    return {
        "UDHR": [p.read_text(encoding="utf-8") for p in sorted((data / "udhr").glob("*.txt"))],
        "naughty": [s for s in naughty if s and not any("\ud800" <= c <= "\udfff" for c in s)],
        "HumanEval": [json.loads(line)["prompt"] for line in prompts],
        "WikiText": [wiki[a:b] for a, b in pairwise([0, *cuts, len(wiki)])],
    }


# What is lost, by the tokenizer's own decoder


def is_subsequence(short: str, long: str) -> bool:
    """Tell whether the characters of one string stand in another in order."""
    rest = iter(long)
    return all(c in rest for c in short)


def common_length(one: str, other: str) -> int:
    """Return the length of a longest common subsequence (Myers's greedy edit script)."""
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
    return 0


def decoded_faults(vocabulary: Vocabulary, text: str, encoding: Encoding) -> Iterator[str]:
    """Hold a reading against what the tokenizer's decoder gives back of its ids.

    Where several sets of characters could be the lost ones, such as one of two equal neighbours,
    each is right that leaves the decoder's characters in order and is as small as can be.
    """
    ids = encoding.ids[~encoding.special].tolist()
    decoded = vocabulary.backend.decode(ids, skip_special_tokens=False)
    if encoding.lossless != (decoded == text):
        yield f"lossless is {encoding.lossless}, but decoded: {decoded == text}"
    if decoded == text:
        if encoding.lost:
            yield f"lost {encoding.lost[:5]}, but nothing is"
        return
    whole = b"".join(vocabulary.spelt[i] for i in ids).decode(errors="replace")
    if encoding.dummy_prefix != (whole == " " + decoded):
        yield f"dummy_prefix is {encoding.dummy_prefix}"
    kept = bytearray(encoding.data)
    for start, end in reversed(encoding.lost):
        del kept[start:end]
    left = kept.decode(errors="replace")
    if not is_subsequence(left, decoded):
        yield f"lost {encoding.lost[:5]}: the rest is not in what is decoded"
    if len(left) != (most := common_length(text, decoded)):
        yield f"{len(text) - len(left)} characters are lost, but {len(text) - most} suffice"


# Where tokens stand


def standing_faults(vocabulary: Vocabulary, encoding: Encoding) -> Iterator[str]:
    """Hold the spans against the tokens' own bytes: in order, whole, at their true bytes.

    A token may hold a space that its span has not: the dummy prefix, or one that stands for what is
    lost right before it.
    """
    data, own, dummy = encoding.data, encoding.text_tokens, encoding.dummy_prefix
    starts, ends = encoding.start.tolist(), encoding.end.tolist()
    cuts = [b for lost in encoding.lost for b in lost]
    if starts != sorted(starts) or ends != sorted(ends) or cuts != sorted(set(cuts)):
        yield "spans or lost ranges are not in order"
    if any(s > e or s < 0 or e > len(data) for s, e in zip(starts, ends, strict=True)):
        yield "spans are not inside the text"
    if any(starts[i] < ends[i] for i in range(len(starts)) if encoding.special[i]):
        yield "a special token has a width"
    spelt = [vocabulary.spelt[i] for i in encoding.ids[own].tolist()]
    starts, ends = ([spans[i] for i in own] for spans in (starts, ends))
    if encoding.lossless:
        stops = [stop - dummy for stop in accumulate(map(len, spelt))]
        if b"".join(spelt) != b" " * dummy + data or ends != stops or starts != [0, *stops[:-1]]:
            yield "the tokens' bytes, one after the other, are not the text with these spans"
        return
    lost, held = bytearray(len(data)), bytearray(len(data))
    for start, end in encoding.lost:
        lost[start:end] = b"\1" * (end - start)
    for n, (start, end, literal) in enumerate(zip(starts, ends, spelt, strict=True)):
        held[start:end] = b"\1" * (end - start)
        allowed = {data[start:end]}
        if (dummy and n == 0) or 1 in lost[max(start - 1, 0) : start]:
            allowed.add(b" " + data[start:end])
        around = lost[max(start - 1, 0) : end + 1] if start == end else lost[start:end]
        if 1 not in around and literal not in allowed:
            yield f"a token of {literal!r} has bytes {start} to {end}, {data[start:end]!r}"
        if not literal and 0 in lost[start:end]:
            yield f"an unknown token has bytes {start} to {end}, which are not all lost"
    if any(not gone and not there for gone, there in zip(lost, held, strict=True)):
        yield "a byte is neither lost nor any token's"


def reading_faults(vocabulary: Vocabulary) -> Callable[[str, Encoding], list[str]]:
    """Return what names every fault of a tokenizer's readings."""
    if vocabulary.parts["model"]["type"] == "BPE":
        lost = partial(decoded_faults, vocabulary)
    else:
        lost = partial(replayed_faults, written_out(vocabulary))
    return lambda text, read: [*lost(text, read), *standing_faults(vocabulary, read)]
