"""The stages in their order: what the command line, the app and the notebooks call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import fuse
from .align import METHODS, by_bytes
from .config import MAX_TEXT_BYTES, FusionConfig, Truncation, utf8
from .errors import InputError
from .mapping import VocabMapping
from .models import LoadedModel, truncate_rows
from .project import attribute, mappings_of, project, routes_of
from .reading import check_names, read
from .records import (
    Alignment,
    Analysis,
    Attribution,
    Encoding,
    FusedRows,
    FusedText,
    NextTokenRows,
    Progress,
    ProjectedRows,
    ProjectedWindow,
    Projection,
    SourceAnalysis,
    SparseRows,
    scattered,
)
from .tokens import TextTokenizer, encode_chat


def mappings(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    config: FusionConfig,
    corpus: Sequence[str],
    progress: Progress | None = None,
    *,
    keep: bool = False,
) -> list[VocabMapping]:
    """Check that models can be fused as configured, and return the sources' vocab mappings.

    Args:
        target: the model that would be taught.
        sources: the models that would teach.
        config: strategy, operator and level.
        corpus: texts for strategies that count.
        progress: told of every vocabulary.
        keep: keep what is counted in them on disk, because they will be named again.

    Raises:
        InputError: no source, a model named twice, an unknown strategy, operator or level.
        ModelFormatError: vocabularies differ, and one spells no spaces.
    """
    if not sources:
        raise InputError("There is no source: name at least one.")
    check_names(target.name, *(s.name for s in sources))
    fuse.operator_of(config.operator, config.level)
    tokenizers = [m.tokenizer for m in (target, *sources)]
    return mappings_of(tokenizers, config.strategy, corpus, progress, keep=keep)


def align(
    target: TextTokenizer, sources: Sequence[TextTokenizer], text: str, method: str = "bytes"
) -> tuple[Encoding, list[tuple[Encoding, Alignment]]]:
    """Encode a text with every tokenizer and align each source with the target.

    Raises:
        InputError: the text is empty, a model is named twice, or there is no such method.
        TooLargeError: the text has more than a million bytes.
    """
    check_names(target.name, *(s.name for s in sources))
    if method not in METHODS:
        raise InputError(
            f"There is no alignment method called {method!r}: choose one of {', '.join(METHODS)}."
        )
    utf8(text, limit=MAX_TEXT_BYTES)
    reading = target.encode(text)
    encodings = [s.encode(text) for s in sources]
    return reading, [(e, METHODS[method](reading, e)) for e in encodings]


def align_chat(
    target: TextTokenizer, sources: Sequence[TextTokenizer], messages: Sequence[dict[str, str]]
) -> tuple[Encoding, list[tuple[Encoding, Alignment]]]:
    """Align the contents of messages that every model reads in its own chat template.

    Raises:
        InputError: a model is named twice, or has no template that can be followed.
        TooLargeError: the contents have more than a million bytes.
    """
    check_names(target.name, *(s.name for s in sources))
    reading = encode_chat(target, messages)
    encodings = [encode_chat(s, messages) for s in sources]
    return reading, [(e, by_bytes(reading, e)) for e in encodings]


def analyze(
    target: LoadedModel,
    sources: Sequence[LoadedModel],
    text: str,
    config: FusionConfig,
    *,
    view_top_k: int = 12,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Read a text with a target and its sources, project and fuse, and keep what a view shows.

    Args:
        target: the model that would be taught.
        sources: the models that would teach, at least one.
        text: at most a million bytes.
        config: strategy, operator, level and top-k.
        view_top_k: tokens kept of the rows that are only looked at.
        corpus: texts for strategies that count; the text itself by default.
        progress: told of every vocabulary that is mapped, and of every window read and fused.

    Raises:
        InputError: an empty text, a model named twice, an unknown strategy, operator or level.
        TooLargeError: the text is too long.
    """
    utf8(text, limit=MAX_TEXT_BYTES)
    maps = mappings(target, sources, config, corpus or [text], progress, keep=bool(corpus))
    reading = read(text, target, sources, config, progress=progress)
    projection = project(reading, config.strategy, mappings=maps, chain_rule=config.chain_rule)
    return view(projection, config, view_top_k=view_top_k, progress=progress)


