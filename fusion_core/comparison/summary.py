"""Summary of a comparison: figures and verdicts, as plain data, Markdown and a figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion_core.io import documents
from fusion_core.io.files import write_whole

from .plan import ENSEMBLE, FUSED_DATA, MERGED, ComparisonConfig, text_names
from .verdict import judge

Bits = dict[str, list[float]]
"""Bits of every test document, by kind of text."""

FUSED = "fused"
TARGET = "target"


def summarise(
    config: ComparisonConfig,
    folder: Path,
    told: dict[str, Any],
    plan: dict[str, Any],
    pieces: dict[str, dict[str, Any]],
    trained: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Put the result together.

    Args:
        config: of the comparison.
        folder: of the comparison.
        told: the forecast.
        plan: what the budget allowed.
        pieces: what the other pieces of work came to.
        trained: of each method, one result a seed.
    """
    sizes = {
        name: [len(t.encode()) for t in documents.read_documents(folder / f"test-{name}.jsonl")]
        for name in text_names(folder)
    }
    bits: dict[str, list[Bits]] = {}
    for name, of_documents in pieces["untrained"]["bits"].items():
        bits[TARGET if name == config.target else name] = [of_documents]
    if MERGED in pieces:
        bits[MERGED] = [pieces[MERGED]["bits"]]
    bits |= {name: [r["bits"] for r in results] for name, results in trained.items()}
    members = {ENSEMBLE: 1 + len(config.sources)}
    found = {
        name: _figures(of_seeds, sizes, trained.get(name, []))
        | {"models_at_inference": members.get(name, 1)}
        for name, of_seeds in bits.items()
    }
    best = FUSED if FUSED in bits else FUSED_DATA
    claims = [(best, name) for name in bits if name != best]
    if best != FUSED_DATA:
        claims.append((FUSED_DATA, "text alone"))
    n_bytes, tests = np.asarray([x for v in sizes.values() for x in v]), {}
    for one, other in claims:
        first, second = (np.asarray([_flat(b) for b in bits[n]]) for n in (one, other))
        by_training = one in trained or other in trained
        verdict = judge(first, second, n_bytes, trained=by_training)
        tests[f"{one} against {other}"] = verdict.to_report()
    return {
        "target": config.target,
        "sources": list(config.sources),
        "forecast": told["sources"],
        "advice": told["sentence"],
        "methods": found,
        "verdicts": {claim: test["word"] for claim, test in tests.items()},
        "tests": tests,
        "plan": {k: plan[k] for k in ("steps", "written_bytes", "block_size", "rates")},
        "written": pieces.get("writing", {"written": False}),
        "texts": {name: {"documents": len(v), "bytes": sum(v)} for name, v in sizes.items()},
        "seeds": config.seeds,
        "minutes": _seconds(told, plan, pieces, trained, config.workers) / 60,
    }


def _seconds(
    told: dict[str, Any],
    plan: dict[str, Any],
    pieces: dict[str, dict[str, Any]],
    trained: dict[str, list[dict[str, Any]]],
    workers: int,
) -> float:
    """Return how long the pieces of work took that are shown, interruptions apart."""
    several = [*pieces.values(), *(r for results in trained.values() for r in results)]
    alone = told.get("wall_seconds", 0.0) + plan.get("wall_seconds", 0.0)
    return alone + sum(r.get("wall_seconds", 0.0) for r in several) / workers


def _flat(bits: Bits) -> list[float]:
    return [b for of_text in bits.values() for b in of_text]


def _figures(
    of_seeds: Sequence[Bits], sizes: dict[str, list[int]], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return bits per byte by kind of text and in the mean, and what they cost."""
    texts = {
        name: [sum(b[name]) / sum(of_text) for b in of_seeds] for name, of_text in sizes.items()
    }
    means = [statistics.mean(v) for v in zip(*texts.values(), strict=True)]
    return {
        "bits_per_byte": {name: _spread(values) for name, values in texts.items()},
        **_spread(means),
        "seconds": sum(r["seconds"] for r in results),
        "tokens": sum(r["tokens"] for r in results),
        "rate": results[0]["rate"] if results else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "spread": max(values) - min(values)}


# Pages --------------------------------------------------------------------------------------------


def write_summary(folder: Path, result: dict[str, Any]) -> None:
    """Write the Markdown page and the figure."""
    from fusion_core import plots

    write_whole(folder / "compare.md", markdown(result).encode())
    page = plots.comparison_figure(result).to_html(include_plotlyjs=True)
    write_whole(folder / "compare.html", page.encode())


def markdown(result: dict[str, Any]) -> str:
    """Return the page of a comparison."""
    texts = list(result["texts"])
    held = sum(t["documents"] for t in result["texts"].values())
    plan, written = result["plan"], result["written"]
    beside = (
        f"The sources wrote about {plan['written_bytes'] / 1000:.0f} KB beside the data."
        if written["written"]
        else written.get("why", "The sources wrote no text.")
    )
    return "\n".join(
        [
            f"# {result['target']} and {', '.join(result['sources'])}",
            "",
            result["advice"],
            "",
            f"Bits per byte on {held} held-out documents, means over {result['seeds']} seeds; "
            "*spread*: between the largest and the smallest of them. Every training has "
            f"{plan['steps']} steps of 4 blocks of {plan['block_size']} tokens, its best "
            "checkpoint on validation text counts, and so was its learning rate chosen (of "
            f"{', '.join(f'{r:g}' for r in plan['rates'])}; kd and published take that of fused "
            f"on the data alone, merging that of the text alone). {beside} What is shown took "
            f"{result['minutes']:.0f} minutes, the choice of learning rates apart.",
            "",
            *_table(
                ["method", *texts, "mean", "spread", "rate", "seconds", "models at inference"],
                [_row(name, m, texts) for name, m in result["methods"].items()],
            ),
            "",
            "Verdicts, by the paired test over seeds and documents of "
            "`fusion_core.comparison.verdict`; *gain* in bits per byte, with the interval that "
            "covers it in 95 of 100 comparisons:",
            "",
            *_table(
                ["claim", "verdict", "gain", "from", "to", "relative"],
                [_claim(claim, t) for claim, t in result["tests"].items()],
            ),
            "",
            "Forecast, before any training:",
            "",
            *_table(
                [name.replace("_", " ") for name in SHOWN],
                [[_shown(s[name]) for name in SHOWN] for s in result["forecast"]],
            ),
            "",
        ]
    )


SHOWN = (
    "source",
    "bits_per_byte",
    "target_bits_per_byte",
    "transfer_ce",
    "target_ce",
    "kept_mass",
    "better_positions",
    "better_documents",
    "saving",
    "seconds",
)
"""Columns of the forecast's table."""


def _row(name: str, method: dict[str, Any], texts: Sequence[str]) -> list[str]:
    bits = method["bits_per_byte"]
    return [
        f"**{name}**" if name == FUSED else name,
        *(f"{bits[t]['mean']:.3f}" for t in texts),
        f"{method['mean']:.3f}",
        f"{method['spread']:.3f}" if method["tokens"] else "",
        f"{method['rate']:g}" if method["rate"] else "",
        f"{method['seconds']:.0f}" if method["tokens"] else "",
        str(method["models_at_inference"]),
    ]


def _claim(claim: str, test: dict[str, Any]) -> list[str]:
    figures = [f"{test[k]:+.3f}" for k in ("gain", "low", "high")]
    return [claim, f"**{test['word']}**", *figures, f"{test['relative']:+.1%}"]


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(line)} |" for line in (head, ruler, *rows)]
