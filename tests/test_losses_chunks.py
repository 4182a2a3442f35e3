"""The loss a few rows at a time, from hidden states, in narrow types and for extreme logits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from losses_oracle import (
    SIZE,
    TEMPERATURES,
    N,
    compare,
    dense,
    gradients,
    head_inputs,
    parts,
    random,
    some_labels,
    some_rows,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusion_core import losses
from fusion_core.losses import IGNORED, token_losses, token_losses_of_head
from fusion_core.records import SparseRows

# A few rows at a time -------------------------------------------------------------------------


def run_logits(logits: Tensor, labels: Tensor, rows: SparseRows | None) -> list[Tensor]:
    logits = logits.detach().requires_grad_()
    lost = parts(token_losses(logits, labels, rows))
    return [*lost, *gradients(lost, logits)]


def run_head(
    inputs: tuple[Tensor, Tensor, Tensor | None],
    labels: Tensor,
    rows: SparseRows | None,
    call: Callable[..., losses.TokenLosses] = token_losses_of_head,
) -> list[Tensor]:
    given = [None if x is None else x.detach().requires_grad_() for x in inputs]
    clm, fusion = parts(call(*given, labels, rows))
    by = [random(len(labels), seed=s).to(clm.dtype) for s in (101, 102)]
    loss = (clm * by[0]).sum() + (fusion * by[1]).sum()
    found = torch.autograd.grad(loss, [x for x in given if x is not None])
    return [clm.detach(), fusion.detach(), *found]


def by_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, rows: SparseRows | None
) -> losses.TokenLosses:
    logits = hidden @ weight.T
    return token_losses(logits if bias is None else logits + bias, labels, rows)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("cells", [1, 3 * SIZE, 1 << 30])
def test_how_many_rows_at_a_time_does_not_matter(
    cells: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, rows = some_labels(), some_rows(absent=2, temperature=temperature)
    logits, head = random(N, SIZE), head_inputs()
    whole = run_logits(logits, labels, rows) + run_head(head, labels, rows)
    monkeypatch.setitem(losses.CELLS, "cpu", cells)
    monkeypatch.setitem(losses.HEAD_CELLS, "cpu", cells)
    cut = run_logits(logits, labels, rows) + run_head(head, labels, rows)
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    compare(logits, labels, rows)


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_head_equals_its_logits(
    dtype: torch.dtype,
    within: float,
    with_bias: bool,
    with_rows: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden, weight, bias = head_inputs(dtype)
    inputs = (hidden, weight, bias if with_bias else None)
    rows = some_rows(absent=2, temperature=2.0, dtype=dtype) if with_rows else None
    expected = run_head(inputs, some_labels(), rows, by_logits)
    for cells in (1 << 22, 2 * SIZE):
        monkeypatch.setitem(losses.HEAD_CELLS, "cpu", cells)
        got = run_head(inputs, some_labels(), rows)
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype == dtype
            torch.testing.assert_close(a, b, rtol=within, atol=within)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_some_inputs_are_trained(wanted: tuple[int, ...]) -> None:
    labels, rows = some_labels(), some_rows()
    found = []
    for call in (token_losses_of_head, by_logits):
        inputs = [x.requires_grad_(i in wanted) for i, x in enumerate(head_inputs())]
        lost = call(*inputs, labels, rows)
        (lost.clm.sum() + lost.fusion.sum()).backward()
        assert [x.grad is not None for x in inputs] == [i in wanted for i in range(3)]
        found.append([inputs[i].grad for i in wanted])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_one_part_alone_can_be_differentiated() -> None:
    for name in ("clm", "fusion"):
        logits = random(N, SIZE).requires_grad_()
        getattr(token_losses(logits, some_labels(), some_rows()), name).sum().backward()
        other = random(N, SIZE).requires_grad_()
        expected = dense(other, some_labels(), some_rows())[name == "fusion"]
        expected.sum().backward()
        torch.testing.assert_close(logits.grad, other.grad, rtol=1e-10, atol=1e-10)


# Numbers that are narrow or extreme -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_narrow_logits(temperature: float, dtype: torch.dtype) -> None:
    labels = some_labels()
    rows = some_rows(absent=2, temperature=temperature, dtype=torch.float32)
    narrow = (3 * random(N, SIZE)).to(dtype)
    got, expected = run_logits(narrow, labels, rows), run_logits(narrow.float(), labels, rows)
    assert [x.dtype for x in got] == [torch.float32, torch.float32, dtype, dtype]
    for a, b in zip(got[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for a, b in zip(got[2:], expected[2:], strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-2, atol=1e-2)


def test_narrow_hidden_states() -> None:
    labels, rows = some_labels(), some_rows(absent=2, dtype=torch.float32)
    narrow = head_inputs(torch.bfloat16)
    got = run_head(narrow, labels, rows)
    expected = run_head(tuple(x.float() for x in narrow), labels, rows)
    assert [x.dtype for x in got] == [torch.float32] * 2 + [torch.bfloat16] * 3
    for a, b in zip(got, expected, strict=True):
        assert torch.isfinite(a).all()
        assert float((a.float() - b).abs().max()) < 0.03 * float(b.abs().max())


def test_hidden_states_narrower_than_the_head() -> None:
    # as under autocast
    labels, rows = some_labels(), some_rows(dtype=torch.float32)
    hidden, weight, bias = head_inputs(torch.float32)
    got = run_head((hidden.bfloat16(), weight, bias), labels, rows)
    assert [x.dtype for x in got[2:]] == [torch.bfloat16, torch.float32, torch.float32]
    expected = run_head((hidden, weight, bias), labels, rows)
    for a, b in zip(got, expected, strict=True):
        assert float((a.float() - b).abs().max()) < 0.03 * float(b.abs().max())


@pytest.mark.parametrize("above", [12, 20, 60, 1000])
@pytest.mark.parametrize("where", [0, 3, 9], ids=["first", "named", "not named"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_target_that_is_too_sure(temperature: float, where: int, above: int) -> None:
    n, k = 5, 6
    ids = torch.arange(k).expand(n, k).contiguous()
    rows = SparseRows(ids, torch.full((n, k), 0.125), torch.full((n,), 0.25), SIZE, temperature)
    for dtype, widest in ((torch.float32, 1e-4), (torch.bfloat16, 1e-2)):
        logits = random(n, SIZE, dtype=torch.float32)
        logits[:, where] = logits.amax(1) + above
        logits = logits.to(dtype).requires_grad_()
        lost = token_losses(logits, some_labels(n, ignored=0), rows)
        (lost.clm + lost.fusion).sum().backward()
        assert torch.isfinite(lost.clm).all() and torch.isfinite(lost.fusion).all()
        assert torch.isfinite(logits.grad).all()
        assert float(logits.grad.abs().max()) <= 1 + 1 / temperature + 1e-5
        if above >= 60:  # a constant may be added to all logits
            assert float(logits.grad.float().sum(1).abs().max()) < widest
        if where == 9:  # what remains is told apart well: nothing is lost
            wide = logits.detach().double().requires_grad_()
            clm, fusion = dense(wide, some_labels(n, ignored=0), rows)
            torch.testing.assert_close(lost.fusion.double(), fusion, rtol=1e-5, atol=1e-5)
            (clm + fusion).sum().backward()
            assert float((logits.grad.double() - wide.grad).abs().max()) < widest


@pytest.mark.parametrize("above", [4, 6, 8])
def test_single_precision_where_most_mass_is_named(above: int) -> None:
    rows = some_rows(64, 200, 10, dtype=torch.float32)
    logits = random(64, 200, dtype=torch.float32)
    logits.scatter_add_(1, rows.ids[:, :1], torch.full((64, 1), float(above)))
    wide = run_logits(logits.double(), some_labels(64), rows)
    for a, b in zip(run_logits(logits, some_labels(64), rows), wide, strict=True):
        assert float((a.detach().double() - b.detach()).abs().max()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_where_nothing_is_left_the_bucket_has_no_gradient(
    k: int, temperature: float, dtype: torch.dtype
) -> None:
    """1 - Σ Q is 0 to the last digit; what remains is the cross-entropy of the named ids alone.

    The gradient of the ids outside is as small as their share, so it is compared by ratio.
    """
    some = some_rows(6, 9, k, temperature=temperature, dtype=dtype)
    logits = random(6, 9).to(dtype)
    logits = logits.scatter_add(1, some.ids, torch.full((6, k), 60 * temperature, dtype=dtype))
    logits.requires_grad_()
    lost = token_losses(logits, torch.full((6,), IGNORED), some)
    (grad,) = torch.autograd.grad(lost.fusion.sum(), logits)
    exact = logits.detach().double().requires_grad_()
    logq = torch.log_softmax(exact / temperature, 1).gather(1, some.ids)
    (expected,) = torch.autograd.grad(-(some.probs.double() * logq).sum(), exact)
    within = 1e-9 if dtype == torch.float64 else 1e-4
    inside = torch.zeros(6, 9, dtype=torch.bool).scatter(1, some.ids, True)
    torch.testing.assert_close(grad[inside].double(), expected[inside], rtol=within, atol=within)
    ratio = grad[~inside].double() / expected[~inside]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=10 * within, atol=0)
    least = math.log(torch.finfo(dtype).eps)  # what the rest counts for
    named = -(some.probs.double() * logq.detach()).sum(1) - some.tail.double() * least
    torch.testing.assert_close(lost.fusion.detach().double(), named, rtol=within, atol=within)


# Memory ---------------------------------------------------------------------------------------


class Made(TorchDispatchMode):
    """Notes what tensors are made."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[torch.dtype, int]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes |= {(x.dtype, x.numel()) for x in tree_leaves(out) if isinstance(x, Tensor)}
        return out

    def largest(self, *dtypes: torch.dtype) -> int:
        return max((n for dtype, n in self.sizes if not dtypes or dtype in dtypes), default=0)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_wide_copy_of_narrow_logits_is_made(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, size = 96, 4096
    cells = n * size // 8
    monkeypatch.setitem(losses.CELLS, "cpu", cells)
    rows = some_rows(n, size, 10, temperature=temperature, dtype=torch.float32)
    labels = some_labels(n, size)
    logits = random(n, size, dtype=torch.float32).bfloat16().requires_grad_()
    with Made() as made:
        lost = token_losses(logits, labels, rows)
        (lost.clm + lost.fusion).sum().backward()
    assert (torch.bfloat16, n * size) in made.sizes  # the gradient: the backward pass was seen
    assert made.largest(torch.float32, torch.float64) <= cells
    with Made() as control:
        F.cross_entropy(logits.float(), labels).backward()
    assert control.largest(torch.float32) == n * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_logits_of_a_head_are_held(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    n, size, width = 96, 4096, 8
    cells = n * size // 8
    monkeypatch.setitem(losses.HEAD_CELLS, "cpu", cells)
    rows = some_rows(n, size, 10, temperature=2.0, dtype=torch.float32)
    inputs = [random(*s, dtype=torch.float32) for s in ((n, width), (size, width), (size,))]
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    with Made() as made:
        lost = token_losses_of_head(*inputs, some_labels(n, size), rows)
        (lost.clm + lost.fusion).sum().backward()
    assert (dtype, size * width) in made.sizes
    assert made.largest() <= max(cells, size * width)
