"""Cut a long text into windows that every model can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from fusion_core.errors import InputError
from fusion_core.records import Encoding


@dataclass(frozen=True)
class Window:
    """A stretch of a text that all models read on its own, after their start tokens.

    Attributes:
        start: first byte.
        end: one past the last byte.
        own: rows that stand in ``[own, own_end)`` are taken from this window; what comes before is
            read for its context.
        last: the text ends with it.
    """

    start: int
    end: int
    own: int
    last: bool = False

    @property
    def own_end(self) -> int:
        """End of the rows that are taken from this window; the last one has those at its end."""
        return self.end + self.last


def windows(
    encodings: Sequence[Encoding], contexts: Sequence[int | None], overlap: float = 0.25
) -> list[Window]:
    """Cut a text at boundaries that the models share, so that each window fits every context.

    Args:
        encodings: one for each model, the target's first.
        contexts: most tokens that each model reads at once, its start token included.
        overlap: share of a window that the next one reads again.

    Returns:
        Windows whose own ranges cover the text once. They are cut where all models have a
        boundary; where there is none within reach, at a boundary of the target.

    Raises:
        InputError: a context is too short for a single token of the target.
    """
    length = len(encodings[0].data)
    ends = [e.end[e.text_tokens] for e in encodings]
    starts = [e.start[e.text_tokens] for e in encodings]
    common = reduce(np.intersect1d, ends)
    out: list[Window] = []
    start = own = 0
    while own < length:
        limit = length
        for begin, end, context in zip(starts, ends, contexts, strict=True):
            last = int(np.searchsorted(begin, start)) + (context or length + 2) - 2
            if last < len(end) - 1:
                limit = min(limit, int(end[last]))
        stop = length if limit >= length else _last_cut(common, ends[0], own, limit)
        out.append(Window(start, stop, own, last=stop == length))
        if stop <= own:
            raise InputError(
                f"A context of {min(c for c in contexts if c)} tokens is too short for this text: "
                "choose a model with a longer one."
            )
        back = stop - int(overlap * (stop - start))
        again = _last_cut(common, ends[0], start, back)
        start, own = again if again > start else stop, stop
    return out


def _last_cut(common: np.ndarray, target: np.ndarray, low: int, high: int) -> int:
    """Return the last boundary in ``(low, high]``, shared by all if there is one, else ``low``."""
    for cuts in (common, target):
        i = int(np.searchsorted(cuts, high, side="right")) - 1
        if i >= 0 and cuts[i] > low:
            return int(cuts[i])
    return low


def cut(encoding: Encoding, window: Window) -> tuple[Encoding, int]:
    """Take the tokens that lie within a window, with offsets from the window's start.

    Returns:
        The part of the encoding without special tokens, and the number of text tokens before it.
    """
    own = encoding.text_tokens
    start, end = encoding.start[own], encoding.end[own]
    before = window.start > 0
    inside = (start >= window.start) & (end <= window.end) & ~(before & (end == window.start))
    keep = own[inside]
    lost = tuple(
        (max(s, window.start) - window.start, min(e, window.end) - window.start)
        for s, e in encoding.lost
        if s < window.end and e > window.start
    )
    part = replace(
        encoding,
        data=encoding.data[window.start : window.end],
        ids=encoding.ids[keep],
        start=encoding.start[keep] - window.start,
        end=encoding.end[keep] - window.start,
        special=np.zeros(len(keep), bool),
        pieces=tuple(encoding.pieces[i] for i in keep),
        published=(),
        lost=lost,
        lossless=encoding.lossless,
        dummy_prefix=encoding.dummy_prefix and not before,
    )
    return part, int(np.argmax(inside)) if inside.any() else 0