@dataclass(frozen=True, eq=False)
class _WindowView:
    """What a view shows of one window: the r rows of the target that the window owns.

    Attributes:
        where: (r,) indices of the rows in the text.
        native: top rows of the target itself.
        projected: top rows of each source.
        kind: (r, S) int64 of `RowKind`.
        attribution: where the mass of the fused tokens came from.
        sources: of each source, the indices of the rows that the window owns, and their top on the
            source's vocabulary.
    """

    where: np.ndarray
    native: SparseRows
    projected: list[SparseRows]
    kind: torch.Tensor
    attribution: Attribution
    sources: list[tuple[np.ndarray, SparseRows]]

    @staticmethod
    def of(
        projection: Projection,
        projected: ProjectedWindow,
        rows: list[ProjectedRows],
        fused: FusedRows,
        k: int,
    ) -> _WindowView:
        """Take the top k of everything; arguments as for `fuse.rows.Look`."""
        window, target = projected.reading, projected.reading.rows[0]
        device = fused.winner.device
        where, own = window.owned(0)
        pick = torch.as_tensor(own, device=device)
        tops = [fuse.top_rows(p, target, k).at(pick) for p in projected.rows]
        kind = torch.as_tensor(np.stack([p.kind for p in projected.rows], axis=1))
        sources = []
        for j in range(1, len(window.rows)):
            place, own = window.owned(j, last=True)
            top = top_of(window.rows[j], k)
            sources.append((place, top.at(torch.as_tensor(own, device=device))))
        attribution = attribute(fused, rows, routes_of(projection, window), target)
        return _WindowView(
            where,
            top_of(target, k).at(pick),
            tops,
            kind[pick.cpu()],
            attribution.at(pick),
            sources,
        )


def top_of(rows: NextTokenRows, k: int) -> SparseRows:
    """Keep the k most probable tokens of rows on their model's own vocabulary."""
    if isinstance(rows.rows, SparseRows):
        return rows.rows.top(k)
    return truncate_rows(rows.rows.logprobs, Truncation(top_k=k), rows.rows.temperature)


def view(
    projection: Projection,
    config: FusionConfig,
    *,
    view_top_k: int = 12,
    progress: Progress | None = None,
) -> Analysis:
    """Fuse a text's rows, and keep what a view shows of all that led to them.

    Args:
        projection: the text, and its sources' rows.
        config: operator, level and top-k.
        view_top_k: tokens kept of the rows that are only looked at.
        progress: told of every window that is fused.

    Raises:
        InputError: there is no such operator or level, or no source.
    """
    views: list[_WindowView] = []

    def look(window: ProjectedWindow, rows: list[ProjectedRows], fused: FusedRows) -> None:
        views.append(_WindowView.of(projection, window, rows, fused, view_top_k))

    text = fuse_text(projection, config, look=look, progress=progress)
    reading, fused = projection.reading, text.fused
    m, where = len(fused), np.concatenate([v.where for v in views])
    operator = fuse.operator_of(config.operator)
    return Analysis(
        target=reading.encodings[0],
        native=SparseRows.concat([v.native for v in views]).scattered(where, m),
        target_ce=reading.target_ce(),
        target_bits_per_byte=reading.bits_per_byte[reading.models[0]],
        sources=tuple(_sources(text, views, where)),
        fused=fused,
        attribution=Attribution.concat([v.attribution for v in views]).scattered(where, m),
        fused_bits_per_byte=text.bits_per_byte,
        scored_bytes=reading.scored_bytes,
        details={
            "strategy": projection.strategy,
            "rows": reading.rows,
            "operator": config.operator,
            "level": text.level,
            "sees_token": operator.sees_token(config.level),
            "top_k": config.top_k,
            "windows": len(reading.windows),
            "documents": reading.documents,
        },
    )


def _sources(
    text: FusedText, views: list[_WindowView], where: np.ndarray
) -> Iterator[SourceAnalysis]:
    """Put together what the windows show of each source."""
    reading, fused = text.projection.reading, text.fused
    kind = scattered(torch.cat([v.kind for v in views]), where, len(fused))
    for j, model in enumerate(reading.models[1:]):
        places, natives = zip(*(v.sources[j] for v in views), strict=True)
        n_rows = len(reading.encodings[j + 1].text_tokens) + 1
        projected = SparseRows.concat([v.projected[j] for v in views])
        yield SourceAnalysis(
            alignment=reading.alignment(model),
            native=SparseRows.concat(natives).scattered(np.concatenate(places), n_rows),
            projected=projected.scattered(where, len(fused)),
            kind=kind[:, j],
            kept=fused.kept[:, j],
            ce=fused.ce[:, j],
            bits_per_byte=reading.bits_per_byte[model],
        )


def fuse_text(projection: Projection, config: FusionConfig, **options: Any) -> FusedText:
    """Fuse a text's rows as configured; further options are those of `fuse.fuse`."""
    return fuse.fuse(
        projection,
        config.operator,
        level=config.level,
        top_k=config.top_k,
        operator_temperature=config.operator_temperature,
        with_target=config.with_target,
        **options,
    )
