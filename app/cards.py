"""Records -> the cards of one target token: what each model expected there, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fusion_core.errors import InputError
from fusion_core.records import Analysis, RowKind, SourceReading, SparseRows

from .glyphs import around, visible
from .views import Piece, finite

SHOWN = 6
"""Bars of a row; the observed token is shown besides, where it is not among them."""


def cards(analysis: Analysis, index: int, pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """Describe the distributions that predict one token of the target.

    Args:
        analysis: the analysis.
        index: which text token of the target; row ``index`` predicts it.
        pieces: for each model's name, token id -> readable text.

    Returns:
        ``token`` (label, id, bytes), ``after`` (the text before it), ``target``, ``sources`` and
        ``fused``. Probabilities are shares of 1, cross-entropies nats. A row is ``{"bars": [[label,
        share, observed]], "tail": share}``; its bars and tail sum to 1.

    Raises:
        InputError: there is no such token.
    """
    tokens = analysis.target.text_tokens
    if not 0 <= index < len(tokens):
        raise InputError(f"The text has {len(tokens)} target tokens, so there is no token {index}.")
    token = int(tokens[index])
    target = analysis.target
    observed = int(target.ids[token])
    spell = pieces[target.model]
    stands = int(target.end[tokens[index - 1]]) if index else 0
    fused = analysis.fused
    winner = int(fused.winner[index])
    target_ce = float(analysis.target_ce[index])
    fused_ce = -float(fused.observed_logprob[index])
    weights = fused.weights[index].tolist()
    return {
        "index": index,
        "token": {
            "label": visible(target.pieces[token]) or "∅",
            "id": observed,
            "start": int(target.start[token]),
            "end": int(target.end[token]),
        },
        "after": around(target.data, stands),
        "target": {
            "name": target.model,
            "row": row(analysis.own, index, spell, observed, target_ce),
            "ce": finite(target_ce),
        },
        "sources": [
            _source(analysis, i, index, stands, pieces) for i in range(len(analysis.sources))
        ],
        "fused": {
            "row": row(fused.rows, index, spell, observed, fused_ce),
            "ce": finite(fused_ce),
            "entropy": finite(float(fused.entropy[index])),
            "winner": winner,
            "alike": weights.count(max(weights)) > 1,
            "weights": [finite(w) for w in weights],
            "details": {
                key: analysis.details[key]
                for key in ("operator", "level", "strategy", "top_k")
                if key in analysis.details
            },
        },
    }


def _source(
    analysis: Analysis, number: int, index: int, stands: int, pieces: Mapping[str, Piece]
) -> dict[str, Any]:
    source = analysis.sources[number]
    target = analysis.target
    kind = RowKind(int(source.kind[index]))
    at = int(source.alignment.row[index])
    ce = float(source.ce[index])
    token = int(target.text_tokens[index])
    card: dict[str, Any] = {
        "name": source.encoding.model,
        "kind": kind.name.lower(),
        "ce": finite(ce),
        "kept": finite(float(source.kept[index])),
        "weight": finite(float(analysis.fused.weights[index][number])),
        "winner": int(analysis.fused.winner[index]) == number,
        "carried": row(source.carried, index, pieces[target.model], int(target.ids[token]), ce),
        "own": None,
        "after": "",
        "inside": None,
    }
    if at >= 0 and kind is not RowKind.NONE:
        card |= _own(source, at, kind, stands, pieces[source.encoding.model])
    return card


def _own(
    source: SourceReading, at: int, kind: RowKind, stands: int, spell: Piece
) -> dict[str, Any]:
    """Describe a source's own row, and the token inside which the target stands."""
    encoding = source.encoding
    tokens = encoding.text_tokens
    boundary = int(encoding.end[tokens[at - 1]]) if at else 0
    follows = int(tokens[at]) if at < len(tokens) else None
    shown: dict[str, Any] = {
        "own": row(source.own, at, spell, None if follows is None else int(encoding.ids[follows])),
        "after": around(encoding.data, boundary),
    }
    if kind is RowKind.INSIDE:
        known = encoding.data[boundary:stands].decode("utf-8", "backslashreplace")
        whole = "" if follows is None else encoding.pieces[follows]
        shown["inside"] = [visible(whole), visible(known)]
    return shown


def row(
    rows: SparseRows,
    index: int,
    spell: Callable[[int], str],
    observed: int | None,
    ce: float | None = None,
) -> dict[str, Any]:
    """Describe the top of one sparse row.

    Args:
        rows: sparse rows.
        index: which of them.
        spell: token id -> readable text.
        observed: id of the token that followed, if any.
        ce: its cross-entropy in the full row, which tells its share where it is not in the top.
    """
    pairs = zip(rows.ids[index].tolist(), rows.probs[index].tolist(), strict=True)
    known = [(i, p) for i, p in pairs if i >= 0]
    bars = [[visible(spell(i)) or "∅", p, i == observed] for i, p in known[:SHOWN]]
    if observed is not None and not any(bar[2] for bar in bars):
        share = dict(known[SHOWN:]).get(observed)
        if share is None and ce is not None and math.isfinite(ce):
            share = math.exp(-ce)
        if share is not None:
            bars.append([visible(spell(observed)) or "∅", share, True])
    shown = sum(bar[1] for bar in bars)
    return {
        "bars": [[label, round(p, 5), seen] for label, p, seen in bars],
        "tail": round(max(0.0, 1.0 - shown), 5),
    }
