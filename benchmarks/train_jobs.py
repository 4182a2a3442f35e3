"""The trainings of train.py: what they read, and the settings that are not the same for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SOURCES = ["zoo:neox-reason", "zoo:gpt2-story", "zoo:mpt-code"]
DOMAINS = ("reasoning", "commonsense", "code")
SEEDS = range(3)
DATA_BYTES, EPOCHS = 60_000, 20
MORE_BYTES, MORE_EPOCHS = 600_000, 2
"""What the sources write, and how often it is read with the data: about as many tokens in all."""
TEST_BYTES = 20_000
EVALUATIONS = 10
WORKERS = 2
FUSION = {"lm_weight": 0.1, "top_k": 20}
TUNED = {"clm": (2e-4, 4e-4, 1e-3), "fusion": (3e-4, 5e-4, 1e-3)}
MORE_RATE = 1e-3
"""Learning rate where most of the text is new, for fusion and for the text alone."""


@dataclass(frozen=True)
class Job:
    """One training: a name, its seed, and what of a run's settings is not as for all."""

    name: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    data: str | None = "small"
    cache_of: str = ""

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.name}-{self.seed}".replace(" ", "_").replace("/", "_")


def tuning_jobs() -> list[Job]:
    """List what is needed to choose learning rates, and what does not need them; longest first."""
    return [
        *(Job("written", s, _written(FUSION), "small") for s in SEEDS),
        *(Job("pairs, sce", s, FUSION | {"learning_rate": 5e-4, "pairwise": "sce"}) for s in SEEDS),
        *(Job("fresh fusion", s, _once(FUSION), "fresh") for s in SEEDS),
        *(Job("fresh clm", s, _once({"mode": "clm"}), "fresh") for s in SEEDS),
        *(Job(f"clm {r:g}", 0, {"mode": "clm", "learning_rate": r}) for r in TUNED["clm"]),
        *(Job(f"fusion {r:g}", 0, FUSION | {"learning_rate": r}) for r in TUNED["fusion"]),
    ]


def _written(more: dict[str, Any]) -> dict[str, Any]:
    return more | {
        "generate_bytes": MORE_BYTES,
        "learning_rate": MORE_RATE,
        "epochs": MORE_EPOCHS,
    }


def _once(more: dict[str, Any]) -> dict[str, Any]:
    return more | {"learning_rate": MORE_RATE, "epochs": 1}


def tuned_jobs(clm: float, fusion: float) -> list[Job]:
    """List the rest, with the learning rates that were chosen."""
    kd = FUSION | {"mode": "kd", "learning_rate": fusion}
    text_alone = {"mode": "clm", "learning_rate": MORE_RATE, "epochs": MORE_EPOCHS, "sources": []}
    return [
        *(Job("kd", s, kd) for s in SEEDS),
        *(Job("written clm", s, text_alone, None, f"written-{s}") for s in SEEDS),
        *(Job("clm", s, {"mode": "clm", "learning_rate": clm}) for s in SEEDS[1:]),
        *(Job("fusion", s, FUSION | {"learning_rate": fusion}) for s in SEEDS[1:]),
    ]
