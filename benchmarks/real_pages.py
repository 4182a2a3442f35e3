"""The page of real_language.py."""

from __future__ import annotations

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
    machines = " and ".join(sorted({r["machine"] for r in done.values()}))
    return [
        "# A language learnt",
        "",
        "`python benchmarks/real_language.py --keep FOLDER"
        f"{'' if bench.device == 'cpu' else f' --device {bench.device}'}`; {machines}, "
        f"{workers} trainings at once, {statistics.median(seconds):.0f} s each at the median.",
        "",
        "SmolLM2-135M learns Hindi and Japanese, both in one training, from human text (the "
        "Universal Declaration of Human Rights) and from continuations of it that Gemma-3-270M "
        f"writes. *Text* is at most {bench.sizes['small'] / 1e3:.0f} KB a language, "
        f"{_human(texts)} human; *five times the text* is {bench.sizes['more'] / 1e3:.0f} KB a "
        f"language, all that is added Gemma's. All take {bench.steps} steps of the same size, but "
        "where fewer are named (whose learning rate comes down sooner); full fine-tuning, but "
        "where LoRA (rank 16) is named. Learning rate and λ of each are chosen on validation texts "
        "with the first seed; each at its best checkpoint there. "
        f"Means over {seeds} seeds (Gemma's text, and the order of documents); *seeds* are means "
        "over the four texts.",
        "",
        "Held out, bits per byte: human documents that no other text continues, and what Gemma "
        "writes on documents that are in no other text. Gemma's continuations were left out where "
        f"they repeat a stretch of what is not for training: {_dropped(texts)}.",
        "",
        *results(found["before"], by_way, chosen, labels),
        "",
        *fewer_tokens(by_way, labels),
        *rows(found["caches"]),
        "## What was tried",
        "",
        "Validation bits per byte at the best checkpoint, with the first seed, and its step.",
        "",
        *trials(done, labels),
    ]


def _key(job: Job) -> tuple[str, float, float | None]:
    return job.way, job.rate, job.weight


def _human(texts: dict[int | None, dict[str, Any]]) -> str:
    human = texts[None]["human"].items()
    return " and ".join(f"{size / 1e3:.1f} KB of {language}" for language, size in human)


def _dropped(texts: dict[int | None, dict[str, Any]]) -> str:
    parts = []
    for language in texts[None]["continuations"]:
        counts = [about["continuations"][language] for about in texts.values()]
        dropped, written = map(sum, zip(*counts, strict=True))
        parts.append(f"{dropped} of {written} in {language}")
    return ", ".join(parts)


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
        f"| | rate | λ | {' | '.join(TEXTS)} | mean | seeds | to text alone | to the same without "
        f"rows | {ENGLISH} |",
        f"| --- |{' ---: |' * (len(TEXTS) + 7)}",
    ]
    names = ("SmolLM2-135M before", "Gemma-3-270M")
    for name, test in zip(names, before.values(), strict=True):
        cells = " | ".join(f"{test[t]:.3f}" for t in TEXTS)
        lines.append(f"| {name} | | | {cells} | {mean(test):.3f} | | | | {test[ENGLISH]:.3f} |")
    for name, label in labels.items():
        tests = [r["test"] for r in by_way[name]]
        cells = " | ".join(f"{statistics.mean(t[x] for t in tests):.3f}" for x in TEXTS)
        weight = "" if chosen[name].weight is None else f"{chosen[name].weight:g}"
        same = _change(by_way, name, _without_rows(name)) if "rows" in name else ""
        lines.append(
            f"| {label} | {chosen[name].rate:g} | {weight} | {cells} | {_mean(by_way[name]):.3f} | "
            f"{', '.join(f'{mean(t):.3f}' for t in tests)} | {_change(by_way, name, 'text')} | "
            f"{same} | {statistics.mean(t[ENGLISH] for t in tests):.3f} |"
        )
    return lines


def _without_rows(name: str) -> str:
    return name.replace("rows", "text")


def _mean(results: list[dict[str, Any]]) -> float:
    return statistics.mean(mean(r["test"]) for r in results)


def _change(by_way: dict[str, list[dict[str, Any]]], name: str, baseline: str) -> str:
    if baseline not in by_way:
        return ""
    return f"{_mean(by_way[name]) / _mean(by_way[baseline]) - 1:+.1%}"


def fewer_tokens(by_way: dict[str, list[dict[str, Any]]], labels: dict[str, str]) -> list[str]:
    """Say with how many tokens rows reach the best validation figure of the same without them."""
    lines = []
    for name, label in labels.items():
        if "rows" not in name or _without_rows(name) not in by_way:
            continue
        reached = []
        for alone, other in zip(by_way[_without_rows(name)], by_way[name], strict=True):
            needed, goal = min(alone["curve"], key=lambda x: x[1])
            tokens = next((t for t, v in other["curve"] if v <= goal), None)
            reached.append(f"{f'{tokens:,}' if tokens else 'never'} ({needed:,})")
        lines.append(f"| {label} | {' | '.join(reached)} |")
    if not lines:
        return []
    seeds = len(by_way[next(iter(labels))])
    return [
        "Tokens with which rows reach the best validation figure of the same without rows, and in "
        "brackets what that needs for it; as exact as evaluations are frequent:",
        "",
        f"| | {' | '.join(f'seed {n}' for n in range(seeds))} |",
        f"| --- |{' ---: |' * seeds}",
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
            f"{'' if c['seconds'] is None else format(c['seconds'], '.0f')} |"
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
