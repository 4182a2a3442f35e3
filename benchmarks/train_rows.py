"""Which rows teach better? `python benchmarks/train_rows.py` writes results/train_rows.md.

The trainings of train.py on 60 KB that are read twenty times, by the text alone and by fused rows,
once exact and once at the sources' own boundaries. Learning rates are tuned for each on the
validation split with seed 0; figures are bits per byte on the test split, over three seeds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from train import ROOT, best_rate, mean, run_all, write_corpora
from train_jobs import DATA_BYTES, DOMAINS, EPOCHS, FUSION, SEEDS, TUNED, Job

RESULTS = ROOT / "benchmarks" / "results" / "train_rows.md"
WAYS = {
    "clm": ("text alone", {"mode": "clm"}, TUNED["clm"]),
    "exact": ("fused rows, exact", FUSION | {"rows": "exact"}, TUNED["fusion"]),
    "boundary": (
        "fused rows, at the sources' boundaries",
        FUSION | {"rows": "boundary"},
        TUNED["fusion"],
    ),
}


def main() -> None:
    """Train, and write the table."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_corpora(folder, SEEDS)
        done = run_all(
            [
                Job(f"{name} {rate:g}", SEEDS[0], settings | {"learning_rate": rate})
                for name, (_, settings, rates) in WAYS.items()
                for rate in rates
            ],
            folder,
        )
        best = {name: best_rate(done, name) for name in WAYS}
        done += run_all(
            [
                Job(f"{name} {best[name]:g}", seed, settings | {"learning_rate": best[name]})
                for seed in SEEDS[1:]
                for name, (_, settings, _) in WAYS.items()
            ],
            folder,
        )
    minutes = (time.monotonic() - began) / 60
    rows = {n: [r["test"] for r in done if r["name"] == f"{n} {best[n]:g}"] for n in WAYS}
    RESULTS.write_text("\n".join(report(rows, best, minutes)) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def report(
    rows: dict[str, list[dict[str, float]]], best: dict[str, float], minutes: float
) -> list[str]:
    """Write the page."""
    baseline = statistics.mean(map(mean, rows["clm"]))
    lines = [
        "# Which rows teach better?",
        "",
        f"`python benchmarks/train_rows.py`; two cores, one thread a training, {minutes:.0f} min.",
        "",
        f"`zoo:llama`, {DATA_BYTES // 1000} KB of text read {EPOCHS} times, λ = "
        f"{FUSION['lm_weight']}, top {FUSION['top_k']}, `min_ce` by sequence; bits per byte on the "
        f"test split, means over {len(SEEDS)} seeds, each at its best checkpoint on the validation "
        "split. Learning rates tuned there with seed 0 for each way.",
        "",
        f"| | learning rate | {' | '.join(DOMAINS)} | mean | seeds | to the text alone |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in rows.items():
        means = [mean(r) for r in found]
        cells = " | ".join(f"{statistics.mean(r[d] for r in found):.3f}" for d in DOMAINS)
        seeds = ", ".join(f"{m:.3f}" for m in means)
        lines.append(
            f"| {WAYS[name][0]} | {best[name]:g} | {cells} | {statistics.mean(means):.3f} | {seeds}"
            f" | {statistics.mean(means) / baseline - 1:+.1%} |"
        )
    return lines


if __name__ == "__main__":
    main()
