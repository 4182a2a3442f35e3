"""Tokenized documents with the fused rows that teach each position -> blocks -> batches.

A document of the tokens t_0 … t_{m-1} is read as start, t_0, …, t_{m-1}, and what is to follow is
t_0, …, t_{m-1}, end: the label at a position, and the fused row beside it, are of the token *after*
what is read there. Documents are packed into blocks whole, one beside the other and none seeing
another; only those longer than a block are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from fusion_core.cache import Cache, StoredDocument
from fusion_core.cache.building import KEPT_STEPS
from fusion_core.losses import IGNORED
from fusion_core.reading import DOCUMENTS_AT_ONCE
from fusion_core.records import Progress, SparseRows
from fusion_core.tokens import TextTokenizer

Piece = tuple[int, int, int]
"""A document's number, and a half-open range of its positions."""

# Documents ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Example:
    """One tokenized document and the fused rows that teach it.

    Attributes:
        ids: (m,) int64, the target's text tokens.
        rows: m fused rows, row i predicting token i; None for plain training.
        kept: (m,) float32, mass that the mapping kept; 0 where no source spoke.
        whole: whether the document ends there; one that breaks off has no end to predict.
        by_target: whether the target has written it, so that its tokens are no labels.
    """

    ids: torch.Tensor
    rows: SparseRows | None = None
    kept: torch.Tensor | None = None
    whole: bool = True
    by_target: bool = False


class ExampleDataset(Protocol):
    """Dataset of documents, each read when it is asked for."""

    lengths: np.ndarray
    """(documents,) int64, text tokens of each."""

    def __len__(self) -> int:
        """Return the number of documents."""
        ...

    def __getitem__(self, i: int) -> Example:
        """Make document i ready."""
        ...


class TextDataset:
    """Dataset of texts, without rows."""

    def __init__(
        self, tokenizer: TextTokenizer, texts: Sequence[str], progress: Progress | None = None
    ) -> None:
        """Encode all documents; they are kept as 32-bit ids.

        Args:
            tokenizer: the target's.
            texts: documents that are not empty.
            progress: called with how many have been encoded.
        """
        self._ids: list[np.ndarray] = []
        for first in range(0, len(texts), DOCUMENTS_AT_ONCE):
            if progress:
                progress(f"encoding document {first + 1} of {len(texts)}", first / len(texts))
            some = list(texts[first : first + DOCUMENTS_AT_ONCE])
            for encoding in tokenizer.encode_batch(some):
                self._ids.append(encoding.ids[encoding.text_tokens].astype(np.int32))
        self.lengths = np.array([len(i) for i in self._ids], np.int64)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ids)

    def __getitem__(self, i: int) -> Example:
        """Return a document's tokens."""
        return Example(torch.from_numpy(self._ids[i].astype(np.int64)))


class CachedRowsDataset:
    """Dataset of the documents of a cache, with their rows."""

    def __init__(
        self,
        cache: Cache,
        fused: Callable[[StoredDocument], StoredDocument] | None = None,
        *,
        plain: bool = False,
    ) -> None:
        """Name the cache.

        Args:
            cache: where the rows are.
            fused: what turns a document of a cache of kind "sources" into one of kind "fused".
            plain: leave the rows out.
        """
        self._cache, self._fused, self._plain = cache, fused, plain
        self.lengths = cache.lengths

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._cache)

    def __getitem__(self, i: int) -> Example:
        """Read a document."""
        document = self._cache[i]
        if self._plain:
            return Example(document.observed)
        if self._fused:
            document = self._fused(document)
        kept = torch.from_numpy(document.extras["kept"].astype(np.float32)) / KEPT_STEPS
        return Example(document.observed, document.rows["fused"], kept)


# Blocks ---------------------------------------------------------------------------------------


