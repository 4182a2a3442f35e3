"""Texts are read and fused, and ways of fusing them held against each other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from fusion_core import pipeline
from fusion_core.characters import NextCharacters
from fusion_core.compare import (
    OperatorScore,
    compare_mappings,
    compare_operators,
    fused_characters,
    next_characters,
)
from fusion_core.project import project
from fusion_core.reading import read
from fusion_core.records import Analysis, Progress, Projection, TextReading

from ..requests import AnalysisRequest
from .device import on_device
from .model_cache import ModelCache
from .progress import run_with_progress

VIEWED = 8
"""Tokens that are kept of rows that are only looked at."""


@dataclass(frozen=True)
class Comparison:
    """Ways of fusing one text.

    Attributes:
        operators: what each operator makes of it.
        mappings: for each source's name and strategy the figures of `compare.compare_mappings`.
    """

    operators: tuple[OperatorScore, ...]
    mappings: dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Analyzed:
    """What became of a request.

    Attributes:
        analysis: what the page looks at.
        comparison: what else could have been done with the rows, where that was asked for, too.
    """

    analysis: Analysis
    comparison: Comparison | None = None


def _seconds(cache: str, request: AnalysisRequest, *_: Any) -> int:
    """Ask for a device as long as a text may take."""
    return min(120, 20 + len(request.text) // 400 * len(request.names))


def _reading(cache: str, request: AnalysisRequest, progress: Progress | None = None) -> TextReading:
    """Read a text with every model, or return the rows that are kept of it."""
    here, config = ModelCache.at(cache), request.config

    def make() -> TextReading:
        target, *sources = (here.get(name) for name in request.names)
        return read(request.text, target, sources, config, progress=progress)

    return here.readings.get(_text(request), None, make)


def _projection(
    cache: str, request: AnalysisRequest, progress: Progress | None = None
) -> Projection:
    """Project the sources' rows of a text, or return what is kept of them."""
    reading, config = _reading(cache, request, progress), request.config

    def make() -> Projection:
        chain_rule = config.chain_rule
        made = project(reading, config.strategy, chain_rule=chain_rule, progress=progress)
        if reading.windows.complete:
            for _ in made.windows:  # worked out here, once for all who ask
                pass
        return made

    way = config.strategy, config.chain_rule
    return ModelCache.at(cache).readings.get(_text(request), way, make)


def _text(request: AnalysisRequest) -> tuple[Any, ...]:
    """Return all that a reading depends on."""
    config = request.config
    settings = config.temperature, config.overlap, config.source_truncation
    return request.names, request.text, settings, config.rows, config.prune


def _compare(projection: Projection, request: AnalysisRequest, progress: Progress) -> Comparison:
    operators = compare_operators(projection, request.config, progress=progress)
    return Comparison(tuple(operators), compare_mappings(projection, progress=progress))


@on_device(_seconds)
def analyze(
    cache: str, request: AnalysisRequest, with_comparison: bool = False
) -> Generator[str | Analyzed, None, None]:
    """Read a text and fuse; reports its progress, and gives the analysis at last.

    Args:
        cache: key of the cache that holds the models.
        request: what to read and how.
        with_comparison: try every operator and mapping, too, while the rows are at hand.
    """

    def work(progress: Progress) -> Analyzed:
        projection = _projection(cache, request, progress)
        found = pipeline.view(projection, request.config, view_top_k=VIEWED, progress=progress)
        return Analyzed(found, _compare(projection, request, progress) if with_comparison else None)

    yield (yield from run_with_progress(work))


@on_device(_seconds)
def compare(cache: str, request: AnalysisRequest) -> Generator[str | Comparison, None, None]:
    """Try every operator and every mapping on a text; reports progress, and gives both at last.

    Args:
        cache: key of the cache that holds the models.
        request: the text and the models.
    """

    def work(progress: Progress) -> Comparison:
        return _compare(_projection(cache, request, progress), request, progress)

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
    reading = _reading(cache, request)
    target = analysis.target, reading.tokenizers[0]
    found = next_characters(reading, positions)
    return [*found, fused_characters(analysis.fused, *target, positions)]
