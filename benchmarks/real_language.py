"""Is a language learnt better from a model's rows? `python benchmarks/real_language.py` tells.

    FUSELAB_REAL=… FUSELAB_TESTDATA=… python benchmarks/real_language.py --keep runs/language

SmolLM2-135M, which hardly reads Hindi and Japanese, learns them from 20 KB of text each, human
text and continuations of it by Gemma-3-270M (real_texts.py): from the text alone, from the text and
Gemma's exact rows of it, and from five times the text, alone and with rows. All take the same
number of steps of the same size. Learning rates (and λ) are chosen for each on validation texts
with the first seed; the checkpoint that is best there counts. Figures are bits per byte on texts
that are held out, in results/real_language.md. What is finished is kept in the folder and not made
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

TARGET, SOURCE = "smollm2-135m", "gemma3-270m"
SIZES = {"small": 20_000, "more": 100_000, "validation": 4_000, "held-out": 12_000}
FULL_RATES, LORA_RATES = (5e-5, 1e-4, 2e-4, 4e-4), (5e-4, 1e-3, 2e-3)
TOP_K, BLOCK, BATCH, EVALUATIONS = 20, 512, 4, 12


@dataclass(frozen=True)
class Way:
    """One way to learn, and what is tried of it.

    Attributes:
        label: what the table calls it.
        data: which training texts.
        settings: of a run.
        share: of the steps that are taken; few steps end in a learning rate that has come down.
        rates: learning rates that are tried.
        weights: of the text beside the rows (λ) that are tried; none without rows.
    """

    label: str
    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    rates: Sequence[float] = FULL_RATES
    weights: Sequence[float] = ()
    share: float = 1.0


ROWS = (0.1, 0.5)
WAYS = {
    "text": Way("text alone", "small"),
    "rows": Way("**text and rows**", "small", weights=ROWS),
    "short text": Way("text alone, a sixth of the steps", "small", share=1 / 6),
    "short rows": Way("text and rows, a sixth of the steps", "small", weights=ROWS, share=1 / 6),
    "more text": Way("five times the text, alone", "more"),
    "more rows": Way("five times the text, and rows", "more", {}, FULL_RATES[1:3], ROWS),
    "LoRA text": Way("text alone, LoRA", "small", {"lora": 16}, LORA_RATES),
    "LoRA rows": Way("text and rows, LoRA", "small", {"lora": 16}, LORA_RATES, ROWS),
}


@dataclass(frozen=True)
class Job:
    """One training of a way: its seed, learning rate and weight of the text."""

    way: str
    seed: int
    rate: float
    weight: float | None

    @property
    def name(self) -> str:
        """Name of its folder and of its result."""
        return f"{self.way} {self.rate:g} {self.weight} {self.seed}".replace(" ", "_")


@dataclass(frozen=True)
class Bench:
    """Where everything is, and how long trainings are."""

    folder: Path
    models: Path
    data: Path
    device: str
    steps: int
    sizes: dict[str, int]

    def files(self, part: str) -> dict[str, str]:
        """Name the texts that are evaluated on."""
        found = sorted(self.folder.glob(f"{part}-*.jsonl"))
        return {f.stem.removeprefix(f"{part}-"): str(f) for f in found}

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Read a result, or make it and keep it."""
        file = self.folder / "results" / f"{name}.json"
        if not file.exists():
            made = json.dumps(make(), indent=1)
            file.parent.mkdir(exist_ok=True)
            file.with_suffix(".part").write_text(made, encoding="utf-8")
            file.with_suffix(".part").rename(file)
        return json.loads(file.read_text(encoding="utf-8"))


def texts(bench: Bench, seed: int | None) -> dict[str, Any]:
    """Let the source write what is trained on with a seed, or what is not trained on."""
    from real_texts import write_training, write_unseen

    from fusion_core import models

    source = models.load(str(bench.models / SOURCE), device=bench.device)
    where = bench.folder, bench.data, source
    if seed is None:
        return write_unseen(*where, bench.sizes)
    return write_training(*where, seed, bench.sizes)


def cache(bench: Bench, data: str) -> dict[str, Any]:
    """Make rows of training texts."""
    from fusion_core import models
    from fusion_core.cache import building
    from fusion_core.config import FusionConfig
    from fusion_core.io import documents

    began = time.monotonic()
    device = bench.device
    target = models.load(str(bench.models / TARGET), device=device, dtype="float32")
    source = models.load(str(bench.models / SOURCE), device=device)
    folder = bench.folder / f"cache-{data}"
    resumed = folder.exists()
    built = building.build_cache(
        target,
        [source],
        documents.read_documents(bench.folder / f"{data}.jsonl"),
        FusionConfig(top_k=TOP_K),
        folder,
        shard_bytes=16_000,
    )
    kept = [d.extras["kept"].astype(float) / building.KEPT_STEPS for d in built]
    rows = sum(map(len, kept))
    return {
        "rows": rows,
        "kept": sum(k.sum() for k in kept) / rows,
        "nothing kept": sum(int((k == 0).sum()) for k in kept) / rows,
        "seconds": None if resumed else time.monotonic() - began,
    }


def measured(bench: Bench, model: str) -> dict[str, float]:
    """Measure a model's bits per byte on the texts that are held out."""
    from fusion_core import compare, models
    from fusion_core.io import documents

    reader = models.load(model, device=bench.device, dtype="float32")
    return {
        name: compare.bits_per_byte([reader], documents.read_documents(path))[model][
            "bits_per_byte"
        ]
        for name, path in bench.files("held-out").items()
    }


