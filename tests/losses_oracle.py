"""Oracle of the loss: whole distributions row by row, every bucket summed token by token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from fusion_core import losses
from fusion_core.losses import IGNORED, token_losses
from fusion_core.records import SparseRows

N, SIZE = 7, 11
TEMPERATURES = (0.5, 1.0, 2.0)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_labels(n: int = N, size: int = SIZE, *, seed: int = 0, ignored: int = 2) -> Tensor:
    labels = torch.randint(size, (n,), generator=torch.Generator().manual_seed(seed))
    labels[:ignored] = IGNORED
    return labels


def some_rows(
    n: int = N,
    size: int = SIZE,
    k: int = 4,
    *,
    seed: int = 0,
    tail: bool = True,
    absent: int = 0,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> SparseRows:
    """Draw rows; row i lacks ids from the last one on, at most ``absent``."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.rand(n, size, generator=draw).argsort(1)[:, :k]
    parts = torch.rand(n, k + 1, generator=draw, dtype=torch.float64) + 0.01
    for i in range(n):
        missing = min(k, i % (absent + 1))
        ids[i, k - missing :] = -1
        parts[i, k - missing : k] = 0
        if not tail or (missing == 0 and k == size):
            parts[i, -1] = float(missing == k)
    parts /= parts.sum(1, keepdim=True)
    return SparseRows(ids, parts[:, :-1].to(dtype), parts[:, -1].to(dtype), size, temperature)


def dense(logits: Tensor, labels: Tensor, rows: SparseRows | None) -> tuple[Tensor, Tensor]:
    """Lose by whole distributions, one row after the other: every bucket is summed token by token.

    A bucket is a token that a row names, or all that it does not name. Nothing is taken from 1.
    """
    clm, fusion = [], []
    for i, z in enumerate(logits.unbind()):
        label = int(labels[i])
        clm.append(z.sum() * 0 if label == IGNORED else -Categorical(logits=z).logits[label])
        if rows is None:
            fusion.append(z.sum() * 0)
            continue
        pairs = zip(rows.ids[i].tolist(), rows.probs[i].tolist(), strict=True)
        taught = {v: p for v, p in pairs if v >= 0}
        others = [v for v in range(len(z)) if v not in taught]
        scaled = z / rows.temperature
        buckets, masses = [scaled[v] for v in taught], list(taught.values())
        if others:
            buckets.append(scaled[others].logsumexp(0))
            masses.append(float(rows.tail[i]))
        target = torch.tensor([masses], dtype=z.dtype)
        fusion.append(F.cross_entropy(torch.stack(buckets)[None], target))
    return torch.stack(clm), torch.stack(fusion)


def gradients(lost: tuple[Tensor, Tensor], logits: Tensor) -> list[Tensor]:
    """Differentiate both parts, each position with a factor of its own."""
    by = [random(len(logits), seed=s).to(lost[0].dtype) for s in (101, 102)]
    return [
        torch.autograd.grad((part * w).sum(), logits, retain_graph=True)[0]
        for part, w in zip(lost, by, strict=True)
    ]


def parts(lost: losses.TokenLosses) -> tuple[Tensor, Tensor]:
    return lost.clm, lost.fusion


def head_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    inputs = (random(N, 5), random(SIZE, 5, seed=1), random(SIZE, seed=2))
    return tuple(x.to(dtype) for x in inputs)


def compare(logits: Tensor, labels: Tensor, rows: SparseRows | None, within: float = 1e-10) -> None:
    logits = logits.detach().requires_grad_()
    got, expected = parts(token_losses(logits, labels, rows)), dense(logits, labels, rows)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=within, atol=within)
    for a, b in zip(gradients(got, logits), gradients(expected, logits), strict=True):
        torch.testing.assert_close(a, b, rtol=within, atol=within)
