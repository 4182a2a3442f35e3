"""The fusion loss where rounding leaves nothing outside a row: the bucket teaches nothing."""

from __future__ import annotations

import math

import pytest
import torch

from fusion_core.losses import DIVERGENCES, token_losses
from fusion_core.records import SparseRows


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("tail", [0.0, 0.25, 0.75])
def test_a_bucket_that_cannot_be_told_from_nothing(tail: float, temperature: float) -> None:
    """The loss is then -Σ P log Q and a constant, so that Q outside is only divided by its sum.

    What is outside is next to nothing there, and so is its gradient; it is compared relatively.
    """
    z = torch.full((1, 5), -20.0 * temperature)
    z[0, :2] = torch.tensor([0.4, -0.3])
    z[0, 4] = -24 * temperature
    probs = torch.tensor([[0.6, 0.4]]) * (1 - tail)
    rows = SparseRows(torch.tensor([[0, 1]]), probs, torch.tensor([tail]), 5, temperature)
    logits = z.clone().requires_grad_()
    token_losses(logits, torch.tensor([-100]), rows).fusion.sum().backward()
    wide = z.double().requires_grad_()
    logq = torch.log_softmax(wide / temperature, 1)
    (-(probs.double() * logq[:, :2]).sum()).backward()
    torch.testing.assert_close(logits.grad.double()[:, 2:], wide.grad[:, 2:], rtol=1e-4, atol=0)
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=1e-4, atol=1e-6)


def test_divergences() -> None:
    """KL is the cross-entropy less the entropy of the row, its tail as one bucket."""
    probs, tail = torch.tensor([[0.5, 0.25], [1.0, 0.0]]), torch.tensor([0.25, 0.0])
    rows = SparseRows(torch.tensor([[0, 1], [2, -1]]), probs, tail, 5)
    ce = torch.tensor([2.0, 1.0])
    assert torch.equal(DIVERGENCES["ce"].nats(ce, rows), ce)
    wanted = ce - torch.tensor([1.5 * math.log(2), 0.0])
    torch.testing.assert_close(DIVERGENCES["kl"].nats(ce, rows), wanted)
