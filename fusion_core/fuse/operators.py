"""How much each source counts at each position; looked up by name in `OPERATORS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fusion_core.errors import InputError

LEVELS = ("sequence", "token")


@dataclass(frozen=True)
class Operator:
    """A way to weigh sources.

    Attributes:
        reference: where it comes from.
        weigh: (m, S) scores, lower is better -> (m, S) weights that sum to 1.
        score: what the scores are: "ce", the cross-entropy; "entropy" of the carried-over rows in
            nats; or "" where they do not matter.
        geometric: the fused row is the geometric mean, not the sum.
    """

    reference: str
    weigh: Callable[[torch.Tensor], torch.Tensor]
    score: str = ""
    geometric: bool = False

    @property
    def label_free(self) -> bool:
        """It does not look at the token that followed, so that it can generate text."""
        return self.score != "ce"

    @property
    def has_level(self) -> bool:
        """Its scores are of the whole document or of each token, as it is asked."""
        return self.score == "ce"


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Give all weight to the source with the lowest score; ties go to the earlier one."""
    best = torch.as_tensor(np.argmin(scores.cpu().numpy(), axis=1), device=scores.device)
    return torch.nn.functional.one_hot(best, scores.shape[1]).to(scores.dtype)


def soft(scores: torch.Tensor) -> torch.Tensor:
    """Weigh sources by softmax(-score)."""
    return torch.softmax(-scores, dim=1)


def even(scores: torch.Tensor) -> torch.Tensor:
    """Give every source the same weight."""
    return torch.full_like(scores, 1 / scores.shape[1])


OPERATORS: dict[str, Operator] = {
    "min_ce": Operator("MinCE of FuseLLM, arXiv 2401.10491", lowest, "ce"),
    "avg_ce": Operator("AvgCE of FuseLLM, arXiv 2401.10491, with one softmax", soft, "ce"),
    "confidence": Operator("softmax of the negative entropy, FuseLab", soft, "entropy"),
    "mean": Operator("linear opinion pool", even),
    "product": Operator("product of experts, Hinton 2002, normalised", even, geometric=True),
}
"""Fusion operators by name.

Cross-entropies are bits per byte of the whole document at level "sequence", nats of the
carried-over row on the token that followed at level "token"; the other operators have no level.
"""

LABEL_FREE = tuple(name for name, operator in OPERATORS.items() if operator.label_free)
"""Operators that can generate text."""


def check(operator: str, level: str) -> None:
    """Check the names of an operator and a level.

    Raises:
        InputError: there is no such operator or level.
    """
    if operator not in OPERATORS:
        raise InputError(
            f"There is no operator called {operator!r}: choose one of {', '.join(OPERATORS)}."
        )
    if level not in LEVELS:
        raise InputError(f"There is no level called {level!r}: choose one of {', '.join(LEVELS)}.")
