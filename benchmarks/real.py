"""Two real pretrained models through every step, on one core: what it takes, and what arrives.

    FUSELAB_REAL=FOLDER FUSELAB_TESTDATA=FOLDER python benchmarks/real.py

writes benchmarks/results/real.md, about an hour on an idle core; `--parts` makes some parts again,
of which the figures of the others are kept. SmolLM2-135M and Gemma-3-270M are read in float32, each
part in a process of its own, so that its peak of memory is its own. Seconds are of the processor.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import compare, fuse, generation, mapping, models
from fusion_core.cache.building import build_cache
from fusion_core.config import FusionConfig, RunConfig
from fusion_core.generation import Ensemble, Sampling
from fusion_core.io import documents
from fusion_core.models import LoadedModel
from fusion_core.project.chain_rule import native_ce
from fusion_core.reading import read
from fusion_core.records import TextReading

OUT = ROOT / "benchmarks" / "results" / "real.md"
KEPT = OUT.with_suffix(".json")
SMALL, LARGE = "smollm2-135m", "gemma3-270m"
SHOWN = {SMALL: "SmolLM2-135M", LARGE: "Gemma-3-270M"}
WAYS = ((SMALL, LARGE), (LARGE, SMALL))
"""Targets and sources."""
TEXTS = ("English", "maths", "Python", "Hindi", "Japanese")
BYTES, CACHED = 4_000, 60_000
STEPS = 8
PROMPT = "The town lies on a river, an hour from the coast. Most of its people"


def model(name: str) -> LoadedModel:
    """Load one of the two."""
    return models.load(str(Path(os.environ["FUSELAB_REAL"]) / name))


def text(name: str, n_bytes: int) -> str:
    """Take a text of the test data."""
    data = Path(os.environ["FUSELAB_TESTDATA"]) / "data"
    if name == "maths":
        lines = (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        whole = "\n\n".join(f"{x['question']}\n{x['answer']}" for x in map(json.loads, lines))
    elif name == "Python":
        lines = (data / "humaneval" / "HumanEval.jsonl").read_text(encoding="utf-8").splitlines()
        whole = "\n\n".join(x["prompt"] + x["canonical_solution"] for x in map(json.loads, lines))
    else:
        language = {"English": "eng", "Hindi": "hin", "Japanese": "jpn"}[name]
        whole = (data / "udhr" / f"udhr_{language}.txt").read_text(encoding="utf-8")
    return whole.encode()[:n_bytes].decode(errors="ignore")


def peak() -> float:
    """Megabytes that this process has taken at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def timed(into: dict[str, Any], key: str) -> Iterator[None]:
    """Put the processor's seconds of what is done into a record."""
    began = time.process_time()
    yield
    into[key] = time.process_time() - began


@torch.inference_mode()
def bare(readers: list[LoadedModel], texts: list[str]) -> None:
    """Run networks alone over texts, in windows that do not overlap."""
    for reader in readers:
        for some in texts:
            ids = torch.as_tensor(reader.tokenizer.encode(some).ids)
            for part in ids.split(reader.window):
                reader.network(input_ids=part[None], use_cache=False)


# The parts -------------------------------------------------------------------------------------


def maps(target: str, source: str) -> dict[str, Any]:
    """Build every map of the vocabularies, and take it again from where it is kept."""
    found: dict[str, Any] = {}
    with timed(found, "tokenizers"):
        folder = Path(os.environ["FUSELAB_REAL"])
        to, of = (models.load_tokenizer(str(folder / name)) for name in (target, source))
    texts = [text("English", BYTES)]
    for name in mapping.MATRICES:
        with timed(found, name):
            mapping.matrix(name, of, to, texts)
        with timed(found, f"{name} again"):
            mapping.matrix(name, of, to, texts)
    return found | {"peak": peak()}


