"""A training -> what the page shows of it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fusion_core.errors import FusionError, size_of
from fusion_core.io.files import write_whole
from fusion_core.runs import RunStatus, Tail
from fusion_core.text_display import short_name

from ...training.job import PARTS, Job, part_of
from ...training.plan import Plan
from . import curves

SAMPLES = "samples.json"
KEPT_TAILS = 64


class MetricsReader:
    """Metrics of the trainings that are looked at; files that grow are read once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._tail = lru_cache(maxsize=KEPT_TAILS)(Tail)

    def of(self, job: Job) -> dict[str, list[dict[str, Any]]]:
        """Return the metrics of a training's parts."""
        return {
            part: list(self._tail(job.run(part) / "metrics.jsonl").more()) for part in job.parts
        }


@dataclass(frozen=True)
class Shown:
    """What a page shows of one training.

    Attributes:
        view: content of a `RunView`.
        curves: content of a `PlotlyPanel`.
        written: samples, as content of a `RunView`.
        statuses: of its parts.
    """

    view: str
    curves: str
    written: str
    statuses: dict[str, RunStatus]


def show(job: Job, reader: MetricsReader) -> Shown:
    """Describe a training as it is now."""
    statuses, metrics = job.statuses(), reader.of(job)
    results = {part: now.result for part, now in statuses.items() if now.state == "finished"}
    rows = curves.comparison(results)
    before = {text: value for text, value, *_ in rows if text != "mean"}
    view = {
        "title": job.name,
        "note": _note(job),
        "parts": [_part(part, now) for part, now in statuses.items()],
        "table": rows,
    }
    figures = curves.figures(metrics, before, job.id)
    written = {"samples": samples(job)}
    return Shown(json.dumps(view), json.dumps(figures), json.dumps(written), statuses)


def _note(job: Job) -> str:
    about, fusion = job.about, job.about["fusion"]
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(job.created))
    sources = ", ".join(short_name(s) for s in about["sources"])
    return (
        f"{began} UTC · from {sources} · {fusion.get('operator')}, {fusion.get('level')} level, "
        f"{fusion.get('strategy')} mapping, top-{fusion.get('top_k')}, "
        f"{fusion.get('rows', 'boundary')} rows · λ {about['lm_weight']:g} · "
        f"{'LoRA' if about['lora'] else 'all weights'}, rate {about['learning_rate']:g}, "
        f"batch {about['batch_size']} · seed {about['seed']}"
    )


def _part(part: str, now: RunStatus) -> dict[str, Any]:
    trains = now.state in ("training", "finished", "stopped", "interrupted", "failed")
    share = now.step / now.max_steps if trains and now.max_steps else 0.0
    return {
        "part": part,
        "label": "Fused" if part == "fused" else "Baseline: text alone",
        "state": now.state,
        "live": now.live,
        "stage": now.stage,
        "share": 1.0 if now.state == "finished" else now.share if not trains else share,
        "step": now.step,
        "steps": now.max_steps,
        "left": now.seconds_left,
        "message": now.message,
    }


def facts(plan: Plan) -> dict[str, Any]:
    """Describe what a training will take, for a `RunView`."""
    found = plan.estimate
    parts = len(plan.parts)
    lines = [
        ("All in all", f"about {_time(plan.seconds)}" + (" for both parts" * (parts > 1))),
        ("Preparing", f"{_time(found.preparing_seconds)} to read and fuse the text"),
        ("Steps", f"{plan.steps:,} of {_time(found.training_seconds / plan.steps)}"
         + (" for each part" * (parts > 1))),
        ("Text", f"{len(plan.texts.train):,} documents, {found.tokens:,} tokens taught"),
        ("Weights", f"{found.trained:,} of {found.parameters:,} trained"),
        ("Memory", f"{size_of(found.memory_bytes)} of {size_of(found.free_memory_bytes)} free"),
        ("Disk", f"{size_of(parts * found.disk_bytes)} of {size_of(found.free_disk_bytes)} free"),
        ("How known", "a few real steps were timed" if found.how == "measured"
         else "from the models' sizes and the device's speed"),
    ]  # fmt: skip
    return {"facts": lines}


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# Samples --------------------------------------------------------------------------------------


def samples(job: Job) -> list[dict[str, Any]]:
    """Return what was written by the models of a training."""
    with suppress(OSError, ValueError):
        found = json.loads((job.folder / SAMPLES).read_bytes())
        for sample in found:
            sample["texts"] = [[part_of(p), label, text] for p, label, text in sample["texts"]]
        return found
    return []


def prompts(job: Job) -> list[str]:
    """Return beginnings of held-out texts, one of each."""
    found = []
    for path in job.config("fused").eval_data.values():
        with suppress(OSError, ValueError):
            first = Path(path).read_text("utf-8").split("\n", 1)[0]
            text = json.loads(first)["text"]
            found.append(text[: text.find(" ", 40)] if 40 < text.find(" ", 40) < 90 else text[:60])
    return found


def writers(job: Job) -> dict[str, str]:
    """Return names of models by part: the target before, and what was trained.

    Raises:
        FusionError: nothing has been trained.
    """
    found = {"before": job.config("fused").target}
    for part in ("baseline", "fused"):
        if part in job.parts and job.status(part).state == "finished":
            found[part] = str(job.run(part) / "model")
    if len(found) == 1:
        raise FusionError("There is no trained model yet: wait until a part is finished.")
    return found


def keep_samples(job: Job, texts: list[str], written: list[list[str]], parts: list[str]) -> None:
    """Write down what the models wrote, beside the training."""
    labels = {"before": "before"} | PARTS
    found = [
        {"prompt": prompt, "texts": [[p, labels[p], t] for p, t in zip(parts, some, strict=True)]}
        for prompt, some in zip(texts, written, strict=False)
    ]
    with suppress(OSError):
        write_whole(job.folder / SAMPLES, json.dumps(found).encode())
