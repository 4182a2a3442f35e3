"""Covers: what a model may have read of a text when it stands at a byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion_core.errors import FusionError

from .rows import DenseRows, SparseRows
from .text import Record, check

LIGHT = 0.01
"""How much of `Covers.prune` counts where nothing has to be read: covers of rows that are at hand,
and pairs of tokens that are tried."""


@dataclass(frozen=True, eq=False, repr=False)
class Covers(Record):
    """A model's tokenisations of the beginnings of a text, weighed by its own probability.

    A cover of a byte is a canonical tokenisation of the bytes up to it or to somewhat before it,
    and a next token: any where it ends at the byte, else one that spells the bytes in between and
    goes on. Its row is a row of the text, or one on a side path that was read besides. Weights are
    such that the covers' mass and that of what was left out, without what is excluded, sums to 1 at
    every position that has any.

    Attributes:
        positions: (p,) int64, ascending, bytes of the text as in `Encoding.row_bytes`.
        log_mass: (p,) float64 nats, log-probability that the model's text begins as this one does
            up to the byte; -inf where the model says nothing.
        noncanonical: (p,) float32, share of the mass on tokens that begin there and that the
            tokenizer never puts after the last one; it is left out from there on.
        rows: n + 1 rows of the text, and f on side paths.
        place: (e,) int64, ascending, which position each cover is of.
        row: (e,) int64, its row; -1 where that was not read.
        known: (e,) int64, bytes from where the row stands to the position.
        weight: (e,) float32, what its row's probabilities are multiplied by.
        excluded: (x,) int64, ascending: cover times vocabulary size plus next token, where that
            makes no canonical pair with the last token.
        prune: share of the mass below which covers and side paths were dropped.
    """

    positions: np.ndarray
    log_mass: np.ndarray
    noncanonical: np.ndarray
    rows: DenseRows | SparseRows
    place: np.ndarray
    row: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    excluded: np.ndarray
    prune: float

    def __post_init__(self) -> None:
        """Check that fields agree in length."""
        same = all(len(x) == len(self.place) for x in (self.row, self.known, self.weight))
        of_positions = (self.log_mass, self.noncanonical)
        check(
            same and all(len(x) == len(self.positions) for x in of_positions),
            f"Covers: {len(self.place)=}, {len(self.positions)=} but other lengths beside them",
        )

    def summary(self) -> str:
        """Return how many covers of how many bytes there are."""
        return f"{len(self.place):,} covers of {len(self.positions):,} bytes"

    @property
    def dense(self) -> DenseRows:
        """The rows, where they are whole.

        Raises:
            FusionError: they have been cut.
        """
        if not isinstance(self.rows, DenseRows):
            raise FusionError("The rows of these covers were cut: read whole ones here.")
        return self.rows

    def excluded_of(self, cover: int) -> np.ndarray:
        """(x,) int64, next tokens that are excluded of a cover."""
        size = self.rows.vocab_size
        low, high = np.searchsorted(self.excluded, [cover * size, (cover + 1) * size])
        return self.excluded[low:high] % size

    def at(self, bytes_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """List the covers that were read of bytes (n,), all of them positions.

        Returns:
            (e,) ascending, which of the n, and (e,) the numbers of the covers.
        """
        place = np.searchsorted(self.positions, bytes_)
        first, stop = (np.searchsorted(self.place, place, side) for side in ("left", "right"))
        count = stop - first
        which = np.repeat(np.arange(len(place)), count)
        cover = np.arange(len(which)) + (first - (np.cumsum(count) - count))[which]
        read = self.row[cover] >= 0
        return which[read], cover[read]
