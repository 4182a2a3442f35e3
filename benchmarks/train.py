"""Does fusion teach more than the text alone? `python benchmarks/train.py` writes results/train.md.

The target of the zoo is trained on 60 KB of text, a third of each domain, that is read twenty times:
by the text alone (its learning rate tuned, its best checkpoint chosen on the validation split), by
the best single source, and by fused rows; then on text that the sources write, on fresh text that
is read once, and by pairs that are merged. Figures are bits per byte on the test split, mean and
spread over seeds.
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
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results" / "train.md"
SOURCES = ["zoo:neox-reason", "zoo:gpt2-story", "zoo:mpt-code"]
DOMAINS = ("reasoning", "commonsense", "code")
DATA_BYTES, EPOCHS = 60_000, 20
BATCH = {"batch_size": 4, "block_size": 512}
EVALUATIONS = 10
WORKERS = 2


@dataclass(frozen=True)
class Job:
    """One training: a name, its seed, and what of a run's settings is not as for all."""

    name: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = "small"

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.seed}".replace(" ", "_").replace("/", "_")


def write_corpora(folder: Path, seeds: range) -> None:
    """Write what is trained on and what is measured on."""
    from fusion_core import corpus

    for seed in seeds:
        for name, size in (("small", DATA_BYTES), ("fresh", DATA_BYTES * EPOCHS)):
            texts = [
                t
                for d in DOMAINS
                for t in corpus.text(d, "train", size // len(DOMAINS), seed=1000 + seed)
            ]
            corpus.write(folder / f"{name}-{seed}.txt", texts)
    for split, size, seed in (("validation", 8_000, 5), ("test", 20_000, 7)):
        for d in DOMAINS:
            corpus.write(folder / f"{split}-{d}.txt", corpus.text(d, split, size, seed=seed))


def run(job: Job, folder: Path) -> dict[str, Any]:
    """Train once, and measure on the test split."""
    import torch
    import transformers

    from fusion_core import documents, models, pipeline
    from fusion_core.config import RunConfig
    from fusion_core.train import MODEL, Observer, teach

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    out = folder / job.folder
    out.mkdir()
    settings = {
        "target": "zoo:llama",
        "sources": SOURCES,
        "data": str(folder / f"{job.data}-{job.seed}.txt"),
        "eval_data": {d: str(folder / f"validation-{d}.txt") for d in DOMAINS},
        "keep": "best",
        "checkpoint_seconds": 3600,
        "seed": job.seed,
        "epochs": EPOCHS,
        **BATCH,
        **job.settings,
    }
    settings.setdefault("eval_every", steps_of(settings, folder, out) // EVALUATIONS)
    curve: list[dict[str, Any]] = []
    began = time.monotonic()
    result = teach(RunConfig.of(settings), out, Observer(metrics=curve.append))
    model = models.load(str(out / MODEL))
    test = {}
    for d in DOMAINS:
        texts = documents.read_documents(folder / f"test-{d}.txt")
        test[d] = pipeline.bits_per_byte([model], texts)[model.name]["bits_per_byte"]
    shutil.rmtree(out / "checkpoints")
    return {
        "name": job.name,
        "seed": job.seed,
        "settings": job.settings,
        "test": test,
        "mean": statistics.mean(test.values()),
        "best_step": result["best_step"],
        "steps": result["steps"],
        "tokens": result["tokens"],
        "curve": [
            (x["tokens"], x["mean_bits_per_byte"]) for x in curve if "mean_bits_per_byte" in x
        ],
        "seconds": time.monotonic() - began,
    }


def steps_of(settings: dict[str, Any], folder: Path, out: Path) -> int:
    """Say about how many steps a training will have."""
    if settings.get("max_steps"):
        return int(settings["max_steps"])
    size = settings.get("generate_bytes", 0)
    if settings.get("data"):
        size += Path(settings["data"]).stat().st_size
    tokens = size / 2.5 * settings["epochs"]
    return max(EVALUATIONS, int(tokens / (settings["batch_size"] * settings["block_size"])))


def _pooled(args: tuple[Job, Path]) -> dict[str, Any]:
    result = run(*args)
    line = f"{result['name']} seed {result['seed']}: {result['mean']:.4f}"
    best = min(v for _, v in result["curve"])
    print(
        f"{line} (validation {best:.4f} at step {result['best_step']} of {result['steps']}), "
        f"{ {k: round(v, 3) for k, v in result['test'].items()} } {result['seconds']:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return result


def run_all(jobs: list[Job], folder: Path) -> list[dict[str, Any]]:
    """Train several, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_pooled, [(job, folder) for job in jobs]))
