"""Forecast: what each source could teach a target on a text, before anything is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion_core import fuse
from fusion_core.config import FusionConfig
from fusion_core.errors import InputError
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.project import mappings_of, project
from fusion_core.reading import check_names, read_documents
from fusion_core.records import Progress, Projection, Record, RowKind

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_BYTES = 20_000
"""Text that is read where more is given: as many documents from its whole length."""

MARGIN = 0.01
"""Share of the target's bits per byte that a source must save to be worth a training."""

ERRORS = 1.645
"""Standard errors by which a saving must lie above 0: one chance in twenty."""


@dataclass(frozen=True)
class SourceForecast:
    """What one source knows of a text that the target does not.

    Attributes:
        source: its name.
        bits_per_byte: of the source by itself.
        target_bits_per_byte: of the target by itself, on the same bytes.
        positions: the target's positions at which the source has a row.
        transfer_ce: nats per target token of its projected rows, at these positions.
        target_ce: of the target's own rows there.
        kept_mass: share of its probability that arrived in the target's vocabulary.
        better_positions: share of them at which its projected row gives the token that followed
            more than the target does.
        better_documents: share of the documents that it reads in fewer bits than the target.
        saving: bits per byte of the whole text that its projected rows save on these documents.
        saving_error: standard error of that, over documents; infinite where there is one alone.
        seconds: to read the text with both, and to project.
        bytes: that the source's weights take.
    """

    source: str
    bits_per_byte: float
    target_bits_per_byte: float
    positions: int
    transfer_ce: float | None
    target_ce: float | None
    kept_mass: float | None
    better_positions: float | None
    better_documents: float
    saving: float
    saving_error: float
    seconds: float
    bytes: int

    @property
    def teaches(self) -> bool:
        """Whether it saves enough to be worth a training, and not by luck."""
        sure = self.saving - ERRORS * self.saving_error > 0
        return sure and self.saving >= MARGIN * self.target_bits_per_byte


@dataclass(frozen=True, repr=False)
class Forecast(Record):
    """What the sources could teach a target on a text.

    Attributes:
        target: its name.
        documents: that were read.
        text_bytes: of them.
        sources: one forecast each, in the order in which they were named.
    """

    target: str
    documents: int
    text_bytes: int
    sources: tuple[SourceForecast, ...]

    @property
    def teachers(self) -> tuple[SourceForecast, ...]:
        """Sources that are worth a training, the one that saves most first."""
        found = [s for s in self.sources if s.teaches]
        return tuple(sorted(found, key=lambda s: -s.saving))

    @property
    def sentence(self) -> str:
        """Advice: which teacher, or that there is nothing to teach."""
        if self.teachers:
            first, *more = self.teachers
            besides = f"; {', '.join(s.source for s in more)} can add to it" if more else ""
            return (
                f"Train {self.target} on {first.source}, which reads "
                f"{first.better_documents:.0%} of the documents better and whose rows save "
                f"{first.saving:.2f} of the target's {first.target_bits_per_byte:.2f} bits per "
                f"byte on them{besides}."
            )
        if self.documents < 2:
            return "One document cannot tell a teacher from luck: give several documents."
        best = max(self.sources, key=lambda s: s.saving)
        if best.saving >= MARGIN * best.target_bits_per_byte:
            return (
                f"Whether there is anything to teach cannot be told from {self.documents} "
                f"documents: {best.source} saves {best.saving:.2f} ± {best.saving_error:.2f} bits "
                "per byte; give more of them."
            )
        return (
            f"There is nothing to teach here: no source saves {MARGIN:.0%} of the "
            f"{best.target_bits_per_byte:.2f} bits per byte that {self.target} takes; choose "
            "sources that know this kind of text, or train on the text alone."
        )

    def summary(self) -> str:
        """Return the advice."""
        return self.sentence

    def to_frame(self) -> pd.DataFrame:
        """Return a table, a row a source, with the columns of `SourceForecast` and ``teaches``."""
        import pandas as pd

        rows = [asdict(s) | {"teaches": s.teaches} for s in self.sources]
        names = [f.name for f in fields(SourceForecast)]
        return pd.DataFrame(rows, columns=[*names, "teaches"]).set_index("source")

    def to_report(self) -> list[dict[str, Any]]:
        """Return the figures as plain data, a source an entry."""
        return [asdict(s) | {"teaches": s.teaches} for s in self.sources]


