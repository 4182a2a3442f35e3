"""Records -> what the Fuse tab shows: winners over the text, and ways of fusing held together."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from fusion_core.mapping import STRATEGIES
from fusion_core.records import Analysis, Encoding
from fusion_core.reports import bits_report, rounded
from fusion_core.text_display import short_name, visible

from ...compute.analyze import Comparison
from ..align.cards import chosen
from ..align.view import winners


def fuse_view(analysis: Analysis, comparison: Comparison) -> dict[str, Any]:
    """Describe how a text was fused, and how it could have been.

    Args:
        analysis: of the text.
        comparison: every operator and strategy on the same text.

    Returns:
        ``names`` of the sources; ``tokens``: for each target text token its text, winner (as in
        `align.view.winners`), weights and cross-entropies in nats (of each source as carried over,
        the target, the fused row); the ``board``; tables of ``sources``, ``operators`` and
        ``strategies``; and what is ``chosen``.
    """
    names = [s.encoding.model for s in analysis.sources]
    return {
        "names": [short_name(n) for n in names],
        "target": short_name(analysis.target.model),
        "tokens": _tokens(analysis),
        "board": bits_report(analysis),
        "sources": [_source(analysis, j) for j in range(len(names))],
        "operators": [_operator(score) for score in comparison.operators],
        "strategies": _strategies(comparison),
        "chosen": chosen(analysis),
    }


def summary(analysis: Analysis) -> str:
    """Say in a line how well the fused rows read a text."""
    fused = [f"fused {analysis.fused_bits_per_byte:.3f} bits per byte", *analysis.leaks]
    return (
        f"{len(analysis.target.data):,} bytes · {', '.join(fused)} · target "
        f"{analysis.target_bits_per_byte:.3f}"
    )


def _tokens(analysis: Analysis) -> list[list[Any]]:
    fused = analysis.fused
    columns = [*(s.ce for s in analysis.sources), analysis.target_ce, -fused.observed_logprob]
    nats = zip(*(c.tolist() for c in columns), strict=True)
    rows = zip(
        token_texts(analysis.target), winners(analysis), fused.weights.tolist(), nats, strict=True
    )
    return [
        [text, winner, [round(w, 3) for w in weights], [_nats(c) for c in ce]]
        for text, winner, weights, ce in rows
    ]


def _nats(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def token_texts(encoding: Encoding) -> list[str]:
    """Return for each text token the characters that begin in it, with white space as it is.

    What else cannot be seen has a sign; a token that only goes on with a character is empty.
    """
    raw = np.frombuffer(encoding.data, np.uint8)
    begins = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))
    tokens = encoding.text_tokens
    # Byte of the first character that begins at or after each edge.
    edges = [begins[np.searchsorted(begins, x[tokens])] for x in (encoding.start, encoding.end)]
    parts = []
    for start, stop in zip(*(e.tolist() for e in edges), strict=True):
        text = encoding.data[start:stop].decode("utf-8", "replace")
        parts.append(re.sub(r"[^ \n\t]+", lambda found: visible(found[0]), text))
    return parts


def _source(analysis: Analysis, number: int) -> dict[str, Any]:
    source, fused = analysis.sources[number], analysis.fused
    n_bytes = max(1, len(analysis.target.data))
    return {
        "name": source.encoding.model,
        "carried": rounded(float(source.ce.double().sum()) / math.log(2) / n_bytes),
        "coverage": rounded(float((source.kind > 0).double().mean())),
        "kept": rounded(float(source.kept.double().mean())),
        "weight": rounded(float(fused.weights[:, number].double().mean())),
        "wins": rounded(float((fused.winner == number).double().mean())),
    }


def _operator(score: Any) -> dict[str, Any]:
    return {
        "operator": score.operator,
        "level": score.level,
        "sees": score.sees_token,
        "bits": rounded(score.bits_per_byte),
        "wins": [rounded(w) for w in score.wins],
        "own": rounded(score.target),
    }


def _strategies(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for source, transfers in comparison.mappings.items():
        for strategy, figures in transfers.items():
            known = figures["all"]
            rows.append(
                {
                    "source": short_name(source),
                    "strategy": strategy,
                    "counts": STRATEGIES[strategy].counts,
                    "coverage": rounded(known["positions"] / max(1, figures["positions"])),
                    "kept": _figure(known["kept_mass"]),
                    "transfer": _figure(known["transfer_ce"]),
                    "target": _figure(known["target_ce"]),
                }
            )
    return rows


def _figure(value: float | None) -> float | None:
    return None if value is None else rounded(value)
