"""Fixed maps from one vocabulary to another: by bytes, by respelling, by counting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion_core.align import by_bytes_batch
from fusion_core.errors import InputError
from fusion_core.records import MapReason, VocabMap
from fusion_core.tokens import TextTokenizer

RESPELLED_TOKENS = 4
"""Tokens of a respelling that take mass."""

COUNT_BATCH = 64
"""Texts that are encoded and aligned at once."""


def exact(source: TextTokenizer, target: TextTokenizer) -> VocabMap:
    """Map each source token to the target token with the same bytes.

    Where the target has several, its real pieces go before its byte pieces, then the lowest id.
    Special tokens have no bytes and are not mapped.

    Returns:
        A map with at most one entry of weight 1 a row.
    """
    ids = np.asarray([target.id_of(b) if b else -1 for b in source.bytes_of], np.int64)
    found = ids >= 0
    return single("exact", ids, target.size, found, np.where(found, MapReason.SAME, 0))


def retokenise(source: TextTokenizer, target: TextTokenizer) -> VocabMap:
    """Map each source token to the target's own spelling of its bytes.

    Byte-equal tokens have weight 1; otherwise the i-th of the first four tokens of the spelling
    has a weight proportional to 0.9 · 0.1^i.

    Returns:
        A map whose rows sum to 1. A row's confidence is the share of the source token's bytes that
        its first target token spells.

    Source: the projection W of X-Token (arXiv 2605.21699).
    """
    own = [b or b"" for b in source.bytes_of]
    same = [target.id_of(b) if b else -1 for b in own]
    spelled = [
        [i] if i >= 0 else ids[:RESPELLED_TOKENS]
        for i, ids in zip(same, target.spellings(own), strict=True)
    ]
    rows = np.repeat(np.arange(len(own)), [len(ids) for ids in spelled])
    weights = [0.9 * 0.1**i for ids in spelled for i in range(len(ids))]
    confidence, reason = respelling(own, [ids[0] if ids else -1 for ids in spelled], target)
    return csr(
        "retokenise",
        rows,
        np.asarray([i for ids in spelled for i in ids], np.int64),
        np.asarray(weights),
        (source.size, target.size),
        confidence,
        reason,
    )


def respelling(
    own: Sequence[bytes], first: Sequence[int], target: TextTokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Say how much of each source token its first target token spells, and so why it is mapped.

    Args:
        own: n source tokens' bytes.
        first: n target ids; -1 for none.
        target: the target's vocabulary.

    Returns:
        (n,) float32 confidence and (n,) uint8 of `MapReason`.
    """
    confidence = np.zeros(len(own), np.float32)
    reason = np.zeros(len(own), np.uint8)
    for w, v in enumerate(first):
        spelled = target.bytes_of[v] if v >= 0 else None
        if spelled:
            confidence[w] = min(len(spelled) / len(own[w]), 1.0)
            reason[w] = MapReason.SAME if spelled == own[w] else MapReason.RESPELLED
    return confidence, reason


def statistical(source: TextTokenizer, target: TextTokenizer, texts: Sequence[str]) -> VocabMap:
    """Map each source token by what the target reads where the source reads it, in a corpus.

    Counted are pairs of tokens that begin at the same shared byte boundary, which is where the two
    models' rows stand: the source's next token there, and the target's.

    Args:
        source: the source's vocabulary.
        target: the target's vocabulary.
        texts: the corpus.

    Returns:
        A map whose rows are the shares of the counterparts; tokens that the corpus does not show
        are not mapped. A row's confidence is n / (n + 1) times the share of the most frequent
        counterpart, where n counts the pairs.

    Raises:
        InputError: the corpus is empty.

    Source: the mapping statistics of FuseChat (arXiv 2408.07990), with byte groups for its warped
    pairs, and all counterparts for the most frequent one.
    """
    if not texts:
        raise InputError("statistical counts pairs of tokens in a corpus: give a text to count in.")
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for first in range(0, len(texts), COUNT_BATCH):
        batch = texts[first : first + COUNT_BATCH]
        targets, sources = target.encode_batch(batch), source.encode_batch(batch)
        pairs = [keys.repeat(counts)]
        for t, s, aligned in zip(targets, sources, by_bytes_batch(targets, sources), strict=True):
            groups = aligned.groups
            both = groups[(groups[:, 1] > groups[:, 0]) & (groups[:, 3] > groups[:, 2])]
            pairs.append(s.ids[both[:, 2]] * target.size + t.ids[both[:, 0]])
        keys, counts = np.unique(np.concatenate(pairs), return_counts=True)
    rows, columns = np.divmod(keys, target.size)
    control = np.asarray(sorted(source.special_ids), np.int64)
    told = ~(np.isin(rows, control) | np.isin(columns, sorted(target.special_ids)))
    rows, columns, counts = rows[told], columns[told], counts[told]
    total = np.bincount(rows, counts, minlength=source.size)
    most = np.zeros(source.size)
    np.maximum.at(most, rows, counts)
    confidence = most / (total + 1)
    reason = np.where(total > 0, MapReason.COUNTED, 0)
    shape = (source.size, target.size)
    return csr("statistical", rows, columns, counts, shape, confidence, reason)


