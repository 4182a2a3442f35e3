"""Several models continue one prompt side by side: what is asked for, and steps -> plain data."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fusion_core import errors, pipeline
from fusion_core.config import utf8
from fusion_core.config.parts import is_number
from fusion_core.errors import InputError, shown
from fusion_core.generate import Sampling, Step, check

from .glyphs import visible
from .session import Session, text_of
from .views import short_name

PAUSE = 0.15
"""Seconds between two batches, at least: the page draws no faster than it can be read."""

LARGEST_SEED = 2**31 - 1

Label = Callable[[int], str]

# What would turn the writing direction around it, or cannot be seen at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class WriteRequest:
    """All that a writing depends on.

    Attributes:
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.LABEL_FREE`.
        with_target: let the target take part in the ensemble.
        sampling: how tokens are chosen.
        trained: further models, as (title, name).
    """

    target: str
    sources: tuple[str, ...]
    prompt: str
    operator: str
    with_target: bool
    sampling: Sampling
    trained: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models: the target, the sources, those trained here."""
        return (self.target, *self.sources, *(name for _, name in self.trained))

    @property
    def voices(self) -> tuple[str, ...]:
        """Return the models that the ensemble fuses, in the order of a step's weights."""
        return (*self.sources, self.target) if self.with_target else self.sources


@dataclass(frozen=True)
class Column:
    """One writer.

    Attributes:
        title: what stands above its text.
        role: "fused", "target", "source" or "trained".
        source: its number among the sources, which chooses its colour; -1 for others.
    """

    title: str
    role: str
    source: int = -1


@dataclass(frozen=True)
class Batch:
    """What was written since the batch before.

    Attributes:
        steps: (column, step) in the order of writing; a step is ``[text, probability, entropy,
            winner, weights, token, label]``.
        ends: (column, why it ended, a sentence where it failed).
        rates: for each column, tokens a second of its own time.
    """

    steps: tuple[tuple[int, list[Any]], ...]
    ends: tuple[tuple[int, str, str], ...]
    rates: tuple[float, ...]


def request(
    session: Session,
    target: str | None,
    sources: Sequence[str] | None,
    prompt: str | None,
    *,
    operator: str = "confidence",
    with_target: bool = False,
    new_tokens: Any = 64,
    temperature: Any = 0.8,
    top_p: Any = 0.95,
    seed: Any = 0,
    trained: Sequence[tuple[str, str]] = (),
) -> WriteRequest:
    """Check what a visitor asks for, before anything is loaded.

    Args:
        session: knows the limits, and which models may be named.
        target: the model in whose tokens the ensemble writes.
        sources: the models that are fused.
        prompt: the text to continue.
        operator: one of `fuse.LABEL_FREE`.
        with_target: let the target take part in the ensemble.
        new_tokens: most tokens of each column.
        temperature: 0 takes the most probable token.
        top_p: share of the probability that is drawn from.
        seed: of the draws.
        trained: further models, as (title, name); whether they may be named is checked by the
            caller.

    Raises:
        FusionError: one sentence that says what to change.
    """
    prompt, operator = text_of("prompt", prompt), text_of("operator", operator)
    if not prompt:
        raise InputError("The prompt is empty: type what the models are to continue.")
    utf8(prompt, limit=session.limits.text_bytes)
    first, *others = session.names(target, sources)
    pipeline.check_names(first, *others, *(name for _, name in trained))
    check(operator)
    most = session.limits.new_tokens
    sampling = Sampling(
        max_new_tokens=_whole("New tokens", new_tokens, 1, most),
        temperature=_number("The temperature", temperature, "0 or more"),
        top_p=_number("Top-p", top_p, "above 0 and at most 1"),
        seed=_whole("The seed", seed, 0, LARGEST_SEED),
    )
    others_ = tuple(others)
    return WriteRequest(
        first, others_, prompt, operator, bool(with_target), sampling, tuple(trained)
    )


def _whole(what: str, value: Any, low: int, high: int) -> int:
    if not (is_number(value) and value == value // 1 and low <= value <= high):
        raise InputError(
            f"{what} must be a whole number from {low:,} to {high:,}, and is {_is(value)}: "
            "change it."
        )
    return int(value)


def _number(what: str, value: Any, wanted: str) -> float:
    if not is_number(value):
        raise InputError(f"{what} must be a number {wanted}, and is {_is(value)}: change it.")
    return float(value)


def _is(value: Any) -> str:
    return "missing" if value is None else shown(value)


def columns(asked: WriteRequest) -> tuple[Column, ...]:
    """Return the writers: the ensemble, the target, each source, each model trained here."""
    return (
        Column("Fused", "fused"),
        Column(short_name(asked.target), "target"),
        *(Column(short_name(name), "source", i) for i, name in enumerate(asked.sources)),
        *(Column(title, "trained") for title, _ in asked.trained),
    )


@cache
def prompts() -> dict[str, str]:
    """Return example prompts by name: beginnings of unseen documents of the toy domains."""
    from fusion_core import corpus

    def cut(domain: str, pattern: str) -> str:
        document = next(corpus.documents(domain, "test", seed=0))
        found = re.match(pattern, document, re.DOTALL)
        return found[0] if found else document[:120]

    return {
        "A problem": cut("reasoning", r".*?\nStep 1:"),
        "A story": cut("commonsense", r".*?[.;] \S+ \S+"),
        "A function": cut("code", r".*?\n\s+\"{3}"),
    }


def heading(asked: WriteRequest) -> str:
    """Return the first line that the page reads: who writes, and after what."""
    named = [[c.title, c.role, c.source] for c in columns(asked)]
    voices = [[short_name(n), i if i < len(asked.sources) else -1]
              for i, n in enumerate(asked.voices)]  # fmt: skip
    return _line(
        {
            "id": secrets.token_hex(8),
            "prompt": plain(asked.prompt),
            "columns": named,
            "voices": voices,
            "operator": asked.operator,
            "target": short_name(asked.target),
            "most": asked.sampling.max_new_tokens,
        }
    )


def line(batch: Batch) -> str:
    """Return a batch as a further line for the page."""
    return _line({"steps": batch.steps, "ends": batch.ends, "rates": batch.rates})


def _line(found: dict[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":")) + "\n"


def plain(text: str) -> str:
    """Return a text with signs for what would turn its direction, or cannot be seen."""
    return _UNSEEN.sub(lambda found: visible(found[0]), text)


def described(step: Step, label: Label) -> list[Any]:
    """Return a step as the page reads it."""
    return [
        plain(step.text),
        round(step.probability, 5),
        round(step.entropy, 4),
        step.winner,
        [round(w, 4) for w in step.weights],
        step.token,
        visible(label(step.token)),
    ]


def in_turn(
    writers: Sequence[Iterator[Step]], labels: Sequence[Label], *, pause: float = PAUSE
) -> Iterator[Batch]:
    """Let writers write one token each in turn, so that their texts grow side by side.

    A writer that fails ends, and the others go on.

    Args:
        writers: the columns' steps.
        labels: for each column, token id -> readable text.
        pause: seconds between two batches, at least; with 0 every token is a batch.

    Yields:
        What was written since the batch before.
    """
    running = dict(enumerate(writers))
    counts, seconds = [0] * len(writers), [0.0] * len(writers)
    steps: list[tuple[int, list[Any]]] = []
    ends: list[tuple[int, str, str]] = []
    told = -math.inf
    while running:
        for column, writer in list(running.items()):
            began = time.monotonic()
            end, sentence = "", ""
            try:
                step = next(writer)
            except Exception as error:
                said = errors.sentence(error)
                if said is None:
                    raise
                end, sentence = "failed", said
            else:
                steps.append((column, described(step, labels[column])))
                counts[column] += 1
                end = step.end
            now = time.monotonic()
            seconds[column] += now - began
            if end:
                ends.append((column, end, sentence))
                del running[column]
            if now - told >= pause or not running:
                yield Batch(tuple(steps), tuple(ends), _rates(counts, seconds))
                steps, ends, told = [], [], time.monotonic()


def _rates(counts: Sequence[int], seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(n / s, 1) if n and s else 0.0 for n, s in zip(counts, seconds, strict=True))
