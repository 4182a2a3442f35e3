"""What several models write side by side -> lines for the page, as plain data."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from fusion_core.generation import Step
from fusion_core.text_display import short_name, visible

from ...compute.generate import Batch
from ...requests import GenerationRequest

# What would turn the writing direction around it, or cannot be seen at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Column:
    """One writer.

    Attributes:
        title: shown above its text.
        role: "fused", "target", "source" or "trained".
        source: its number among the sources, which chooses its colour; -1 for others.
    """

    title: str
    role: str
    source: int = -1


def columns(asked: GenerationRequest) -> tuple[Column, ...]:
    """Return the writers: the ensemble, the target, each source, each model trained here."""
    return (
        Column("Fused", "fused"),
        Column(short_name(asked.target), "target"),
        *(Column(short_name(name), "source", i) for i, name in enumerate(asked.sources)),
        *(Column(title, "trained") for title, _ in asked.trained),
    )


def heading(asked: GenerationRequest) -> str:
    """Return the first line that the page reads: who writes, and after what."""
    named = [[c.title, c.role, c.source] for c in columns(asked)]
    members = [[short_name(n), i if i < len(asked.sources) else -1]
               for i, n in enumerate(asked.members)]  # fmt: skip
    return _line(
        {
            "id": secrets.token_hex(8),
            "prompt": plain(asked.prompt),
            "columns": named,
            "voices": members,
            "operator": asked.operator,
            "target": short_name(asked.target),
            "most": asked.sampling.max_new_tokens,
        }
    )


def line(batch: Batch) -> str:
    """Return a batch as a further line for the page."""
    steps = [[column, described(step, piece)] for column, step, piece in batch.steps]
    return _line({"steps": steps, "ends": batch.ends, "rates": batch.rates})


def _line(found: dict[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":")) + "\n"


def plain(text: str) -> str:
    """Return a text with signs for what would turn its direction, or cannot be seen."""
    return _UNSEEN.sub(lambda found: visible(found[0]), text)


def described(step: Step, piece: str) -> list[Any]:
    """Return a step as the page reads it.

    Returns:
        Its text, probability, entropy, winner, weights, token and the token as readable text.
    """
    return [
        plain(step.text),
        round(step.probability, 5),
        round(step.entropy, 4),
        step.winner,
        [round(w, 4) for w in step.weights],
        step.token,
        visible(piece),
    ]
