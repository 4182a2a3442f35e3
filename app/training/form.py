"""What a visitor fills in for a training, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from fusion_core import corpus
from fusion_core.config import Count, RunConfig, Settings, one_of
from fusion_core.errors import InputError

from ..fields import read
from ..limits import Limits


class ShortRun(Settings):
    """What a form alone asks for."""

    kilobytes: Count = Field(default=60, description="how many KB of all toy domains together")
    steps: Count = Field(default=100, description="how many optimizer steps each part takes")


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
    kilobytes: Any = ShortRun().kilobytes
    text: str = ""
    file: str | None = None
    steps: Any = ShortRun().steps
    lm_weight: Any = 0.1
    lora: bool = False
    learning_rate: Any = 5e-4
    batch_size: Any = RunConfig.model_fields["batch_size"].default
    baseline: bool = True
    seed: Any = RunConfig.model_fields["seed"].default


def check(form: Form, limits: Limits) -> None:
    """Check what a form alone asks for; models are checked by `requests`, settings by `plan`.

    Raises:
        FusionError: one sentence that says what to change.
    """
    one_of("preset", form.preset, tuple(PRESETS))
    if PRESETS[form.preset].seconds is None:
        read(ShortRun, {"steps": form.steps}, steps=limits.steps)
    if len(form.domains) > len(DOMAINS):
        raise InputError(f"There are {len(DOMAINS)} toy domains: name each once.")
    for domain in form.domains:
        one_of("toy domain", domain, tuple(DOMAINS))
    if len(set(form.domains)) < len(form.domains):
        raise InputError("A toy domain is named twice: name each once.")
    if form.domains:
        read(ShortRun, {"kilobytes": form.kilobytes}, kilobytes=limits.data_bytes // 1000)
    if not form.domains and not (form.text or "").strip() and not form.file:
        raise InputError("There is nothing to read: choose a toy domain, or give a text.")
