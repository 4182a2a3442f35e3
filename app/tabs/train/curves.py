"""Metrics of runs -> figures for the page, as plain data; colours are names of its style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_POINTS = 400
"""Points of one curve; of longer ones, means of neighbours are drawn."""

Lines = Sequence[Mapping[str, Any]]
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")


def figures(
    metrics: Mapping[str, Lines], before: Mapping[str, float] | None = None, name: str = ""
) -> dict[str, Any]:
    """Draw what is known of a training.

    Args:
        metrics: lines of `fusion_core.runs.metrics` by part, "fused" and "baseline".
        before: bits per byte of the untrained model by text, once they are known.
        name: of the training; another one is drawn anew, with another zoom.

    Returns:
        The content of a `PlotlyPanel`.
    """
    drawn = [loss_figure(metrics), bits_figure(metrics, before or {})]
    for figure in drawn:
        figure["layout"]["uirevision"] = name
    return {"figures": drawn}


def loss_figure(metrics: Mapping[str, Lines]) -> dict[str, Any]:
    """Draw the losses of every step."""
    curves = (
        ("fused", "loss", "total", "var(--fl-fused)", "solid", 2.5),
        ("fused", "clm", "CLM", "var(--fl-source-0)", "dash", 1.5),
        ("fused", "fusion", "fusion", "var(--fl-source-1)", "dashdot", 1.5),
        ("baseline", "clm", "baseline: CLM", "var(--fl-ink)", "dot", 1.5),
    )
    traces = []
    for part, key, label, color, dash, width in curves:
        steps = [x for x in metrics.get(part, ()) if "loss" in x and x.get(key) is not None]
        if steps:
            traces.append(_line(label, steps, key, {"color": color, "dash": dash, "width": width}))
    return {
        "name": "loss",
        "title": "Loss",
        "note": "nats a token; the baseline learns from the text alone",
        "traces": traces,
        "layout": {"xaxis": {"title": "step", "rangemode": "tozero"}, "yaxis": {"title": "nats"}},
    }


def _line(label: str, steps: Lines, key: str, line: dict[str, Any]) -> dict[str, Any]:
    size = -(-len(steps) // MOST_POINTS)
    groups = [steps[i : i + size] for i in range(0, len(steps), size)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "x": [g[-1]["step"] for g in groups],
        "y": [round(sum(x[key] for x in g) / len(g), 5) for g in groups],
        "customdata": [g[-1].get("tokens", 0) for g in groups],
        "line": line,
        "hovertemplate": "%{y:.3f}, %{customdata:,} tokens",
    }


def bits_figure(metrics: Mapping[str, Lines], before: Mapping[str, float]) -> dict[str, Any]:
    """Draw the bits per byte of every evaluation: each text, and their mean."""
    seen = [x for lines in metrics.values() for x in lines if "bits_per_byte" in x]
    texts = list(dict.fromkeys([*before, *(t for x in seen for t in x["bits_per_byte"])]))
    start = dict(before)
    if before:
        start["mean"] = sum(before.values()) / len(before)
    traces = []
    shown = [("mean", "var(--fl-ink)", 3.0)] if len(texts) != 1 else []
    shown += [(text, f"var(--fl-source-{i % 6})", 1.5) for i, text in enumerate(texts)]
    for part in ("fused", "baseline"):
        lines = [x for x in metrics.get(part, ()) if "bits_per_byte" in x]
        for number, (text, color, width) in enumerate(shown if lines else ()):
            points = [(0, start[text])] if text in start else []
            points += [(x["step"], value) for x in lines if (value := _bits(x, text)) is not None]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": text if part == "fused" else f"baseline: {text}",
                    "legendgroup": text,
                    "showlegend": part == "fused" or not metrics.get("fused"),
                    "x": [step for step, _ in points],
                    "y": [round(value, 5) for _, value in points],
                    "line": {
                        "color": color,
                        "dash": "solid" if part == "fused" else "dot",
                        "width": width,
                    },
                    "marker": {"symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 5},
                    "hovertemplate": "%{y:.3f}",
                }
            )
    return {
        "name": "bits_per_byte",
        "title": "Bits per byte on held-out text",
        "note": "solid: fused; dotted: the baseline; lower is better",
        "traces": traces,
        "layout": {
            "xaxis": {"title": "step", "rangemode": "tozero"},
            "yaxis": {"title": "bits per byte"},
        },
    }


def _bits(line: Mapping[str, Any], text: str) -> float | None:
    return line.get("mean_bits_per_byte") if text == "mean" else line["bits_per_byte"].get(text)


def comparison(results: Mapping[str, Mapping[str, Any] | None]) -> list[list[Any]]:
    """Compare before with after.

    Args:
        results: of the runs "fused" and "baseline" that are finished.

    Returns:
        For each text and at last their mean: its name, bits per byte before, after the baseline's
        training, after the fused one; None where that is not known.
    """
    found = {part: r for part, r in results.items() if r and r.get("texts")}
    if not found:
        return []
    some = next(iter(found.values()))
    rows: list[list[Any]] = [
        [text, values["before"], *(_after(found, part, text) for part in ("baseline", "fused"))]
        for text, values in some["texts"].items()
    ]
    if len(rows) > 1:
        parts = (found.get(part) for part in ("baseline", "fused"))
        after = [r["bits_per_byte"]["after"] if r else None for r in parts]
        rows.append(["mean", some["bits_per_byte"]["before"], *after])
    return rows


def _after(found: Mapping[str, Mapping[str, Any]], part: str, text: str) -> float | None:
    return found[part]["texts"].get(text, {}).get("after") if part in found else None
