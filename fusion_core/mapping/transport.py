"""What optimal transport between two top-k sets needs to know of two vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from fusion_core.tokens import TextTokenizer


class Transport:
    """Costs of carrying a source token to a target token; the plan is made anew at each position.

    Source: PTA-LLM (arXiv 2509.17276).
    """

    def __init__(self, source: TextTokenizer, target: TextTokenizer) -> None:
        """Keep the two vocabularies' readable tokens."""
        self._source, self._target = cache(source.piece), cache(target.piece)

    def costs(self, source_ids: Sequence[int], target_ids: Sequence[int]) -> np.ndarray:
        """(n,) int64 edit distances of n pairs of tokens, as readable text."""
        return process.cpdist(
            [self._source(i) for i in source_ids],
            [self._target(i) for i in target_ids],
            scorer=Levenshtein.distance,
            dtype=np.int64,
        )
