"""A text as several models read it, what was projected of it, and the rows fused from that.

These three records follow one another. Their methods call the rooms that make the next one, so
that ``reading.project("prefix").fuse("min_ce")`` reads as what is done; the records hold data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fusion_core.errors import InputError
from fusion_core.numerics import bits

from .analysis import FusedRows, leaks
from .covers import Covers
from .rows import NextTokenRows, ProjectedRows, scattered
from .text import Alignment, Encoding, Record, Window
from .windows import Windows

if TYPE_CHECKING:
    import pandas as pd

    from fusion_core.mapping import VocabMapping
    from fusion_core.tokens import TextTokenizer

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of it that is behind."""

SHOWN_TOKENS = 3
"""Fused tokens a row of a table names."""


@dataclass(frozen=True, eq=False, repr=False)
class WindowReading(Record):
    """What several models read in one window, the target first.

    Attributes:
        window: the stretch of the text.
        encodings: the window in each model's tokens, offsets from its start.
        rows: each model's next-token rows.
        before: each model's number of text tokens before the window.
        covers: each model's covers of the bytes at which the target's rows stand; None where its
            rows at its own boundaries are taken.
    """

    window: Window
    encodings: tuple[Encoding, ...]
    rows: tuple[NextTokenRows, ...]
    before: tuple[int, ...]
    covers: tuple[Covers | None, ...]

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        return sum(
            rows.nbytes if covers is None else covers.rows.nbytes
            for rows, covers in zip(self.rows, self.covers, strict=True)
        )

    def row_bytes(self, model: int) -> np.ndarray:
        """(n + 1,) bytes of the whole text at which a model's rows stand."""
        return self.rows[model].boundary + self.window.start

    def nats(self, model: int, low: int, high: int) -> float:
        """Sum a model's own cross-entropy over the tokens after rows in bytes ``[low, high)``.

        Where several rows stand at one byte, all of them count: a token without width is predicted,
        too.
        """
        inside = torch.as_tensor(self.scored(model, low, high))
        return float(-self.rows[model].observed_logprob[:-1].cpu()[inside].double().sum())

    def scored(self, model: int, low: int, high: int) -> np.ndarray:
        """(n,) bool, rows in bytes ``[low, high)``, of those that a token of the window follows."""
        at = self.row_bytes(model)[:-1]
        return (at >= low) & (at < high)

    def owned(self, model: int, *, last: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Name a model's rows that are taken from this window: in the text, and in the window.

        Args:
            model: number of the model, the target 0.
            last: also the row after the window's last token, which no token follows.
        """
        at = self.row_bytes(model)[: None if last else -1]
        here = (at >= self.window.owned_from) & (at < self.window.owned_to)
        found = np.flatnonzero(here)
        return found + self.before[model], found


@dataclass(frozen=True, eq=False, repr=False)
class TextReading(Record):
    """The rows that a target and its sources gave for a text; of one model alone, its rows.

    Attributes:
        models: names, the target first.
        tokenizers: of the models.
        encodings: the whole text in each model's tokens.
        windows: what was read in each stretch that every model can read at once.
        scored: for each window, the half-open range of bytes at which its scored rows stand; it
            reaches beyond the text's end where that is included.
        scored_bytes: bytes over which bits per byte are taken, the same for every model.
        nats: of each model, its own cross-entropy over the scored bytes.
        documents: what each model reads around documents, by name.
        rows: "exact" where a source's rows know only what has been read, "boundary" where they know
            its boundaries in the whole text.
    """

    models: tuple[str, ...]
    tokenizers: tuple[TextTokenizer, ...]
    encodings: tuple[Encoding, ...]
    windows: Windows[WindowReading]
    scored: tuple[tuple[int, int], ...]
    scored_bytes: int
    nats: tuple[float, ...]
    documents: Mapping[str, dict[str, Any]]
    rows: str = "boundary"

    def summary(self) -> str:
        """Return the text's size, the models and their bits per byte."""
        bits = ", ".join(f"{n} {b:.3f}" for n, b in self.bits_per_byte.items())
        windows = f" in {len(self.windows)} windows" if len(self.windows) > 1 else ""
        return f"{len(self.data):,} bytes{windows}; bits per byte: {bits}"

    @property
    def data(self) -> bytes:
        """The text in UTF-8."""
        return self.encodings[0].data

    @property
    def bits_per_byte(self) -> dict[str, float]:
        """Bits per byte of each model's own predictions, by name."""
        return {m: bits(n, self.scored_bytes) for m, n in zip(self.models, self.nats, strict=True)}

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the models: ``tokens``, ``bytes_per_token``, ``bits_per_byte``."""
        import pandas as pd

        tokens = [len(e.text_tokens) for e in self.encodings]
        columns = {
            "tokens": tokens,
            "bytes_per_token": [len(self.data) / n for n in tokens],
            "bits_per_byte": list(self.bits_per_byte.values()),
        }
        return pd.DataFrame(columns, index=pd.Index(self.models, name="model"))

    def alignment(self, source: str) -> Alignment:
        """Align the target with a source over the whole text.

        Raises:
            InputError: there is no source of this name.
        """
        from fusion_core.align import by_bytes

        if source not in self.models[1:]:
            raise InputError(
                f"There is no source called {source!r}: choose one of {', '.join(self.models[1:])}."
            )
        j = self.models.index(source)
        start = self.tokenizers[j].start_id is not None
        return by_bytes(self.encodings[0], self.encodings[j], source_start=start)

    def target_ce(self) -> torch.Tensor:
        """(m,) float32 nats, the target's own cross-entropy on each of its text tokens."""
        parts, places = [], []
        for part in self.windows:
            where, own = part.owned(0)
            parts.append(-part.rows[0].observed_logprob.cpu()[torch.as_tensor(own)])
            places.append(where)
        n = len(self.encodings[0].text_tokens)
        return scattered(torch.cat(parts), np.concatenate(places), n)

    def project(self, strategy: str = "prefix", **options: Any) -> Projection:
        """Project every source's rows; see `fusion_core.project.project`."""
        from fusion_core.project import project

        return project(self, strategy, **options)


@dataclass(frozen=True, eq=False, repr=False)
class ProjectedWindow(Record):
    """What was projected of one window.

    Attributes:
        reading: the window.
        rows: of each source.
    """

    reading: WindowReading
    rows: tuple[ProjectedRows, ...]

    @property
    def rows_nbytes(self) -> int:
        """Memory that the projected rows take, in bytes."""
        return sum(rows.nbytes for rows in self.rows)


@dataclass(frozen=True, eq=False, repr=False)
class Projection(Record):
    """Every source's rows of a text on the target's positions and vocabulary.

    Attributes:
        reading: the text.
        strategy: name of the vocab mapping.
        mappings: of the sources.
        chain_rule: whether the token that followed has the product of the source's own steps.
        windows: of the text.
    """

    reading: TextReading
    strategy: str
    mappings: tuple[VocabMapping, ...]
    chain_rule: bool
    windows: Windows[ProjectedWindow]

    def summary(self) -> str:
        """Return the models and the mapping."""
        target, *sources = self.reading.models
        return f"{', '.join(sources)} -> {target} by {self.strategy}"

    def fuse(self, operator: str = "min_ce", **options: Any) -> FusedText:
        """Fuse the sources' rows; see `fusion_core.fuse.fuse`."""
        from fusion_core.fuse import fuse

        return fuse(self, operator, **options)


@dataclass(frozen=True, eq=False, repr=False)
class FusedText(Record):
    """The fused rows of a text.

    Attributes:
        projection: what was fused.
        operator: name of the operator.
        level: "sequence" or "token"; "" where the operator has none.
        fused: the rows, in the order of the target's text tokens.
        nats: cross-entropy of the whole fused rows over the scored bytes.
    """

    projection: Projection
    operator: str
    level: str
    fused: FusedRows
    nats: float

    def summary(self) -> str:
        """Return the models, the operator and bits per byte."""
        level = f" by {self.level}" if self.level else ""
        said = f"{self.projection.summary()}, {self.operator}{level}: {self.bits_per_byte:.3f}"
        return ", ".join([f"{said} bits per byte", *self.leaks])

    @property
    def leaks(self) -> tuple[str, ...]:
        """What the rows know that could not be known before; see `leaks`."""
        from fusion_core.fuse import operator_of

        sees_token = operator_of(self.operator).sees_token(self.level)
        return leaks(sees_token, self.projection.reading.rows)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the whole fused rows."""
        return bits(self.nats, self.projection.reading.scored_bytes)

    def to_frame(self) -> pd.DataFrame:
        """Return a table of the target's tokens.

        Columns: ``token``, ``start`` and ``end`` (bytes), ``winner`` (None where there is no
        single one), ``top`` (the most probable fused tokens), ``p`` (fused, of the token itself),
        ``nats``, and for each source ``kept NAME``, its kept mass.
        """
        import pandas as pd

        reading, fused = self.projection.reading, self.fused
        target, piece = reading.encodings[0], reading.tokenizers[0].piece
        tokens = target.text_tokens
        names = [*fused.sources, None]
        top = [
            "  ".join(f"{piece(v)!r} {p:.2f}" for v, p in zip(ids, probs, strict=True) if v >= 0)
            for ids, probs in zip(
                fused.rows.ids[:, :SHOWN_TOKENS].tolist(),
                fused.rows.probs[:, :SHOWN_TOKENS].tolist(),
                strict=True,
            )
        ]
        columns = {
            "token": [target.pieces[t] for t in tokens],
            "start": target.start[tokens],
            "end": target.end[tokens],
            "winner": [names[w] for w in fused.winner.tolist()],
            "top": top,
            "p": fused.observed_logprob.exp().numpy(),
            "nats": -fused.observed_logprob.numpy(),
        }
        kept = {f"kept {s}": fused.kept[:, j].numpy() for j, s in enumerate(fused.sources)}
        return pd.DataFrame(columns | kept)
