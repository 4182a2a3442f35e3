"""The page of real_language.py."""

from __future__ import annotations

import math
import os
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from real_language import Bench, Job

TEXTS = ("Hindi, human", "Hindi, written", "Japanese, human", "Japanese, written")
ENGLISH = "English"


def page(bench: Bench, found: dict[str, Any], labels: dict[str, str], workers: int) -> list[str]:
    """Make the lines of the page.

    Args:
        bench: where everything is.
        found: what `measure` has returned.
        labels: of the ways.
        workers: trainings that ran at once.
    """
    done, chosen, texts = found["done"], found["chosen"], found["texts"]
    by_way = {
        name: [r for j, r in done.items() if (j.way, j.rate, j.weight) == _key(chosen[name])]
        for name in labels
    }
    seeds = len(by_way[next(iter(labels))])
    seconds = [r["seconds"] for r in done.values()]
    return [
        "# A language learnt",
        "",
        "`python benchmarks/real_language.py --keep FOLDER"
        f"{'' if bench.device == 'cpu' else f' --device {bench.device}'}`; {about(bench.device)}, "
        f"{workers} trainings at once, {statistics.median(seconds):.0f} s each at the median.",
        "",
        "SmolLM2-135M learns Hindi and Japanese, both in one training, from human text (the "
        "Universal Declaration of Human Rights) and from continuations of it that Gemma-3-270M "
        f"writes. *Text* is {_sizes(bench, texts, 'small')}; *five times the text* is as much more "
        f"of Gemma's, {_sizes(bench, texts, 'more')}. All take {bench.steps} steps of the same "
        "size, full fine-tuning but where LoRA (rank 16) is named. Learning rate and λ of each are "
        "chosen on validation texts with the first seed; each at its best checkpoint there. "
        f"Means over {seeds} seeds (Gemma's text, and the order of documents); *seeds* are means "
        "over the four texts.",
        "",
        "Held out, bits per byte: human documents that no other text continues, and what Gemma "
        "writes on documents that are in no other text. "
        + " ".join(
            f"{language}: {dropped} of {written} continuations repeated a stretch of what is not "
            "for training, and were left out."
            for language, (dropped, written) in texts["dropped"].items()
        ),
        "",
        *results(found["before"], by_way, chosen, labels),
        "",
        *fewer_tokens(done, by_way, chosen, labels),
        *rows(found["caches"]),
        "## What was tried",
        "",
        "Validation bits per byte at the best checkpoint, with the first seed, and its step.",
        "",
        *trials(done, labels),
    ]


def about(device: str) -> str:
    """Name the machine."""
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores, torch {torch.__version__}"


def _key(job: Job) -> tuple[str, float, float | None]:
    return job.way, job.rate, job.weight


def _sizes(bench: Bench, texts: dict[str, Any], name: str) -> str:
    human = {la: texts[f"{la}, human training"] for la in texts["dropped"]}
    parts = (f"{n / 1e3:.1f} KB of {la}" for la, n in human.items())
    whole = f"{bench.sizes[name] / 1e3:.0f} KB a language"
    return f"{whole} ({' and '.join(parts)} human)" if name == "small" else whole


def mean(test: dict[str, float]) -> float:
    """Average over the texts in the languages that are learnt."""
    return statistics.mean(test[name] for name in TEXTS)


def results(
    before: dict[str, dict[str, float]],
    by_way: dict[str, list[dict[str, Any]]],
    chosen: dict[str, Job],
    labels: dict[str, str],
) -> list[str]:
    """Make the table of what each way has learnt."""
    lines = [
        f"| | rate | λ | {' | '.join(TEXTS)} | mean | seeds | to the text alone | {ENGLISH} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    names = ("SmolLM2-135M before", "Gemma-3-270M")
    for name, test in zip(names, before.values(), strict=True):
        cells = " | ".join(f"{test[t]:.3f}" for t in TEXTS)
        lines.append(f"| {name} | | | {cells} | {mean(test):.3f} | | | {test[ENGLISH]:.3f} |")
    baseline = {lora: _mean(by_way.get(lora, [])) for lora in ("text", "LoRA text")}
    for name, label in labels.items():
        tests = [r["test"] for r in by_way[name]]
        cells = " | ".join(f"{statistics.mean(t[x] for t in tests):.3f}" for x in TEXTS)
        weight = chosen[name].weight
        to = baseline["LoRA text" if "LoRA" in name else "text"]
        lines.append(
            f"| {label} | {chosen[name].rate:g} | {'' if weight is None else f'{weight:g}'} | "
            f"{cells} | {_mean(by_way[name]):.3f} | {', '.join(f'{mean(t):.3f}' for t in tests)} | "
            f"{_mean(by_way[name]) / to - 1:+.1%} | "
            f"{statistics.mean(t[ENGLISH] for t in tests):.3f} |"
        )
    return lines


def _mean(results: list[dict[str, Any]]) -> float:
    return statistics.mean(mean(r["test"]) for r in results) if results else math.nan


def fewer_tokens(
    done: dict[Job, dict[str, Any]],
    by_way: dict[str, list[dict[str, Any]]],
    chosen: dict[str, Job],
    labels: dict[str, str],
) -> list[str]:
    """Say with how many tokens each way reaches the best validation figure of its text alone."""
    lines = []
    for name, label in labels.items():
        baseline = "LoRA text" if "LoRA" in name else "text"
        if name == baseline or baseline not in labels:
            continue
        reached = []
        for alone, other in zip(by_way[baseline], by_way[name], strict=True):
            goal = min(v for _, v in alone["curve"])
            tokens = next((t for t, v in other["curve"] if v <= goal), None)
            first = next(t for t, v in alone["curve"] if v == goal)
            reached.append(
                f"not within {other['curve'][-1][0]:,}"
                if tokens is None
                else f"{tokens:,} ({first:,})"
            )
        lines.append(f"| {label} | {' | '.join(reached)} |")
    seeds = len(by_way[next(iter(labels))])
    return [
        "Tokens until the best validation figure of the text alone is reached, and in brackets "
        "what the text alone needs for it, seed by seed:",
        "",
        f"| | {' | '.join(f'seed {n}' for n in range(seeds))} |",
        f"| --- | {' | '.join(['---:'] * seeds)} |",
        *lines,
        "",
    ]


def rows(caches: dict[str, dict[str, Any]]) -> list[str]:
    """Say what Gemma's rows are like."""
    if not caches:
        return []
    return [
        "Gemma's exact rows in SmolLM2's tokens, `prefix`:",
        "",
        "| text and seed | rows | kept mass | rows that keep nothing | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {c['rows']:,} | {c['kept']:.3f} | {c['nothing kept']:.1%} | "
            f"{c['seconds']:.0f} |"
            for name, c in caches.items()
        ),
        "",
    ]


def trials(done: dict[Job, dict[str, Any]], labels: dict[str, str]) -> list[str]:
    """Make the table of all learning rates and weights."""
    first = min(job.seed for job in done)
    lines = ["| | λ | learning rate: bits per byte (step) |", "| --- | ---: | --- |"]
    for name, label in labels.items():
        jobs = [j for j in done if j.way == name and j.seed == first]
        for weight in dict.fromkeys(j.weight for j in jobs):
            cells = ", ".join(
                f"{j.rate:g}: {min(v for _, v in done[j]['curve']):.4f} ({done[j]['best_step']})"
                for j in jobs
                if j.weight == weight
            )
            lines.append(f"| {label} | {'' if weight is None else f'{weight:g}'} | {cells} |")
    return lines
