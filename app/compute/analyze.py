"""Texts are read and fused, and ways of fusing them held against each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fusion_core import pipeline
from fusion_core.characters import NextCharacters, next_characters
from fusion_core.compare import FusedScore, operators
from fusion_core.mapping import STRATEGIES
from fusion_core.records import Analysis, NextTokenRows

from ..requests import AnalysisRequest
from .device import on_device
from .model_cache import ModelCache
from .progress import run_with_progress

VIEWED = 8
"""Tokens that are kept of rows that are only looked at."""


@dataclass(frozen=True)
class Study:
    """Ways of fusing one text.

    Attributes:
        operators: what each operator makes of it.
        transfers: for each source's name and strategy the figures of `pipeline.transfer_study`.
    """

    operators: tuple[FusedScore, ...]
    transfers: dict[str, dict[str, dict[str, Any]]]


def _seconds(cache: str, request: AnalysisRequest, *_: Any) -> int:
    """Ask for a device as long as a text may take."""
    return min(120, 20 + len(request.text) // 400 * len(request.names))


def _models(cache: str, names: Sequence[str]) -> list[Any]:
    here = ModelCache.at(cache)
    return [here.get(name) for name in names]


@on_device(_seconds)
def analyze(cache: str, request: AnalysisRequest) -> Generator[str | Analysis, None, None]:
    """Read a text and fuse; reports its progress, and gives the analysis at last.

    Args:
        cache: key of the cache that holds the models.
        request: what to read and how.
    """
    target, *sources = _models(cache, request.names)

    def work(progress: Callable[[str, float], None]) -> Analysis:
        return pipeline.analyse(
            target, sources, request.text, request.config, view_top_k=VIEWED, progress=progress
        )

    yield (yield from run_with_progress(work))


@on_device(_seconds)
def characters(
    cache: str, request: AnalysisRequest, analysis: Analysis, positions: Sequence[int]
) -> list[NextCharacters]:
    """Ask every model, and the fused rows, for the next character.

    Args:
        cache: key of the cache that holds the models.
        request: the text, and the models in the order of the answer; the fused rows come last.
        analysis: the same text's.
        positions: bytes of the text.
    """
    models = _models(cache, request.names)
    asked = pipeline.next_characters(models, request.text, positions, request.config)
    rows, target = analysis.fused.rows, models[0].tokenizer
    # The row after the text's last token is not fused: all of it is unknown.
    whole = replace(
        rows,
        ids=torch.cat([rows.ids, torch.full_like(rows.ids[:1], -1)]),
        probs=torch.cat([rows.probs, torch.zeros_like(rows.probs[:1])]),
        tail=torch.cat([rows.tail, torch.ones_like(rows.tail[:1])]),
    )
    nothing = torch.zeros(len(whole), dtype=torch.int64)
    row_bytes = analysis.target.row_bytes
    fused = NextTokenRows("fused", whole, nothing, nothing.float(), row_bytes)
    return [*asked, next_characters(fused, analysis.target, target, positions)]


@on_device(_seconds)
def study(cache: str, request: AnalysisRequest) -> Generator[str | Study, None, None]:
    """Try every operator and every strategy on a text; reports progress, and gives both at last.

    Args:
        cache: key of the cache that holds the models.
        request: the text and the models.
    """
    target, *sources = _models(cache, request.names)

    def work(progress: Callable[[str, float], None]) -> Study:
        scores = operators(target, sources, request.text, request.config, progress)
        transfers = {}
        for source in sources:
            progress(f"carrying {source.name} over in {len(STRATEGIES)} ways", 0.5)
            transfers[source.name] = pipeline.transfer_study(
                target, source, [request.text], request.config, list(STRATEGIES)
            )
        return Study(tuple(scores), transfers)

    yield (yield from run_with_progress(work))