def short(target: str, source: str) -> dict[str, Any]:
    """Read, carry and fuse a text of 4 KB: for the first time, and then."""
    found: dict[str, Any] = {}
    with timed(found, "load"):
        to, of = model(target), model(source)
    some = text("English", BYTES)
    found["weights"] = (to.size_bytes + of.size_bytes) / 2**20
    with timed(found, "first"):
        read(some, to, of).project("prefix").fuse("confidence")
    for rows in ("exact", "boundary"):
        config = FusionConfig(rows=rows)
        taken: dict[str, list[float]] = {}
        for _ in range(3):
            once: dict[str, Any] = {}
            with timed(once, "bare"):
                bare([to, of], [some])
            with timed(once, "read"):
                reading = read(some, to, of, config)
            with timed(once, "carry"):
                projection = reading.project("prefix")
                windows = list(projection.windows)
            with timed(once, "fuse"):
                reading.project("prefix").fuse("confidence")
            once["fuse"] -= once["carry"]
            for key, value in once.items():
                taken.setdefault(key, []).append(value)
            del windows
        found[rows] = {key: statistics.median(values) for key, values in taken.items()}
        found[rows]["extra"] = sum(
            len(w.covers[1].rows) - len(w.rows[1].rows) for w in reading.windows if w.covers[1]
        ) / sum(len(w.rows[1].rows) for w in reading.windows)
    return found | {"peak": peak(), "tokens": [len(e.text_tokens) for e in reading.encodings]}


def memory(target: str, source: str) -> dict[str, Any]:
    """Fuse a short and a long text, and say what memory each has taken at the most."""
    to, of = model(target), model(source)
    found: dict[str, Any] = {"weights": (to.size_bytes + of.size_bytes) / 2**20}
    for n_bytes in (BYTES, 16 * BYTES):
        some = text("English", 10_000)[:n_bytes] + text("maths", max(0, n_bytes - 10_000))
        fused = read(some, to, of).project("prefix").fuse("confidence", top_k=10)
        found[str(n_bytes)] = {"tokens": len(fused.to_frame()), "peak": peak()}
    return found