def forecast(
    target: LoadedModel,
    sources: Iterable[LoadedModel],
    texts: Sequence[str],
    config: FusionConfig | None = None,
    *,
    sample_bytes: int = SAMPLE_BYTES,
    progress: Progress | None = None,
) -> Forecast:
    """Say what each source could teach a target; see `stream_forecast`."""
    read = documents.sample(texts, sample_bytes) if texts else []
    found = tuple(stream_forecast(target, sources, read, config, progress=progress))
    return Forecast(target.name, len(read), sum(len(t.encode()) for t in read), found)


def stream_forecast(
    target: LoadedModel,
    sources: Iterable[LoadedModel],
    texts: Sequence[str],
    config: FusionConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[SourceForecast]:
    """Forecast source by source, each as soon as it is read.

    Args:
        target: the model that would be taught.
        sources: the models that would teach; an iterator may load one after the other.
        texts: documents; all of them are read.
        config: how rows are read and projected.
        progress: told of every document.

    Raises:
        InputError: there is no document or no source, or a model is named twice.
    """
    if not texts:
        raise InputError("There is no document to forecast on: give some text.")
    config, names = config or FusionConfig(), [target.name]
    for source in sources:
        names.append(source.name)
        check_names(*names)
        yield _source_forecast(target, source, texts, config, progress)
    if len(names) == 1:
        raise InputError("There is no source to forecast: name at least one.")


def _source_forecast(
    target: LoadedModel,
    source: LoadedModel,
    texts: Sequence[str],
    config: FusionConfig,
    progress: Progress | None,
) -> SourceForecast:
    """Read the documents with the target and one source."""
    began = time.perf_counter()
    maps = mappings_of([target.tokenizer, source.tokenizer], config.strategy, texts)
    rows: list[np.ndarray] = []  # of every document: bytes, nats of both, and of projected rows
    at: list[np.ndarray] = []  # of every position with a row: nats projected, the target's, kept

    def say(stage: str, share: float) -> None:
        if progress:
            progress(f"{source.name}: {stage}", share)

    for reading in read_documents([target, source], texts, config, progress=say):
        projection = project(reading, config.strategy, mappings=maps, chain_rule=config.chain_rule)
        scored = _positions(projection)  # (n, 3)
        at.append(scored)
        native, other = reading.nats
        projected = native + float((scored[:, 0] - scored[:, 1]).sum())
        rows.append(np.asarray([reading.scored_bytes, native, other, projected]))
    n_bytes, native, other, projected = np.stack(rows).T / [[1], *[[math.log(2)]] * 3]  # bits
    better = other < native - 1e-6 * n_bytes
    saved = np.where(better, native - projected, 0.0)
    positions, total = np.concatenate(at), n_bytes.sum()
    means = positions.mean(0).tolist() if len(positions) else [None] * 3
    wins = positions[:, 0] < positions[:, 1] - 1e-6
    return SourceForecast(
        source=source.name,
        bits_per_byte=float(other.sum() / total),
        target_bits_per_byte=float(native.sum() / total),
        positions=len(positions),
        transfer_ce=means[0],
        target_ce=means[1],
        kept_mass=means[2],
        better_positions=float(wins.mean()) if len(wins) else None,
        better_documents=float(better.mean()),
        saving=float(saved.sum() / total),
        saving_error=_ratio_error(saved, n_bytes),
        seconds=time.perf_counter() - began,
        bytes=source.size_bytes,
    )


def _positions(projection: Projection) -> np.ndarray:
    """Score a source's rows: (n, 3) of nats of the projected, of the target's, and kept mass."""
    reading, parts = projection.reading, []
    for projected, (low, high) in zip(projection.windows, reading.scored, strict=True):
        window, rows = projected.reading, projected.rows[0]
        here = window.scored(0, low, high) & (rows.kind != RowKind.NONE)
        ce, _ = fuse.projected_ce(rows, window.rows[0])
        own = -window.rows[0].observed_logprob[:-1]
        columns = [x.detach().cpu().double().numpy()[here] for x in (ce, own, rows.kept)]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def _ratio_error(saved: np.ndarray, n_bytes: np.ndarray) -> float:
    """Return the standard error of a sum of bits over a sum of bytes, over documents."""
    n = len(saved)
    if n < 2:
        return math.inf
    residual = saved - saved.sum() / n_bytes.sum() * n_bytes
    return float(np.sqrt((residual**2).sum() * n / (n - 1)) / n_bytes.sum())
