"""How far a model's row is from a fused row, and how that joins the loss on the text.

A fused row of k ids has k + 1 buckets, P: each id, and all that it does not name. Q is the model's
probability of each. A divergence is one function of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion_core.config import Objective
from fusion_core.records import SparseRows

FLOOR = 1e-9
"""Least probability of a fused row's bucket where its logarithm is taken."""


@dataclass(frozen=True, eq=False)
class Buckets:
    """Buckets of n fused rows.

    Attributes:
        log_q: (n, k) nats, what the model gives the ids; far below 0 for those that are absent.
        log_rest: (n,) nats, what it gives all others together.
        probs: (n, k) of the rows; 0 for ids that are absent.
        tail: (n,) of the rows.
    """

    log_q: Tensor
    log_rest: Tensor
    probs: Tensor
    tail: Tensor


@dataclass(frozen=True, eq=False)
class Pull:
    """A divergence of n rows, and its derivatives by the logarithms of Q, with the sign changed.

    Attributes:
        nats: (n,) the divergence.
        named: (n, k) of the ids.
        outside: (n,) of the bucket of all others.
        mass: (n,) sum of both.
    """

    nats: Tensor
    named: Tensor
    outside: Tensor
    mass: Tensor


def cross_entropy(b: Buckets) -> Pull:
    """Lose -Σ P·log Q, which is forward KL and the entropy of the row."""
    nats = -(b.probs * b.log_q).sum(1) - b.tail * b.log_rest
    return Pull(nats, b.probs, b.tail, torch.ones_like(nats))


def reverse_kl(b: Buckets) -> Pull:
    """Lose Σ Q·log(Q / P): the model leaves what the row holds unlikely, and may leave out more."""
    apart = b.log_q - b.probs.clamp(min=FLOOR).log()  # (n, k)
    rest_apart = b.log_rest - b.tail.clamp(min=FLOOR).log()
    q, rest = b.log_q.exp(), b.log_rest.exp()
    nats = (q * apart).sum(1) + rest * rest_apart
    named = -q * (apart - nats[:, None])  # of log Q: the sum of Q stays 1
    return Pull(nats, named, -rest * (rest_apart - nats), torch.zeros_like(nats))


def either(
    first: Tensor, one: Callable[[Buckets], Pull], other: Callable[[Buckets], Pull]
) -> Callable[[Buckets], Pull]:
    """Make a divergence that is one where ``first`` (n,) is true, and another elsewhere."""
    if one is other:
        return one

    def chosen(b: Buckets) -> Pull:
        x, y = one(b), other(b)
        return Pull(
            torch.where(first, x.nats, y.nats),
            torch.where(first[:, None], x.named, y.named),
            torch.where(first, x.outside, y.outside),
            torch.where(first, x.mass, y.mass),
        )

    return chosen


def entropy(rows: SparseRows) -> Tensor:
    """Return (n,) nats, of each row with its tail as one bucket: what KL is less than CE."""
    parts = torch.cat([rows.probs, rows.tail[:, None]], dim=1)
    return torch.special.entr(parts.clamp(min=0)).sum(1)


@dataclass(frozen=True)
class Divergence:
    """How far a model's row is from a fused row, and the paper that this comes from."""

    reference: str
    nats: Callable[[Tensor, SparseRows], Tensor]
    """(n,) what the buckets lose, and the fused rows -> (n,) nats."""

    pull: Callable[[Buckets], Pull] = cross_entropy
    """What the buckets lose, and its derivatives."""

    @property
    def is_kl(self) -> bool:
        """Whether what the buckets lose is 0 where both rows are equal."""
        return self.pull is not cross_entropy


DIVERGENCES = {
    "ce": Divergence("FuseLLM, arXiv 2401.10491", lambda ce, rows: ce),
    "kl": Divergence("FuseLLM, arXiv 2401.10491", lambda ce, rows: ce - entropy(rows)),
    "reverse_kl": Divergence("MiniLLM, arXiv 2306.08543", lambda kl, rows: kl, reverse_kl),
}
"""By name; the gradient of ce and kl is the same, as they differ in a constant."""


@dataclass(frozen=True)
class Balance:
    """How the two parts of the loss are joined, and the paper that this comes from."""

    reference: str
    join: Callable[[Tensor, Tensor, float], Tensor]
    """() means of both parts in nats, and λ -> () nats."""


def weighted(clm: Tensor, fusion: Tensor, lm_weight: float) -> Tensor:
    """Return λ·CLM + (1 - λ)·fusion."""
    return lm_weight * clm + (1 - lm_weight) * fusion


def equal(clm: Tensor, fusion: Tensor, lm_weight: float) -> Tensor:
    """Make both parts equally large, by a ratio that is taken as given; λ has no part in it."""
    ratio = clm.detach() / fusion.detach().clamp(min=1e-6)
    return clm + ratio * fusion


BALANCES = {
    "lambda": Balance("FuseLLM, arXiv 2401.10491", weighted),
    "ratio": Balance("FuseLab", equal),
}


def total(objective: Objective, clm: Tensor, fusion: Tensor, progress: float) -> Tensor:
    """Join the two parts of the loss.

    Args:
        objective: how.
        clm: () nats, a mean over tokens.
        fusion: () nats, a mean over the same tokens.
        progress: share of the training that is behind, from 0 to 1.
    """
    return BALANCES[objective.balance].join(clm, fusion, objective.weight_at(progress))


# Positions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """By what positions are chosen to be taught, and the paper that this comes from."""

    reference: str
    score: Callable[[Tensor, Tensor], Tensor]
    """(n,) nats of the model's entropy and of its KL divergence from the rows -> (n,)."""


CHOICES = {
    "entropy": Choice("arXiv 2602.01395", lambda entropy, apart: entropy),
    "disagreement": Choice("FuseLab", lambda entropy, apart: apart),
}


def chosen_weight(weight: Tensor, score: Tensor, share: float) -> Tensor:
    """Keep the weight of the positions with the highest scores; it sums to as much as before.

    Args:
        weight: (n,) of the fusion loss.
        score: (n,) by which positions are chosen.
        share: of the positions with a weight, at least one.
    """
    taught = weight > 0
    keep = max(1, round(share * int(taught.sum())))
    if share >= 1 or keep >= int(taught.sum()):
        return weight
    order = score.detach().masked_fill(~taught, -torch.inf).argsort(descending=True, stable=True)
    kept = torch.zeros_like(weight)
    kept[order[:keep]] = weight[order[:keep]]
    return kept * (weight.sum() / kept.sum())
