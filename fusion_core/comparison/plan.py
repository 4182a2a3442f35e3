"""Plan of a comparison: which methods are trained, on what, with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from fusion_core.config import Count, FusionConfig, RunConfig, Settings
from fusion_core.config.settings import Names

DATA, WRITTEN = "train.jsonl", "written.jsonl"
"""Documents that are trained on: those that were given, and those with what the sources write."""

SEVERAL = {0: (2e-4, 5e-4, 1e-3), 10_000_000: (4e-5, 1e-4, 2e-4), 1_000_000_000: (1e-5, 2e-5, 5e-5)}
"""Learning rates that are tried, for targets of at least so many parameters."""

FUSED: dict[str, Any] = {"mode": "fusion", "lm_weight": 0.1, "top_k": 20}
PUBLISHED: dict[str, Any] = {
    "mode": "fusion",
    "lm_weight": 0.9,
    "top_k": 10,
    "strategy": "mined",
    "rows": "boundary",
}
"""FuseLLM (arXiv 2401.10491): MinED, sequence-level MinCE, λ = 0.9, top 10."""


class ComparisonConfig(Settings):
    """A comparison of ways to make one model of several."""

    target: str = Field(min_length=1, description="the model that is trained")
    sources: Names = Field(description="the models that are fused")
    data: Names = Field(
        default=(),
        description="documents, a file a kind of text; by default the embedded toy domains",
    )
    seeds: Count = Field(default=3, description="how many trainings of each method there are")
    budget: float = Field(
        default=60.0, gt=0, description="minutes that all of it may take, on an idle machine"
    )
    written_bytes: int | None = Field(
        default=None,
        ge=0,
        description="text that the sources write beside the data; six times the data by default",
    )
    test_bytes: Count = Field(default=20_000, description="held-out text of each kind")
    train_bytes: Count = Field(default=60_000, description="text that is trained on, at most")
    rates: Count = Field(default=3, le=3, description="how many learning rates are tried")
    workers: Count = Field(default=2, description="how many trainings go on at once")
    device: str = Field(default="cpu", description="cpu, cuda or mps")

    def quick(self) -> ComparisonConfig:
        """Return a smaller comparison: a budget of five minutes, two seeds, less text."""
        return self.replace(
            seeds=min(2, self.seeds),
            budget=min(5.0, self.budget),
            rates=min(2, self.rates),
            test_bytes=min(8_000, self.test_bytes),
            train_bytes=min(30_000, self.train_bytes),
        )


@dataclass(frozen=True)
class Method:
    """A way to make one model.

    Attributes:
        text: file that it is trained on.
        settings: of its runs, beside those that all have.
        rows: the folder of a cache of every source's rows of the text, or "".
        rate_of: the method whose tuned learning rate it takes; "" where its own is tuned.
        by_text: trained on each kind of text by itself, and the results averaged.
    """

    text: str = DATA
    settings: dict[str, Any] = field(default_factory=dict)
    rows: str = ""
    rate_of: str = ""
    by_text: bool = False


FUSED_DATA = "fused, data alone"
TRAINED = {
    "text alone": Method(settings={"mode": "clm"}),
    "text alone, written": Method(WRITTEN, {"mode": "clm"}),
    "kd": Method(settings=FUSED | {"mode": "kd"}, rows="rows", rate_of=FUSED_DATA),
    "published": Method(settings=PUBLISHED, rate_of=FUSED_DATA),
    "merging": Method(settings={"mode": "clm"}, rate_of="text alone", by_text=True),
    FUSED_DATA: Method(settings=FUSED, rows="rows"),
    "fused": Method(WRITTEN, FUSED, rows="written-rows"),
}
"""Methods that are trained; those on written text are left out where sources write none."""

ENSEMBLE, MERGED = "ensemble", "merging"


@dataclass(frozen=True)
class Job:
    """One training of a comparison.

    Attributes:
        method: its name.
        seed: of the order of documents, and of whatever is drawn.
        rate: peak of the learning rate.
    """

    method: str
    seed: int
    rate: float

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.method.replace(', ', '-').replace(' ', '-')}-{self.rate:g}-{self.seed}"


def rows_config() -> FusionConfig:
    """Return how the rows of the data are read, and kept for every method that is ours."""
    return FusionConfig(top_k=FUSED["top_k"])


def rates_for(parameters: int, number: int) -> tuple[float, ...]:
    """Return the learning rates to try on a target of so many parameters, the middle one first."""
    low, middle, high = next(r for n, r in reversed(SEVERAL.items()) if parameters >= n)
    return (middle, high, low)[:number]


def methods(written: bool, texts: int, alike: bool) -> list[str]:
    """Name the methods that are trained.

    Args:
        written: whether the sources write text.
        texts: number of kinds of text.
        alike: whether the sources can be merged as they are, without a training.
    """
    return [
        name
        for name, method in TRAINED.items()
        if (written or method.text == DATA) and not (method.by_text and (alike or texts < 2))
    ]


def tuning_jobs(found: Iterable[str], rates: Sequence[float]) -> list[Job]:
    """List the trainings that choose learning rates, those of the first seed."""
    return [Job(n, 0, r) for n in found if not TRAINED[n].rate_of for r in rates]


def final_jobs(found: Iterable[str], rates: Mapping[str, float], seeds: int) -> list[Job]:
    """List the trainings that count; some of them have chosen learning rates.

    Args:
        found: names of methods.
        rates: that were chosen, by method.
        seeds: number of trainings of each method.
    """
    return [Job(n, s, rates[TRAINED[n].rate_of or n]) for n in found for s in range(seeds)]


def run_config(
    config: ComparisonConfig, job: Job, folder: Path, steps: int, block_size: int
) -> RunConfig:
    """Return the settings of one training."""
    method = TRAINED[job.method]
    evaluations = max(1, steps // 8)
    texts = text_names(folder)
    values: dict[str, Any] = {
        "target": config.target,
        "sources": list(config.sources) if method.settings["mode"] != "clm" else [],
        "data": str(folder / method.text),
        "eval_data": {name: str(folder / f"validation-{name}.jsonl") for name in texts},
        "keep": "best",
        "eval_every": evaluations,
        "max_steps": steps,
        "batch_size": 4,
        "block_size": block_size,
        "learning_rate": job.rate,
        "seed": job.seed,
        "device": config.device,
        **method.settings,
    }
    if method.rows:
        values |= {"cache": str(folder / method.rows), "data": None}
    return RunConfig.of(values)


def text_names(folder: Path) -> list[str]:
    """Name the kinds of text of a comparison, in order."""
    found = sorted(folder.glob("test-*.jsonl"))
    return [f.stem.removeprefix("test-") for f in found]
