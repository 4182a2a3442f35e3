"""Cut a long text into windows that every model can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from fusion_core.errors import InputError
from fusion_core.records import Encoding, Window


def windows(
    encodings: Sequence[Encoding], contexts: Sequence[int | None], overlap: float = 0.25
) -> list[Window]:
    """Cut a text at boundaries that the models share, so that each window fits every context.

    Args:
        encodings: one for each model, the target's first.
        contexts: most tokens that each model reads at once, its start token included.
        overlap: share of a window that the next one reads again.

    Returns:
        Windows whose owned ranges cover the text once. They are cut where all models have a
        boundary; where there is none within reach, at a boundary of the target.

    Raises:
        InputError: a context is too short for a single token of the target.
    """
    length = len(encodings[0].data)
    ends = [e.end[e.text_tokens] for e in encodings]
    starts = [e.start[e.text_tokens] for e in encodings]
    common = reduce(np.intersect1d, ends)
    out: list[Window] = []
    start = owned = 0
    while owned < length:
        limit = length
        for begin, end, context in zip(starts, ends, contexts, strict=True):
            last = int(np.searchsorted(begin, start)) + (context or len(end) + 2) - 2
            if last < len(end) - 1:
                limit = min(limit, int(end[last]))
        stop = length if limit >= length else _last_cut(common, ends[0], owned, limit)
        if stop <= owned and start < owned:  # what is read again leaves no room for a token
            start = owned
            continue
        out.append(Window(start, stop, owned, last=stop == length))
        if stop <= owned:
            raise InputError(
                f"A context of {min(c for c in contexts if c)} tokens is too short for this text: "
                "choose a model with a longer one."
            )
        back = stop - int(overlap * (stop - start))
        again = _last_cut(common, ends[0], start, back)
        start, owned = again if again > start else stop, stop
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
    tokens = encoding.text_tokens
    start, end = encoding.start[tokens], encoding.end[tokens]
    before = window.start > 0
    inside = (start >= window.start) & (end <= window.end) & ~(before & (end == window.start))
    keep = tokens[inside]
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
        dummy_prefix=encoding.dummy_prefix and not before,
    )
    return part, int(np.argmax(inside)) if inside.any() else 0
