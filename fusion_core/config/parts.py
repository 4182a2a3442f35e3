"""Parts of a run's settings, and the checks that they share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from fusion_core.errors import InputError, shown


@dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    Attributes:
        lm_weight: λ of the first step: 1 is plain training, 0 the fused rows alone.
        lm_weight_end: λ of the last step, with a straight line in between; None keeps λ.
        divergence: "ce" or "kl"; they differ in a constant, so that the gradient is the same.
        balance: "lambda" for λ·CLM + (1 - λ)·fusion, or "ratio" for CLM + r·fusion, where r makes
            both parts equally large and is taken as given.
        weigh_by_kept: weigh a position's fusion loss by the mass that the mapping kept there.

    Raises:
        InputError: λ lies outside [0, 1], or a name is unknown.
    """

    lm_weight: float = 0.5
    lm_weight_end: float | None = None
    divergence: str = "ce"
    balance: str = "lambda"
    weigh_by_kept: bool = False

    def __post_init__(self) -> None:
        """Check the numbers and names."""
        for name in ("lm_weight", "lm_weight_end"):
            value = getattr(self, name)
            if name == "lm_weight_end" and value is None:
                continue
            if not is_number(value) or not 0 <= value <= 1:
                raise InputError(
                    f"{name} must lie between 0 (the fused rows alone) and 1 (plain training), not "
                    f"{value!r}."
                )
        one_of("divergence", self.divergence, ("ce", "kl"))
        one_of("balance", self.balance, ("lambda", "ratio"))

    def weight_at(self, progress: float) -> float:
        """Return λ after a share of the training, from 0 to 1."""
        if self.lm_weight_end is None:
            return self.lm_weight
        return self.lm_weight + (self.lm_weight_end - self.lm_weight) * min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning (arXiv 2106.09685).

    Attributes:
        r: their rank.
        alpha: what their product is scaled by, over r.
        dropout: share of their inputs that is left out.
        target_modules: names of the layers that have one; "all-linear" for all but the last.

    Raises:
        InputError: a number is outside its range.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not is_whole(self.r) or self.r < 1:
            raise InputError(f"lora.r must be a whole number of at least 1, not {self.r!r}.")
        if not is_number(self.alpha) or not self.alpha > 0:
            raise InputError(f"lora.alpha must be a number above 0, not {self.alpha!r}.")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout must lie in [0, 1), not {self.dropout!r}.")


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuse a name that is not known.

    Raises:
        InputError: it is none of them.
    """
    if value not in known:
        raise InputError(f"There is no {name} {shown(value)}: choose one of {', '.join(known)}.")


def is_number(value: Any) -> bool:
    """Tell a finite number from all else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """Tell a whole number from all else."""
    return isinstance(value, int) and not isinstance(value, bool)
