"""How well rows predict: bits per byte of a model, transfer cross-entropy of a carried-over row."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

import numpy as np
import torch

from .numerics import bits
from .records import Covers, NextTokenRows, ProjectedRows, RowKind

__all__ = ["TransferScore", "bits"]


@dataclass
class _Sums:
    positions: int = 0
    kept: float = 0.0
    transfer: float = 0.0
    target: float = 0.0

    def add(self, where: np.ndarray, kept: np.ndarray, ce: np.ndarray, own: np.ndarray) -> None:
        self.positions += int(where.sum())
        self.kept += float(kept[where].sum())
        self.transfer += float(ce[where].sum())
        self.target += float(own[where].sum())

    def __add__(self, other: _Sums) -> _Sums:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return _Sums(*(a + b for a, b in pairs))

    def means(self) -> dict[str, float | int | None]:
        n = self.positions
        return {
            "positions": n,
            "kept_mass": self.kept / n if n else None,
            "transfer_ce": self.transfer / n if n else None,
            "target_ce": self.target / n if n else None,
        }


@dataclass
class TransferScore:
    """Running score of what a source's rows say after they have been carried to the target.

    All figures are nats per target token. Shared boundaries and positions inside a source token
    are kept apart; a row at byte 0 counts as inside where the source begins with a dummy prefix
    that the target has not, or has already spelt.
    """

    positions: int = 0
    floored: int = 0
    native_positions: int = 0
    native_nats: float = 0.0
    source_tokens: int = 0
    side_rows: int = 0
    noncanonical: list[np.ndarray] = field(default_factory=list)
    shared: _Sums = field(default_factory=_Sums)
    inside: _Sums = field(default_factory=_Sums)

    def add(
        self,
        projected: ProjectedRows,
        carried_ce: torch.Tensor,
        target: NextTokenRows,
        native: np.ndarray,
        owned: np.ndarray,
    ) -> None:
        """Count the rows of one window.

        Args:
            projected: m carried-over rows.
            carried_ce: (m,) nats, of those rows on the tokens that follow.
            target: m + 1 rows of the target.
            native: (m,) nats from `native_ce`.
            owned: (m,) bool, rows that belong to this window.
        """
        ce, kept = carried_ce.cpu().numpy(), projected.kept.cpu().numpy()
        own = -target.observed_logprob[:-1].cpu().numpy()
        shared = owned & (projected.kind == RowKind.SHARED)
        self.positions += int(owned.sum())
        self.shared.add(shared, kept, ce, own)
        self.inside.add(owned & (projected.kind == RowKind.INSIDE), kept, ce, own)
        nats = native[shared]
        self.native_positions += int((~np.isnan(nats)).sum())
        self.native_nats += float(np.nansum(nats))

    def add_covers(self, covers: Covers, n_rows: int, at: np.ndarray) -> None:
        """Count what was read of the source besides a window, and what its spellings cost it.

        Args:
            covers: of the window.
            n_rows: of the source on the window itself.
            at: bytes at which the rows stand that `add` counts.
        """
        self.source_tokens += n_rows - 1
        self.side_rows += len(covers.rows) - n_rows
        self.noncanonical.append(covers.noncanonical[np.searchsorted(covers.positions, at)])

    def summary(self) -> dict[str, object]:
        """Return the figures under the names of the command line.

        ``noncanonical`` is None where rows at the source's own boundaries were taken, which do not
        tell it.
        """
        shared, spelt = self.shared.means(), self.noncanonical
        return {
            "positions": self.positions,
            "covered": shared["positions"],
            "coverage": self.shared.positions / self.positions if self.positions else None,
            "kept_mass": shared["kept_mass"],
            "transfer_ce": shared["transfer_ce"],
            "target_ce": shared["target_ce"],
            "native_positions": self.native_positions,
            "native_ce": self.native_nats / self.native_positions
            if self.native_positions
            else None,
            "floored": self.floored,
            "inside": self.inside.means(),
            "all": (self.shared + self.inside).means(),
            "extra_positions": self.side_rows / self.source_tokens if self.source_tokens else 0.0,
            "noncanonical": float(np.concatenate(spelt).mean()) if spelt else None,
        }
