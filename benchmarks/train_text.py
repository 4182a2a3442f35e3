"""Which text, loss, share of positions and weight decay? `python benchmarks/train_text.py`.

The zoo's target learns from 60 KB of text in as many steps as reading it a few times takes: by that
text alone, by rows on it, and by text that is continued from it. Figures are bits per byte on the
test split after the last step. Each training is kept in the folder (--keep) when it is done, and
one that was interrupted goes on; results/train_text.md is written anew after each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from train_jobs import DATA_BYTES, DOMAINS, SOURCES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results" / "train_text.md"
TEST_BYTES = 10_000
RATE, DECAY = 1e-3, 3.0
ROWS = {"lm_weight": 0.1, "top_k": 20}
NEW = {"data_share": 1, "continuation_share": 2}
JOBS: dict[str, dict[str, Any]] = {
    "data, text alone": {"mode": "clm"},
    "data, rows": ROWS,
    "data and continuations 1 : 2, text alone": {"mode": "clm"} | NEW,
    "data and continuations 1 : 2, rows": ROWS | NEW,
    "the same and the target's text 1 : 2 : 1, reverse KL": ROWS | NEW | {"target_share": 1},
    f"data, text alone, weight decay {DECAY:g}": {"mode": "clm", "weight_decay": DECAY},
    f"data, rows, weight decay {DECAY:g}": ROWS | {"weight_decay": DECAY},
    "data and continuations, rows at half the positions": ROWS | NEW | {"taught_share": 0.5},
    "data and the target's text 1 : 1, reverse KL": ROWS | {"target_share": 1},
    "the same, forward KL": ROWS | {"target_share": 1, "target_divergence": "ce"},
}


def settings(folder: Path, epochs: float, seed: int) -> dict[str, Any]:
    """Return what is the same for all, and write the texts."""
    from fusion_core import corpus

    texts = [
        t
        for d in DOMAINS
        for t in corpus.text(d, "train", DATA_BYTES // len(DOMAINS), seed=1000 + seed)
    ]
    corpus.write(folder / "data.txt", texts)
    for d in DOMAINS:
        corpus.write(folder / f"test-{d}.txt", corpus.text(d, "test", TEST_BYTES, seed=7))
    return {
        "target": "zoo:llama",
        "sources": SOURCES,
        "data": str(folder / "data.txt"),
        "eval_data": {d: str(folder / f"test-{d}.txt") for d in DOMAINS},
        "learning_rate": RATE,
        "epochs": epochs,
        "batch_size": 4,
        "block_size": 512,
        "seed": seed,
    }


def run(name: str, common: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train once, go on with it, or read what came of it."""
    from fusion_core.config import RunConfig
    from fusion_core.training import train

    out = folder / name.replace(" ", "_").replace(",", "").replace(":", "")
    file = out / "result.json"
    if not file.is_file():
        out.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        result = train(RunConfig.of(common | JOBS[name]), out)
        result["cpu_seconds"] = time.process_time() - began
        file.write_text(json.dumps(result), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def report(done: dict[str, dict[str, Any]], epochs: float) -> str:
    """Write the page."""
    first = next(iter(done.values()))
    start = [first["texts"][d]["before"] for d in DOMAINS]
    minutes = sum(r["cpu_seconds"] for r in done.values()) / 60
    lines = [
        "# Which text, loss, share of positions and weight decay?",
        "",
        f"`python benchmarks/train_text.py --keep FOLDER --epochs {epochs:g} --jobs {len(done)}`; "
        f"one thread, {minutes:.0f} minutes of one core. `zoo:llama`, "
        f"{DATA_BYTES // 1000} KB of text, {first['steps']} steps each, as many as reading it "
        f"{epochs:g} times takes; one seed, learning rate {RATE:g} (not tuned for each), λ "
        f"{ROWS['lm_weight']} with rows, weight decay 0.1 unless named; bits per byte on "
        f"{TEST_BYTES // 1000} KB of the test split a domain after the last step.",
        "",
        f"| | {' | '.join(DOMAINS)} | mean | to the text alone | core seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| before | {' | '.join(f'{x:.3f}' for x in start)} | {statistics.mean(start):.3f} | | |",
    ]
    base = first["bits_per_byte"]["after"]
    for name, r in done.items():
        cells = " | ".join(f"{r['texts'][d]['after']:.3f}" for d in DOMAINS)
        mean = r["bits_per_byte"]["after"]
        lines.append(
            f"| {name} | {cells} | {mean:.3f} | {mean / base - 1:+.1%} | {r['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what has not been, and write the table."""
    parser = argparse.ArgumentParser(description="Which text, loss, share and weight decay?")
    parser.add_argument("--keep", required=True, help="a folder for the runs")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--jobs", type=int, default=len(JOBS), help="only the first so many")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    folder = Path(given.keep)
    folder.mkdir(parents=True, exist_ok=True)
    common = settings(folder, given.epochs, 0)
    done: dict[str, dict[str, Any]] = {}
    for name in list(JOBS)[: given.jobs]:
        done[name] = run(name, common, folder)
        mean, spent = done[name]["bits_per_byte"]["after"], done[name]["cpu_seconds"]
        print(f"{name}: {mean:.4f}, {spent:.0f} s", file=sys.stderr, flush=True)
        RESULTS.write_text(report(done, given.epochs), encoding="utf-8")


if __name__ == "__main__":
    main()
