"""The loss of logits at every position, from sparse fused rows and one pass over the logits.

The gradient of both parts is one softmax, scaled by row, and k + 1 corrections a row. It is worked
out in the backward pass, a few rows at a time, so that no copy of the logits in another type or of
their softmax is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fusion_core.errors import FusionError
from fusion_core.records import SparseRows

from .divergences import Buckets, Pull, cross_entropy

IGNORED = -100
"""Label of a position that predicts nothing."""

ABSENT = -1e4
"""Log-probability of an id that a row has not: what it is multiplied with is 0."""

CELLS = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Logits that are worked on at once: what a processor's cache holds, or a small part of a card."""

HEAD_CELLS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""The same where they are first multiplied out of hidden states."""


@dataclass(frozen=True, eq=False)
class TokenLosses:
    """What a model loses at every position.

    Attributes:
        clm: (n,) nats, cross-entropy on the token that followed; 0 where the label is ignored.
        fusion: (n,) nats, the divergence from the fused row; 0 without rows.
        entropy: (n,) nats of the model's row, without a gradient; 0 where it is not asked for.
    """

    clm: Tensor
    fusion: Tensor
    entropy: Tensor


Pulls = Callable[[Buckets], Pull]
"""What a row's buckets lose, and where to that pulls the logits; see `divergences`."""


def token_losses(
    logits: Tensor,
    labels: Tensor,
    rows: SparseRows | None = None,
    *,
    pulls: Pulls = cross_entropy,
    with_entropy: bool = False,
) -> TokenLosses:
    """Score logits against the tokens that followed and against fused rows.

    Args:
        logits: (n, vocabulary) of any floating type; row i predicts label i.
        labels: (n,) int64, the token *after* each position, or `IGNORED`.
        rows: n fused rows; ids of -1 stand for nothing.
        pulls: the divergence from them.
        with_entropy: whether the entropy of the logits is wanted.

    Returns:
        Losses in float32, or float64 for such logits, differentiable once with regard to the
        logits.

    Raises:
        FusionError: the shapes do not agree, or a row names an id that the logits have not.
    """
    _check(len(logits), logits.shape[-1], labels, rows)
    return TokenLosses(*_OfLogits.apply(logits, _Targets(labels, rows, pulls, with_entropy)))


def token_losses_of_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    rows: SparseRows | None = None,
    *,
    pulls: Pulls = cross_entropy,
    with_entropy: bool = False,
) -> TokenLosses:
    """Score hidden states, whose logits are never held all at once.

    It equals `token_losses` of ``hidden @ weight.T + bias``, with one more product of that kind in
    the backward pass.

    Args:
        hidden: (n, width).
        weight: (vocabulary, width) of the model's output layer.
        bias: (vocabulary,) or None.
        labels: as in `token_losses`.
        rows: as in `token_losses`.
        pulls: as in `token_losses`.
        with_entropy: as in `token_losses`.
    """
    _check(len(hidden), len(weight), labels, rows)
    targets = _Targets(labels, rows, pulls, with_entropy)
    return TokenLosses(*_OfHead.apply(hidden, weight, bias, targets))


