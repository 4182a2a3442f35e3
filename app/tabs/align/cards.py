"""Records -> the cards of one target token: what each model expected there, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusion_core import fuse
from fusion_core.characters import NextCharacters
from fusion_core.errors import InputError
from fusion_core.records import Analysis, RowKind, SourceAnalysis
from fusion_core.reports import SHOWN_BARS, Piece, bars_report, rounded
from fusion_core.text_display import around, visible

from .view import ALL_ALIKE, winners

SHOWN_CHARACTERS = 7
"""Characters of a position; the observed one is shown besides."""


def cards(analysis: Analysis, index: int, pieces: Mapping[str, Piece]) -> dict[str, Any]:
    """Describe the distributions that predict one token of the target.

    Args:
        analysis: the analysis.
        index: which text token of the target; row ``index`` predicts it.
        pieces: for each model's name, token id -> readable text.

    Returns:
        ``token`` (label, id, bytes), ``after`` (the text before it), ``target``, ``sources`` and
        ``fused``. Probabilities are shares of 1, cross-entropies nats. A row is ``{"bars": [[label,
        share, observed]], "tail": share}``; its bars and tail sum to 1. The fused row has, besides,
        ``from``: for each bar, as far as they are known, ``[source, label, share]`` for the source
        tokens that gave most, with an empty label for all others together, and the number of
        sources for what the target's own row gave.

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
    row_byte = int(target.end[tokens[index - 1]]) if index else 0
    fused = analysis.fused
    winner = winners(analysis, index, index + 1)[0]
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
        "after": around(target.data, row_byte),
        "target": {
            "name": target.model,
            "row": bars_report(analysis.native, index, spell, observed, target_ce),
            "ce": rounded(target_ce),
        },
        "sources": [
            _source(analysis, i, index, row_byte, pieces) for i in range(len(analysis.sources))
        ],
        "fused": {
            "row": bars_report(fused.rows, index, spell, observed, fused_ce)
            | {"from": _attribution(analysis, index, pieces)},
            "ce": rounded(fused_ce),
            "entropy": rounded(float(fused.entropy[index])),
            "winner": winner,
            "alike": winner == ALL_ALIKE,
            "weights": [rounded(w) for w in weights],
            "details": chosen(analysis),
        },
    }


def chosen(analysis: Analysis) -> dict[str, Any]:
    """Return how a text was fused; the level is empty where the operator has none."""
    keys = ("operator", "level", "strategy", "top_k", "rows")
    found = {key: analysis.details[key] for key in keys}
    if not fuse.OPERATORS[found["operator"]].has_level:
        found["level"] = ""
    return found


def _attribution(
    analysis: Analysis, index: int, pieces: Mapping[str, Piece]
) -> list[list[list[Any]]]:
    """Tell which source tokens gave the top fused tokens their probability."""
    found, names = analysis.attribution, analysis.fused.sources
    known = (analysis.fused.rows.ids[index] >= 0).tolist()
    given: list[list[list[Any]]] = []
    for r in range(min(SHOWN_BARS, sum(known))):
        parts: list[list[Any]] = []
        for j, name in enumerate(names):
            named = zip(
                found.token[index, r, j].tolist(), found.mass[index, r, j].tolist(), strict=True
            )
            parts += [[j, visible(pieces[name](t)) or "∅", p] for t, p in named if t >= 0]
            parts.append([j, "", float(found.other[index, r, j])])
        parts.append([len(analysis.sources), "", float(found.target[index, r].sum())])
        given.append([[j, label, round(p, 5)] for j, label, p in parts if p >= 1e-4])
    return given


def _source(
    analysis: Analysis, number: int, index: int, row_byte: int, pieces: Mapping[str, Piece]
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
        "ce": rounded(ce),
        "kept": rounded(float(source.kept[index])),
        "weight": rounded(float(analysis.fused.weights[index][number])),
        "winner": int(analysis.fused.winner[index]) == number,
        "carried": bars_report(
            source.projected, index, pieces[target.model], int(target.ids[token]), ce
        ),
        "own": None,
        "after": "",
        "inside": None,
    }
    if at >= 0 and kind is not RowKind.NONE:
        card |= _native(source, at, kind, row_byte, pieces[source.encoding.model])
    return card


def _native(
    source: SourceAnalysis, at: int, kind: RowKind, row_byte: int, spell: Piece
) -> dict[str, Any]:
    """Describe a source's native row, and the token inside which the target's row is."""
    encoding = source.encoding
    tokens = encoding.text_tokens
    boundary = int(encoding.end[tokens[at - 1]]) if at else 0
    follows = int(tokens[at]) if at < len(tokens) else None
    shown: dict[str, Any] = {
        "own": bars_report(
            source.native, at, spell, None if follows is None else int(encoding.ids[follows])
        ),
        "after": around(encoding.data, boundary),
    }
    if kind is RowKind.INSIDE:
        known = encoding.data[boundary:row_byte].decode("utf-8", "backslashreplace")
        whole = "" if follows is None else encoding.pieces[follows]
        shown["inside"] = [visible(whole), visible(known)]
    return shown


def characters(
    readers: Sequence[NextCharacters], analysis: Analysis, index: int
) -> dict[str, Any] | None:
    """Describe what every model expects as the next character, where a target token begins.

    Args:
        readers: the target, the sources and the fused rows, on the same positions.
        analysis: the same text's.
        index: which text token of the target.

    Returns:
        ``labels`` of the characters that any of them finds likely, and for each reader their
        ``shares``, ``other``, ``end`` of the text, and ``unknown``; each reader's sum to 1. None
        where the readers were not asked at this token.
    """
    target = analysis.target
    if not 0 <= index < len(target.text_tokens):
        return None
    byte = int(target.start[target.text_tokens[index]])
    at = int(np.searchsorted(readers[0].positions, byte))
    if at >= len(readers[0].positions) or readers[0].positions[at] != byte:
        return None
    shares = [_shares(reader, at) for reader in readers]
    best: dict[str, float] = {}
    for given in shares:
        for label, p in given.items():
            best[label] = max(best.get(label, 0.0), p)
    labels = sorted(best, key=lambda c: -best[c])[:SHOWN_CHARACTERS]
    observed = target.data[byte : byte + 4].decode("utf-8", "ignore")[:1]
    if observed and observed not in labels:
        labels.append(observed)
    names = ["target", *(f"source {i}" for i in range(len(analysis.sources))), "fused"]
    rows = []
    for name, reader, given in zip(names, readers, shares, strict=True):
        shown = [given.get(label, 0.0) for label in labels]
        end, unknown = float(reader.end[at]), float(reader.unknown[at])
        rest = {"other": max(0.0, 1.0 - sum(shown) - end - unknown), "end": end, "unknown": unknown}
        rows.append(
            {"role": name, "name": reader.model, "shares": [round(p, 5) for p in shown]}
            | {part: round(p, 5) for part, p in rest.items()}
        )
    return {
        "index": index,
        "after": around(target.data, byte),
        "labels": [[visible(label), label == observed] for label in labels],
        "readers": rows,
    }


def _shares(reader: NextCharacters, at: int) -> dict[str, float]:
    """Return the probability of each character, and of each part of one as bytes."""
    given = dict(zip(reader.characters, reader.probs[at].tolist(), strict=True))
    parts = zip(reader.parts, reader.partial[at].tolist(), strict=True)
    return given | {"".join(f"\\x{b:02x}" for b in part): p for part, p in parts}
