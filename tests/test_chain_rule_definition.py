"""The chain rule from its definition, on vocabularies, rows and segmentations drawn at random."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fusion_core import project
from fusion_core.records import DenseRows, Encoding, NextTokenRows, ProjectedRows, RowKind

# The only lines that know how the library is called -------------------------------------------


def ruled(
    rows: ProjectedRows, own: np.ndarray, observed: list[int], native: np.ndarray, target: Encoding
) -> np.ndarray:
    """Return (m, V) probabilities after the rule."""
    logprobs = torch.from_numpy(own).log().float()
    after = project.chain_rule(
        rows, DenseRows(logprobs), torch.tensor(observed), native, target, IDS_OF
    )
    assert after.mapped.is_sparse == rows.mapped.is_sparse
    return after.probs(logprobs.exp()).double().numpy()


def native(target: Encoding, source: Encoding, logprobs: list[float]) -> np.ndarray:
    """Return (m,) nats of the target's tokens along the source's steps, nan where not known."""
    n = len(logprobs)
    rows = DenseRows(torch.zeros(n + 1, 1))
    after, seen = torch.tensor([*logprobs, np.nan]), torch.zeros(n + 1, dtype=torch.int64)
    given = NextTokenRows("s", rows, seen, after, source.row_bytes)
    return project.native_ce(target, source, given)


# Rows -----------------------------------------------------------------------------------------

VOCABULARY = [
    *(b"a", b"b", b"c", b"ab", b"bc", b"abc", b"ca", b"abcabc", b" ", b" a", b" abc", b"", b"x"),
    *(b"ab", b"cab", b"bca", b"abcx"),
]
IDS_OF: dict[bytes, list[int]] = {}
for token, spelled in enumerate(VOCABULARY):
    if spelled:
        IDS_OF.setdefault(spelled, []).append(token)
SIZE, UNKNOWN = len(VOCABULARY), VOCABULARY.index(b"")


def cut(data: bytes, dummy: bool, rng: np.random.Generator) -> tuple[Encoding, list[int]]:
    """Cut a text into tokens at random; the third one is seen as unknown."""
    text, at, ids, ends = b" " * dummy + data, 0, [], []
    while at < len(text):
        fits = [v for v, b in enumerate(VOCABULARY) if b and text[at : at + len(b)] == b]
        ids.append(int(rng.choice(fits)))
        at += len(VOCABULARY[ids[-1]])
        ends.append(at - dummy)
    ids[2:3] = [UNKNOWN] * (len(ids) > 2)
    n = len(ids)
    starts, special = np.asarray([0, *ends[:-1]]), np.zeros(n, bool)
    pieces = tuple(map(str, ids))
    arrays = np.asarray(ids), starts, np.asarray(ends), special
    return Encoding("t", data, *arrays, pieces, dummy_prefix=dummy), ids


def rows_of(
    q: np.ndarray, own: np.ndarray, share: np.ndarray, kind: np.ndarray, *, sparse: bool
) -> ProjectedRows:
    """Write rows as what was carried and a share of the target's own; entries stand in halves."""
    carried = torch.from_numpy(q - share[:, None] * own).float()
    if sparse:
        where = torch.nonzero(carried != 0).T
        half = carried[where[0], where[1]] / 2
        order = torch.randperm(2 * len(half), generator=torch.Generator().manual_seed(0))
        carried = torch.sparse_coo_tensor(
            torch.cat([where, where], 1)[:, order], torch.cat([half, half])[order], carried.shape
        )
    mass = torch.ones(len(q))
    return ProjectedRows("s", carried, torch.from_numpy(share).float(), mass, kind, mass)


def expected(
    q: np.ndarray, observed: list[int], native: np.ndarray, kind: np.ndarray, target: Encoding
) -> np.ndarray:
    out, text = q.copy(), b" " + target.data
    for i, y in enumerate(observed):
        if np.isnan(native[i]) or kind[i] == RowKind.NONE:
            continue
        ahead = text[int(target.row_bytes[i]) + 1 :]
        spelled = [v for v, b in enumerate(VOCABULARY) if b and ahead.startswith(b)]
        rest = np.delete(np.arange(SIZE), [*{*spelled, y}])
        known, room = np.exp(-native[i]), q[i, rest].sum()
        if room > 1e-6:
            out[i] = 0
            out[i, rest] = q[i, rest] * (1 - known) / room
            out[i, y] = known
    return out


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dummy", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_as_defined(seed: int, dummy: bool, sparse: bool) -> None:
    rng = np.random.default_rng(seed)
    target, observed = cut(b"abcabcabxcabc", dummy, rng)
    m = len(observed)
    q, own = rng.dirichlet(np.full(SIZE, 0.4), m), rng.dirichlet(np.full(SIZE, 0.4), m)
    share, kind = 0.6 * rng.random(m), np.full(m, int(RowKind.SHARED))
    native = rng.exponential(1, m)
    kind[3::4], native[1::4], native[0] = int(RowKind.NONE), np.nan, 0.3
    kind[2::4] = int(RowKind.INSIDE)
    got = ruled(rows_of(q, own, share, kind, sparse=sparse), own, observed, native, target)
    np.testing.assert_allclose(got, expected(q, observed, native, kind, target), atol=1e-6)
    np.testing.assert_allclose(got.sum(1), 1, atol=2e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("left", "applies"), [(0.0, False), (5e-7, False), (3e-6, True)])