def pack(lengths: np.ndarray, block_size: int, seed: int = 0) -> list[list[Piece]]:
    """Pack documents into blocks: the longest first, each where the least room is left over.

    Args:
        lengths: (documents,) positions of each; documents without any are left out.
        block_size: positions of a block.
        seed: of the order of documents of one length.

    Returns:
        For each block its pieces, which cover every position of every document once.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    pieces = [
        (int(d), first, min(first + block_size, int(lengths[d])))
        for d in order
        for first in range(0, int(lengths[d]), block_size)
    ]
    pieces.sort(key=lambda piece: piece[1] - piece[2])  # stable: the drawn order stays
    blocks: list[list[Piece]] = []
    with_room: list[list[int]] = [[] for _ in range(block_size + 1)]
    any_with = np.zeros(block_size + 1, bool)
    for piece in pieces:
        size = piece[2] - piece[1]
        room = size + int(np.argmax(any_with[size:]))
        if any_with[room]:
            number = with_room[room].pop()
            any_with[room] = bool(with_room[room])
        else:
            number, room = len(blocks), block_size
            blocks.append([])
        blocks[number].append(piece)
        with_room[room - size].append(number)
        any_with[room - size] = room > size
    return blocks


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of a block: a piece of one document, n long.

    Attributes:
        inputs: (n,) int64, what is read.
        labels: (n,) int64, what follows, or `IGNORED`.
        rows: n fused rows, or None.
        weight: (n,) float32 of the fusion loss; 0 where there is nothing to be taught.
        by_target: as of the example.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    rows: SparseRows | None
    weight: torch.Tensor
    by_target: bool = False


class Blocks(torch.utils.data.Dataset):
    """Dataset of blocks: documents packed into lines of equal length."""

    def __init__(
        self,
        examples: ExampleDataset,
        block_size: int,
        *,
        start_id: int | None,
        end_id: int | None,
        seed: int = 0,
        weigh_by_kept: bool = False,
        prompt: Callable[[torch.Tensor], int] | None = None,
    ) -> None:
        """Decide which document goes where.

        Args:
            examples: the documents.
            block_size: positions of a block.
            start_id: what is read before the first token; without it that one is not predicted.
            end_id: what follows the last token, or None.
            seed: of the packing.
            weigh_by_kept: weigh positions by the mass that the mapping kept.
            prompt: counts the tokens at a document's beginning that are read, but not taught.
        """
        self._prompt = prompt
        self._examples, self.block_size = examples, block_size
        self._start, self._end, self._by_kept = start_id, end_id, weigh_by_kept
        lengths = examples.lengths + (end_id is not None) - (start_id is None)
        self.blocks = pack(np.maximum(lengths, 0), block_size, seed)
        self.positions = int(np.maximum(lengths, 0).sum())

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def __getitem__(self, i: int) -> list[Positions]:
        """Read a block's documents."""
        return [
            self.read(self._examples[document], first, last)
            for document, first, last in self.blocks[i]
        ]

    def read(self, example: Example, first: int, last: int) -> Positions:
        """Lay out positions [first, last) of a document."""
        ids, m = example.ids, len(example.ids)
        before = [] if self._start is None else [self._start]
        after = [] if self._end is None else [self._end if example.whole else IGNORED]
        inputs = torch.cat([ids.new_tensor(before), ids])[first:last]
        skipped = int(self._start is None)
        labels = torch.cat([ids, ids.new_tensor(after)])[skipped + first : skipped + last]
        low, high = min(skipped + first, m), min(skipped + last, m)
        weight = torch.zeros(last - first)
        read_only = max(0, (self._prompt(ids) if self._prompt else 0) - skipped - first)
        labels[:read_only] = IGNORED
        if example.rows is None:
            return Positions(inputs, labels, None, weight, example.by_target)
        if example.kept is not None:
            kept = example.kept[low:high]
            weight[: high - low] = kept if self._by_kept else (kept > 0).float()
        else:
            weight[: high - low] = 1
        weight[:read_only] = 0
        rows = _rows(example.rows, low, high, last - first)
        return Positions(inputs, labels, rows, weight, example.by_target)


