"""Rows of window after window -> the fused rows, and the `Analysis`, of a whole text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import evaluate as scoring
from . import fuse, mapping, models
from .align import by_bytes
from .config import FusionConfig, Truncation
from .project import Carrier, chain_rule, target_rows
from .project.attribution import origins
from .reading import JointText, Progress, Reading
from .records import (
    Analysis,
    FusedRows,
    NextTokenRows,
    Origins,
    ProjectedRows,
    SourceReading,
    SparseRows,
)


class RowStore:
    """Collects per-row tensors from windows into tensors over a whole text of n rows."""

    def __init__(self, n: int) -> None:
        """Start with nothing put."""
        self.n = n
        self._parts: dict[str, torch.Tensor] = {}

    def put(self, where: np.ndarray, rows: torch.Tensor, name: str) -> None:
        """Store rows (r, …) under a name, at the positions (r,) ``where``."""
        index = torch.as_tensor(where)
        if name not in self._parts:
            # What is never put is a row without ids, all of it tail.
            fill = {"ids": -1, "tail": 1}.get(name.rpartition(".")[2], 0)
            self._parts[name] = torch.full((self.n, *rows.shape[1:]), fill, dtype=rows.dtype)
        self._parts[name][index] = rows.cpu()

    def put_sparse(
        self, where: np.ndarray, rows: SparseRows, name: str, pick: torch.Tensor | None = None
    ) -> None:
        """Store sparse rows under a name; of more rows, those to ``pick``."""
        for part in ("ids", "probs", "tail"):
            values = getattr(rows, part)
            self.put(where, values if pick is None else values[pick], f"{name}.{part}")

    def get(self, name: str) -> torch.Tensor:
        """Return (n, …) what was put under a name."""
        return self._parts[name]

    def get_sparse(self, name: str, vocab_size: int, temperature: float) -> SparseRows:
        """Return n sparse rows."""
        parts = [self.get(f"{name}.{part}") for part in ("ids", "probs", "tail")]
        return SparseRows(parts[0], parts[1], parts[2], vocab_size, temperature)


class Gathering:
    """Fuses the rows of each window, and keeps of them what is asked for."""

    def __init__(
        self,
        read: JointText,
        maps: Sequence[mapping.Mapping | None],
        config: FusionConfig,
        *,
        carried_top_k: int | None = None,
        view: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Score every model on the whole text, which the operators may weigh sources by.

        Args:
            read: the text as the target and the sources read it.
            maps: the sources' vocab mappings.
            config: operator, level and top-k.
            carried_top_k: tokens kept of each source's carried-over rows and of the target's own;
                None keeps none of these rows.
            view: keep, too, what every model expects in its own tokens, and where the mass of each
                fused token came from.
            progress: told of every window that is read and fused.
        """
        self._progress = progress
        self._read, self._maps, self._config = read, maps, config
        self._carried_top_k, self._view = carried_top_k, view
        self.bits = [scoring.bits(nats, read.scored_bytes) for nats in read.nats(progress)]
        self._own = [RowStore(len(e.text_tokens) + 1) for e in read.encodings]
        self._rows = RowStore(len(read.encodings[0].text_tokens))
        self._fused_nats = 0.0
        self._size = read.readers[0].tokenizer.size
        self.names = tuple(
            r.name for r in [*read.readers[1:], *(read.readers[:1] if config.with_target else [])]
        )

    def gather(self) -> None:
        """Go through all windows."""
        progress = self._progress
        windows = len(self._read.windows)
        for n, (reading, scored) in enumerate(
            zip(self._read.readings(progress), self._read.scored, strict=True)
        ):
            if progress and windows > 1:
                progress(f"fusing window {n + 1} of {windows}", n / windows)
            self._add(reading, scored)

    def _add(self, reading: Reading, scored: tuple[int, int]) -> None:
        """Fuse a window's rows and take those that it owns."""
        config, target = self._config, reading.rows[0]
        carriers = [carry(reading, j, pairs) for j, pairs in enumerate(self._maps, start=1)]
        carried = [
            carried_rows(reading, j, carrier, self._read, config)
            for j, carrier in enumerate(carriers, start=1)
        ]
        sequence_ce = self.bits[1:]
        if config.with_target:
            carried.append(target_rows(target))
            sequence_ce = [*sequence_ce, self.bits[0]]
        fused = fuse.fuse(
            carried,
            target,
            sequence_ce,
            operator=config.operator,
            level=config.level,
            top_k=config.top_k,
            operator_temperature=config.operator_temperature,
            entropy=self._view,
        )
        mine = np.flatnonzero(reading.owned(0)[:-1])
        where, pick = mine + reading.before[0], torch.as_tensor(mine, device=fused.winner.device)
        self._rows.put_sparse(where, fused.rows, "fused", pick)
        for name in ("weights", "winner", "kept", "ce", "entropy", "observed_logprob"):
            self._rows.put(where, getattr(fused, name)[pick], name)
        row_bytes = reading.row_bytes(0)[:-1]
        counted = torch.as_tensor((row_bytes >= scored[0]) & (row_bytes < scored[1]))
        self._fused_nats -= float(fused.observed_logprob.cpu()[counted].double().sum())
        for j, rows in enumerate(carried[: len(carriers)], start=1):
            self._rows.put(where, torch.as_tensor(rows.kind[mine]), f"kind.{j}")
            if self._carried_top_k:
                top = fuse.top_rows(rows, target, self._carried_top_k)
                self._rows.put_sparse(where, top, f"carried.{j}", pick)
        if self._carried_top_k:
            self._rows.put_sparse(where, self._top(target), "own", pick)
            if not self._view:
                entropies = fuse.entropies(carried[: len(carriers)], target)
                self._rows.put(where, entropies[pick], "entropies")
        self._rows.put(where, -target.observed_logprob[pick], "target_ce")
        if self._view:
            self._look(reading, carriers, carried, fused, where, pick)

    def _look(
        self,
        reading: Reading,
        carriers: Sequence[Carrier],
        carried: Sequence[ProjectedRows],
        fused: FusedRows,
        where: np.ndarray,
        pick: torch.Tensor,
    ) -> None:
        """Keep what only a view needs."""
        for j, rows in enumerate(reading.rows[1:], start=1):
            mine = np.flatnonzero(reading.owned(j))
            at = torch.as_tensor(mine, device=fused.winner.device)
            self._own[j].put_sparse(mine + reading.before[j], self._top(rows), "own", at)
        traced = origins(carriers, carried, fused, reading.rows[0])
        for name in ("token", "mass", "own", "other"):
            self._rows.put(where, getattr(traced, name)[pick], f"origin.{name}")

    def _top(self, rows: NextTokenRows) -> SparseRows:
        """Cut rows on their model's own vocabulary to the view's number of tokens."""
        k = self._carried_top_k or 1
        if isinstance(rows.rows, SparseRows):
            kept = rows.rows
            probs = kept.probs[:, :k]
            tail = kept.tail + kept.probs[:, k:].sum(1)
            return SparseRows(kept.ids[:, :k], probs, tail, kept.vocab_size, kept.temperature)
        return models.truncate_rows(rows.rows.logprobs, Truncation(top_k=k), rows.rows.temperature)

    def fused(self) -> FusedRows:
        """Return the fused rows of the whole text."""
        rows = self._rows
        return FusedRows(
            rows=self._sparse("fused"),
            sources=self.names,
            weights=rows.get("weights"),
            winner=rows.get("winner"),
            kept=rows.get("kept"),
            ce=rows.get("ce"),
            entropy=rows.get("entropy"),
            observed_logprob=rows.get("observed_logprob"),
        )

    def _sparse(self, name: str) -> SparseRows:
        return self._rows.get_sparse(name, self._size, self._config.temperature)

    def carried(self, source: int) -> SparseRows:
        """Return the top of a source's carried-over rows; of 0, of the target's own rows."""
        return self._sparse(f"carried.{source}" if source else "own")

    def row_values(self, name: str) -> torch.Tensor:
        """Return what was kept of each row under a name."""
        return self._rows.get(name)

    def analysis(self, seconds: dict[str, float]) -> Analysis:
        """Return the whole, where it was gathered for a view.

        Args:
            seconds: what each stage took.
        """
        read, rows, config = self._read, self._rows, self._config
        reading, *encodings = read.encodings
        kept, ce = rows.get("kept"), rows.get("ce")
        return Analysis(
            target=reading,
            own=self.carried(0),
            target_ce=rows.get("target_ce"),
            target_bits_per_byte=self.bits[0],
            sources=tuple(
                SourceReading(
                    encoding=encoding,
                    alignment=by_bytes(reading, encoding, source_start=read.has_start[j]),
                    own=self._own[j].get_sparse("own", source.tokenizer.size, config.temperature),
                    carried=self.carried(j),
                    kind=rows.get(f"kind.{j}"),
                    kept=kept[:, j - 1],
                    ce=ce[:, j - 1],
                    bits_per_byte=self.bits[j],
                )
                for j, (source, encoding) in enumerate(
                    zip(read.readers[1:], encodings, strict=True), start=1
                )
            ),
            fused=self.fused(),
            origins=Origins(*(rows.get(f"origin.{n}") for n in ("token", "mass", "own", "other"))),
            fused_bits_per_byte=self.fused_bits_per_byte,
            scored_bytes=read.scored_bytes,
            details={
                "strategy": config.strategy,
                "operator": config.operator,
                "level": config.level,
                "top_k": config.top_k,
                "windows": len(read.windows),
                "documents": {m.name: m.around_documents for m in read.readers},
                "seconds": seconds,
            },
        )

    @property
    def fused_bits_per_byte(self) -> float:
        """Bits per byte of the whole fused rows."""
        return scoring.bits(self._fused_nats, self._read.scored_bytes)


def carry(reading: Reading, source: int, pairs: mapping.Mapping | None) -> Carrier:
    """Carry one source's rows of a window over to the target."""
    return Carrier(
        reading.rows[source],
        reading.rows[0],
        reading.align(source),
        pairs,
        source_encoding=reading.encodings[source],
        target_encoding=reading.encodings[0],
    )


def carried_rows(
    reading: Reading, source: int, carrier: Carrier, read: JointText, config: FusionConfig
) -> ProjectedRows:
    """Return what arrived, with the chain rule where the settings ask for it."""
    if not config.chain_rule:
        return carrier.rows
    target, encoding = reading.encodings[0], reading.encodings[source]
    rows = reading.rows[0]
    return chain_rule(
        carrier.rows,
        rows.dense,
        rows.observed[:-1],
        scoring.native_ce(target, encoding, reading.rows[source]),
        target,
        read.readers[0].tokenizer.ids_of,
    )
