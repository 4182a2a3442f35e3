"""Several models continue one prompt side by side, a token each in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fusion_core import errors
from fusion_core.generation import Ensemble, Step, generate, stream

from ..requests import GenerationRequest
from .device import on_device
from .model_cache import ModelCache

PAUSE = 0.15
"""Seconds between two batches, at least: the page draws no faster than it can be read."""

Piece = Callable[[int], str]


@dataclass(frozen=True)
class Batch:
    """What was written since the batch before.

    Attributes:
        steps: (column, step, its token as readable text) in the order of writing.
        ends: (column, why it ended, a sentence where it failed).
        rates: for each column, tokens a second of its own time.
    """

    steps: tuple[tuple[int, Step, str], ...]
    ends: tuple[tuple[int, str, str], ...]
    rates: tuple[float, ...]


def _seconds(cache: str, asked: GenerationRequest) -> int:
    """Ask for a device as long as a writing may take."""
    return min(120, 20 + asked.sampling.max_new_tokens * (2 * len(asked.names)) // 20)


@on_device(_seconds)
def write(cache: str, asked: GenerationRequest) -> Iterator[Batch]:
    """Continue a prompt with all models at once; where it is closed, the work ends.

    Args:
        cache: key of the cache that holds the models.
        asked: the prompt and the models.

    Yields:
        What was written since the batch before, by the ensemble (column 0) and by each of
        ``asked.names``.
    """
    here = ModelCache.at(cache)
    models = [here.get(name) for name in asked.names]
    target, sources = models[0], models[1 : 1 + len(asked.sources)]

    def fused() -> Iterator[Step]:
        # Built by its first step: vocabularies that cannot be matched end this column alone.
        together = Ensemble(target, sources, **asked.fusion, corpus=[asked.prompt])
        yield from stream(together, asked.prompt, asked.sampling)

    alone = (stream(Ensemble(model), asked.prompt, asked.sampling) for model in models)
    pieces = [target.tokenizer.piece, *(model.tokenizer.piece for model in models)]
    yield from in_turn([fused(), *alone], pieces)


def in_turn(
    writers: Sequence[Iterator[Step]], pieces: Sequence[Piece], *, pause: float = PAUSE
) -> Iterator[Batch]:
    """Let writers write one token each in turn, so that their texts grow side by side.

    A writer that fails ends, and the others go on.

    Args:
        writers: the columns' steps.
        pieces: for each column, token id -> readable text.
        pause: seconds between two batches, at least; with 0 every token is a batch.

    Yields:
        What was written since the batch before.
    """
    running = dict(enumerate(writers))
    counts, seconds = [0] * len(writers), [0.0] * len(writers)
    steps: list[tuple[int, Step, str]] = []
    ends: list[tuple[int, str, str]] = []
    sent = -math.inf
    while running:
        for column, writer in list(running.items()):
            began = time.monotonic()
            end, sentence = "", ""
            try:
                step = next(writer)
            except Exception as error:
                said = errors.sentence(error)
                if said is None:
                    raise
                end, sentence = "failed", said
            else:
                steps.append((column, step, pieces[column](step.token)))
                counts[column] += 1
                end = step.end
            now = time.monotonic()
            seconds[column] += now - began
            if end:
                ends.append((column, end, sentence))
                del running[column]
            if now - sent >= pause or not running:
                yield Batch(tuple(steps), tuple(ends), _rates(counts, seconds))
                steps, ends, sent = [], [], time.monotonic()


def _rates(counts: Sequence[int], seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(n / s, 1) if n and s else 0.0 for n, s in zip(counts, seconds, strict=True))


@on_device(_seconds)
def texts(cache: str, asked: GenerationRequest) -> dict[str, Any]:
    """Continue a prompt with all models, one after another; see `generation.generate`."""
    here = ModelCache.at(cache)
    target, *sources = (here.get(name) for name in asked.names)
    return generate(target, sources, asked.prompt, **asked.fusion, sampling=asked.sampling)
