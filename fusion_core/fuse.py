"""Rows of several sources -> one fused row a position.

An operator says how much each source counts at each position; the fused row is the weighted sum of
the carried-over rows. Operators are looked up by name in `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .errors import InputError
from .records import FusedRows, ProjectedRows, RowKind, SparseRows

LEVELS = ("sequence", "token")
FLOOR = 1e-9
"""What a probability of zero counts as in a cross-entropy."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What an operator weighs sources by.

    Attributes:
        ce: (m, S) cross-entropies. At level "sequence" every row holds the sources' native bits per
            byte on the document; at level "token" nats of the carried-over row on the token that
            follows.
    """

    ce: torch.Tensor


def min_ce(scores: Scores) -> torch.Tensor:
    """Give all weight to the source with the lowest cross-entropy; ties go to the earlier one.

    Source: MinCE of FuseLLM (arXiv 2401.10491).
    """
    best = torch.as_tensor(np.argmin(scores.ce.cpu().numpy(), axis=1), device=scores.ce.device)
    return torch.nn.functional.one_hot(best, scores.ce.shape[1]).to(scores.ce.dtype)


def avg_ce(scores: Scores) -> torch.Tensor:
    """Weigh sources by softmax(-CE): bits per byte at sequence level, nats at token level.

    Source: AvgCE of FuseLLM (arXiv 2401.10491), with comparable cross-entropies and one softmax.
    """
    return torch.softmax(-scores.ce, dim=1)


def mean(scores: Scores) -> torch.Tensor:
    """Give every source the same weight; the level does not matter."""
    return torch.full_like(scores.ce, 1 / scores.ce.shape[1])


OPERATORS: dict[str, Callable[[Scores], torch.Tensor]] = {
    "min_ce": min_ce,
    "avg_ce": avg_ce,
    "mean": mean,
}
"""Fusion operators: `min_ce`, `avg_ce` (FuseLLM, 2401.10491) and `mean`."""


def cross_entropy(probs: torch.Tensor, observed: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Score rows on the tokens that followed.

    Args:
        probs: (m, vocabulary) probabilities.
        observed: (m,) int64 token ids.

    Returns:
        (m,) cross-entropies in nats, and how many probabilities were zero and floored at 1e-9.
    """
    p = probs.gather(1, observed[:, None])[:, 0]
    return -torch.where(p > 0, p, FLOOR).log(), int((p <= 0).sum())


def sparsify(probs: torch.Tensor, k: int, temperature: float = 1.0) -> SparseRows:
    """Keep the k most probable tokens of each row of (m, vocabulary), the rest as one bucket."""
    size = probs.shape[1]
    top, ids = probs.topk(min(k, size), dim=1)
    tail = (1 - top.sum(1)).clamp(min=0) if k < size else top.new_zeros(len(top))
    return SparseRows(ids, top, tail, size, temperature)


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


def fuse(
    projected: Sequence[ProjectedRows],
    observed: torch.Tensor,
    sequence_ce: Sequence[float],
    *,
    operator: str = "min_ce",
    level: str = "sequence",
    top_k: int = 10,
) -> FusedRows:
    """Fuse the carried-over rows of S sources.

    Args:
        projected: S sources' rows on the same m positions of the target.
        observed: (m,) int64, the target's tokens that the rows predict.
        sequence_ce: S native bits per byte on the document; used at level "sequence".
        operator: name in `OPERATORS`.
        level: "sequence" or "token".
        top_k: tokens kept of a fused row.

    Returns:
        m fused rows; each sums to 1 with its tail.

    Raises:
        InputError: there is no such operator or level, or no source.
    """
    check(operator, level)
    if not projected:
        raise InputError("There is nothing to fuse: name at least one source.")
    if level == "token":
        ce = torch.stack([cross_entropy(p.probs, observed)[0] for p in projected], dim=1)
    else:
        ce = projected[0].probs.new_tensor(list(sequence_ce)).expand(len(observed), -1)
    weights = OPERATORS[operator](Scores(ce))
    fused = torch.zeros_like(projected[0].probs)
    for j, rows in enumerate(projected):
        fused += weights[:, j : j + 1] * rows.probs
    winner = weights.argmax(dim=1)
    alone = (weights == weights.max(dim=1, keepdim=True).values).sum(dim=1) == 1
    spoke = torch.as_tensor(
        np.stack([p.kind != RowKind.NONE for p in projected], axis=1), device=winner.device
    )
    winner = torch.where(alone & spoke.gather(1, winner[:, None])[:, 0], winner, -1)
    return FusedRows(
        rows=sparsify(fused, top_k),
        sources=tuple(p.source for p in projected),
        weights=weights,
        winner=winner,
        entropy=torch.special.entr(fused).sum(1),
        observed_logprob=-cross_entropy(fused, observed)[0],
    )
