"""Operators, mappings and models, held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import characters, fuse
from .align import positions_of
from .config import FusionConfig
from .covers import PrefixTree, known_covers
from .errors import InputError
from .evaluate import TransferScore
from .mapping import STRATEGIES, check_spaces
from .models import LoadedModel
from .numerics import bits
from .pipeline import fuse_text
from .project import mappings_of, native_ce, project
from .reading import read_documents
from .records import (
    Covers,
    Encoding,
    FusedRows,
    NextTokenRows,
    Progress,
    Projection,
    SparseRows,
    TextReading,
    WindowReading,
)
from .tokens import TextTokenizer

SCORED = FusionConfig(rows="boundary")
"""How texts are read of which only each model's own cross-entropy is asked."""


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
    known, chain_rule = dict[str, Projection](), False
    if isinstance(reading, Projection):
        known, chain_rule = {reading.strategy: reading}, reading.chain_rule
    text = reading.reading if isinstance(reading, Projection) else reading
    names, sources = list(strategies or STRATEGIES), text.models[1:]
    found: dict[str, dict[str, dict[str, object]]] = {source: {} for source in sources}
    for n, name in enumerate(names):
        if progress:
            progress(f"projecting by {name}", n / len(names))
        projection = known.get(name) or project(text, name, chain_rule=chain_rule, corpus=corpus)
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
        target, scored = window.rows[0], window.scored(0, low, high)
        for j, (rows, score) in enumerate(zip(projected.rows, scores, strict=True), start=1):
            native = native_ce(window.encodings[0], window.encodings[j], window.rows[j])
            ce, floored = fuse.projected_ce(rows, target)
            score.floored += floored
            score.add(rows, ce, target, native, scored)
            if covers := window.covers[j]:
                at = positions_of(window.encodings[0], window.encodings[j])[:-1][scored]
                score.add_covers(covers, len(window.rows[j].rows), at)


def bits_per_byte(
    readers: Sequence[LoadedModel],
    documents: Sequence[str],
    *,
    overlap: float = FusionConfig.model_fields["overlap"].default,
    progress: Progress | None = None,
) -> dict[str, dict]:
    """Score models on documents; all are scored on the same bytes.

    Returns:
        For each model's name: ``bits_per_byte`` and ``bytes``; ``lossless``, whether its tokens
        reproduce the documents, and ``lost_share``, the share of the documents' bytes that they do
        not: these cost the model less than they should, or nothing; and what it read before and
        after documents, see `LoadedModel.around_documents`.
    """
    totals, lost = np.zeros(len(readers)), np.zeros(len(readers), np.int64)
    exact = np.ones(len(readers), bool)
    n_bytes = n_read = 0
    config = SCORED.replace(overlap=overlap)
    for reading in read_documents(readers, documents, config, progress=progress):
        totals += reading.nats
        lost += [e.lost_bytes for e in reading.encodings]
        exact &= [e.lossless for e in reading.encodings]
        n_bytes += reading.scored_bytes
        n_read += len(reading.data)
    return {
        m.name: {
            "bits_per_byte": bits(float(totals[j]), n_bytes),
            "bytes": n_bytes,
            "lossless": bool(exact[j]),
            "lost_share": int(lost[j]) / n_read if n_read else 0.0,
        }
        | m.around_documents
        for j, m in enumerate(readers)
    }


def next_characters(
    reading: TextReading, positions: Sequence[int]
) -> list[characters.NextCharacters]:
    """Compare what models with different vocabularies expect next, character by character.

    Args:
        reading: the text, as the models read it.
        positions: bytes of the text, in any order; its end is one, too.

    Returns:
        One record a model, its positions ascending and each once. Of truncated rows, what was cut
        off is unknown.

    Raises:
        InputError: a position lies outside the text.
        ModelFormatError: a model's vocabulary spells no spaces.
    """
    check_spaces(*reading.tokenizers)
    size = len(reading.data)
    wanted = np.unique(np.asarray(positions, np.int64))
    if not len(wanted) or wanted[0] < 0 or wanted[-1] > size:
        raise InputError(f"Positions must lie from 0 to {size}, the text's bytes: choose some.")
    parts: list[list[characters.NextCharacters]] = [[] for _ in reading.models]
    shifts = []
    for part in reading.windows:
        window = part.window
        owned = wanted[(wanted >= window.owned_from) & (wanted < window.owned_to)]
        if len(owned):
            shifts.append(window.start)
            at = (owned - window.start).tolist()
            for j, tokenizer in enumerate(reading.tokenizers):
                covers = _covers(part, j, tokenizer, at) if reading.rows == "exact" else None
                given = part.rows[j], part.encodings[j], tokenizer, at, covers
                parts[j].append(characters.next_characters(*given))
    return [characters.joined(p, shifts) for p in parts]


def _covers(
    window: WindowReading, model: int, tokenizer: TextTokenizer, positions: Sequence[int]
) -> Covers | None:
    """Return covers of bytes of a window: what was read of them, or what is at hand.

    Cut rows, and tokenizers that cannot be asked, have none.
    """
    covers, rows = window.covers[model], window.rows[model]
    if covers is not None and np.isin(positions, covers.positions).all():
        return covers
    if isinstance(rows.rows, SparseRows) or tokenizer.canonical.fault:
        return None
    at = np.asarray(positions, np.int64)
    prune = FusionConfig().prune if covers is None else covers.prune
    return known_covers(PrefixTree(rows, window.encodings[model], tokenizer, at, prune))


def fused_characters(
    fused: FusedRows, target: Encoding, tokenizer: TextTokenizer, positions: Sequence[int]
) -> characters.NextCharacters:
    """Sum fused rows over the tokens that go on with the same character.

    Args:
        fused: the text's fused rows.
        target: the text in the target's tokens.
        tokenizer: the target's.
        positions: bytes of the text.
    """
    # The row after the text's last token is not fused: all of it is unknown.
    m = len(fused.rows)
    rows = fused.rows.scattered(np.arange(m), m + 1)
    nothing = torch.zeros(m + 1, dtype=torch.int64)
    given = NextTokenRows("fused", rows, nothing, nothing.float(), target.row_bytes)
    return characters.next_characters(given, target, tokenizer, positions)
