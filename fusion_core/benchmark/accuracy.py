"""Accuracy: how many of some questions were answered rightly, beside what chance would do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.05
"""Probability below which luck is no explanation."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on a task.

    Attributes:
        right: number of questions that were answered rightly.
        number: of questions, at least one.
        chance: share that is right without any knowledge, 0 to 1: of choices one in so many, of
            free answers those that equal the most frequent one.
    """

    right: int
    number: int
    chance: float

    @property
    def share(self) -> float:
        """Share of right answers."""
        return self.right / self.number

    @property
    def stderr(self) -> float:
        """Standard error of the share.

        That of two more right and two more wrong answers (Agresti and Coull 1998), so that none or
        all of a few questions are not taken for certain.
        """
        number = self.number + 4
        share = (self.right + 2) / number
        return math.sqrt(share * (1 - share) / number)

    @property
    def above_chance(self) -> bool:
        """Whether chance would answer as many rightly less than once in twenty times.

        The exact binomial test, one-sided.
        """
        if self.chance >= 1:
            return False
        tail = sum(
            math.comb(self.number, k) * self.chance**k * (1 - self.chance) ** (self.number - k)
            for k in range(self.right, self.number + 1)
        )
        return tail < LEVEL

    def to_report(self) -> dict[str, Any]:
        """Return the figures under the names of the command line."""
        return {
            "accuracy": self.share,
            "stderr": self.stderr,
            "chance": self.chance,
            "above_chance": self.above_chance,
            "questions": self.number,
        }


def constant(answers: Sequence[str]) -> float:
    """Return the accuracy of always giving the most frequent of some tasks' right answers."""
    return max(Counter(answers).values()) / len(answers)
