"""Alignment by bytes against brute force over all pairs of tokens."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from conftest import TOKENIZERS
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from fusion_core.align import by_bytes, by_bytes_batch, by_dtw
from fusion_core.align.dtw import warp
from fusion_core.errors import InputError, TooLargeError
from fusion_core.records import Alignment, Encoding, RowKind

TEXT = "Ünïcödé — 東京 2026年, Привет! مرحبا 👩🏽‍🚀"


def encoding(data: bytes, cuts: list[int], *, bos: bool = False, dummy: bool = False) -> Encoding:
    """Build an encoding of tokens that end at the given bytes."""
    ends = np.asarray([0] * bos + cuts, np.int64)
    starts = np.asarray([0] * bos + [0, *cuts[:-1]][: len(cuts)], np.int64)
    special = np.asarray([True] * bos + [False] * len(cuts), bool)
    ids = np.arange(len(ends))
    return Encoding("m", data, ids, starts, ends, special, tuple(map(str, ids)), dummy_prefix=dummy)


def brute_force_groups(target: Encoding, source: Encoding) -> list[list[int]]:
    """Close a group after the last tokens of both sides that end at a common byte."""
    t, s = list(target.text_tokens), list(source.text_tokens)
    groups, t0, s0 = [], 0, 0
    for byte in range(len(target.data) + 1):
        t1 = max((i + 1 for i in range(len(t)) if target.end[t[i]] <= byte), default=0)
        s1 = max((i + 1 for i in range(len(s)) if source.end[s[i]] <= byte), default=0)
        ends = byte in target.end[t] and byte in source.end[s]
        if ends and (t1 > t0 or s1 > s0):
            groups.append([int(t[0]) + t0, int(t[0]) + t1, int(s[0]) + s0, int(s[0]) + s1])
            t0, s0 = t1, s1
    return groups


cuts = st.lists(st.integers(1, 19), max_size=12, unique=True).map(lambda c: [*sorted(c), 20])


@settings(max_examples=300, deadline=None)
@given(cuts, cuts, st.booleans(), st.booleans())
def test_groups_and_rows_equal_brute_force(
    t: list[int], s: list[int], t_bos: bool, s_bos: bool
) -> None:
    target, source = encoding(bytes(20), t, bos=t_bos), encoding(bytes(20), s, bos=s_bos)
    aligned = by_bytes(target, source)
    assert aligned.groups.tolist() == brute_force_groups(target, source)
    for i, end in enumerate(target.end):
        same = [j for j in range(len(source)) if source.end[j] == end]
        assert aligned.boundary[i] == max(same, default=-1)
    for i, at in enumerate([0, *t[:-1]]):
        row_bytes = [0, *s]
        last = max(j for j in range(len(row_bytes)) if row_bytes[j] <= at)
        assert aligned.row[i] == last
        assert aligned.offset[i] == at - row_bytes[last]
        expected = RowKind.SHARED if at == row_bytes[last] else RowKind.INSIDE
        assert aligned.kind[i] == expected
    assert aligned.coverage == np.mean([b in {0, *s} for b in [0, *t[:-1]]])
    assert aligned.coverage_with_prefix == 1.0


def test_zero_width_pieces_join_and_the_last_one_counts() -> None:
    target, source = encoding(b"abc", [1, 3]), encoding(b"abc", [0, 1, 1, 3])
    aligned = by_bytes(target, source)
    assert aligned.groups.tolist() == [[0, 1, 0, 3], [1, 2, 3, 4]]
    assert aligned.boundary.tolist() == [2, 3]
    assert aligned.row.tolist() == [1, 3]


def test_dummy_prefix_counts_as_a_byte_before_the_text() -> None:
    plain, dummy = encoding(b"abc", [1, 3]), encoding(b"abc", [2, 3], dummy=True)
    aligned = by_bytes(plain, dummy)  # the source's row 0 says what follows a space
    assert aligned.kind.tolist() == [RowKind.INSIDE, RowKind.INSIDE]
    assert aligned.offset.tolist() == [1, 2]
    assert aligned.at_boundary.tolist() == [True, False]
    assert by_bytes(dummy, plain).kind.tolist() == [RowKind.SHARED, RowKind.INSIDE]
    assert by_bytes(dummy, dummy).kind.tolist() == [RowKind.SHARED, RowKind.SHARED]


def test_a_source_without_start_token_says_nothing_before_its_first_token() -> None:
    target, source = encoding(b"abcd", [1, 2, 4]), encoding(b"abcd", [2, 4])
    aligned = by_bytes(target, source, source_start=False)
    assert aligned.kind.tolist() == [RowKind.NONE, RowKind.NONE, RowKind.SHARED]
    assert aligned.row.tolist() == [-1, -1, 1]
    assert aligned.coverage == pytest.approx(1 / 3)


def test_lost_bytes_give_no_inside_row() -> None:
    target = encoding(b"abcd", [1, 2, 4])
    source = Encoding(
        "m",
        b"abcd",
        np.arange(1),
        np.asarray([0]),
        np.asarray([4]),
        np.asarray([False]),
        ("x",),
        lost=((1, 2),),
        lossless=False,
    )
    assert by_bytes(target, source).kind.tolist() == [
        RowKind.SHARED,
        RowKind.INSIDE,
        RowKind.NONE,
    ]


def test_a_source_that_makes_no_token() -> None:
    target, source = encoding(b" ", [1]), encoding(b" ", [])
    aligned = by_bytes(target, source)
    assert aligned.groups.tolist() == [[0, 1, 0, 0]]
    assert aligned.boundary.tolist() == [-1]
    assert aligned.kind.tolist() == [RowKind.SHARED]
    assert by_bytes(source, target).row.tolist() == []


def test_a_closing_special_token_counts_for_boundary_alone() -> None:
    plain, closed = encoding(b"ab", [1, 2]), encoding(b"ab", [1, 2, 2])
    closed.special[2] = True
    aligned = by_bytes(plain, closed)
    assert aligned.boundary.tolist() == [0, 2], "the last token that ends there, special or not"
    assert aligned.groups.tolist() == [[0, 1, 0, 1], [1, 2, 1, 2]]


def test_different_texts_are_refused() -> None:
    with pytest.raises(InputError, match="different texts"):
        by_bytes(encoding(b"a", [1]), encoding(b"b", [1]))


@pytest.mark.parametrize("text", [TEXT, " ", "\n\t", "a", "</s>"])
def test_all_pairs_of_real_tokenizers(real_tokenizer, text: str) -> None:
    readings = {name: real_tokenizer(name).encode(text) for name in TOKENIZERS}
    for target, source in itertools.permutations(readings.values(), 2):
        aligned = by_bytes(target, source)
        groups = aligned.groups
        for side, (first, stop) in ((target, (0, 1)), (source, (2, 3))):
            members = [i for g in groups for i in range(g[first], g[stop])]
            assert members == side.text_tokens.tolist(), "groups partition both sides"
        for t0, t1, s0, s1 in groups:
            if target.lossless and source.lossless:
                assert (target.start[t0], target.end[t1 - 1]) == (
                    source.start[s0],
                    source.end[s1 - 1],
                )
        if target.lossless and source.lossless:
            assert groups.tolist() == brute_force_groups(target, source)
            assert aligned.coverage_with_prefix == 1.0


def same(one: Alignment, other: Alignment) -> None:
    for name in ("groups", "boundary", "row", "kind", "offset", "at_boundary"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cuts, cuts, st.booleans(), st.booleans()), max_size=5), st.booleans())
def test_a_batch_is_aligned_as_its_texts_alone(texts: list, start: bool) -> None:
    pairs = [
        (encoding(bytes(20), t, bos=bos), encoding(bytes(20), s, dummy=dummy))
        for t, s, bos, dummy in texts
    ]
    targets, sources = [t for t, _ in pairs], [s for _, s in pairs]
    batch = by_bytes_batch(targets, sources, source_start=start)
    assert len(batch) == len(pairs)
    for (target, source), aligned in zip(pairs, batch, strict=True):
        same(aligned, by_bytes(target, source, source_start=start))


def test_batches_of_texts_of_all_lengths(real_tokenizer) -> None:
    texts = [TEXT, "a", " ", "x" * 500, "\x00\x7f", "e\u0301 Zoë"]
    for names in (("bert-base-uncased", "falcon"), ("llama-2-7b-fast", "qwen1.5")):
        targets, sources = (real_tokenizer(n).encode_batch(texts) for n in names)
        for one, t, s in zip(by_bytes_batch(targets, sources), targets, sources, strict=True):
            same(one, by_bytes(t, s))


@pytest.mark.parametrize("source", ["open_llama_3b-fast", "gpt-neox-20b_mpt"])
def test_dtw_equals_the_published_alignment(testdata, real_tokenizer, source: str) -> None:
    target = "llama-2-7b-fast"
    file = testdata / "golden" / f"{target}__from__{source}.align.json"
    texts = json.loads(file.read_text(encoding="utf-8"))["texts"]
    assert len(texts) == 18
    for text in texts:
        t, s = (real_tokenizer(n).encode(text["text"]) for n in (target, source))
        aligned = by_dtw(t, s)
        first = int(s.text_tokens[0])
        pairs = [[j - first for j in aligned.target_to_source[i]] for i in t.text_tokens]
        assert pairs == text["target_to_source"]
        assert aligned.cost == text["cost"]
        assert not any(aligned.target_to_source[i] for i in np.flatnonzero(t.special))


def plain_warp(target: list[str], source: list[str]) -> tuple[list[tuple[int, int]], int]:
    """Fill the whole table cell by cell, and walk back: diagonal, then up, then left."""
    total: dict[tuple[int, int], float] = {(-1, -1): 0}
    for i, a in enumerate(target):
        for j, b in enumerate(source):
            before = [total.get(c, float("inf")) for c in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            total[i, j] = Levenshtein.distance(a, b) + min(before)
    i, j = len(target) - 1, len(source) - 1
    path = [(i, j)]
    while (i, j) != (0, 0):
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((s for s in steps if min(s) >= 0), key=lambda s: total[s])
        path.append((i, j))
    return path[::-1], int(total[len(target) - 1, len(source) - 1])


words = st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(words, words)
def test_warping_equals_the_plain_table(target: list[str], source: list[str]) -> None:
    assert warp(target, source) == plain_warp(target, source)


def test_groups_of_the_warping_join_tokens_that_share_a_pair(real_tokenizer) -> None:
    t, s = (real_tokenizer(n).encode(TEXT) for n in ("llama-2-7b-fast", "gpt2"))
    aligned = by_dtw(t, s)
    for side, (first, stop) in ((t, (0, 1)), (s, (2, 3))):
        members = [i for g in aligned.groups for i in range(g[first], g[stop])]
        assert members == side.text_tokens.tolist()
    for t0, t1, s0, s1 in aligned.groups:
        paired = {j for i in range(t0, t1) for j in aligned.target_to_source[i]}
        assert paired == set(range(s0, s1))
    assert np.array_equal(aligned.boundary, by_bytes(t, s).boundary)


def test_dtw_refuses_what_it_cannot_do(real_tokenizer, monkeypatch) -> None:
    with pytest.raises(InputError, match="entries"):
        by_dtw(encoding(b"ab", [1, 2]), encoding(b"ab", [2]))
    monkeypatch.setattr("fusion_core.align.dtw.MAX_CELLS", 10)
    t, s = (real_tokenizer(n).encode(TEXT) for n in ("llama-2-7b-fast", "gpt2"))
    with pytest.raises(TooLargeError, match="by bytes"):
        by_dtw(t, s)
