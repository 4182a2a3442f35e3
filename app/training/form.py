"""What a visitor fills in for a training, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fusion_core import corpus
from fusion_core.config import is_number, is_whole, one_of
from fusion_core.errors import InputError, shown

from ..limits import Limits

LARGEST_BATCH = 256


@dataclass(frozen=True)
class Preset:
    """Sane values of a form.

    Attributes:
        seconds: for all parts together; None where the visitor gives the steps.
        kilobytes: of toy text.
    """

    seconds: int | None
    kilobytes: int


PRESETS = {
    "60 seconds on a CPU": Preset(60, 60),
    "5 minutes on a GPU": Preset(300, 600),
    "Custom": Preset(None, 60),
}
DOMAINS = {name.capitalize(): name for name in corpus.DOMAINS}


@dataclass(frozen=True)
class Form:
    """What a visitor filled in, not checked yet; numbers may be anything that a page sends."""

    target: str
    sources: tuple[str, ...]
    fusion: dict[str, Any] = field(default_factory=dict)
    preset: str = "Custom"
    domains: tuple[str, ...] = tuple(DOMAINS)
    kilobytes: Any = 60
    text: str = ""
    file: str | None = None
    steps: Any = 100
    lm_weight: Any = 0.1
    lora: bool = False
    learning_rate: Any = 5e-4
    batch_size: Any = 4
    baseline: bool = True
    seed: Any = 0


def check(form: Form, limits: Limits) -> None:
    """Check the numbers before anything is read; models are checked by `requests`.

    Raises:
        FusionError: one sentence that says what to change.
    """
    one_of("preset", form.preset, tuple(PRESETS))
    if PRESETS[form.preset].seconds is None:
        _whole("Steps", form.steps, 1, limits.steps)
    for domain in form.domains:
        one_of("toy domain", domain, tuple(DOMAINS))
    if form.domains:
        _whole("KB of toy text", form.kilobytes, 1, limits.data_bytes // 1000)
    _whole("Batch", form.batch_size, 1, LARGEST_BATCH)
    _whole("Seed", form.seed, 0, 2**32 - 1)
    _number("λ", form.lm_weight, 0, 1)
    _number("Learning rate", form.learning_rate, 1e-9, 1)
    if not form.domains and not (form.text or "").strip() and not form.file:
        raise InputError("There is nothing to read: choose a toy domain, or give a text.")


def _whole(name: str, value: Any, low: int, high: int) -> None:
    if not (is_whole(value) and low <= value <= high):
        raise InputError(
            f"{name} must be a whole number from {low:,} to {high:,}, not {shown(value)}."
        )


def _number(name: str, value: Any, low: float, high: float) -> None:
    if not (is_number(value) and low <= value <= high):
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {shown(value)}.")
