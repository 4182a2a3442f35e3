"""Pairwise fusion: the target trained on each source by itself, the results merged by weights.

That is what FuseChat (arXiv 2408.07990) does with a pivot.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fusion_core import baselines, models
from fusion_core.cache import Cache
from fusion_core.cache.distributed import Processes
from fusion_core.config import RunConfig
from fusion_core.io.files import write_whole

from .adapters import merged, with_adapters
from .arguments import HUB, load_target, weights_dtype
from .callbacks import Metrics
from .checkpoints import mark_complete
from .data import CACHE, eval_texts
from .dataset import CachedRowsDataset
from .export import Probe, checksums, export, push
from .loop import (
    DONE,
    MODEL,
    PAIRS,
    Callbacks,
    compare_scores,
    pair_result,
    scorer,
    train,
)


def train_pairwise(config: RunConfig, folder: Path, callbacks: Callbacks) -> dict[str, Any]:
    """Train the target with each source in turn, then merge; arguments and result as `train`."""
    group = Processes()
    done: list[dict[str, Any]] = []
    for number, source in enumerate(config.sources):
        pair = folder / PAIRS / str(number)
        pair.mkdir(parents=True, exist_ok=True)
        steps = sum(r["steps"] for r in done)
        pairs = len(config.sources)
        one = config.replace(sources=(source,), pairwise=None, arguments=_unpushed(config))
        result = pair_result(pair) or train(one, pair, _shifted(callbacks, steps, number, pairs))
        if result["stopped"]:
            return result | {"steps": steps + result["steps"]}
        group.wait()
        if group.first:
            mark_complete(pair / MODEL, result["tokens"], result["seconds"])
            write_whole(pair / DONE, json.dumps(result).encode())
        done.append(result)
    callbacks.stage("merging the models", 0)
    if not group.first:  # the others have no part in it
        group.wait()
        return done[-1]
    result = _merge(config, folder, done)
    group.wait()
    return result


def _merge(config: RunConfig, folder: Path, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the models of all pairs, measure the result and export it."""
    assert config.pairwise is not None
    target = load_target(config)
    cache = Cache.open(folder / PAIRS / "0" / CACHE)
    texts = eval_texts(config, target, CachedRowsDataset(cache), cache.texts())
    score = scorer(target, texts)
    before = score(target.network)
    base, mean = folder / PAIRS / "base", folder / PAIRS / "merged"
    tuned = [folder / PAIRS / str(n) / MODEL for n in range(len(done))]
    origin = target.network
    if config.lora:  # their copies are untied; adapters that have learnt nothing change no more
        origin = merged(with_adapters(config, origin))
    origin.save_pretrained(base)
    shutil.rmtree(mean, ignore_errors=True)
    baselines.merge(base, tuned, mean, method=config.pairwise)
    network = models.load(str(mean), device=config.device, dtype=weights_dtype(config)).network
    result = done[-1] | {
        "steps": sum(r["steps"] for r in done),
        "tokens": sum(r["tokens"] for r in done),
        "sources": [s for r in done for s in r["sources"]],
        "seconds": sum(r["seconds"] for r in done),
        "best_step": None,
        **compare_scores(before, score(network)),
    }
    probe = replace(Probe.of(target, network), weights=checksums(network))
    check = partial(probe.check, trained=network)
    export(target, network.save_pretrained, check, folder / MODEL, config, result)
    push(folder / MODEL, config)
    return result


def _unpushed(config: RunConfig) -> dict[str, Any]:
    return {k: v for k, v in config.arguments.items() if k not in HUB}


def _shifted(callbacks: Callbacks, steps: int, number: int, pairs: int) -> Callbacks:
    """Let a pair's steps follow those of the pairs before it."""

    def metrics(line: Metrics) -> None:
        line = line | {"step": steps + line["step"]}
        if "max_steps" in line:
            each = line["max_steps"]
            line["seconds_left"] += (
                line["seconds"] / max(1, line["step"] - steps) * each * (pairs - 1 - number)
            )
            line["max_steps"] = steps + each * (pairs - number)
        callbacks.metrics(line)

    def stage(name: str, share: float) -> None:
        callbacks.stage(f"source {number + 1} of {pairs}: {name}", share)

    return replace(callbacks, metrics=metrics, stage=stage)
