"""A form -> a training that can begin: its settings, and how long it will take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fusion_core import models
from fusion_core.config import FusionConfig, Lora, Objective, RunConfig
from fusion_core.errors import InputError, TooLargeError, size_of
from fusion_core.text_display import short_name
from fusion_core.training import Estimate

from ..fields import read
from ..limits import Limits
from . import data
from .data import Texts
from .form import PRESETS, Form, check

EVALUATIONS = 10
MOST = {"batch_size": 256, "learning_rate": 1}
"""Of a form, whatever the place."""

LEAST_STEPS = 10

PART_SECONDS = 6.0
"""For each part, beside preparing and steps: a process, models, two more evaluations, files."""

STEP_FACTOR = 1.3
"""What a step takes with its share of evaluations and fused rows, over one that was timed."""


@dataclass(frozen=True)
class Plan:
    """A training that can begin.

    Attributes:
        form: what was filled in.
        texts: its documents.
        steps: of each part.
        estimate: of one part; its preparing is needed by the fused part alone.
    """

    form: Form
    texts: Texts
    steps: int
    estimate: Estimate

    @property
    def parts(self) -> tuple[str, ...]:
        """The runs that it comes to, in their order."""
        return ("fused", "baseline") if self.form.baseline else ("fused",)

    @property
    def seconds(self) -> float:
        """About how long all parts take together."""
        each = PART_SECONDS + self.estimate.training_seconds * STEP_FACTOR
        return self.estimate.preparing_seconds + len(self.parts) * each

    @property
    def title(self) -> str:
        """Name the training for a list."""
        return f"{short_name(self.form.target)} · {', '.join(self.texts.held)} · {self.steps} steps"

    def config(self, folder: Path, device: str) -> RunConfig:
        """Return the settings of the fused part, for texts in a folder."""
        return config_of(self.form, self.texts, folder, self.steps, device)


def config_of(form: Form, texts: Texts, folder: Path, steps: int | None, device: str) -> RunConfig:
    """Return the settings of the fused part.

    Args:
        form: what was filled in.
        texts: its documents.
        folder: where `data.write` put them.
        steps: of the optimiser; None reads the text once.
        device: that trains.

    Raises:
        InputError: a value cannot be used.
    """
    values = {
        "target": form.target,
        "sources": form.sources,
        "data": str(folder / data.DATA),
        "eval_data": {name: str(folder / data.held_file(i)) for i, name in enumerate(texts.held)},
        "fusion": read(FusionConfig, form.fusion),
        "objective": read(Objective, {"lm_weight": form.lm_weight}),
        "max_steps": steps,
        "learning_rate": form.learning_rate,
        "batch_size": form.batch_size,
        "lora": Lora() if form.lora else None,
        "eval_every": max(1, (steps or 1) // EVALUATIONS),
        "seed": form.seed,
        "device": device,
    }
    config = read(RunConfig, values, **MOST)
    return RunConfig.of(config.to_mapping())  # with folders of models as whole paths


Measure = Callable[[str, str], Estimate]
"""Turns the YAML of a run and its folder into an estimate, where there is a device."""


def make_plan(form: Form, limits: Limits, device: str, root: Path, measure: Measure) -> Plan:
    """Read the text, time a few steps, and fit the steps into the preset's budget.

    Args:
        form: what was filled in.
        limits: of this place.
        device: that trains.
        root: folder on whose disk it will be written.
        measure: makes the estimate of a training that reads the text once.

    Raises:
        FusionError: something cannot be used, or does not fit into the budget.
    """
    check(form, limits)
    config_of(form, Texts([], {}), Path(), None, device)  # before anything is read
    _check_models(form, limits)
    texts = data.read(form, limits)
    with tempfile.TemporaryDirectory() as scratch:
        data.write(texts, Path(scratch))
        config = config_of(form, texts, Path(scratch), None, device)
        once = measure(config.to_yaml(), str(root))
    budget = PRESETS[form.preset].seconds
    parts = 2 if form.baseline else 1
    steps = (
        form.steps if budget is None else fitting_steps(once, min(budget, _longest(limits)), parts)
    )
    steps = min(steps, limits.steps)
    share = min(1.0, steps / once.steps)
    found = replace(
        once,
        steps=steps,
        tokens=round(once.tokens * steps / once.steps),
        preparing_seconds=once.preparing_seconds * share,
        training_seconds=once.training_seconds * steps / once.steps,
    )
    return Plan(form, texts, steps, found)


def _longest(limits: Limits) -> float:
    return limits.train_seconds or float("inf")


def _check_models(form: Form, limits: Limits) -> None:
    """Refuse large models before anything of them is fetched."""
    most = limits.model_bytes
    if not most:
        return
    for name in (form.target, *form.sources):
        size = models.weights_bytes(name)
        if size > most:
            raise TooLargeError(
                f"{name} has {size_of(size)} of weights, more than the limit of {size_of(most)} on "
                "this page: choose a smaller model."
            )


def fitting_steps(once: Estimate, budget: float, parts: int) -> int:
    """Say how many steps fit into a budget.

    Args:
        once: the estimate of reading the text once.
        budget: seconds for all parts together.
        parts: how many there are.

    Raises:
        InputError: not even a few do.
    """
    room = budget - parts * PART_SECONDS
    a_step = parts * STEP_FACTOR * once.training_seconds / once.steps
    # Text is prepared as far as it is read.
    steps = (room - once.preparing_seconds) / a_step
    if steps < once.steps:
        steps = room / (once.preparing_seconds / once.steps + a_step)
    if steps < LEAST_STEPS:
        raise InputError(
            f"Fewer than {LEAST_STEPS} steps fit into {budget:.0f} seconds here: choose smaller "
            "models or a smaller batch, or Custom."
        )
    return int(steps)
