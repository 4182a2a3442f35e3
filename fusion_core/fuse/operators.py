"""How much each source counts at each position, and how the rows are combined.

An operator is an entry of `OPERATORS`: an object that says of itself whatever a page, a command or
another room needs to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fusion_core.errors import FusionError, InputError

LEVELS = ("sequence", "token")


@dataclass(frozen=True)
class Measures:
    """What sources can be scored by at m positions, (m, S) each; lower is better.

    Attributes:
        token_ce: makes the cross-entropy of each projected row on the token that followed, nats.
        sequence_ce: makes the bits per byte of each source on the whole document.
        entropy: makes the entropy of each projected row, nats.
        top: makes the largest probability of each projected row.
    """

    token_ce: Callable[[], torch.Tensor]
    sequence_ce: Callable[[], torch.Tensor]
    entropy: Callable[[], torch.Tensor]
    top: Callable[[], torch.Tensor]


class ScoreInputs:
    """What an operator may score sources by, worked out when it asks for it: (m, S) each.

    An operator that calls itself label-free is given nothing that knows the token that followed.
    """

    def __init__(self, measures: Measures, operator: Operator, level: str) -> None:
        """Work out nothing yet.

        Args:
            measures: of the sources.
            operator: who asks.
            level: "sequence" or "token".
        """
        self._measures, self._operator, self._level = measures, operator, level

    @cached_property
    def cross_entropy(self) -> torch.Tensor:
        """Cross-entropy at the level that was asked for.

        Raises:
            FusionError: the operator is declared as one that sees no label, or has no level.
        """
        if self._operator.label_free or not self._operator.has_level:
            raise FusionError(
                "An operator that scores by cross-entropy must be declared with label_free=False "
                "and has_level=True."
            )
        by_token = self._level == "token"
        return self._measures.token_ce() if by_token else self._measures.sequence_ce()

    @cached_property
    def entropy(self) -> torch.Tensor:
        """Entropy of each projected row, nats."""
        return self._measures.entropy()

    @cached_property
    def top_probability(self) -> torch.Tensor:
        """Largest probability of each projected row."""
        return self._measures.top()

    @cached_property
    def alike(self) -> torch.Tensor:
        """Zeros: no source is better than another."""
        return torch.zeros_like(self._measures.token_ce())


@dataclass(frozen=True)
class Combination:
    """A weighted mean of probabilities other than their sum: g⁻¹(Σ w g(q)), then normalised.

    It must be homogeneous, mean(c q) = c mean(q), as all powers and the logarithm are, so that
    tokens which no source names can be combined by the target's share alone.

    Attributes:
        forward: g, of probabilities.
        inverse: g⁻¹.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    inverse: Callable[[torch.Tensor], torch.Tensor]

    def terms(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return w g(q), and 0 where a weight is 0, whatever g makes of the value."""
        return torch.where(weights > 0, weights * self.forward(values), 0)

    def mean(self, weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return (n,) means, not normalised, of values (n, S) with weights (n, S)."""
        return self.inverse(self.terms(weights, values).sum(1))


GEOMETRIC = Combination(torch.log, torch.exp)


@dataclass(frozen=True)
class Operator:
    """A way to fuse the rows of several sources.

    Attributes:
        reference: where it comes from.
        score: `ScoreInputs` -> (m, S) scores, lower is better.
        weigh: (m, S) scores -> (m, S) weights that sum to 1.
        label_free: it does not look at the token that followed, so that it can generate text.
        has_level: it scores whole documents or single tokens, as it is asked to.
        combine: how rows are combined; None for their weighted sum.
    """

    reference: str
    score: Callable[[ScoreInputs], torch.Tensor]
    weigh: Callable[[torch.Tensor], torch.Tensor]
    label_free: bool
    has_level: bool
    combine: Combination | None = None

    def weights(self, measures: Measures, level: str, temperature: float = 1.0) -> torch.Tensor:
        """Weigh sources: (m, S).

        Args:
            measures: of the sources.
            level: "sequence" or "token".
            temperature: what scores are divided by.
        """
        return self.weigh(self.score(ScoreInputs(measures, self, level)) / temperature)

    def level(self, asked: str) -> str:
        """Return the level at which it decides when asked for one; "" where it has none."""
        return asked if self.has_level else ""

    def sees_token(self, level: str) -> bool:
        """Tell whether it looks at each token before it chooses that token's row."""
        return not self.label_free and self.level(level) != "sequence"


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Give all weight to the source with the lowest score; ties go to the earlier one."""
    best = torch.as_tensor(np.argmin(scores.cpu().numpy(), axis=1), device=scores.device)
    return torch.nn.functional.one_hot(best, scores.shape[1]).to(scores.dtype)


def soft(scores: torch.Tensor) -> torch.Tensor:
    """Weigh sources by softmax(-score)."""
    return torch.softmax(-scores, dim=1)


def cross_entropy(inputs: ScoreInputs) -> torch.Tensor:
    """Score by cross-entropy."""
    return inputs.cross_entropy


def entropy(inputs: ScoreInputs) -> torch.Tensor:
    """Score by entropy."""
    return inputs.entropy


def alike(inputs: ScoreInputs) -> torch.Tensor:
    """Score all sources alike."""
    return inputs.alike


OPERATORS: dict[str, Operator] = {
    "min_ce": Operator(
        "MinCE of FuseLLM, arXiv 2401.10491",
        cross_entropy,
        lowest,
        label_free=False,
        has_level=True,
    ),
    "avg_ce": Operator(
        "AvgCE of FuseLLM, arXiv 2401.10491, with one softmax",
        cross_entropy,
        soft,
        label_free=False,
        has_level=True,
    ),
    "confidence": Operator(
        "softmax of the negative entropy, FuseLab", entropy, soft, label_free=True, has_level=False
    ),
    "mean": Operator("linear opinion pool", alike, soft, label_free=True, has_level=False),
    "product": Operator(
        "product of experts, Hinton 2002, normalised",
        alike,
        soft,
        label_free=True,
        has_level=False,
        combine=GEOMETRIC,
    ),
}
"""Fusion operators by name.

Cross-entropies are bits per byte of the whole document at level "sequence", nats of the projected
row on the token that followed at level "token"; the other operators have no level.
"""


def label_free() -> tuple[str, ...]:
    """Name the operators that can generate text."""
    return tuple(name for name, operator in OPERATORS.items() if operator.label_free)


def operator_of(name: str, level: str = "sequence") -> Operator:
    """Look an operator up by name.

    Raises:
        InputError: there is no such operator or level.
    """
    if name not in OPERATORS:
        raise InputError(
            f"There is no operator called {name!r}: choose one of {', '.join(OPERATORS)}."
        )
    if level not in LEVELS:
        raise InputError(f"There is no level called {level!r}: choose one of {', '.join(LEVELS)}.")
    return OPERATORS[name]