def test_what_is_left_must_have_room(left: float, applies: bool, sparse: bool) -> None:
    """Where other spellings of what followed have everything, nothing can be rescaled."""
    target, observed = cut(b"abc", False, np.random.default_rng(1))
    m = len(observed)
    own = np.full((m, SIZE), 1 / SIZE)
    q = np.zeros((m, SIZE))
    q[:, VOCABULARY.index(b"x")] = left
    q[0, VOCABULARY.index(b"a")], q[1:, observed[1:]] = 0.7 - left, 1 - left
    q[0, VOCABULARY.index(b"abc")] = 0.3
    native, kind = np.full(m, np.nan), np.full(m, int(RowKind.SHARED))
    native[0] = -np.log(0.25)
    rows = rows_of(q, own, np.zeros(m), kind, sparse=sparse)
    got = ruled(rows, own, observed, native, target)[0]
    if not applies:
        np.testing.assert_allclose(got, q[0], atol=1e-7)
        return
    assert got[observed[0]] == pytest.approx(0.25, abs=1e-5)
    assert got[VOCABULARY.index(b"x")] == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_longest_token_of_the_vocabulary_is_another_spelling(sparse: bool) -> None:
    """`abcabc` runs beyond the observed token along the text, which the source has spelled."""
    target, observed = cut(b"abcabc", False, np.random.default_rng(0))
    longest = VOCABULARY.index(b"abcabc")
    m = len(observed)
    assert observed[0] != longest
    own = q = np.full((m, SIZE), 1 / SIZE)
    native, kind = np.full(m, np.log(2)), np.full(m, int(RowKind.SHARED))
    rows = rows_of(q, own, np.full(m, 0.5), kind, sparse=sparse)
    got = ruled(rows, own, observed, native, target)
    assert got[0, longest] == pytest.approx(0, abs=1e-7)
    assert got[0, observed[0]] == pytest.approx(0.5, abs=1e-6)


def test_a_vocabulary_without_bytes_has_no_other_spellings(monkeypatch) -> None:
    target, observed = cut(b"abc", False, np.random.default_rng(2))
    monkeypatch.setattr(sys.modules[__name__], "IDS_OF", {})
    m = len(observed)
    own = q = np.full((m, SIZE), 1 / SIZE)
    rows = rows_of(q, own, np.full(m, 0.5), np.full(m, int(RowKind.SHARED)), sparse=False)
    got = ruled(rows, own, observed, np.full(m, np.log(2)), target)
    wanted = np.full((m, SIZE), 0.5 / (SIZE - 1))
    wanted[np.arange(m), observed] = 0.5
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_no_row_at_all_to_which_it_applies() -> None:
    target, observed = cut(b"abc", False, np.random.default_rng(2))
    m = len(observed)
    q, own = (np.random.default_rng(i).dirichlet(np.ones(SIZE), m) for i in (1, 2))
    kind = np.full(m, int(RowKind.SHARED))
    for sparse in (False, True):
        rows = rows_of(q, own, np.full(m, 0.25), kind, sparse=sparse)
        got = ruled(rows, own, observed, np.full(m, np.nan), target)
        np.testing.assert_allclose(got, q, atol=1e-6)


@pytest.mark.parametrize("source_dummy", [False, True])
@pytest.mark.parametrize("dummy", [False, True])
def test_native_ce_is_the_sum_of_the_steps(dummy: bool, source_dummy: bool) -> None:
    """It is known where a token of the target begins and ends where the source has rows."""
    known = unknown = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        target, source = (cut(b"abcabcab", d, rng)[0] for d in (dummy, source_dummy))
        logprobs = -rng.exponential(1, len(source))
        if seed % 2:
            logprobs[int(rng.integers(len(logprobs)))] = -np.inf
        places = source.row_bytes.tolist()
        for i, nats in enumerate(native(target, source, logprobs.tolist()).tolist()):
            begin, end = (max(int(target.row_bytes[n]), places[0]) for n in (i, i + 1))
            along = [n for n in range(len(source)) if begin <= places[n] and places[n + 1] <= end]
            steps = -logprobs[along]
            if begin == end or {begin, end} - set(places) or np.isinf(steps).any():
                assert np.isnan(nats)
                unknown += 1
            else:
                assert nats == pytest.approx(steps.sum(), abs=1e-5)
                known += 1
    assert known > 5 and unknown > 5