# The gradient ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the losses need of the logits of n rows.

    Attributes:
        lse: (n,) logsumexp.
        lse_t: (n,) the same of the logits over the temperature.
        at_label: (n,) logits of the labels.
        z_k: (n, k) logits over the temperature of the ids that the rows name, or None.
        entropy: (n,) nats, or 0.
    """

    lse: Tensor
    lse_t: Tensor
    at_label: Tensor
    z_k: Tensor | None
    entropy: Tensor


class _Targets:
    """Labels and rows, and what follows from them and the logits."""

    def __init__(
        self, labels: Tensor, rows: SparseRows | None, pulls: Pulls, with_entropy: bool
    ) -> None:
        self._pulls, self._with_entropy = pulls, with_entropy
        self.ignored = labels == IGNORED
        self.labels = labels.masked_fill(self.ignored, 0)[:, None]
        self.rows = rows
        self.temperature = 1.0 if rows is None else rows.temperature
        if rows is not None:
            # What is absent repeats the row's first id, so that its gradient is written twice.
            self.absent = rows.ids < 0
            self.empty = self.absent.all(1, keepdim=True)
            self.ids = torch.where(self.absent, rows.ids[:, :1].clamp(min=0), rows.ids)

    def see(self, z: Tensor, at: slice) -> _Seen:
        """Read rows ``at`` of the logits, (c, V)."""
        lse = lse_t = z.logsumexp(1)  # (c,)
        uncertain = torch.zeros_like(lse)
        if self._with_entropy:
            uncertain = lse - (torch.softmax(z, 1) * z).sum(1)
        z_k = None if self.rows is None else z.gather(1, self.ids[at])
        if self.temperature != 1 and z_k is not None:
            lse_t, z_k = (z / self.temperature).logsumexp(1), z_k / self.temperature
        return _Seen(lse, lse_t, z.gather(1, self.labels[at])[:, 0], z_k, uncertain)

    def losses(self, seen: _Seen) -> tuple[Tensor, Tensor]:
        """Return (n,) of both parts."""
        clm = (seen.lse - seen.at_label).masked_fill(self.ignored, 0)  # (n,)
        if self.rows is None or seen.z_k is None:
            return clm, torch.zeros_like(clm)
        return clm, self._pull(seen).nats

    def _pull(self, seen: _Seen) -> Pull:
        """Ask the divergence of the rows' buckets."""
        assert self.rows is not None and seen.z_k is not None
        logprobs = (seen.z_k - seen.lse_t[:, None]).masked_fill(self.absent, ABSENT)  # (n, k)
        rest = self._rest(seen)[0]
        return self._pulls(Buckets(logprobs, rest.log(), self.rows.probs, self.rows.tail))

    def factors(self, seen: _Seen, of_clm: Tensor, of_fusion: Tensor) -> _Factors:
        """Return what the gradient is made of, given that of the losses (n,)."""
        of_clm = of_clm.masked_fill(self.ignored, 0)
        if self.rows is None or seen.z_k is None:
            return _Factors(of_clm, None, None)
        of_fusion = of_fusion / self.temperature
        rest, counts = self._rest(seen)
        pull = self._pull(seen)
        # Where the rest cannot be told from 0, the bucket has no gradient.
        share = torch.where(counts, pull.outside / rest, 0)  # (n,)
        mass = torch.where(counts, pull.mass, pull.mass - pull.outside)
        q_k = torch.exp(seen.z_k - seen.lse_t[:, None])  # (n, k)
        towards = torch.where(self.absent, pull.named[:, :1], pull.named)
        named = of_fusion[:, None] * (mass[:, None] * q_k - towards)
        outside = (of_fusion * (mass - share)).masked_fill(self.empty[:, 0], 0)
        return _Factors(of_clm, outside, named.masked_fill(self.empty, 0))

    def gradient(self, z: Tensor, at: slice, by: _Factors) -> Tensor:
        """Return (c, V), the gradient of rows ``at`` of the logits."""
        of_clm, q = by.of_clm[at, None], torch.softmax(z, 1)  # (c, 1), (c, V)
        if by.outside is None or by.named is None:
            grad = q.mul_(of_clm)
        else:
            named = q.gather(1, self.ids[at]).mul_(of_clm).add_(by.named[at])
            outside = by.outside[at, None]  # (c, 1)
            if self.temperature == 1:
                grad = q.mul_(of_clm + outside)
            else:
                grad = torch.softmax(z / self.temperature, 1).mul_(outside).addcmul_(q, of_clm)
            # Written, not added: the large parts of both would cancel badly.
            grad.scatter_(1, self.ids[at], named)
        return grad.scatter_add_(1, self.labels[at], -of_clm)

    def _rest(self, seen: _Seen) -> tuple[Tensor, Tensor]:
        """Return 1 - Σ_k Q_k, and where it can be told from 0."""
        assert seen.z_k is not None
        least = torch.finfo(seen.z_k.dtype).eps
        z_k = seen.z_k.masked_fill(self.absent, -torch.inf)
        log_inside = torch.logsumexp(z_k, 1) - seen.lse_t
        return -torch.expm1(log_inside.clamp(max=-least)), log_inside < -least


