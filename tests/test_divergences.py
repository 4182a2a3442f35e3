"""Reverse KL against whole distributions, mixed divergences, and positions that are chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from losses_oracle import SIZE, TEMPERATURES, N, head_inputs, random, some_labels, some_rows
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from fusion_core import losses
from fusion_core.losses import divergences, token_losses, token_losses_of_head
from fusion_core.records import SparseRows


def dense_reverse(logits: Tensor, rows: SparseRows) -> Tensor:
    """KL of the model's row from the fused one, each laid out over its buckets by hand."""
    out = []
    for i, z in enumerate(logits):
        q = torch.softmax(z / rows.temperature, 0)
        named = [v for v in rows.ids[i].tolist() if v >= 0]
        others = [v for v in range(len(z)) if v not in named]
        q_all = torch.stack([*(q[v] for v in named), q[others].sum() if others else q.sum() * 0])
        p = torch.cat([rows.probs[i, : len(named)], rows.tail[i, None]]).clamp(min=1e-9)
        held = q_all > 0
        out.append((q_all[held] * (q_all[held] / p[held]).log()).sum())
    return torch.stack(out)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("absent", [0, 2])
@pytest.mark.parametrize("tail", [True, False])
def test_reverse_kl_and_its_gradient(temperature: float, absent: int, tail: bool) -> None:
    rows = some_rows(temperature=temperature, absent=absent, tail=tail)
    logits = (2 * random(N, SIZE)).requires_grad_()
    lost = token_losses(logits, some_labels(), rows, pulls=losses.reverse_kl)
    expected = dense_reverse(logits, rows)
    torch.testing.assert_close(lost.fusion, expected, rtol=1e-9, atol=1e-9)
    by = random(N, seed=9)
    ours, theirs = (torch.autograd.grad((x * by).sum(), logits)[0] for x in (lost.fusion, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_reverse_kl_is_that_of_torch_where_rows_are_whole() -> None:
    rows = some_rows(k=SIZE, tail=False)
    logits = random(N, SIZE).requires_grad_()
    lost = token_losses(logits, some_labels(), rows, pulls=losses.reverse_kl)
    p = torch.zeros(N, SIZE, dtype=torch.float64).scatter(1, rows.ids, rows.probs)
    expected = kl_divergence(Categorical(logits=logits), Categorical(probs=p))
    torch.testing.assert_close(lost.fusion, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradcheck_through_the_head(temperature: float) -> None:
    hidden, weight, bias = (x.requires_grad_() for x in head_inputs())
    rows = some_rows(temperature=temperature)
    first = torch.arange(N) % 2 == 0
    mixed = losses.either(first, losses.reverse_kl, losses.cross_entropy)

    def loss(*inputs: Tensor) -> Any:
        lost = token_losses_of_head(*inputs, some_labels(), rows, pulls=mixed)
        return lost.clm, lost.fusion

    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))
    logits = F.linear(hidden, weight, bias)
    lost = token_losses(logits, some_labels(), rows, pulls=mixed).fusion
    alone = [
        token_losses(logits, some_labels(), rows, pulls=p).fusion
        for p in (losses.reverse_kl, losses.cross_entropy)
    ]
    assert torch.equal(lost, torch.where(first, *alone))


@pytest.mark.parametrize("pull", [losses.reverse_kl, losses.cross_entropy])
def test_where_both_rows_are_equal_nothing_is_pulled(pull: Any) -> None:
    logits = random(N, SIZE).requires_grad_()
    q = torch.softmax(logits.detach(), 1)
    ids = q.argsort(1)[:, :3]
    probs = q.gather(1, ids)
    rows = SparseRows(ids, probs, 1 - probs.sum(1), SIZE)
    lost = token_losses(logits, some_labels(), rows, pulls=pull)
    lost.fusion.sum().backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-12
    if pull is losses.reverse_kl:
        assert float(lost.fusion.detach().abs().max()) < 1e-12


def test_a_row_without_ids_pulls_nowhere() -> None:
    rows = SparseRows(torch.full((N, 3), -1), torch.zeros(N, 3), torch.ones(N), SIZE)
    logits = random(N, SIZE, dtype=torch.float32).requires_grad_()
    token_losses(logits, some_labels(), rows, pulls=losses.reverse_kl).fusion.sum().backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) == 0


def test_entropy_of_the_model() -> None:
    logits = (3 * random(N, SIZE)).requires_grad_()
    for rows in (None, some_rows(temperature=2.0)):
        lost = token_losses(logits, some_labels(), rows, with_entropy=True)
        torch.testing.assert_close(lost.entropy, Categorical(logits=logits).entropy())
        assert not lost.entropy.requires_grad
    assert not token_losses(logits, some_labels()).entropy.any()


def test_positions_are_chosen_by_score_and_keep_the_weight() -> None:
    weight = torch.tensor([0.0, 1.0, 0.5, 1.0, 1.0])
    score = torch.tensor([9.0, 1.0, 3.0, 2.0, 0.0])
    kept = divergences.chosen_weight(weight, score, 0.5)
    assert (kept > 0).tolist() == [False, False, True, True, False]
    torch.testing.assert_close(kept.sum(), weight.sum())
    torch.testing.assert_close(kept[3] / kept[2], torch.tensor(2.0))
    assert divergences.chosen_weight(weight, score, 1.0) is weight
    least = divergences.chosen_weight(weight, score, 0.01)
    assert (least > 0).tolist() == [False, False, True, False, False]
    assert not divergences.chosen_weight(torch.zeros(5), score, 0.5).any()
