"""Codec of sparse rows: a few bytes each.

*Ids.* The k ids and the observed id stand in exactly b bits each, most significant bit first, b
being what the vocabulary's largest id needs. The ids of a row differ, so that a repeat of the first
one says "none" (-1).

*Probabilities.* One byte for each choice, with steps that are even in the Hellinger metric, where
a step costs the same Kullback-Leibler divergence everywhere. The j-th most probable token has
p_j <= 1/j; its code c > 0 is read as sqrt(j p_j) = (c - 1/2)/255. Of the two nearest codes the one
is taken that evens out what the codes before left over. What tokens 2 … k leave of 1 is shared
between token 1 and the tail: their code says at which angle, arctan sqrt(tail/p_1), in 254 steps of
a quarter turn; 0 means no tail and 255 nothing but the tail. So every row sums to 1, and a
probability is read as 0 exactly where it was 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from fusion_core.errors import FusionError, InputError
from fusion_core.records import SparseRows

_CODE = np.arange(256)
_POWER = np.where(_CODE > 0, ((_CODE - 0.5) / 255) ** 2, 0).astype(np.float32)
_ANGLE = (_CODE - 0.5).clip(0) / 254 * np.pi / 2
_TAIL = np.where(_CODE == 255, 1, np.sin(_ANGLE) ** 2).astype(np.float32)
_FIRST = np.where(_CODE == 255, 0, np.cos(_ANGLE) ** 2).astype(np.float32)


def bits(vocab_size: int) -> int:
    """Return how many bits the ids of a vocabulary need."""
    return max(1, (vocab_size - 1).bit_length())


def width(k: int, vocab_size: int) -> int:
    """Return how many bytes the ids of one row take, the observed one included."""
    return -(-(k + 1) * bits(vocab_size) // 8)


def encode(rows: SparseRows, observed: torch.Tensor) -> dict[str, np.ndarray]:
    """Pack rows for the disk.

    Args:
        rows: m rows of k >= 1 ids, by falling probability; -1 only where the probability is 0.
        observed: (m,) int64, the token that each row predicts.

    Returns:
        ``ids`` (m, `width`) uint8 and ``probs`` (m, k) uint8. The Kullback-Leibler divergence of
        the decoded rows, the tail as one bucket, stays below 1e-3 nats a row.

    Raises:
        FusionError: a row is no distribution in falling order, or an id is outside the vocabulary.
    """
    ids, p = rows.ids.cpu().numpy(), rows.probs.detach().cpu().double().numpy()
    tail, seen = rows.tail.detach().cpu().double().numpy(), observed.cpu().numpy()
    _check(ids, p, tail, seen, rows.vocab_size)
    first = np.where(p[:, :1] > 0, ids[:, :1], 0)
    numbers = np.concatenate([first, np.where(ids[:, 1:] < 0, first, ids[:, 1:]), seen[:, None]], 1)
    codes = np.empty(p.shape, np.uint8)  # (m, k)
    turn = np.arctan2(np.sqrt(tail), np.sqrt(p[:, 0])) / (np.pi / 2)  # (m,)
    codes[:, 0] = np.where(p[:, 0] > 0, np.ceil(254 * turn), 255)
    left = np.zeros(len(p))  # of the tokens before, so that what token 1 gets is not their sum
    for j in range(1, p.shape[1]):
        low = np.floor(255 * np.sqrt((j + 1) * p[:, j]) + 0.5)
        code = np.ceil(255 * np.sqrt(((j + 1) * (p[:, j] + left)).clip(0)))
        code = np.where(p[:, j] > 0, code.clip(low, low + 1).clip(1, 255), 0).astype(np.uint8)
        codes[:, j] = code
        left += p[:, j] - _POWER[code].astype(np.float64) / (j + 1)
    return {"ids": _pack(numbers, bits(rows.vocab_size)), "probs": codes}


def decode(
    arrays: Mapping[str, np.ndarray], k: int, vocab_size: int, temperature: float
) -> tuple[SparseRows, torch.Tensor]:
    """Read back what `encode` packed.

    Args:
        arrays: ``ids`` (m, `width`) uint8 and ``probs`` (m, k) uint8.
        k: ids a row.
        vocab_size: number of ids of the vocabulary.
        temperature: what the logits were divided by.

    Returns:
        m rows that sum to 1 with their tails, in an order that may be off by one step of the codes,
        and the (m,) int64 observed ids. Where the tail has everything, all ids are -1.

    Raises:
        InputError: the arrays do not fit one another, or hold an id outside the vocabulary.
    """
    packed, codes = arrays["ids"], arrays["probs"]
    if (
        k < 1
        or packed.dtype != np.uint8
        or codes.dtype != np.uint8
        or codes.ndim != 2
        or codes.shape[1] != k
        or packed.shape != (len(codes), width(k, vocab_size))
    ):
        raise InputError(
            f"Stored rows of shapes {packed.shape} and {codes.shape} are not {k} of {vocab_size:,} "
            "ids a row: build the cache again."
        )
    numbers = _unpack(packed, k + 1, bits(vocab_size))  # (m, k + 1)
    if numbers.size and int(numbers.max()) >= vocab_size:
        raise InputError(
            f"A stored row holds id {int(numbers.max()):,}, outside the vocabulary of "
            f"{vocab_size:,}: build the cache again."
        )
    ids = numbers[:, :k].copy()
    ids[:, 1:][ids[:, 1:] == ids[:, :1]] = -1
    probs = np.empty(codes.shape, np.float32)
    probs[:, 1:] = _POWER[codes[:, 1:]] / np.arange(2, k + 1, dtype=np.float32)
    others = probs[:, 1:].sum(1)  # (m,)
    probs[:, 1:] /= others.clip(1)[:, None]  # more than 1 only in codes that nobody encoded
    rest = (1 - others).clip(0)
    probs[:, 0] = rest * _FIRST[codes[:, 0]]
    ids[probs[:, 0] == 0] = -1
    tail = torch.from_numpy(rest * _TAIL[codes[:, 0]])
    rows = SparseRows(torch.from_numpy(ids), torch.from_numpy(probs), tail, vocab_size, temperature)
    return rows, torch.from_numpy(numbers[:, k].copy())


def _check(
    ids: np.ndarray, p: np.ndarray, tail: np.ndarray, seen: np.ndarray, vocab_size: int
) -> None:
    """Refuse rows that could not be read back as they are."""
    if ids.ndim != 2 or ids.shape[1] < 1 or seen.shape != ids.shape[:1]:
        raise FusionError(f"Rows to store: {ids.shape=}, {seen.shape=}; k must be at least 1.")
    if seen.size and not (
        ids.min() >= -1 and max(ids.max(), seen.max()) < vocab_size and seen.min() >= 0
    ):
        raise FusionError(f"Rows to store hold ids outside the vocabulary of {vocab_size:,}.")
    sound = (
        (p >= 0).all(1)
        & (tail >= 0)
        & (abs(p.sum(1) + tail - 1) < 1e-3)
        & (np.diff(p) <= 1e-6).all(1)
        & ~((ids < 0) & (p > 0)).any(1)
    )
    if not sound.all():
        row = int(np.argmin(sound))
        raise FusionError(
            f"Row {row} to store is no distribution by falling probability: {p[row].tolist()} "
            f"and a tail of {tail[row]}."
        )


def _pack(numbers: np.ndarray, size: int) -> np.ndarray:
    """Write (m, n) whole numbers with ``size`` bits each, every row from a new byte."""
    m, n = numbers.shape
    reach = (size + 14) // 8
    packed = np.zeros((m, -(-n * size // 8) + reach), np.uint8)
    for j in range(n):
        first, skip = divmod(j * size, 8)
        value = numbers[:, j] << (8 * reach - size - skip)
        for i in range(reach):
            packed[:, first + i] |= (value >> 8 * (reach - 1 - i) & 255).astype(np.uint8)
    return np.ascontiguousarray(packed[:, :-reach])


def _unpack(packed: np.ndarray, n: int, size: int) -> np.ndarray:
    """Read what `_pack` wrote: each number out of the few bytes that its bits reach into."""
    first, skip = np.divmod(np.arange(n) * size, 8)
    reach = (size + 14) // 8
    padded = np.pad(packed, ((0, 0), (0, reach))).astype(np.int64)  # (m, width + reach)
    value = np.zeros((len(packed), n), np.int64)
    for i in range(reach):
        value = value << 8 | padded[:, first + i]
    return value >> (8 * reach - size - skip) & ((1 << size) - 1)
