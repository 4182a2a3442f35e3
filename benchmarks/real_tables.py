"""The page of real.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Kept = dict[str, Any]
Ways = Sequence[tuple[str, str]]


def page(kept: Kept, shown: dict[str, str], ways: Ways, texts: Sequence[str]) -> list[str]:
    """Make the lines of the page.

    Args:
        kept: what each part has found, by its name and the target's.
        shown: how models are called here.
        ways: targets and sources.
        texts: names of the texts that are scored.
    """
    arrows = {to: f"{shown[of]} → {shown[to]}" for to, of in ways}
    parts = (
        ("Maps", maps),
        ("A text of 4 KB", short),
        ("Memory", memory),
        ("A cache of 60 KB", cache),
        ("A training's step", train),
        ("Writing together", generate),
    )
    lines = [
        "# Two real pretrained models",
        "",
        "`FUSELAB_REAL=FOLDER FUSELAB_TESTDATA=FOLDER python benchmarks/real.py`: SmolLM2-135M and "
        "Gemma-3-270M, float32, one thread. Seconds are of the processor, and the machine was not "
        "idle: ratios are of one process. Every part runs in a process of its own.",
    ]
    for title, make in parts:
        found = {arrows[to]: kept[f"{make.__name__} {to}"] for to, _ in ways}
        lines += ["", f"## {title}", "", *make(found)]
    return [*lines, "", *transfer(kept, shown, ways, texts)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Make a table whose first column is of words."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def maps(found: Kept) -> list[str]:
    """Show what maps of vocabularies cost."""
    names = [n for n in next(iter(found.values())) if not n.endswith("again")]
    names = [n for n in names if n not in {"tokenizers", "peak"}]
    rows = [
        [
            arrow,
            f"{x['tokenizers']:.1f}",
            *(f"{x[n]:.1f} ({x[f'{n} again']:.2f})" for n in names),
            f"{x['peak']:.0f} MB",
        ]
        for arrow, x in found.items()
    ]
    head = ["source → target", "both tokenizers", *(f"`{n}`" for n in names), "peak"]
    said = "Seconds to load the tokenizers and to build each map, and in brackets to have it again."
    return [said, "", *table(head, rows)]


def short(found: Kept) -> list[str]:
    """Show what reading, projecting and fusing cost beside bare forward passes."""
    rows = []
    for arrow, x in found.items():
        for kind in ("boundary", "exact"):
            y = x[kind]
            beside = (y["carry"] + y["fuse"]) / y["bare"]
            whole = (y["read"] + y["carry"] + y["fuse"]) / y["bare"]
            seconds = [f"{y[k]:.1f}" for k in ("bare", "read", "carry", "fuse")]
            shares = [f"{100 * beside:.0f} %", f"{whole:.2f}", f"{y['extra']:.3f}"]
            rows.append([f"{arrow}, {kind} rows", *seconds, *shares])
    head = ["", "bare", "read", "project", "fuse", "project and fuse", "whole", "extra positions"]
    loads = ", ".join(
        f"{x['load']:.0f} and {x['first']:.0f} s ({arrow})" for arrow, x in found.items()
    )
    peaks = " and ".join(f"{x['peak']:.0f} MB" for x in found.values())
    weights = f"{next(iter(found.values()))['weights']:.0f} MB"
    said = (
        "Seconds of both networks alone (*bare*), of `read` with them, of projecting by `prefix` "
        "and of fusing by `confidence`, medians of three; the shares are of *bare*, and extra "
        f"positions are side paths a source token. Loading both and the first text: {loads}. "
        f"Peaks {peaks}, of which {weights} are weights."
    )
    return [said, "", *table(head, rows)]


def memory(found: Kept) -> list[str]:
    """Show how memory grows with a text."""
    rows = [
        [
            arrow,
            f"{x['weights']:.0f} MB",
            *(f"{x[n]['tokens']:,} tokens: {x[n]['peak']:.0f} MB" for n in x if n != "weights"),
        ]
        for arrow, x in found.items()
    ]
    said = "Peak memory of reading, projecting and fusing (top 10), first 4 KB, then 64 KB."
    return [said, "", *table(["", "weights", "4 KB", "64 KB"], rows)]


def cache(found: Kept) -> list[str]:
    """Show what writing rows costs beside bare forward passes."""
    rows = [
        [
            arrow,
            f"{x['tokens']:,}",
            f"{x['bare']:.0f}",
            *(f"{x[k]:.0f} ({x[k] / x['bare']:.2f})" for k in ("boundary", "exact")),
            f"{x['bytes']:.1f}",
            f"{x['peak']:.0f} MB",
        ]
        for arrow, x in found.items()
    ]
    said = "Seconds, and how many times those of the bare forward passes; bytes on disk a token."
    head = ["", "tokens", "bare", "boundary rows", "exact rows", "bytes", "peak"]
    return [said, "", *table(head, rows)]


def train(found: Kept) -> list[str]:
    """Show what a step on rows costs beside one on the text alone."""
    rows = []
    for arrow, x in found.items():
        for kind in ("", ", adapters"):
            plain, fused = x[f"clm{kind}"], x[f"fusion{kind}"]
            rows.append(
                [
                    f"{arrow}{kind}",
                    f"{plain['step']:.2f}",
                    f"{fused['step']:.2f} ({fused['step'] / plain['step']:.2f})",
                    *(f"{y['estimate'] / y['step']:.2f}" for y in (plain, fused)),
                ]
            )
    said = (
        "Seconds a step (2 × 256 tokens) on the text alone and on rows of a cache, and the "
        "estimate that is made before a training, as a share of what it took. All of them load "
        "again from their folders."
    )
    head = ["", "text", "rows", "estimate, text", "estimate, rows"]
    return [said, "", *table(head, rows)]


def generate(found: Kept) -> list[str]:
    """Show what a token costs that both have written."""
    rows = []
    for arrow, x in found.items():
        alone = x["target"] + x["source"]
        cells = [f"{1000 * x[k]:.0f}" for k in ("target", "source", "together")]
        rows.append([arrow, *cells, f"{x['together'] / alone:.2f}"])
    head = ["", "target", "source", "together", "to the sum"]
    return ["Milliseconds a token, medians of three.", "", *table(head, rows)]


def transfer(kept: Kept, shown: dict[str, str], ways: Ways, texts: Sequence[str]) -> list[str]:
    """Show what arrives of each text by every strategy."""
    said = (
        "2 KB of each text. *all*: nats per target token over all positions; *shared*: at shared "
        "boundaries, in brackets the share of positions that the strategy covers there. *One to "
        "one*: where a token of the target is one of the source's, what the source gives it "
        "itself and what arrives by `prefix`."
    )
    lines = ["## What arrives", "", said]
    for to, of in ways:
        lines += ["", f"### {shown[of]} → {shown[to]}", ""]
        found = kept[f"transfer {to}"]
        names = list(found[texts[0]]["exact"])
        head = ["text", "rows", "bits per byte, target and source", "target alone"]
        head += [f"`{n}`" for n in names] + ["one to one"]
        rows = []
        for text in texts:
            x = found[text]
            for kind in ("exact", "boundary"):
                first, pair = x[kind][names[0]], x[f"{kind}, one to one"]
                rows.append(
                    [
                        text,
                        kind,
                        " / ".join(f"{b:.3f}" for b in x["bits"]),
                        f"{first['target_ce'] or float('nan'):.3f}",
                        *(_arrived(x[kind][n]) for n in names),
                        f"{pair['native']:.3f} → {pair['prefix']:.3f}",
                    ]
                )
        lines += table(head, rows)
    return lines


def _arrived(score: dict[str, Any]) -> str:
    if not score["covered"]:
        return "–"
    whole = score["all"]["transfer_ce"]
    told = f"{score['transfer_ce']:.3f} ({100 * score['coverage']:.0f} %)"
    return f"{told}; all {whole:.3f}" if score["all"]["positions"] > score["covered"] else told
