"""What next-token rows cost beyond the bare forward pass of the model.

    python benchmarks/rows.py

writes benchmarks/results/rows.md: `models.read_rows_batch`, with whole rows and with their top 10,
against the network alone in inference mode on the same ids, for every model of the zoo and, where
FUSELAB_TESTDATA names the folder of test data, its two models of children's stories. All texts of a
batch have the same length, so that nothing is padded. The three calls are timed in turn, on two
cores; peaks are of the memory that torch holds during a call, as its profiler saw it.
"""

from __future__ import annotations

import os

# Threads that spin while another process has their core make a call up to thirty times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fusion_core import corpus, models, zoo
from fusion_core.config import Truncation
from fusion_core.models import LoadedModel
from fusion_core.records import Encoding

OUT = ROOT / "benchmarks" / "results" / "rows.md"
BATCH, LENGTH = 8, 256
"""Texts of a batch, and the tokens of each, the start token included."""
TOP_K = 10
REPEATS = 31
TARGET = 1.15


def main() -> None:
    """Measure, and write the table."""
    torch.set_num_threads(2)
    names = [zoo.PREFIX + n for n in zoo.NAMES]
    folder = os.environ.get("FUSELAB_TESTDATA")
    if folder:
        names += map(str, sorted((Path(folder) / "models").iterdir()))
    text = "\n\n".join(corpus.text("mixed", "test", 30_000))
    lines = []
    for name in names:
        print(name, file=sys.stderr)
        lines.append(compared(models.load(name), text))
    OUT.write_text(
        "\n".join(
            [
                "# What rows cost beyond the forward pass",
                "",
                "`FUSELAB_TESTDATA=… python benchmarks/rows.py`; two cores, float32, medians of",
                f"{REPEATS} calls in turn. A ratio is the time of `read_rows_batch` over that of",
                "the bare network on the same ids, the median of the ratios turn by turn; it",
                f"should be at most {TARGET}. Peaks: what torch takes during a call, its",
                "result included.",
                "",
                "| model | vocabulary | tokens | bare, tokens/s | whole rows, tokens/s | ratio | "
                f"top {TOP_K}, tokens/s | ratio | peaks: bare, whole, top {TOP_K} |",
                "| --- |" + " ---: |" * 8,
                *lines,
                "",
                load(),
            ]
        )
        + "\n",
        encoding="utf-8",
    )
    print(OUT.read_text(encoding="utf-8"))


def load() -> str:
    """Say how busy the machine was, this script included."""
    return (
        f"While this was measured the machine had {os.getloadavg()[2]:.1f} running processes or "
        f"threads on {os.cpu_count()} cores, the measured ones included (average of 15 minutes)."
    )


def timed(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int = REPEATS,
    wait: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time calls in turn, so that all share the machine's moods: the seconds of each, in order.

    Args:
        calls: by name; each is called once before anything is timed.
        repeats: how often each is timed.
        wait: returns when the device has done what it was asked.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(repeats + 1):
        for name, call in calls.items():
            wait()
            began = time.perf_counter()
            call()
            wait()
            if n:
                taken[name].append(time.perf_counter() - began)
    return taken


def medians(calls: Mapping[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Time calls in turn: the median seconds of each."""
    return {name: statistics.median(t) for name, t in timed(calls, repeats).items()}


def ratio(taken: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Compare two of the calls that were timed: the median of the ratios turn by turn."""
    return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))


def pieces(encoding: Encoding, number: int, length: int) -> list[Encoding]:
    """Cut texts of equal length out of a long one.

    Args:
        encoding: the long text.
        number: of texts.
        length: text tokens of each.
    """
    own = encoding.text_tokens
    if len(own) < number * length:
        raise ValueError(f"{len(own)=} tokens are too few for {number} x {length}")
    out = []
    for some in own[: number * length].reshape(number, length):
        first, last = int(encoding.start[some[0]]), int(encoding.end[some[-1]])
        out.append(
            Encoding(
                model=encoding.model,
                data=encoding.data[first:last],
                ids=encoding.ids[some],
                start=encoding.start[some] - first,
                end=encoding.end[some] - first,
                special=np.zeros(length, bool),
                pieces=[encoding.pieces[i] for i in some],
            )
        )
    return out


def calls(model: LoadedModel, encodings: Sequence[Encoding]) -> dict[str, Callable[[], Any]]:
    """Return what is compared: the bare network on the ids, whole rows, and their top."""
    start = model.tokenizer.start_id
    head = [] if start is None else [start]
    ids = np.stack([np.concatenate([head, e.ids]).astype(np.int64) for e in encodings])

    @torch.inference_mode()
    def bare() -> torch.Tensor:
        batch = torch.as_tensor(ids, device=model.device)
        return model.network(input_ids=batch, use_cache=False).logits

    return {
        "bare": bare,
        "whole": lambda: models.read_rows_batch(model, encodings),
        "cut": lambda: models.read_rows_batch(model, encodings, cut=Truncation(top_k=TOP_K)),
    }


def compared(model: LoadedModel, text: str) -> str:
    """Compare rows with the bare network: a line of the table."""
    length = min(LENGTH, model.context or LENGTH) - (model.tokenizer.start_id is not None)
    steps = calls(model, pieces(model.tokenizer.encode(text), BATCH, length))
    taken = timed(steps)
    tokens = BATCH * min(LENGTH, model.context or LENGTH)
    speeds = {name: tokens / statistics.median(t) for name, t in taken.items()}
    peaks = " / ".join(f"{peak(call) / 1e6:.0f}" for call in steps.values())
    return (
        f"| `{model.name if ':' in model.name else Path(model.name).name}` | "
        f"{model.tokenizer.size:,} | {tokens:,} | {speeds['bare']:,.0f} | {speeds['whole']:,.0f} | "
        f"**{ratio(taken, 'whole', 'bare'):.3f}** | {speeds['cut']:,.0f} | "
        f"**{ratio(taken, 'cut', 'bare'):.3f}** | {peaks} MB |"
    )


def peak(call: Callable[[], Any]) -> int:
    """Return the most bytes that a call holds at once, those of its result included."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        result = call()  # kept until the profiler has stopped
    del result
    events = profile.profiler.kineto_results.events()
    held = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return max(int(np.cumsum([size for _, size in sorted(held)]).max()), 0)


if __name__ == "__main__":
    main()
