"""Losses whose sum is one kernel, their activation included."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from dl4py import losses
from dl4py.ops.library import compiled
from dl4py.registry import ACTIVATIONS, LOSSES, parameters
from tests.losses.test_losses import CASES, OWN, K, N, data, make, masks

pytestmark = pytest.mark.skipif(not compiled("cpu"), reason="no compiled kernels")
WITH_KERNEL = [k for k in OWN if "summand" in vars(LOSSES[k])]
INNER = [k for k in ACTIVATIONS if vars(ACTIVATIONS[k]).get("kernel")]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("exact", [False, True])
def test_fused_equals_composed(case: str, exact: bool) -> None:
    loss = make(case, dl4j_exact=exact)
    z, y = data(case)
    if not loss.additive:
        return
    inputs = [z.requires_grad_()]
    if y.is_floating_point() and not exact:
        inputs.append(y.requires_grad_())
    factor = K if exact and "mae" in case else 1  # its per-example scores
    g = torch.linspace(1, 2, N, dtype=torch.float64)
    for mask in masks(case):
        ours = loss.per_example(z, y, mask)
        theirs = factor * loss._terms(z, y, mask).sum(1)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
        slopes = [torch.autograd.grad(s, inputs, g) for s in (ours, theirs)]
        torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-13)
        (only,) = torch.autograd.grad(loss.per_example(z, y, mask), inputs[:1], g)
        torch.testing.assert_close(only, slopes[0][0], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [(1, 1), (70, 3), (200, 32), (3, 33), (2, 2500)])
@pytest.mark.parametrize("key", WITH_KERNEL)
def test_equals_composition(key: str, shape: tuple[int, int]) -> None:
    n, k = shape
    generator = torch.Generator().manual_seed(n)
    y = torch.rand(n, k, generator=generator) * 0.8 + 0.1
    z = (torch.rand(n, k, generator=generator) / 3 + 0.1).requires_grad_()
    weights = [[None], [0.5 + j % 3 for j in range(k)]]
    masks = [None, torch.arange(n) % 3 / 2]
    weighted = weights if "weights" in parameters(LOSSES[key]) else weights[:1]
    for f, w, m in itertools.product(INNER, weighted, masks):
        args = {"weights": w} if w[0] is not None else {}
        loss = losses.get(key, f, dl4j_exact=key == "xent", **args)
        for x in (z, z.double().detach().requires_grad_()):
            tol = 1e-11 if x.dtype == torch.float64 else 2e-5
            pair = loss(x, y, m), loss._terms(x, y, m).sum() / n
            torch.testing.assert_close(*pair, rtol=tol, atol=tol)
            slopes = [torch.autograd.grad(s * 3, x)[0] for s in pair]
            torch.testing.assert_close(*slopes, rtol=tol, atol=tol)


LABELS = (0.0, 0.25, 1.0)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("key", WITH_KERNEL)
def test_equals_composition_out_of_bounds(key: str, exact: bool) -> None:
    """Where logarithms do not exist, and at the ends."""
    z = torch.tensor([-200.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 200.0])
    z = torch.cat([z, torch.tensor([math.nan])]).double().unsqueeze(1).requires_grad_()
    for f, y in itertools.product(INNER, LABELS[key == "mape" :]):  # not 0
        loss = losses.get(key, f, dl4j_exact=exact)
        labels = torch.full_like(z, y)
        ours, right = loss.per_example(z, labels), loss._terms(z, labels, None).sum(1)
        if key == "mae" and exact:
            continue  # DL4J's scores of examples are others
        close = {"equal_nan": True, "msg": lambda m, f=f, y=y: f"{f} {y}: {m}"}
        torch.testing.assert_close(ours, right, **close)
        pair = [torch.autograd.grad(s.sum(), z)[0][:-1] for s in (ours, right)]
        torch.testing.assert_close(*pair, **close)


def test_a_kernel_is_what_runs() -> None:
    z, y = torch.rand(3, 4), torch.rand(3, 4)
    found = [
        key
        for key in WITH_KERNEL
        if losses.get(key, "cube", dl4j_exact=True).fused(z, y, None, "mean")
        is not None
    ]
    assert found == WITH_KERNEL and len(found) > 10


def test_a_subclass_computes_what_it_says() -> None:
    class Own(LOSSES["mse"]):
        def scores(self, a: Tensor, y: Tensor) -> Tensor:
            return (a - y) ** 4

    class Bent(ACTIVATIONS["tanh"]):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) + 1

    z, y = torch.ones(1, 2), torch.zeros(1, 2)
    assert Own()(z, y) == 2
    expected = (torch.tensor(1.0).tanh() + 1) ** 2
    torch.testing.assert_close(losses.get("mse", Bent())(z, y), expected)


def test_skipped_rows_may_hold_anything() -> None:
    for k in (4, 40):
        z, y = torch.zeros(3, k), torch.full((3, k), 0.5)
        z[1] = y[1] = math.nan
        z.requires_grad_()
        score = losses.get("mse", "tanh")(z, y, torch.tensor([1, 0, 1]))
        (slope,) = torch.autograd.grad(score, z)
        assert score.isfinite() and slope.isfinite().all() and not slope[1].any()


def test_one_clear_error() -> None:
    z = torch.rand(3, 4)
    with pytest.raises(RuntimeError, match="no loss nothing of identity"):
        torch.ops.dl4py.sum_loss(
            z, z, None, None, "nothing", "identity", 0.0, 1.0, False
        )
    with pytest.raises(RuntimeError, match="no loss squared of nothing"):
        torch.ops.dl4py.sum_loss(
            z, z, None, None, "squared", "nothing", 0.0, 1.0, False
        )
