"""Does fusion teach more than the text alone? `python benchmarks/train.py` writes results/train.md.

The zoo's target is trained on 60 KB of text, a third of each domain, that is read twenty times: by
the text alone, by the best single source, and by fused rows; then on text that the sources write,
on fresh text that is read once, and by one source at a time with the results merged. Learning rates
are tuned on the validation split with seed 0, the text's alone among others; the checkpoint that is
best there counts. Figures are bits per byte on the test split, over three seeds. With `--keep
FOLDER` what was interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from train_jobs import (
    DATA_BYTES,
    DOMAINS,
    EPOCHS,
    EVALUATIONS,
    FUSION,
    MORE_BYTES,
    MORE_EPOCHS,
    MORE_RATE,
    SEEDS,
    SOURCES,
    TEST_BYTES,
    TUNED,
    WORKERS,
    Job,
    tuned_jobs,
    tuning_jobs,
)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results" / "train.md"


def write_corpora(folder: Path, seeds: range) -> None:
    """Write what is trained on and what is measured on."""
    from fusion_core import corpus

    for seed in seeds:
        for name, size in (("small", DATA_BYTES), ("fresh", MORE_BYTES)):
            texts = [
                t
                for d in DOMAINS
                for t in corpus.text(d, "train", size // len(DOMAINS), seed=1000 + seed)
            ]
            corpus.write(folder / f"{name}-{seed}.txt", texts)
    for split, size, seed in (("validation", 8_000, 5), ("test", TEST_BYTES, 7)):
        for d in DOMAINS:
            corpus.write(folder / f"{split}-{d}.txt", corpus.text(d, split, size, seed=seed))


def run(job: Job, folder: Path) -> dict[str, Any]:
    """Train once, and measure on the test split."""
    import torch
    import transformers

    from fusion_core.config import RunConfig
    from fusion_core.training import MODEL, Callbacks, train, train_pairwise

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    out = folder / job.folder
    out.mkdir()
    settings = {
        "target": "zoo:llama",
        "sources": SOURCES,
        "data": str(folder / f"{job.data}-{job.seed}.txt") if job.data else None,
        "cache": str(folder / job.cache_of / "cache") if job.cache_of else None,
        "eval_data": {d: str(folder / f"validation-{d}.txt") for d in DOMAINS},
        "keep": "best",
        "checkpoint_seconds": 3600,
        "seed": job.seed,
        "epochs": EPOCHS,
        "batch_size": 4,
        "block_size": 512,
        **job.settings,
    }
    settings.setdefault("eval_every", steps_of(settings) // EVALUATIONS)
    curve: list[dict[str, Any]] = []
    began = time.monotonic()
    config = RunConfig.of(settings)
    result = (train_pairwise if config.pairwise else train)(
        config, out, Callbacks(metrics=curve.append)
    )
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return {
        "name": job.name,
        "seed": job.seed,
        "rate": settings["learning_rate"],
        "sources": result["sources"],
        "test": test(out / MODEL, folder),
        "best_step": result["best_step"],
        "steps": result["steps"],
        "tokens": result["tokens"],
        "curve": [
            (x["tokens"], x["mean_bits_per_byte"]) for x in curve if "mean_bits_per_byte" in x
        ],
        "seconds": time.monotonic() - began,
    }


def test(model: Path | str, folder: Path) -> dict[str, float]:
    """Measure a model on the test split."""
    from fusion_core import compare, models
    from fusion_core.io import documents

    reader = models.load(str(model))
    texts = {d: documents.read_documents(folder / f"test-{d}.txt") for d in DOMAINS}
    return {
        d: compare.bits_per_byte([reader], t)[reader.name]["bits_per_byte"]
        for d, t in texts.items()
    }


def mean(scores: dict[str, float]) -> float:
    """Average over the domains."""
    return statistics.mean(scores.values())


def steps_of(settings: dict[str, Any]) -> int:
    """Say about how many steps a training will have."""
    size = settings.get("generate_bytes", 0)
    if settings["data"]:
        size += Path(settings["data"]).stat().st_size
    if settings["cache"]:
        size += MORE_BYTES + DATA_BYTES
    return int(size / 2.5 * settings["epochs"] / (4 * 512))


def _pooled(args: tuple[Job, Path]) -> dict[str, Any]:
    job, folder = args
    kept = folder / job.folder / "result.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(kept.parent, ignore_errors=True)
    result = run(job, folder)
    kept.write_text(json.dumps(result), encoding="utf-8")
    best = min(v for _, v in result["curve"])
    print(
        f"{result['name']}, seed {result['seed']}, rate {result['rate']:g}: test "
        f"{mean(result['test']):.4f}, validation {best:.4f} at step {result['best_step']} of "
        f"{result['steps']}, {result['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return result


def run_all(jobs: list[Job], folder: Path) -> list[dict[str, Any]]:
    """Train several, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_pooled, [(job, folder) for job in jobs]))