def run(bench: Bench, job: Job) -> dict[str, Any]:
    """Train once, and measure."""
    from fusion_core.config import RunConfig
    from fusion_core.training import MODEL, Callbacks, train

    way, out = WAYS[job.way], bench.folder / "runs" / job.name
    out.mkdir(parents=True, exist_ok=True)
    data, steps = f"{way.data}-{job.seed}", max(1, int(bench.steps * way.share))
    learnt_from: dict[str, Any] = {"mode": "clm", "data": str(bench.folder / f"{data}.jsonl")}
    if job.weight is not None:
        cached = str(bench.folder / f"cache-{data}")
        learnt_from = {"cache": cached, "lm_weight": job.weight, "top_k": TOP_K}
    settings = {
        "target": str(bench.models / TARGET),
        "eval_data": bench.files("validation"),
        "max_steps": steps,
        "eval_every": max(1, steps // EVALUATIONS),
        "keep": "best",
        "checkpoint_seconds": 600,
        "learning_rate": job.rate,
        "batch_size": BATCH,
        "block_size": BLOCK,
        "seed": job.seed,
        "device": bench.device,
    }
    curve: list[dict[str, Any]] = []
    config = RunConfig.of(settings | learnt_from | way.settings)
    result = train(config, out, Callbacks(metrics=curve.append))
    found = {
        "test": measured(bench, str(out / MODEL)),
        "best_step": result["best_step"],
        "tokens": result["tokens"],
        "seconds": result["seconds"],
        "machine": machine(bench.device),
        "curve": [
            (x["tokens"], x["mean_bits_per_byte"]) for x in curve if "mean_bits_per_byte" in x
        ],
    }
    shutil.rmtree(out)
    return found


def machine(device: str) -> str:
    """Name what a training ran on."""
    import torch

    on_gpu = device.startswith("cuda")
    about = torch.cuda.get_device_name(device) if on_gpu else f"{os.cpu_count()} cores"
    return f"{about}, torch {torch.__version__}"


def _pooled(kind: str, bench: Bench, what: Any) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(max(1, min(4, (os.cpu_count() or 2) // 2)))
    transformers.utils.logging.disable_progress_bar()
    began = time.monotonic()
    name = what.name if kind == "run" else f"{kind} {Path(str(what)).name}".replace(" ", "_")
    found = bench.kept(name, lambda: CALLS[kind](bench, what))
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


CALLS: dict[str, Callable[[Bench, Any], dict[str, Any]]] = {
    "texts": texts,
    "cache": cache,
    "measured": measured,
    "run": run,
}


def best(done: dict[Job, dict[str, Any]], way: str, seed: int) -> Job:
    """Return the job with the best validation figure."""
    tried = [job for job in done if job.way == way and job.seed == seed]
    return min(tried, key=lambda job: lowest(done[job])[1])


def lowest(result: dict[str, Any]) -> tuple[int, float]:
    """Return tokens and bits per byte of a training's best evaluation."""
    return min(result["curve"], key=lambda x: x[1])


def main() -> None:
    """Do what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description="Is a language learnt better from rows?")
    parser.add_argument("--keep", required=True, help="a folder for all that is made")
    parser.add_argument("--models", default=os.environ.get("FUSELAB_REAL"), help="the models")
    parser.add_argument("--data", help="texts; data/ of FUSELAB_TESTDATA by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="trainings at once")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of all texts, for a trial")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--out", default=ROOT / "benchmarks" / "results" / "real_language.md")
    given = parser.parse_args()
    data = given.data or Path(os.environ.get("FUSELAB_TESTDATA", "")) / "data"
    if not given.models or not Path(data).is_dir():
        raise SystemExit("Set FUSELAB_REAL and FUSELAB_TESTDATA, or give --models and --data.")
    sizes = {name: int(size * given.scale) for name, size in SIZES.items()}
    folder = Path(given.keep).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder, Path(given.models).absolute(), Path(data).absolute()
    bench = Bench(*paths, given.device, given.steps, sizes)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        report(bench, measure(bench, pool, given.ways, range(given.seeds)), given)


def measure(
    bench: Bench, pool: ProcessPoolExecutor, ways: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """Make texts and rows, choose learning rates, train with all seeds."""

    def ask(kind: str, what: Iterable[Any]) -> dict[Any, Future[dict[str, Any]]]:
        return {w: pool.submit(_pooled, kind, bench, w) for w in what}

    def get(asked: dict[Any, Future[dict[str, Any]]]) -> dict[Any, dict[str, Any]]:
        return {w: future.result() for w, future in asked.items()}

    found: dict[str, Any] = {"texts": get(ask("texts", [None])) | get(ask("texts", seeds))}
    read = dict.fromkeys(f"{WAYS[w].data}-{s}" for s in seeds for w in ways if WAYS[w].weights)
    caches = ask("cache", read)
    before = ask("measured", [str(bench.models / m) for m in (TARGET, SOURCE)])
    jobs = [
        Job(name, seeds[0], rate, weight)
        for name in ways
        for rate in WAYS[name].rates
        for weight in WAYS[name].weights or (None,)
    ]
    trials = ask("run", [j for j in jobs if j.weight is None])  # need no rows
    found |= {"caches": get(caches), "before": get(before)}
    trials |= ask("run", [j for j in jobs if j.weight is not None])
    tried = {job: trials[job].result() for job in jobs}
    chosen = {name: best(tried, name, seeds[0]) for name in ways}
    again = [Job(j.way, s, j.rate, j.weight) for s in seeds[1:] for j in chosen.values()]
    found |= {"done": tried | get(ask("run", again)), "chosen": chosen}
    return found


def report(bench: Bench, found: dict[str, Any], given: argparse.Namespace) -> None:
    """Write the page."""
    from real_pages import page

    labels = {name: WAYS[name].label for name in given.ways}
    lines = page(bench, found, labels, given.workers)
    Path(given.out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