def same_ids(source: TextTokenizer, target: TextTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """List where tokens go between tokenizers of one vocabulary that end texts differently.

    Returns:
        (e,) source ids and (e,) target ids: every token goes to itself, but those that end the
        source's texts and not the target's go to what ends the target's.
    """
    moved = [w for w in source.end_ids if w not in target.end_ids and target.end_ids]
    stay = np.setdiff1d(np.arange(source.size), moved)
    ends = [(w, v) for w in moved for v in target.end_ids]
    pairs = np.concatenate([np.stack([stay, stay], 1), np.asarray(ends, np.int64).reshape(-1, 2)])
    return pairs[:, 0], pairs[:, 1]


def by_ids(source: TextTokenizer, target: TextTokenizer) -> VocabMap:
    """Map tokens of one vocabulary by their ids; see `same_ids`."""
    rows, columns = same_ids(source, target)
    reason = np.full(source.size, MapReason.SAME, np.uint8)
    reason[list(source.end_ids)] = MapReason.CONTROL
    shape = (source.size, target.size)
    return csr("ids", rows, columns, np.ones(len(rows)), shape, np.ones(source.size), reason)


def single(
    strategy: str,
    ids: np.ndarray,
    target_size: int,
    confidence: np.ndarray,
    reason: np.ndarray,
    distance: np.ndarray | None = None,
) -> VocabMap:
    """Build the map that sends each source id to one target id (-1: to none)."""
    rows = np.flatnonzero(ids >= 0)
    shape = (len(ids), target_size)
    ones = np.ones(len(rows))
    return csr(strategy, rows, ids[rows], ones, shape, confidence, reason, distance)


def csr(
    strategy: str,
    rows: np.ndarray,
    columns: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, int],
    confidence: np.ndarray,
    reason: np.ndarray,
    distance: np.ndarray | None = None,
) -> VocabMap:
    """Build a map from e entries: rows scaled to sum to 1, entries that stand twice added up.

    Args:
        strategy: name.
        rows: (e,) source ids.
        columns: (e,) target ids.
        weights: (e,) not negative; a row of zeros is left as it is.
        shape: sizes of the source's and the target's vocabularies.
        confidence: (source size,).
        reason: (source size,) of `MapReason`; rows without an entry are UNMAPPED whatever it says.
        distance: (source size,), where the strategy has one.
    """
    keys, place = np.unique(rows * np.int64(shape[1]) + columns, return_inverse=True)
    summed = np.bincount(place, weights, minlength=len(keys))
    rows, columns = np.divmod(keys, shape[1])
    counts = np.bincount(rows, minlength=shape[0])
    total = np.bincount(rows, summed, minlength=shape[0])
    return VocabMap(
        strategy,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        columns.astype(np.int64),
        (summed / np.where(total > 0, total, 1)[rows]).astype(np.float32),
        shape,
        confidence=np.where(counts > 0, confidence, 0).astype(np.float32),
        reason=np.where(counts > 0, reason, MapReason.UNMAPPED).astype(np.uint8),
        distance=distance,
    )