def read_together(folder: Path) -> dict[str, dict[str, float]]:
    """Measure the models as they are, and their fused rows, on the test split."""
    from fusion_core import compare, models, pipeline
    from fusion_core.config import FusionConfig
    from fusion_core.io import documents
    from fusion_core.reading import read_documents

    zoo = [models.load(name) for name in ("zoo:llama", *SOURCES)]
    rows: dict[str, dict[str, float]] = {}
    for d in DOMAINS:
        texts = documents.read_documents(folder / f"test-{d}.txt")
        for name, score in compare.bits_per_byte(zoo, texts).items():
            rows.setdefault(name, {})[d] = score["bits_per_byte"]
        for operator in ("confidence", "min_ce"):
            config = FusionConfig(operator=operator)
            readings = read_documents(zoo, texts, config)
            fused = [pipeline.fuse_text(r.project(config.strategy), config) for r in readings]
            n_bytes = sum(f.projection.reading.scored_bytes for f in fused)
            bits = sum(f.nats for f in fused) / math.log(2)
            rows.setdefault(operator, {})[d] = bits / n_bytes
    return rows


def best_rate(done: list[dict[str, Any]], name: str) -> float:
    """Return the learning rate with the best validation figure."""
    tried = [r for r in done if r["name"].startswith(f"{name} ") and r["seed"] == 0]
    return min(tried, key=lambda r: min(v for _, v in r["curve"]))["rate"]


def merged(folder: Path) -> list[dict[str, Any]]:
    """Merge the pairs in the other ways, too."""
    from fusion_core import baselines

    rows = []
    for method in ("linear", "ties"):
        for s in SEEDS:
            pairs = folder / Job("pairs, sce", s).folder / "pairs"
            out = folder / f"{method}-{s}"
            shutil.rmtree(out, ignore_errors=True)
            tuned = [pairs / str(n) / "model" for n in range(len(SOURCES))]
            baselines.merge(pairs / "base", tuned, out, method=method)
            rows.append({"name": f"pairs, {method}", "seed": s, "test": test(out, folder)})
    return rows


def to_reach(done: list[dict[str, Any]], seed: int) -> float:
    """Say how many times fewer tokens fusion needs for its baseline's best validation figure."""
    baseline, fused = (
        next(r["curve"] for r in done if r["name"] == name and r["seed"] == seed)
        for name in ("clm", "fusion")
    )
    tokens, goal = min(baseline, key=lambda x: x[1])
    return tokens / next((t for t, v in fused if v <= goal), math.inf)


LABELS = {
    "zoo:llama": "the target before",
    "zoo:gpt2-story": "best single source, `zoo:gpt2-story`",
    "confidence": "ensemble of the three sources, `confidence`",
    "min_ce": "fused rows, `min_ce`, which know the text",
    "clm": "text alone",
    "kd": "best single source's rows",
    "fusion": "**fused rows**",
    "pairs, sce": "one source at a time, merged by SCE",
    "pairs, linear": "the same, averaged",
    "pairs, ties": "the same, TIES",
    "written clm": "text alone, with text that the sources wrote",
    "written": "**fused rows, with text that the sources wrote**",
    "fresh clm": "text alone",
    "fresh fusion": "fused rows",
}


