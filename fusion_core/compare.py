"""Ways of fusing, held against each other on one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import fuse, pipeline
from .config import MAX_TEXT_BYTES, FusionConfig, utf8
from .gather import Gathering
from .models import LoadedModel
from .reading import JointText, Progress


@dataclass(frozen=True)
class FusedScore:
    """What one operator makes of a text.

    Attributes:
        operator: name in `fuse.OPERATORS`.
        level: "sequence" or "token"; "" where the operator has no level.
        sees: whether it looks at the token that follows when it chooses: its bits per byte then say
            what the target is taught, not what could be predicted.
        bits_per_byte: of the whole fused rows.
        wins: for each source the share of positions at which it has the largest weight.
        own: share of positions at which the target's own row stands in.
    """

    operator: str
    level: str
    sees: bool
    bits_per_byte: float
    wins: tuple[float, ...]
    own: float


def operators(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    text: str,
    config: FusionConfig,
    progress: Progress | None = None,
) -> list[FusedScore]:
    """Fuse one text by every operator, at every level that it has.

    Args:
        target: the model that would be taught.
        sources: the models that would teach.
        text: at most a million bytes; the models read it once.
        config: strategy, and all else that is not operator or level.
        progress: told of every operator.

    Raises:
        FusionError: those of `pipeline.analyse`.
    """
    utf8(text, limit=MAX_TEXT_BYTES)
    maps = pipeline.mappings(target, sources, config, [text], progress)
    read = JointText.of([target, *sources], text, config)
    ways = [
        (name, level)
        for name, operator in fuse.OPERATORS.items()
        for level in (("",) if operator.label_free else fuse.LEVELS)
    ]
    scores = []
    for n, (name, level) in enumerate(ways):
        if progress:
            progress(f"fusing by {name}", n / len(ways))
        way = config.replace(operator=name, level=level or config.level)
        gathered = Gathering(read, maps, way)
        gathered.gather()
        fused = gathered.fused()
        wins = [float((fused.winner == j).float().mean()) for j in range(len(fused.sources))]
        sure = fused.weights.max(1).values > fused.weights.mean(1) + 1e-6
        scores.append(
            FusedScore(
                name,
                level,
                level == "token",
                gathered.fused_bits_per_byte,
                tuple(wins),
                float(((fused.winner < 0) & sure).float().mean()),
            )
        )
    return scores