def transfer(target: str, source: str) -> dict[str, Any]:
    """Score every strategy on every text, exact rows and rows at the source's boundaries."""
    to, of = model(target), model(source)
    found: dict[str, Any] = {}
    for name in TEXTS:
        some = text(name, BYTES // 2)
        found[name] = {
            "bits": [x["bits_per_byte"] for x in compare.bits_per_byte([to, of], [some]).values()]
        }
        for rows in ("exact", "boundary"):
            config = FusionConfig(rows=rows)
            found[name][rows] = compare.transfer(to, of, [some], config, [*mapping.STRATEGIES])
            found[name][f"{rows}, one to one"] = one_to_one(read(some, to, of, config))
    return found


def one_to_one(reading: TextReading) -> dict[str, float]:
    """Score projected rows where a target's token is also one of the source's, and the source."""
    sums = np.zeros(3)
    for projected, (low, high) in zip(
        reading.project("prefix").windows, reading.scored, strict=True
    ):
        window = projected.reading
        target, source = window.encodings
        at = window.scored(0, low, high)
        spans = set(zip(source.start, source.end, strict=True))
        tokens = zip(target.start[target.text_tokens], target.end[target.text_tokens], strict=True)
        both = np.array([span in spans for span in tokens])[at]
        ce, _ = fuse.projected_ce(projected.rows[0], window.rows[0])
        native = native_ce(target, source, window.rows[1])[at][both]
        known = np.isfinite(native)
        sums += known.sum(), native[known].sum(), float(ce.numpy()[at][both][known].sum())
    return {"positions": sums[0], "native": sums[1] / sums[0], "prefix": sums[2] / sums[0]}


def cache(target: str, source: str) -> dict[str, Any]:
    """Write the rows of 60 KB of documents."""
    to, of = model(target), model(source)
    whole = text("English", 10_000) + text("maths", 30_000) + text("Python", 20_000)
    texts = [whole[n : n + 1500] for n in range(0, len(whole), 1500)]
    found: dict[str, Any] = {"weights": (to.size_bytes + of.size_bytes) / 2**20}
    with tempfile.TemporaryDirectory() as scratch:
        with timed(found, "bare"):
            bare([to, of], texts)
        read(texts[0], to, of).project("prefix").fuse()  # maps and trials are made once
        for rows in ("exact", "boundary"):
            with timed(found, rows):
                made = build_cache(to, [of], texts, FusionConfig(rows=rows), Path(scratch) / rows)
            found["bytes"] = made.rows_bytes / made.tokens
            found["peak"] = found.get("peak") or peak()
    return found | {"tokens": made.tokens}


def train(target: str, source: str) -> dict[str, Any]:
    """Time steps on the text alone and on rows of a cache, full and with adapters."""
    from fusion_core.training import MODEL, Callbacks, estimate
    from fusion_core.training import train as run

    to, of = model(target), model(source)
    texts = [text("English", 8_000)[n : n + 1500] for n in range(0, 7_500, 1500)]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        rows, data = Path(scratch) / "rows", Path(scratch) / "data.jsonl"
        data.write_bytes(documents.json_lines(texts))
        build_cache(to, [of], texts, FusionConfig(), rows)
        del to, of
        for lora in (False, True):
            for mode in ("clm", "fusion"):
                config = RunConfig.of(
                    {
                        "target": str(Path(os.environ["FUSELAB_REAL"]) / target),
                        "mode": mode,
                        "max_steps": STEPS,
                        "batch_size": 2,
                        "block_size": 256,
                        "eval_data": {"text": str(data)},
                        "eval_every": 10 * STEPS,
                        "checkpoint_every": 10 * STEPS,
                    }
                    | ({"data": str(data)} if mode == "clm" else {"cache": str(rows)})
                    | ({"lora": {"rank": 8}} if lora else {})
                )
                times: list[float] = []
                key = f"{mode}{', adapters' if lora else ''}"
                guess = estimate(config, Path(scratch))
                out = Path(scratch) / key
                run(
                    config, out, Callbacks(metrics=lambda _, t=times: t.append(time.perf_counter()))
                )
                steps = [b - a for a, b in pairwise(times[1:])]
                found[key] = {
                    "step": statistics.median(steps),
                    "estimate": guess.training_seconds / STEPS,
                }
                found[key]["loads"] = models.load(str(out / MODEL)).tokenizer.size > 0
    return found | {"peak": peak()}


def generate(target: str, source: str) -> dict[str, Any]:
    """Let both continue a prompt, each alone and together."""
    to, of = model(target), model(source)
    sampling = Sampling(max_new_tokens=40)
    alone = [Ensemble(to), Ensemble(of)]
    together = Ensemble(to, [of])
    taken: dict[str, list[float]] = {"target": [], "source": [], "together": []}
    for round_ in range(4):
        for key, ensemble in zip(taken, [*alone, together], strict=True):
            ensemble.forget()
            began = time.process_time()
            n = sum(1 for _ in generation.stream(ensemble, PROMPT, sampling))
            if round_:
                taken[key].append((time.process_time() - began) / max(1, n))
    return {key: statistics.median(values) for key, values in taken.items()}


PARTS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    part.__name__: part for part in (maps, short, memory, transfer, cache, train, generate)
}


# The page --------------------------------------------------------------------------------------


def main() -> None:
    """Measure the parts in processes of their own, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--one", nargs=3, metavar=("PART", "TARGET", "SOURCE"))
    given = parser.parse_args()
    if given.one:
        part, target, source = given.one
        print("figures:" + json.dumps(PARTS[part](target, source)))
        return
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for part in given.parts:
        for target, source in WAYS:
            kept[f"{part} {target}"] = asked(part, target, source)
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    from real_tables import page

    OUT.write_text("\n".join(page(kept, SHOWN, WAYS, TEXTS)) + "\n", encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


def asked(part: str, target: str, source: str) -> dict[str, Any]:
    """Measure one part in a process of its own, with maps of its own."""
    with tempfile.TemporaryDirectory() as maps_folder:
        ran = subprocess.run(
            [sys.executable, __file__, "--one", part, target, source],
            env=os.environ | {"FUSELAB_CACHE": maps_folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    print(f"{part}, target {target}: done", flush=True)
    return json.loads(ran.stdout.rpartition("figures:")[2])


if __name__ == "__main__":
    main()
