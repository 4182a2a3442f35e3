"""Rows of window after window -> the `Analysis` of a whole text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import evaluate as scoring
from . import fuse
from .align import by_bytes
from .config import FusionConfig
from .reading import JointText, Reading
from .records import Analysis, FusedRows, ProjectedRows, SourceReading, SparseRows


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

    def get_sparse(self, name: str, vocab_size: int) -> SparseRows:
        """Return n sparse rows."""
        parts = [self.get(f"{name}.{part}") for part in ("ids", "probs", "tail")]
        return SparseRows(parts[0], parts[1], parts[2], vocab_size)


class Gathering:
    """Fuses the rows of each window, and keeps of them what a view needs."""

    def __init__(self, read: JointText, config: FusionConfig, view_top_k: int) -> None:
        """Score every model on the whole text, which the operators may weigh sources by.

        Args:
            read: the text as the target and the sources read it.
            config: operator, level and top-k.
            view_top_k: tokens kept of the rows that are only looked at.
        """
        self._read, self._config, self._view_top_k = read, config, view_top_k
        self._bits = [scoring.bits(nats, read.scored_bytes) for nats in read.nats()]
        self._own = [RowStore(len(e.text_tokens) + 1) for e in read.encodings]
        self._rows = RowStore(len(read.encodings[0].text_tokens))
        self._fused_nats = 0.0

    def add(
        self, reading: Reading, scored: tuple[int, int], carried: Sequence[ProjectedRows]
    ) -> None:
        """Fuse a window's rows and take those that it owns.

        Args:
            reading: the window.
            scored: range of bytes at which its scored rows stand.
            carried: the sources' rows on the target's positions and vocabulary.
        """
        for j, rows in enumerate(reading.rows):
            mine = np.flatnonzero(reading.owned(j))
            top = fuse.sparsify(rows.logprobs[torch.as_tensor(mine)].exp(), self._view_top_k)
            self._own[j].put_sparse(mine + reading.before[j], top, "own")
        target = reading.rows[0]
        observed = target.observed[:-1]
        fused = fuse.fuse(
            carried,
            observed,
            self._bits[1:],
            operator=self._config.operator,
            level=self._config.level,
            top_k=self._config.top_k,
        )
        mine = np.flatnonzero(reading.owned(0)[:-1])
        where, pick = mine + reading.before[0], torch.as_tensor(mine)
        for j, source in enumerate(carried, start=1):
            probs = source.probs[pick]
            self._rows.put_sparse(where, fuse.sparsify(probs, self._view_top_k), f"carried.{j}")
            self._rows.put(where, torch.as_tensor(source.kind)[pick], f"kind.{j}")
            self._rows.put(where, source.kept[pick], f"kept.{j}")
            self._rows.put(where, fuse.cross_entropy(probs, observed[pick])[0], f"ce.{j}")
        self._rows.put(where, -target.observed_logprob[pick], "target_ce")
        self._rows.put_sparse(where, fused.rows, "fused", pick)
        for name in ("weights", "winner", "entropy", "observed_logprob"):
            self._rows.put(where, getattr(fused, name)[pick], name)
        stands = reading.stands(0)[:-1]
        counted = torch.as_tensor((stands >= scored[0]) & (stands < scored[1]))
        self._fused_nats -= float(fused.observed_logprob[counted].double().sum())

    def analysis(self, seconds: dict[str, float]) -> Analysis:
        """Return the whole.

        Args:
            seconds: what each stage took.
        """
        read, rows, config = self._read, self._rows, self._config
        target, *sources = read.readers
        reading, *encodings = read.encodings
        size = target.tokenizer.size
        own = self._own[0].get_sparse("own", size)
        return Analysis(
            target=reading,
            own=SparseRows(own.ids[:-1], own.probs[:-1], own.tail[:-1], size),
            target_ce=rows.get("target_ce"),
            target_bits_per_byte=self._bits[0],
            sources=tuple(
                SourceReading(
                    encoding=encoding,
                    alignment=by_bytes(reading, encoding, source_start=read.has_start[j]),
                    own=self._own[j].get_sparse("own", source.tokenizer.size),
                    carried=rows.get_sparse(f"carried.{j}", size),
                    kind=rows.get(f"kind.{j}"),
                    kept=rows.get(f"kept.{j}"),
                    ce=rows.get(f"ce.{j}"),
                    bits_per_byte=self._bits[j],
                )
                for j, (source, encoding) in enumerate(
                    zip(sources, encodings, strict=True), start=1
                )
            ),
            fused=FusedRows(
                rows=rows.get_sparse("fused", size),
                sources=tuple(s.name for s in sources),
                weights=rows.get("weights"),
                winner=rows.get("winner"),
                entropy=rows.get("entropy"),
                observed_logprob=rows.get("observed_logprob"),
            ),
            fused_bits_per_byte=scoring.bits(self._fused_nats, read.scored_bytes),
            scored_bytes=read.scored_bytes,
            details={
                "strategy": config.strategy,
                "operator": config.operator,
                "level": config.level,
                "top_k": config.top_k,
                "windows": len(read.windows),
                "seconds": seconds,
            },
        )
