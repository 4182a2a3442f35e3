"""Work of a comparison: what a worker process does, each piece of it kept as it is finished."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fusion_core import baselines, generation, models, pipeline, runs
from fusion_core.cache import building
from fusion_core.config import FusionConfig
from fusion_core.errors import FusionError
from fusion_core.io import documents
from fusion_core.io.files import write_whole
from fusion_core.models import LoadedModel
from fusion_core.reading import read_documents
from fusion_core.training import CHECKPOINTS, MODEL, StoppedError

from .plan import (
    DATA,
    ENSEMBLE,
    MERGED,
    TRAINED,
    WRITTEN,
    ComparisonConfig,
    Job,
    rows_config,
    run_config,
    text_names,
)
from .texts import write_jsonl

SCORES, RUN = "scores.json", "run"
Report = dict[str, Any]
Work = Callable[[ComparisonConfig, Path], Report]


def once(folder: Path, make: Callable[[], Report]) -> Report:
    """Return what a piece of work came to: what is kept of it, or what it makes now."""
    kept = folder / SCORES
    if kept.is_file():
        return json.loads(kept.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    result = make()
    result["wall_seconds"] = time.monotonic() - began
    write_whole(kept, json.dumps(result).encode())
    return result


def begin_worker(threads: int) -> None:
    """Prepare a worker process: its threads, no bars, and an end when its parent is gone."""
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


# Bits of documents ------------------------------------------------------------------------------


def bits_of(nats: float, scored: int, text: str) -> float:
    """Return the bits of a whole document, of which some bytes were scored."""
    return nats / math.log(2) * len(text.encode()) / scored


def score(reader: LoadedModel, folder: Path) -> dict[str, list[float]]:
    """Measure a model: bits of every test document, by kind of text."""
    config = FusionConfig(rows="boundary")
    found = {}
    for name in text_names(folder):
        texts = documents.read_documents(folder / f"test-{name}.jsonl")
        readings = read_documents([reader], texts, config)
        pairs = zip(readings, texts, strict=True)
        found[name] = [bits_of(r.nats[0], r.scored_bytes, t) for r, t in pairs]
    return found


def load_all(config: ComparisonConfig) -> list[LoadedModel]:
    """Load the target and its sources."""
    return [models.load(n, device=config.device) for n in (config.target, *config.sources)]


def score_untrained(config: ComparisonConfig, folder: Path) -> Report:
    """Measure the models as they are, and all of them together, on the same bytes."""
    readers = load_all(config)
    fused = FusionConfig(operator="confidence")
    names = (*(m.name for m in readers), ENSEMBLE)
    bits: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for name in text_names(folder):
        texts = documents.read_documents(folder / f"test-{name}.jsonl")
        for reading, text in zip(read_documents(readers, texts, fused), texts, strict=True):
            together = pipeline.fuse_text(reading.project(fused.strategy), fused, entropy=False)
            for model, nats in (*zip(reading.models, reading.nats, strict=True),
                                (ENSEMBLE, together.nats)):  # fmt: skip
                of_document = bits_of(nats, reading.scored_bytes, text)
                bits[model].setdefault(name, []).append(of_document)
    return {"bits": bits}


# Preparing --------------------------------------------------------------------------------------


def make_rows(config: ComparisonConfig, folder: Path, text: str, rows: str) -> Report:
    """Keep every source's rows of the documents."""
    target, *sources = load_all(config)
    texts = documents.read_documents(folder / text)
    cache = building.build_cache(
        target, sources, texts, rows_config(), folder / rows, kind="sources", shard_bytes=64_000
    )
    return {"tokens": cache.tokens}


def write_text(config: ComparisonConfig, folder: Path, n_bytes: int) -> Report:
    """Let the sources write documents, and set them beside the data."""
    sources = load_all(config)[1:]
    texts = documents.read_documents(folder / DATA)
    try:
        texts = [*texts, *generation.write_documents(sources, n_bytes)]
    except FusionError as error:
        return {"written": False, "why": str(error)}
    write_jsonl(folder / WRITTEN, texts)
    return {"written": True}


# Training ---------------------------------------------------------------------------------------


def train(config: ComparisonConfig, job: Job, folder: Path, steps: int, block_size: int) -> Report:
    """Train once, or go on with it, and measure the result.

    Raises:
        StoppedError: it was asked to stop.
    """
    place = folder / job.folder
    settings = run_config(config, job, folder, steps, block_size)
    if not TRAINED[job.method].by_text:
        result = _run(settings, place / RUN)
        model = place / RUN / MODEL
    else:
        names, parts = text_names(folder), []
        for name in names:
            data = str(folder / f"train-{name}.jsonl")
            each = max(1, steps // len(names))
            part = settings.replace(data=data, max_steps=each, eval_every=max(1, each // 4))
            parts.append(_run(part, place / name))
        result = parts[-1] | {k: sum(p[k] for p in parts) for k in ("tokens", "seconds")}
        model = merged(config, [place / name / MODEL for name in names], place)
    reader = models.load(str(model), device=config.device)
    return {
        "method": job.method,
        "seed": job.seed,
        "rate": job.rate,
        "bits": score(reader, folder),
        "validation": result["bits_per_byte"]["after"],
        "tokens": result["tokens"],
        "seconds": result["seconds"],
        "best_step": result["best_step"],
    }


def _run(settings: Any, folder: Path) -> Report:
    result = runs.run(settings, folder, resume=True)
    if result.get("stopped"):
        raise StoppedError
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return result


def merged(config: ComparisonConfig, tuned: Sequence[Path], place: Path) -> Path:
    """Average the weights of models that are folders."""
    base, out = place / "base", place / "merged"
    models.load(config.target, device=config.device).network.save_pretrained(base)
    baselines.merge(base, tuned, out, method="linear")
    return out


def can_merge(config: ComparisonConfig) -> bool:
    """Tell whether the sources are folders with the target's architecture and vocabulary."""
    found = [models.find(name) for name in config.sources]
    if len(found) < 2 or any(s.path is None or s.gguf or s.server for s in found):
        return False
    target, *sources = load_all(config)

    def shapes(model: LoadedModel) -> dict[str, Any]:
        return {n: tuple(p.shape) for n, p in model.network.named_parameters()}

    return all(
        type(s.network) is type(target.network)
        and s.tokenizer.vocabulary_key == target.tokenizer.vocabulary_key
        and shapes(s) == shapes(target)
        for s in sources
    )


def merge_sources(config: ComparisonConfig, folder: Path) -> Report:
    """Merge the sources as they are, and measure the result."""
    paths = [models.find(name).path for name in config.sources]
    model = merged(config, [p for p in paths if p], folder / MERGED)
    return {"bits": score(models.load(str(model), device=config.device), folder)}