@dataclass(frozen=True, eq=False)
class _Factors:
    """What the gradient of the logits is made of.

    Attributes:
        of_clm: (n,) factor of softmax(z), and taken from the labels.
        outside: (n,) factor of softmax(z / T) for all other ids, or None without rows.
        named: (n, k) what the ids of the rows have of the fusion loss, or None.
    """

    of_clm: Tensor
    outside: Tensor | None
    named: Tensor | None


def _check(n: int, size: int, labels: Tensor, rows: SparseRows | None) -> None:
    if len(labels) != n or (rows is not None and (len(rows) != n or rows.vocab_size > size)):
        shown = None if rows is None else (len(rows), rows.vocab_size)
        raise FusionError(
            f"Logits of {n} positions and {size} ids do not fit {len(labels)} labels and fused "
            f"rows of (positions, ids) {shown}."
        )


def _slices(n: int, size: int, cells: dict[str, int], device: torch.device) -> Iterator[slice]:
    step = max(1, cells.get(device.type, cells["cuda"]) // max(1, size))
    return (slice(first, min(first + step, n)) for first in range(0, max(n, 1), step))


def _wide(z: Tensor) -> Tensor:
    return z if z.dtype in (torch.float32, torch.float64) else z.float()


def _see(targets: _Targets, parts: Iterator[slice], logits: Callable[[slice], Tensor]) -> _Seen:
    """Read all rows, a few at a time."""
    seen = [targets.see(logits(at), at) for at in parts]
    lse, lse_t, at_label, uncertain = (
        torch.cat([getattr(s, name) for s in seen])
        for name in ("lse", "lse_t", "at_label", "entropy")
    )
    named = [s.z_k for s in seen if s.z_k is not None]
    return _Seen(lse, lse_t, at_label, torch.cat(named) if named else None, uncertain)


class _OfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: _Targets) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits)
        ctx.targets = targets
        n, size = logits.shape
        parts = _slices(n, size, CELLS, logits.device)
        ctx.seen = _see(targets, parts, lambda at: _wide(logits[at]))
        ctx.mark_non_differentiable(ctx.seen.entropy)
        return *targets.losses(ctx.seen), ctx.seen.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_clm: Tensor, of_fusion: Tensor, _: Any) -> tuple[Tensor, None]:
        (logits,) = ctx.saved_tensors
        by = ctx.targets.factors(ctx.seen, of_clm, of_fusion)
        grad = torch.empty_like(logits)
        n, size = logits.shape
        for at in _slices(n, size, CELLS, logits.device):
            grad[at] = ctx.targets.gradient(_wide(logits[at]), at, by)
        return grad, None


class _OfHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: _Targets
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(hidden, weight, bias)
        ctx.targets = targets
        parts = _slices(len(hidden), len(weight), HEAD_CELLS, hidden.device)
        ctx.seen = _see(targets, parts, _OfHead.logits(hidden, weight, bias))
        ctx.mark_non_differentiable(ctx.seen.entropy)
        return *targets.losses(ctx.seen), ctx.seen.entropy

    @staticmethod
    def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[[slice], Tensor]:
        like = hidden.dtype  # under autocast the weights are kept wider than what they act on
        narrow, more = weight.to(like), None if bias is None else bias.to(like)
        return lambda at: _wide(torch.nn.functional.linear(hidden[at], narrow, more))

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_clm: Tensor, of_fusion: Tensor, _: Any
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        hidden, weight, bias = ctx.saved_tensors
        by = ctx.targets.factors(ctx.seen, of_clm, of_fusion)
        logits, narrow = _OfHead.logits(hidden, weight, bias), weight.to(hidden.dtype)
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros_like(weight, dtype=ctx.seen.lse.dtype)
        of_bias = None if bias is None else torch.zeros_like(bias, dtype=of_weight.dtype)
        for at in _slices(len(hidden), len(weight), HEAD_CELLS, hidden.device):
            grad = ctx.targets.gradient(logits(at), at, by)  # (c, V)
            of_hidden[at] = grad.to(narrow.dtype) @ narrow  # (c, V) @ (V, h)
            of_weight.addmm_(grad.T, hidden[at].to(grad.dtype))
            if of_bias is not None:
                of_bias += grad.sum(0)
        to = weight.dtype
        return of_hidden, of_weight.to(to), None if of_bias is None else of_bias.to(to), None
