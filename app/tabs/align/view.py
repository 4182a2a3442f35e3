"""Records -> plain data for the page: the score of an analysis.

Everything returned here is lists, dicts, strings and numbers, ready for JSON; nothing is markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion_core.records import Alignment, Analysis, Encoding, RowKind
from fusion_core.reports import bits_report
from fusion_core.text_display import cells, characters, short_name, token_label, visible

MAX_TOKENS = 512
"""Most tokens of one lane on a page of the score."""

SAME, ONE_TO_MANY, MANY_TO_ONE, OVERLAP = 1, 2, 3, 4
"""Kinds of a source token; 0 is a token in no group. The page's style sheet knows them as k0…k4."""

NO_RING, START_RING = -2, -1

ALL_ALIKE, NO_ROW = -1, -2
"""Winners that are no source: several weigh alike, or the target's own row stands in."""


def pages(analysis: Analysis) -> list[int]:
    """Cut an analysis into pages of at most `MAX_TOKENS` tokens in any lane.

    Returns:
        The first target text token of each page; pages end, where they can, where all models
        have a boundary.
    """
    target = analysis.target
    ends = target.end[target.text_tokens]
    lanes = [ends] + [s.encoding.end[s.encoding.text_tokens] for s in analysis.sources]
    shared = np.ones(len(ends), bool)
    for lane in lanes[1:]:
        shared &= np.isin(ends, lane)
    starts = [0]
    while True:
        first = starts[-1]
        floor = 0 if first == 0 else int(ends[first - 1])
        last = len(ends)
        for lane in lanes:
            full = np.searchsorted(lane, floor, side="right") + MAX_TOKENS
            if full < len(lane):
                last = min(last, int(np.searchsorted(ends, lane[full - 1], side="right")))
        last = max(last, first + 1)
        if last >= len(ends):
            return starts
        good = np.flatnonzero(shared[first:last])
        cut = first + int(good[-1]) + 1 if len(good) else last
        starts.append(cut if cut - first > (last - first) // 2 else last)


def page_of(analysis: Analysis, index: int) -> int:
    """Return the page on which a target text token is."""
    return int(np.searchsorted(pages(analysis), index, side="right")) - 1


def page_positions(analysis: Analysis, page: int) -> tuple[int, ...]:
    """Return the bytes, in order, at which the target tokens of a page begin."""
    target, starts = analysis.target, pages(analysis)
    tokens = target.text_tokens[slice(*[*starts, None][page : page + 2])]
    return tuple(sorted({int(b) for b in target.start[tokens]}))


def winners(analysis: Analysis, first: int = 0, last: int | None = None) -> list[int]:
    """Return the source that weighs most at each of some target text tokens.

    Returns:
        Its number; `NO_ROW` where no source that weighs most has a row there, so that the target's
        own stands in; else `ALL_ALIKE` where there is more than one.
    """
    fused = analysis.fused
    kinds = [s.kind for s in analysis.sources]
    found = []
    part = slice(first, last)
    rows = zip(fused.winner[part].tolist(), fused.weights[part].tolist(), strict=True)
    for i, (winner, weights) in enumerate(rows, first):
        most = [j for j, w in enumerate(weights) if w == max(weights)]
        # Behind the sources there may be the target, which has a row everywhere.
        has_row = any(j >= len(kinds) or kinds[j][i] != RowKind.NONE for j in most)
        found.append(winner if winner >= 0 else ALL_ALIKE if has_row else NO_ROW)
    return found


def opening_index(analysis: Analysis) -> int:
    """Choose the token to show first: early, and where a source helps the target most."""
    early = min(len(analysis.target_ce), 64)
    if early == 0 or not analysis.sources:
        return 0
    costs = np.stack([np.asarray(s.ce.tolist()[:early]) for s in analysis.sources])
    gain = np.asarray(analysis.target_ce.tolist()[:early]) - costs.min(0)
    return int(np.nan_to_num(gain).argmax())


def score(analysis: Analysis, analysis_id: str, page: int = 0) -> dict[str, Any]:
    """Describe one page of the score: every model's tokens on one axis of cells.

    Args:
        analysis: the analysis.
        analysis_id: the name under which the page asks for more of it.
        page: which page; clipped to those that exist.

    Returns:
        ``axis`` (character, cells), ``lanes`` (sources, then the target) with their tokens as
        ``[x0, x1, start, end, id, kind, label, link]`` (cells, bytes; link: the target text token
        of this page that a click selects), ``rings`` (for each source and target token, the index
        in the source's lane whose row is carried over, or `START_RING` or `NO_RING`), ``bars``
        (cells at which all models have a boundary), ``breaks`` (cells after a line end),
        ``winners`` and ``kinds`` for each target token (bit k: it is in a group of kind k with some
        source; bit 0: it ends inside every source's token) and the scoreboard.
    """
    starts = pages(analysis)
    page = min(max(page, 0), len(starts) - 1)
    target = analysis.target
    text_tokens = target.text_tokens
    first = starts[page]
    last = starts[page + 1] if page + 1 < len(starts) else len(text_tokens)
    low = 0 if first == 0 else int(target.end[text_tokens[first - 1]])
    high = len(target.data) if page + 1 == len(starts) else int(target.end[text_tokens[last - 1]])
    encodings = [s.encoding for s in analysis.sources] + [target]
    windows = [_tokens_within(e, low, high) for e in encodings[:-1]]
    windows.append(_target_window(target, first, last, whole_end=page + 1 == len(starts)))
    axis = _Axis(target.data, low, high, encodings)
    lanes, rings = [], []
    found = np.zeros(last - first, np.int64)
    inside = target.end[text_tokens[first:last]] > target.start[text_tokens[first:last]]
    for source, window in zip(analysis.sources, windows, strict=False):
        kinds, links, bits = _match(source.alignment, source.encoding, target, first, last)
        lanes.append(_lane(source.encoding, window, axis, kinds, links))
        rings.append(_rings(source.alignment, source.encoding, window, first, last))
        found |= bits
        inside &= source.alignment.boundary[text_tokens[first:last]] < 0
    links = {int(t): i for i, t in enumerate(text_tokens[first:last])}
    lanes.append(_lane(target, windows[-1], axis, {}, links))
    return {
        "id": analysis_id,
        "page": page,
        "starts": starts,
        "first": first,
        "total": len(text_tokens),
        "text": axis.text,
        "start": axis.start,
        "axis": axis.cells,
        "lanes": lanes,
        "rings": rings,
        "bars": axis.shared_bars(encodings),
        "breaks": axis.breaks,
        "winners": winners(analysis, first, last),
        "kinds": (found | (inside & bool(analysis.sources))).tolist(),
        "board": bits_report(analysis),
        "open": opening_index(analysis),
    }


def summary(analysis: Analysis) -> str:
    """Say in a line how well each model reads a text."""
    best = min(analysis.sources, key=lambda s: s.bits_per_byte)
    details = analysis.details
    return (
        f"{len(analysis.target.data):,} bytes · {len(analysis.target.text_tokens):,} target tokens "
        f"· best source {short_name(best.encoding.model)} {best.bits_per_byte:.2f} bits/byte "
        f"· target {analysis.target_bits_per_byte:.2f} · fused {analysis.fused_bits_per_byte:.2f}"
        + "".join(f", {leak}" for leak in analysis.leaks)
        + _documents(details["documents"])
    )


def _documents(documents: dict[str, dict[str, Any]]) -> str:
    """Say what is read before the text, where a model's tokenizer does not say it alone."""
    return "".join(
        f" · {short_name(name.partition('?')[0])} reads {around['start'] or 'nothing'} first "
        f"({around['how']})"
        for name, around in documents.items()
        if around["how"] != "stated"
    )


class _Axis:
    """A stretch of text in cells, and the place of each byte on it."""

    def __init__(self, data: bytes, low: int, high: int, encodings: Sequence[Encoding]) -> None:
        while low > 0 and data[low] & 0xC0 == 0x80:
            low -= 1
        while high < len(data) and data[high] & 0xC0 == 0x80:
            high += 1
        self.text = data[low:high].decode("utf-8", "replace")
        self.start = low
        parts = characters(self.text)
        edges = np.cumsum([low] + [len(p.encode()) for p in parts])
        crowd = np.ones(len(parts), np.int64)
        for encoding in encodings:
            solid = encoding.end > encoding.start
            begun = np.searchsorted(encoding.start[solid], edges[1:], side="left")
            over = np.searchsorted(encoding.end[solid], edges[:-1], side="right")
            crowd = np.maximum(crowd, begun - over)
        # Byte pieces need at least half a cell each to be seen and hit.
        widths = [max(cells(p), int(n + 1) // 2) for p, n in zip(parts, crowd, strict=True)]
        self._edges, self._columns = edges, np.cumsum([0, *widths])
        self.cells = [
            [visible(p) if p != " " else "", w] for p, w in zip(parts, widths, strict=True)
        ]
        self.breaks = [int(self._columns[i + 1]) for i, p in enumerate(parts) if p[-1] == "\n"]

    def x(self, offsets: np.ndarray) -> list[float]:
        """Return the column of each byte offset, clipped to the axis."""
        return [round(v, 3) for v in np.interp(offsets, self._edges, self._columns).tolist()]

    def shared_bars(self, encodings: Sequence[Encoding]) -> list[float]:
        shared = np.unique(encodings[-1].end)
        for encoding in encodings[:-1]:
            shared = np.intersect1d(shared, encoding.end)
        within = shared[(shared > self._edges[0]) & (shared <= self._edges[-1])]
        return self.x(within)


def _tokens_within(encoding: Encoding, low: int, high: int) -> range:
    """Return the tokens that touch a stretch of bytes; one without width belongs to its end."""
    begin = int(np.searchsorted(encoding.end, low, side="left" if low == 0 else "right"))
    stop = int(np.searchsorted(encoding.start, high, side="left"))
    if high == len(encoding.data):
        stop = len(encoding)
    return range(begin, max(begin, stop))


def _target_window(target: Encoding, first: int, last: int, *, whole_end: bool) -> range:
    tokens = target.text_tokens
    begin = 0 if first == 0 else int(tokens[first])
    return range(begin, len(target) if whole_end else int(tokens[last - 1]) + 1)


def _lane(
    encoding: Encoding, window: range, axis: _Axis, kinds: dict[int, int], links: dict[int, int]
) -> dict[str, Any]:
    pick = slice(window.start, window.stop)
    left, right = axis.x(encoding.start[pick]), axis.x(encoding.end[pick])
    tokens = []
    for at, t in enumerate(window):
        start, end = int(encoding.start[t]), int(encoding.end[t])
        label = (
            token_label(encoding.data, start, end, encoding.pieces[t])
            if end > start
            else visible(encoding.pieces[t])
        )
        kind = -1 if encoding.special[t] else kinds.get(t, 0)
        link = links.get(t, -1)
        tokens.append([left[at], right[at], start, end, int(encoding.ids[t]), kind, label, link])
    lost = [axis.x(np.asarray([a, b])) for a, b in encoding.lost if b > axis.start]
    return {
        "name": encoding.model,
        "short": short_name(encoding.model),
        "count": int((~encoding.special).sum()),
        "tokens": tokens,
        "lost": [span for span in lost if span[1] > span[0]],
    }


def _match(
    alignment: Alignment, encoding: Encoding, target: Encoding, first: int, last: int
) -> tuple[dict[int, int], dict[int, int], np.ndarray]:
    """Classify the groups on a page: kind and link of each source token, kinds of each target's.

    Tokens without width are not counted when a group is classified.
    """
    numbers = np.cumsum(~target.special) - 1
    text_tokens = target.text_tokens
    kinds: dict[int, int] = {}
    links: dict[int, int] = {}
    bits = np.zeros(last - first, np.int64)
    low, high = int(text_tokens[first]), int(text_tokens[last - 1]) + 1
    for t0, t1, s0, s1 in alignment.groups.tolist():
        if (t1 <= low and t0 < low) or t0 >= high:
            continue
        wide_t = int((target.end[t0:t1] > target.start[t0:t1]).sum()) or t1 - t0
        wide_s = int((encoding.end[s0:s1] > encoding.start[s0:s1]).sum()) or s1 - s0
        kind = (
            SAME
            if wide_t == wide_s == 1
            else ONE_TO_MANY
            if wide_s == 1
            else (MANY_TO_ONE if wide_t == 1 else OVERLAP)
        )
        begin = max(int(numbers[min(t0, len(numbers) - 1)]), first) - first
        stop = min(int(numbers[max(t1 - 1, 0)]) + 1, last) - first
        for s in range(s0, s1):
            kinds[s] = kind
            links[s] = min(begin + (s - s0 if wide_t == wide_s else 0), max(stop - 1, begin))
        bits[begin:stop] |= 1 << kind
    return kinds, links, bits


def _rings(
    alignment: Alignment, encoding: Encoding, window: range, first: int, last: int
) -> list[int]:
    tokens = encoding.text_tokens
    rings = []
    for row in alignment.row[first:last].tolist():
        if row < 0:
            rings.append(NO_RING)
        elif row == 0:
            rings.append(START_RING)
        else:
            token = int(tokens[row - 1])
            rings.append(token - window.start if token in window else NO_RING)
    return rings
