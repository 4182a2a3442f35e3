"""What runs models; on ZeroGPU each call gets a device, and a worker forked from this process.

Arguments and results pass between the two, so they are names, records and plain data; models are
found on a shelf.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from spaces import GPU

from fusion_core import pipeline
from fusion_core.config import FusionConfig
from fusion_core.records import Analysis

from .shelf import Shelf, told

VIEWED = 12
"""Tokens that are kept of rows that are only looked at."""


@dataclass(frozen=True)
class Request:
    """All that an analysis depends on."""

    target: str
    sources: tuple[str, ...]
    text: str
    config: FusionConfig

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models, the target first."""
        return (self.target, *self.sources)


def _seconds(shelf: str, request: Request, *_: Any) -> int:
    """Ask for a device as long as a text may take."""
    return min(120, 20 + len(request.text) // 400 * len(request.names))


def _models(shelf: str, names: Sequence[str]) -> list[Any]:
    here = Shelf.at(shelf)
    return [here.get(name) for name in names]


@GPU(duration=_seconds)
def analyse(shelf: str, request: Request) -> Generator[str | Analysis, None, None]:
    """Read a text and fuse; tells its progress, and gives the analysis at last.

    Args:
        shelf: key of the shelf that holds the models.
        request: what to read and how.
    """
    target, *sources = _models(shelf, request.names)

    def work(progress: Callable[[str, float], None]) -> Analysis:
        return pipeline.analyse(
            target, sources, request.text, request.config, view_top_k=VIEWED, progress=progress
        )

    yield (yield from told(work))
