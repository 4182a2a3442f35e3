"""The loss, against whole distributions row by row and torch's own losses and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from losses_oracle import (
    SIZE,
    TEMPERATURES,
    N,
    compare,
    dense,
    head_inputs,
    parts,
    random,
    some_labels,
    some_rows,
)
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from fusion_core import losses
from fusion_core.config import Objective
from fusion_core.errors import FusionError, InputError
from fusion_core.losses import token_losses, token_losses_of_head
from fusion_core.records import SparseRows

# Values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    "options",
    [
        {"k": 4},
        {"k": 1},
        {"k": 4, "tail": False},
        {"k": 4, "absent": 3},
        {"k": 4, "absent": 4},
        {"k": 4, "absent": 3, "tail": False},
        {"k": SIZE - 1},
        {"k": SIZE},
        {"k": SIZE, "absent": 5},
        {"k": 0},
    ],
    ids=str,
)
def test_losses_are_those_of_whole_distributions(options: dict, temperature: float) -> None:
    rows = some_rows(temperature=temperature, **options)
    assert torch.allclose(rows.probs.sum(1) + rows.tail, torch.ones(N, dtype=torch.float64))
    compare(2 * random(N, SIZE), some_labels(), rows)


def test_no_rows_at_all() -> None:
    compare(random(N, SIZE), some_labels(), None)
    lost = token_losses(random(N, SIZE), some_labels())
    assert not lost.fusion.any()


def test_rows_without_ids_teach_nothing() -> None:
    rows = SparseRows(torch.full((N, 3), -1), torch.zeros(N, 3), torch.ones(N), SIZE)
    logits = random(N, SIZE).requires_grad_()
    fusion = token_losses(logits, some_labels(), rows).fusion
    fusion.sum().backward()
    assert not fusion.any() and not logits.grad.any()


@pytest.mark.parametrize("ignored", [0, 3, N])
def test_clm_is_torchs_cross_entropy(ignored: int) -> None:
    logits, labels = random(N, SIZE).requires_grad_(), some_labels(ignored=ignored)
    clm = token_losses(logits, labels, some_rows()).clm
    expected = F.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    torch.testing.assert_close(clm, expected, rtol=1e-12, atol=1e-12)
    assert not clm[:ignored].any()
    of_clm, of_torch = (torch.autograd.grad(x.sum(), logits)[0] for x in (clm, expected))
    torch.testing.assert_close(of_clm, of_torch, rtol=1e-12, atol=1e-12)


def test_ignored_labels_leave_the_rows_alone() -> None:
    logits, rows = random(N, SIZE), some_rows()
    some = token_losses(logits, some_labels(ignored=N), rows).fusion
    assert torch.equal(some, token_losses(logits, some_labels(ignored=0), rows).fusion)
    assert some.all()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("lm_weight", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("divergence", ["ce", "kl"])
def test_weights_mixes_and_divergences(
    divergence: str, lm_weight: float, temperature: float
) -> None:
    rows = some_rows(absent=2, temperature=temperature)
    weight = torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weight[2] = 0
    logits, labels = random(N, SIZE).requires_grad_(), some_labels()
    lost = token_losses(logits, labels, rows)
    nats = lost.fusion - (losses.entropy(rows) if divergence == "kl" else 0)
    objective = Objective(lm_weight=lm_weight, divergence=divergence)
    loss = losses.total(objective, lost.clm.mean(), (nats * weight).mean(), 0.3)

    clm, fusion = dense(logits, labels, rows)
    if divergence == "kl":
        fusion = torch.stack([divergence_of(rows, logits[i], i) for i in range(N)])
        assert (fusion >= -1e-12).all()
    expected = lm_weight * clm.mean() + (1 - lm_weight) * (fusion * weight).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    of_loss, of_expected = (torch.autograd.grad(x, logits)[0] for x in (loss, expected))
    torch.testing.assert_close(of_loss, of_expected, rtol=1e-10, atol=1e-10)


def divergence_of(rows: SparseRows, z: Tensor, i: int) -> Tensor:
    """Return KL(P || Q) over the tokens that row i names and all others as one."""
    named = [v for v in rows.ids[i].tolist() if v >= 0]
    others = [v for v in range(len(z)) if v not in named]
    q = torch.softmax(z / rows.temperature, 0)
    q = torch.cat([q[named], q[others].sum(0, keepdim=True)])
    p = torch.tensor([*rows.probs[i][: len(named)].tolist(), float(rows.tail[i])], dtype=z.dtype)
    return kl_divergence(Categorical(p), Categorical(q))


def test_entropy_of_a_row_and_its_tail() -> None:
    rows = some_rows(absent=4)
    p = torch.cat([rows.probs, rows.tail[:, None]], 1)
    torch.testing.assert_close(losses.entropy(rows), Categorical(p).entropy(), rtol=1e-7, atol=1e-7)
    one = SparseRows(torch.tensor([[3, -1]]), torch.tensor([[1.0, 0.0]]), torch.zeros(1), SIZE)
    assert losses.entropy(one).tolist() == [0.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradcheck(temperature: float) -> None:
    labels = some_labels(4, 6, ignored=1)
    rows = some_rows(4, 6, 3, absent=2, temperature=temperature)
    logits = random(4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: parts(token_losses(z, labels, rows)), logits)
    inputs = (random(4, 3), random(6, 3, seed=1), random(6, seed=2))
    assert torch.autograd.gradcheck(
        lambda *x: parts(token_losses_of_head(*x, labels, rows)),
        tuple(x.requires_grad_() for x in inputs),
    )


def test_it_is_differentiable_once() -> None:
    logits = random(N, SIZE).requires_grad_()
    lost = token_losses(logits, some_labels(), some_rows())
    (first,) = torch.autograd.grad(lost.clm.sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_any_small_case(data: st.DataObject) -> None:
    n, size = data.draw(st.integers(1, 4), "n"), data.draw(st.integers(2, 9), "size")
    k, seed = data.draw(st.integers(0, size), "k"), data.draw(st.integers(0, 10_000), "seed")
    rows = some_rows(
        n,
        size,
        k,
        seed=seed,
        tail=data.draw(st.booleans(), "tail"),
        absent=data.draw(st.integers(0, k), "absent"),
        temperature=data.draw(st.sampled_from([0.5, 1.0, 2.0, 3.7]), "temperature"),
    )
    wide = data.draw(st.integers(0, 3), "more logits than ids")
    logits = data.draw(st.sampled_from([0.0, 1.0, 3.0]), "scale") * random(
        n, size + wide, seed=seed
    )
    plain = data.draw(st.booleans(), "no rows")
    ignored = data.draw(st.integers(0, n), "ignored")
    labels = some_labels(n, size, seed=seed, ignored=ignored)
    compare(logits, labels, None if plain else rows, within=1e-7)


# What is taught -------------------------------------------------------------------------------


def own_rows(logits: Tensor, k: int, temperature: float) -> SparseRows:
    top = torch.softmax(logits / temperature, 1).topk(k)
    tail = (1 - top.values.sum(1)).clamp(min=0) if k < logits.shape[1] else torch.zeros(len(logits))
    return SparseRows(top.indices, top.values, tail.to(logits.dtype), logits.shape[1], temperature)


def largest_gradient(logits: Tensor, rows: SparseRows) -> float:
    logits = logits.detach().requires_grad_()
    token_losses(logits, some_labels(), rows).fusion.sum().backward()
    return float(logits.grad.abs().max())


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 3, SIZE - 1, SIZE])
def test_what_is_known_teaches_nothing(k: int, temperature: float) -> None:
    logits = random(N, SIZE)
    own = own_rows(logits, k, temperature)
    assert largest_gradient(logits, own) < 1e-12
    assert largest_gradient(logits.float(), own_rows(logits.float(), k, temperature)) < 1e-5
    assert largest_gradient(logits, replace(own, temperature=temperature * 1.5)) > 1e-3
    if k == SIZE:
        return
    without = replace(own, tail=torch.zeros_like(own.tail))
    assert largest_gradient(logits, without) > 1e-3
    anew = replace(without, probs=own.probs / own.probs.sum(1, keepdim=True))
    assert largest_gradient(logits, anew) > 1e-3


def test_label_and_row_i_are_of_the_token_after_position_i() -> None:
    tokens = [2, 0, 3, 1]
    # after reading tokens[i] the model is nearly sure of tokens[i + 1]
    probs = torch.full((3, 4), 0.01)
    for i in range(3):
        probs[i, tokens[i + 1]] = 0.97
    logits = probs.log().requires_grad_()
    after = SparseRows(
        torch.tensor([[0], [3], [1]]), torch.full((3, 1), 0.97), torch.full((3,), 0.03), 4
    )
    lost = token_losses(logits, torch.tensor(tokens[1:]), after)
    assert lost.clm.tolist() == pytest.approx([0.030459] * 3, abs=1e-5)
    assert lost.fusion.tolist() == pytest.approx([0.134742] * 3, abs=1e-5)  # entropy of .97, .03
    lost.fusion.sum().backward()
    assert logits.grad.abs().max() < 1e-6
    here = replace(after, ids=torch.tensor([[2], [0], [3]]))
    wrong = token_losses(logits, torch.tensor(tokens[:-1]), here)
    assert wrong.clm.tolist() == pytest.approx([4.60517] * 3, abs=1e-4)
    assert (wrong.fusion > 4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_lambda_1_is_clm_bit_for_bit(temperature: float, dtype: torch.dtype) -> None:
    labels = some_labels()
    rows = some_rows(absent=2, temperature=temperature, dtype=torch.float32)
    found = []
    for given_rows in (rows, None):
        logits = (3 * random(N, SIZE)).to(dtype).requires_grad_()
        lost = token_losses(logits, labels, given_rows)
        loss = lost.clm.mean()
        if given_rows is not None:
            loss = losses.total(Objective(lm_weight=1.0), loss, lost.fusion.mean(), 0.5)
        loss.backward()
        found.append((loss.detach(), logits.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][1].any()


# Joining the parts ----------------------------------------------------------------------------


def test_lambda_goes_in_a_straight_line() -> None:
    still, falling = Objective(lm_weight=0.3), Objective(lm_weight=0.9, lm_weight_end=0.1)
    assert [still.weight_at(x) for x in (0, 0.5, 1)] == [0.3] * 3
    at = [falling.weight_at(x) for x in (-1, 0, 0.25, 0.5, 1, 2)]
    assert at == pytest.approx([0.9, 0.9, 0.7, 0.5, 0.1, 0.1])
    assert Objective(lm_weight=0.0, lm_weight_end=1.0).weight_at(0.4) == pytest.approx(0.4)
    clm, fusion = torch.tensor(2.0), torch.tensor(10.0)
    totals = [float(losses.total(falling, clm, fusion, x)) for x in (0, 0.5, 1)]
    assert totals == pytest.approx([2.8, 6.0, 9.2])


@pytest.mark.parametrize("factor", [0.01, 1.0, 50.0])
def test_ratio_makes_both_parts_equal_and_has_no_gradient(factor: float) -> None:
    objective = Objective(balance="ratio")
    clm, fusion = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, factor))
    loss = losses.total(objective, clm, fusion, 0.5)
    assert loss.item() == pytest.approx(6.0)
    loss.backward()
    assert clm.grad.item() == pytest.approx(1.0)
    assert fusion.grad.item() == pytest.approx(3 / factor)


def test_ratio_of_nothing_is_finite() -> None:
    clm, fusion = torch.tensor(3.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    loss = losses.total(Objective(balance="ratio"), clm, fusion, 0.0)
    loss.backward()
    assert loss.item() == 3.0 and torch.isfinite(fusion.grad)


@pytest.mark.parametrize("name", ["lm_weight", "lm_weight_end"])
@pytest.mark.parametrize(
    "value", [-0.01, 1.01, float("nan"), float("inf"), True, False, "0.5", [0.5]], ids=repr
)
def test_lambdas_that_are_none(name: str, value: object) -> None:
    with pytest.raises(
        InputError, match=rf"{name} must be a number between 0 and 1, not .*: choose λ"
    ):
        Objective(**{name: value})


def test_lambda_itself_must_be_given() -> None:
    with pytest.raises(InputError, match="lm_weight"):
        Objective(lm_weight=None)


@pytest.mark.parametrize("name", ["divergence", "balance"])
@pytest.mark.parametrize("value", ["", "mse", "CE", None, 1])
def test_unknown_names(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        Objective(**{name: value})


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (some_labels(N + 1), None),
        (some_labels(N - 1), some_rows()),
        (some_labels(), some_rows(N + 1)),
        (some_labels(), some_rows(1)),
        (some_labels(), some_rows(N, SIZE + 1)),
    ],
)
def test_shapes_that_do_not_fit(labels: Tensor, rows: SparseRows | None) -> None:
    with pytest.raises(FusionError, match=f"Logits of {N} positions and {SIZE} ids do not fit"):
        token_losses(random(N, SIZE), labels, rows)
    with pytest.raises(FusionError, match="do not fit"):
        token_losses_of_head(*head_inputs(), labels, rows)


def test_a_head_wider_than_the_vocabulary_of_the_rows() -> None:
    compare(random(N, SIZE + 5), some_labels(), some_rows())


def test_no_positions() -> None:
    logits = random(0, SIZE).requires_grad_()
    lost = token_losses(logits, some_labels(0, ignored=0))
    assert lost.clm.shape == lost.fusion.shape == (0,)