def _rows(rows: SparseRows, low: int, high: int, n: int) -> SparseRows:
    """Take rows [low, high), and after them rows without ids up to n."""
    missing = n - (high - low)
    pad = torch.nn.functional.pad
    return SparseRows(
        pad(rows.ids[low:high], (0, 0, 0, missing), value=-1),
        pad(rows.probs[low:high], (0, 0, 0, missing)),
        pad(rows.tail[low:high], (0, missing), value=1.0),
        rows.vocab_size,
        rows.temperature,
    )


@dataclass(frozen=True)
class Collator:
    """Data collator: blocks -> a batch of tensors.

    Attributes:
        block_size: positions of a block.
        pad_id: what is read where no document is.
        packed: lay a block out in one line, whose documents the model tells apart by their
            positions; else every piece has a line of its own, for models that cannot.
    """

    block_size: int
    pad_id: int
    packed: bool = True

    def __call__(self, blocks: Sequence[list[Positions]]) -> dict[str, Any]:
        """Lay out a batch.

        Returns:
            ``input_ids``, ``position_ids`` and, unless packed, ``attention_mask`` (lines, length);
            ``labels``, of the token after each position, also as ``shift_labels``, which tells the
            trainer not to shift them; with rows ``fused_ids``, ``fused_probs``
            (lines, length, k), ``fused_tail`` and ``fused_weight`` (lines, length); where some of
            it is the target's text, ``by_target`` (lines, length) bool.
        """
        lines = list(blocks) if self.packed else [[piece] for block in blocks for piece in block]
        longest = max((len(p.inputs) for line in lines for p in line), default=1)
        size = (len(lines), self.block_size if self.packed else longest)
        batch: dict[str, Any] = {
            "input_ids": torch.full(size, self.pad_id),
            "labels": torch.full(size, IGNORED),
            "position_ids": torch.zeros(size, dtype=torch.long),
        }
        if not self.packed:
            batch["attention_mask"] = torch.zeros(size, dtype=torch.long)
        some = next((p.rows for line in lines for p in line if p.rows is not None), None)
        if some is not None:
            k = max(p.rows.ids.shape[1] for line in lines for p in line if p.rows is not None)
            batch["fused_ids"] = torch.full((*size, k), -1)
            batch["fused_probs"] = torch.zeros(*size, k)
            batch["fused_tail"] = torch.ones(size)
            batch["fused_weight"] = torch.zeros(size)
        if any(p.by_target for line in lines for p in line):
            batch["by_target"] = torch.zeros(size, dtype=torch.bool)
        for i, line in enumerate(lines):
            at = 0
            for piece in line:
                at = self._put(batch, i, at, piece)
            # What is left over is a document of its own, which nothing looks at.
            batch["position_ids"][i, at:] = torch.arange(size[1] - at)
        batch["shift_labels"] = batch["labels"]
        return batch

    @staticmethod
    def _put(batch: dict[str, Any], line: int, at: int, piece: Positions) -> int:
        """Write a piece into a line, and return where the next one goes."""
        n = len(piece.inputs)
        where = (line, slice(at, at + n))
        batch["input_ids"][where] = piece.inputs
        batch["labels"][where] = piece.labels
        batch["position_ids"][where] = torch.arange(n)
        if "attention_mask" in batch:
            batch["attention_mask"][where] = 1
        if piece.by_target:
            batch["by_target"][where] = True
        if piece.rows is not None:
            k = piece.rows.ids.shape[1]
            batch["fused_ids"][line, at : at + n, :k] = piece.rows.ids
            batch["fused_probs"][line, at : at + n, :k] = piece.rows.probs
            batch["fused_tail"][where] = piece.rows.tail
            batch["fused_weight"][where] = piece.weight
        return at + n
