"""The rows of a text on the target's positions and vocabulary, and the row that ends one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fusion_core.align import by_bytes
from fusion_core.mapping import VocabMapping, mapping_between
from fusion_core.numerics import index_sum
from fusion_core.records import (
    LIGHT,
    Alignment,
    Progress,
    ProjectedRows,
    ProjectedWindow,
    Projection,
    TextReading,
    WindowReading,
    Windows,
)
from fusion_core.tokens import TextTokenizer

from .boundaries import at_boundaries
from .chain_rule import chain_rule as with_chain_rule
from .chain_rule import native_ce, read_ce
from .routes import Route
from .rows import jeffrey, project_rows


def project(
    reading: TextReading,
    strategy: str = "prefix",
    *,
    mappings: Sequence[VocabMapping] | None = None,
    chain_rule: bool = False,
    corpus: Sequence[str] = (),
    progress: Progress | None = None,
) -> Projection:
    """Project every source's rows of a text to the target's positions and vocabulary.

    Args:
        reading: the text, as the target and its sources read it.
        strategy: name in `mapping.STRATEGIES`.
        mappings: what the strategy gave for each source, where it is at hand.
        chain_rule: put the product of the source's own steps in the place of the projected
            probability of the token that followed, where it is known.
        corpus: texts for strategies that count; the text itself by default.
        progress: told of every vocabulary.

    Raises:
        InputError: there is no such strategy.
        ModelFormatError: vocabularies differ, and one spells no spaces.
    """
    if mappings is None:
        texts = corpus or [reading.data.decode()]
        mappings = mappings_of(reading.tokenizers, strategy, texts, progress, keep=bool(corpus))
    maps = tuple(mappings)

    def make(at: int) -> list[ProjectedWindow]:
        return [
            ProjectedWindow(window, _projected(reading, window, maps, chain_rule))
            for window in reading.windows.some(at)
        ]

    shared = reading.windows.complete  # whose rows are kept there
    nbytes = (lambda w: w.rows_nbytes) if shared else (lambda w: w.rows_nbytes + w.reading.nbytes)
    windows = Windows(len(reading.windows), make, nbytes)
    return Projection(reading, strategy, maps, chain_rule, windows)


def mappings_of(
    tokenizers: Sequence[TextTokenizer],
    strategy: str,
    corpus: Sequence[str],
    progress: Progress | None = None,
    *,
    keep: bool = False,
) -> list[VocabMapping]:
    """Return the mapping of every source's vocabulary to the target's.

    Args:
        tokenizers: the target's, and the sources'.
        strategy: name in `mapping.STRATEGIES`.
        corpus: texts for strategies that count.
        progress: told of every vocabulary.
        keep: keep what is counted in them on disk, because they will be named again.

    Raises:
        InputError: there is no such strategy.
        ModelFormatError: vocabularies differ, and one spells no spaces.
    """
    target, *sources = tokenizers
    mappings = []
    for j, source in enumerate(sources):
        if progress:
            progress(f"mapping the vocabulary of {source.name}", j / len(sources))
        mappings.append(mapping_between(source, target, strategy, corpus, keep=keep))
    return mappings


def _projected(
    reading: TextReading,
    window: WindowReading,
    mappings: Sequence[VocabMapping],
    chain_rule: bool,
) -> tuple[ProjectedRows, ...]:
    target, encoding, projected = window.rows[0], window.encodings[0], []
    native = target.dense.part(0, len(target.rows) - 1)
    last = np.concatenate([[-1], encoding.ids[encoding.text_tokens]])
    for j, mapping in enumerate(mappings, start=1):
        covers, source = window.covers[j], window.encodings[j]
        alignment = aligned(reading, window, j)
        rows = project_rows(window.rows[j], target, alignment, mapping, covers)
        if covers is not None:
            least = covers.prune * LIGHT
            canonical = reading.tokenizers[0].canonical
            rows = at_boundaries(rows, native, last, canonical, least)
        if chain_rule:
            rows = with_chain_rule(
                rows,
                native,
                target.observed[:-1],
                native_ce(encoding, source, window.rows[j])
                if covers is None
                else read_ce(encoding, source, covers),
                encoding,
                reading.tokenizers[0].ids_of,
            )
        projected.append(rows)
    return tuple(projected)


def aligned(reading: TextReading, window: WindowReading, source: int) -> Alignment:
    """Align the target with a source, by its number from 1, within a window."""
    start = reading.tokenizers[source].start_id is not None
    return by_bytes(window.encodings[0], window.encodings[source], source_start=start)


def routes_of(projection: Projection, window: WindowReading) -> list[Route]:
    """Find again along which edges the rows of a window were projected."""
    return [
        Route.of(
            window.rows[j],
            window.rows[0],
            aligned(projection.reading, window, j),
            mapping,
            window.covers[j],
        )
        for j, mapping in enumerate(projection.mappings, start=1)
    ]


def project_row(
    given: torch.Tensor, native: torch.Tensor, mapping: VocabMapping, known: bytes = b""
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Project the tokens of one row that agree with known bytes.

    Args:
        given: (source vocabulary,) probabilities.
        native: (target vocabulary,), the target's own row.
        mapping: from one vocabulary to the other.
        known: with what the next token is known to begin.

    Returns:
        (target vocabulary,) what was mapped, the mass that was mapped, and the mass of all tokens
        that agree; nothing is normalised.
    """
    if mapping.identity and not known:
        return given, given.sum(), given.sum()
    size = len(native)
    if mapping.transported:
        mass, ids = given.topk(min(mapping.transported, len(given)))  # (k,)
        goes = mapping.destinations(ids[None], mass[None], native[None])[0]
        return index_sum(size, goes, mass), mass.sum(), given.sum()
    edges = mapping.edges(known)
    candidates, source, goes = (
        x.to(native.device) for x in (edges.candidates, edges.source, edges.target)
    )
    mass, prior = given[candidates], native[goes]  # (c,), (e,)
    if edges.weight is not None:
        flow = mass[source] * edges.weight.to(native.device)
        return index_sum(size, goes, flow), flow.sum(), mass.sum()
    mapped, share = jeffrey(mass, index_sum(len(mass), source, prior))
    return index_sum(size, goes, share[source] * prior), mapped.sum(), mass.sum()
