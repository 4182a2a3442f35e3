"""What a visitor asks of the models, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion_core import fuse, mapping, models, pipeline
from fusion_core.config import FusionConfig, utf8
from fusion_core.errors import InputError, shown
from fusion_core.generation import Sampling, check

from .fields import read
from .limits import Limits

ENSEMBLE_OPERATOR = "confidence"
"""How an ensemble writes where a visitor chooses nothing else."""


LONGEST_NAME = 300
"""Characters of a model's name, with the tokens around documents that it asks for."""


@dataclass(frozen=True)
class AnalysisRequest:
    """All that an analysis depends on."""

    target: str
    sources: tuple[str, ...]
    text: str
    config: FusionConfig

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models, the target first."""
        return (self.target, *self.sources)


@dataclass(frozen=True)
class GenerationRequest:
    """All that the continuations of a prompt depend on.

    Attributes:
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.label_free`.
        with_target: let the target take part in the ensemble.
        strategy: vocab mapping.
        sampling: how tokens are chosen.
        trained: further models, as (title, name).
    """

    target: str
    sources: tuple[str, ...]
    prompt: str
    operator: str
    with_target: bool
    strategy: str
    sampling: Sampling
    trained: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models: the target, the sources, those trained here."""
        return (self.target, *self.sources, *(name for _, name in self.trained))

    @property
    def fusion(self) -> dict[str, Any]:
        """Return how the models are fused, as `generation.Ensemble` is told."""
        return {
            "operator": self.operator,
            "with_target": self.with_target,
            "strategy": self.strategy,
        }

    @property
    def members(self) -> tuple[str, ...]:
        """Return the models that the ensemble fuses, in the order of a step's weights."""
        return (*self.sources, self.target) if self.with_target else self.sources


def model_names(
    limits: Limits, target: str | None, sources: Sequence[str] | None
) -> tuple[str, ...]:
    """Check which models a visitor asks for.

    Returns:
        Their names, the target first.

    Raises:
        FusionError: one sentence that says what to change.
    """
    target = _text("target", target).strip()
    if not isinstance(sources, list | tuple | None):
        raise InputError(f"sources must be a list of names, not {shown(sources)}.")
    names = tuple(s.strip() for s in (_text("sources", x) for x in sources or ()) if s.strip())
    for name in (target, *names):
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"A model's name has at most {LONGEST_NAME} characters: {shown(name)} has "
                f"{len(name):,}."
            )
    if not target:
        raise InputError("There is no target: choose the model that is to learn.")
    if not names:
        raise InputError("There is no source: choose at least one model to learn from.")
    if len(names) > limits.sources:
        raise InputError(
            f"{len(names)} sources are more than the limit of {limits.sources} on this "
            "page: remove some."
        )
    pipeline.check_names(*names)
    for name in (target, *names):
        _check_place(limits, name)
    return (target, *names)


def analysis_request(
    limits: Limits,
    target: str | None,
    sources: Sequence[str] | None,
    text: str | None,
    **options: Any,
) -> AnalysisRequest:
    """Check what a visitor asks to be read and fused.

    Args:
        limits: of this place.
        target: the model in whose tokens is fused.
        sources: the models that are fused.
        text: what they read.
        **options: of a `FusionConfig`.

    Raises:
        FusionError: one sentence that says what to change.
    """
    text = _text("text", text)
    utf8(text, limit=limits.text_bytes)
    first, *others = model_names(limits, target, sources)
    config = read(FusionConfig, options)
    fuse.operator_of(config.operator, config.level)
    mapping.strategy(config.strategy)
    return AnalysisRequest(first, tuple(others), text, config)


def generation_request(
    limits: Limits,
    target: str | None,
    sources: Sequence[str] | None,
    prompt: str | None,
    *,
    operator: str = ENSEMBLE_OPERATOR,
    with_target: bool = False,
    strategy: str = FusionConfig().strategy,
    trained: Sequence[tuple[str, str]] = (),
    **sampling: Any,
) -> GenerationRequest:
    """Check what a visitor asks to be written.

    Args:
        limits: of this place.
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.label_free`.
        with_target: let the target take part in the ensemble.
        strategy: vocab mapping; one that counts does so in the prompt.
        trained: further models, as (title, name); whether they may be named is checked by the
            caller.
        **sampling: of a `Sampling`.

    Raises:
        FusionError: one sentence that says what to change.
    """
    prompt = _text("prompt", prompt)
    if not prompt:
        raise InputError("The prompt is empty: type what the models are to continue.")
    utf8(prompt, limit=limits.text_bytes)
    first, *others = model_names(limits, target, sources)
    pipeline.check_names(first, *others, *(name for _, name in trained))
    fusion = {"operator": operator, "strategy": strategy, "with_target": with_target}
    read(FusionConfig, fusion)
    check(operator)
    mapping.strategy(strategy)
    chosen = read(Sampling, sampling, max_new_tokens=limits.new_tokens)
    return GenerationRequest(
        first, tuple(others), prompt, operator, with_target, strategy, chosen, tuple(trained)
    )


def _check_place(limits: Limits, name: str) -> None:
    """Refuse a folder where none may be read."""
    if limits.local_folders or name.startswith("zoo:"):
        return
    plain = models.split_name(name)[0]
    elsewhere = plain[:1] in ("", "/", ".", "~") or "\\" in plain or plain.count("/") != 1
    if not elsewhere and Path(plain).exists():
        # Answered as where there is no such path, also in time: the hub is asked.
        models.hub_bytes(plain)
        raise models.not_found(plain)
    if elsewhere:
        raise InputError(
            f"{name} is no model that this public page reads: choose a zoo model, or the hub "
            "id of a model as owner/name."
        )


def _text(what: str, value: Any) -> str:
    """Return a text that a visitor gave; nothing is an empty one."""
    if not isinstance(value, str | None):
        raise InputError(f"{what} must be text, not {shown(value)}.")
    return value or ""
