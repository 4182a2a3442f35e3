"""Documents as training reads them: tokens, and where there are any, what is taught after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fusion_core.cache import Cache, StoredDocument
from fusion_core.cache.building import KEPT_STEPS
from fusion_core.project import Progress
from fusion_core.reading import DOCUMENTS_AT_ONCE
from fusion_core.records import SparseRows
from fusion_core.tokens import TextTokenizer


@dataclass(frozen=True, eq=False)
class Example:
    """One document.

    Attributes:
        ids: (m,) int64, the target's text tokens.
        rows: m fused rows, row i predicting token i; None for plain training.
        kept: (m,) float32, mass that the mapping kept; 0 where no source spoke.
    """

    ids: torch.Tensor
    rows: SparseRows | None = None
    kept: torch.Tensor | None = None


def prompt_tokens(tokenizer: TextTokenizer, ids: torch.Tensor, end: str) -> int:
    """Count the tokens up to where a document's prompt ends.

    Args:
        tokenizer: the target's.
        ids: (m,) the document's text tokens.
        end: what the prompt ends with; its first occurrence counts.

    Returns:
        Tokens that begin before the end of it; 0 where it does not occur.
    """
    if not tokenizer.spells_spaces:
        end = "".join(end.split())
    parts = [tokenizer.bytes_of[i] or b"" for i in ids.tolist()]
    at = b"".join(parts).find(end.encode())
    if at < 0:
        return 0
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    return int(np.searchsorted(starts, at + len(end.encode())))


class ExampleDataset(Protocol):
    """Documents to train on, each made when it is asked for."""

    lengths: np.ndarray
    """(documents,) int64, text tokens of each."""

    def __len__(self) -> int:
        """Return the number of documents."""
        ...

    def __getitem__(self, i: int) -> Example:
        """Make document i ready."""
        ...


class TextDataset:
    """Documents without rows."""

    def __init__(
        self, tokenizer: TextTokenizer, texts: Sequence[str], progress: Progress | None = None
    ) -> None:
        """Encode all documents; they are kept as 32-bit ids.

        Args:
            tokenizer: the target's.
            texts: documents that are not empty.
            progress: told how many have been encoded.
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
    """Documents with the rows of a cache."""

    def __init__(
        self,
        cache: Cache,
        fused: Callable[[StoredDocument], StoredDocument] | None = None,
        *,
        plain: bool = False,
    ) -> None:
        """Read nothing yet.

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
