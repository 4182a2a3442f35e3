"""Ways of fusing and projecting, held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import fuse
from .config import FusionConfig
from .evaluate import TransferScore
from .mapping import STRATEGIES
from .models import LoadedModel
from .pipeline import fuse_text
from .project import mappings_of, native_ce, project
from .reading import read_documents
from .records import Progress, Projection, TextReading


@dataclass(frozen=True)
class OperatorScore:
    """What one operator makes of a text.

    Attributes:
        operator: name in `fuse.OPERATORS`.
        level: "sequence" or "token"; "" where the operator has no level.
        sees_token: whether it looks at the token that follows when it chooses: its bits per byte
            then say what the target is taught, not what could be predicted.
        bits_per_byte: of the whole fused rows.
        wins: for each source the share of positions at which it has the largest weight.
        target: share of positions at which the target's native row stands in.
    """

    operator: str
    level: str
    sees_token: bool
    bits_per_byte: float
    wins: tuple[float, ...]
    target: float


def compare_operators(
    reading: TextReading | Projection,
    config: FusionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[OperatorScore]:
    """Fuse one text by every operator, at every level that it has.

    Args:
        reading: the text; or what was projected of it, which is not projected again then.
        config: all that is not operator or level.
        progress: told of every operator.
    """
    config = config or FusionConfig()
    projection = (
        reading
        if isinstance(reading, Projection)
        else project(reading, config.strategy, chain_rule=config.chain_rule)
    )
    ways = [
        (name, level)
        for name, operator in fuse.OPERATORS.items()
        for level in (fuse.LEVELS if operator.has_level else ("",))
    ]
    scores = []
    for n, (name, level) in enumerate(ways):
        if progress:
            progress(f"fusing by {name}", n / len(ways))
        way = config.replace(operator=name, level=level or config.level)
        text = fuse_text(projection, way, entropy=False)
        fused = text.fused
        wins = [float((fused.winner == j).float().mean()) for j in range(len(fused.sources))]
        unlike = fused.weights.max(1).values > fused.weights.mean(1) + 1e-6
        scores.append(
            OperatorScore(
                name,
                level,
                fuse.OPERATORS[name].sees_token(level),
                text.bits_per_byte,
                tuple(wins),
                float(((fused.winner < 0) & unlike).float().mean()),
            )
        )
    return scores


def compare_mappings(
    reading: TextReading | Projection,
    strategies: Sequence[str] | None = None,
    *,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, object]]]:
    """Project one text by every mapping, and measure what is left of each source.

    Args:
        reading: the text; or what was projected of it by one mapping, which is not used again.
        strategies: names; all by default.
        corpus: texts for strategies that count; the text itself by default, which flatters them.
        progress: told of every mapping.

    Returns:
        For each source's name and strategy the figures of `evaluate.TransferScore.summary`.
    """
    known = reading if isinstance(reading, Projection) else None
    text = known.reading if known else reading
    assert isinstance(text, TextReading)
    names, sources = list(strategies or STRATEGIES), text.models[1:]
    found: dict[str, dict[str, dict[str, object]]] = {source: {} for source in sources}
    for n, name in enumerate(names):
        if progress:
            progress(f"projecting by {name}", n / len(names))
        same = known is not None and known.strategy == name
        projection = known if same else project(text, name, corpus=corpus)
        assert projection is not None
        scores = [TransferScore() for _ in sources]
        add_transfer(projection, scores)
        for source, score in zip(sources, scores, strict=True):
            found[source][name] = score.summary()
    return found


def transfer(
    target: LoadedModel,
    source: LoadedModel,
    documents: Sequence[str],
    config: FusionConfig,
    strategies: Sequence[str] | None = None,
    *,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, dict[str, object]]:
    """Measure what a source's rows say after they have been projected to the target.

    Args:
        target: the model that would be taught.
        source: the model that would teach.
        documents: texts.
        config: what is kept of the source's rows, and overlap.
        strategies: names; the models read the documents once for all of them. The configured one
            by default.
        corpus: texts for strategies that count; the documents themselves by default.
        progress: told of every document.

    Returns:
        For each strategy the figures of `evaluate.TransferScore.summary`, nats per target token.
    """
    names = strategies or [config.strategy]
    tokenizers = [target.tokenizer, source.tokenizer]
    texts, keep = corpus or documents, bool(corpus)
    maps = {name: mappings_of(tokenizers, name, texts, keep=keep) for name in names}
    scores = {name: TransferScore() for name in names}
    for reading in read_documents([target, source], documents, config, progress=progress):
        for name, score in scores.items():
            projection = project(reading, name, mappings=maps[name], chain_rule=config.chain_rule)
            add_transfer(projection, [score])
    return {name: score.summary() for name, score in scores.items()}


def add_transfer(projection: Projection, scores: Sequence[TransferScore]) -> None:
    """Count what the rows of every source of a text say, each in a score of its own."""
    reading = projection.reading
    for projected, (low, high) in zip(projection.windows, reading.scored, strict=True):
        window = projected.reading
        target, at = window.rows[0], window.row_bytes(0)[:-1]
        scored = (at >= low) & (at < high)
        for j, (rows, score) in enumerate(zip(projected.rows, scores, strict=True), start=1):
            native = native_ce(window.encodings[0], window.encodings[j], window.rows[j])
            ce, floored = fuse.projected_ce(rows, target)
            score.floored += floored
            score.add(rows, ce, target, native, scored)