def table(names: list[str], rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Make a table of means over seeds."""
    baseline = statistics.mean(mean(r) for r in rows["clm" if "clm" in names else "fresh clm"])
    lines = [f"| | {' | '.join(DOMAINS)} | mean | spread | to the text alone |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        means = [mean(r) for r in rows[name]]
        cells = [f"{statistics.mean(r[d] for r in rows[name]):.3f}" for d in DOMAINS]
        spread = f"{min(means):.3f}–{max(means):.3f}" if len(means) > 1 else ""
        change = f"{statistics.mean(means) / baseline - 1:+.1%}"
        lines.append(
            f"| {LABELS[name]} | {' | '.join(cells)} | {statistics.mean(means):.3f} | {spread} | "
            f"{change} |"
        )
    return lines


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description="Does fusion teach more than the text alone?")
    parser.add_argument("--keep", help="a folder for the runs, those in it are taken")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        write_corpora(folder, SEEDS)
        first = run_all(tuning_jobs(), folder)
        rates = {name: best_rate(first, name) for name in TUNED}
        done = [*first, *run_all(tuned_jobs(rates["clm"], rates["fusion"]), folder)]
        for r in done:
            for name, rate in rates.items():
                if r["name"] == f"{name} {rate:g}":
                    r["name"] = name
        rows = {name: [score] for name, score in read_together(folder).items()}
        for r in [*done, *merged(folder)]:
            rows.setdefault(r["name"], []).append(r["test"])
    minutes = sum(r["seconds"] for r in done) / WORKERS / 60
    RESULTS.write_text("\n".join(report(done, rows, rates, minutes)) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def report(
    done: list[dict[str, Any]],
    rows: dict[str, list[dict[str, float]]],
    rates: dict[str, float],
    minutes: float,
) -> list[str]:
    """Write the page."""
    fewer = [to_reach(done, s) for s in SEEDS]
    tokens = {
        n: statistics.mean(r["tokens"] for r in done if r["name"] == n)
        for n in LABELS
        if any(r["name"] == n for r in done)
    }
    names = list(LABELS)
    return [
        "# What fusion teaches",
        "",
        f"`python benchmarks/train.py`; two cores, one thread a training, {minutes:.0f} minutes.",
        "",
        f"`zoo:llama`, bits per byte on {TEST_BYTES // 1000} KB of the test split a domain, "
        f"means over {len(SEEDS)} seeds (data, order and text written); *spread* is of the means. "
        "Each at its best checkpoint on the validation split.",
        "",
        f"## {DATA_BYTES // 1000} KB of text",
        "",
        f"Read {EPOCHS} times, {tokens['clm']:,.0f} tokens. Learning rates chosen on the "
        f"validation split with seed 0: text alone {rates['clm']:g} of "
        f"{', '.join(f'{r:g}' for r in TUNED['clm'])}; fusion {rates['fusion']:g} of "
        f"{', '.join(f'{r:g}' for r in TUNED['fusion'])}, taken for the single source, too. "
        f"λ = {FUSION['lm_weight']}, top {FUSION['top_k']}. With text that the sources wrote: "
        f"{MORE_BYTES // 1000} KB more, all of it read {MORE_EPOCHS} times, "
        f"{tokens['written']:,.0f} tokens, learning rate {MORE_RATE:g}.",
        "",
        *table(names[:-2], rows),
        "",
        "Fusion reaches the best validation figure of the text alone with "
        + ", ".join(f"{x:.1f}" for x in fewer)
        + " times fewer tokens (seed by seed).",
        "",
        f"## {MORE_BYTES // 1000} KB of fresh text, read once",
        "",
        *table(names[-2:], rows),
    ]


if __name__ == "__main__":
    main()
