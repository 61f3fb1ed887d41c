"""Losses whose activation is rounded to 0, 1 or -1: their logarithms and quotients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dl4py import losses
from dl4py.registry import ACTIVATIONS
from tests.losses.test_losses import OWN, by, gradient

__all__ = ["by"]  # a fixture

FAR = (9.5, 12, 16, 40, 85, 88.8, 95, 104, 250, 600, 1e-16, 1e-3, 0.5, 3)


def inputs(key: str) -> tuple[Tensor, Tensor]:
    """Far pre-activations beside near ones."""
    far = torch.tensor([*FAR, *(-x for x in FAR)])
    near = torch.linspace(-1, 1, len(far)).round(decimals=2)
    z, y = torch.stack([far, near], 1), torch.tensor([0.75, 0.25]).expand(len(far), 2)
    if key == "sparse_mcxent":
        return z, torch.zeros(len(far)).long()
    if key == "mixture_density":
        return torch.stack([near, far, near], 1), y[:, :1]
    return z, y.round() if key in ("multi_label", "fmeasure") else y


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("key", OWN)
def test_float32_knows_what_float64_knows(key: str, exact: bool, by: str) -> None:
    """For every activation: doubles reach where floats underflow."""
    args = {"gaussians": 1, "labels": 1} if key == "mixture_density" else {}
    z, y = inputs(key)
    for name in ACTIVATIONS:
        loss = losses.get(key, name, dl4j_exact=exact, **args).eval()
        if exact and key == "msle" and loss.logarithm("log_above"):
            continue  # DL4J's own digits are those of a rounded 1 + a
        if exact and name == "softplus":
            continue  # and of a rounded 1 + eˣ
        both = []
        for dtype in (torch.float32, torch.float64):
            x = z.to(dtype)
            label = y.to(dtype) if y.is_floating_point() else y
            if key == "fmeasure":
                score = loss(x, label).expand(len(x))
            else:
                score = loss.per_example(x, label)
            a = loss.activation(x)
            both.append((score.detach().double(), gradient(loss, x, label).double()))
        (score, slope), (right, right_slope) = both
        known = right.isfinite() & (right.abs() < 1e30)
        if key == "kld":
            known &= (a > 0).all(1)  # clipped scores are known beyond their formula
        close = {"rtol": 1e-2, "atol": 3e-3, "msg": lambda m, name=name: f"{name}: {m}"}
        torch.testing.assert_close(score[known], right[known], **close)
        known = known.unsqueeze(1) & (right_slope.abs() < 1e30)
        torch.testing.assert_close(slope[known], right_slope[known], **close)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype, z", [(torch.float32, -100), (torch.float64, -800)])
def test_logarithm_of_softplus(
    dtype: torch.dtype, z: float, exact: bool, by: str
) -> None:
    x, y = torch.tensor([[z]], dtype=dtype), torch.ones(1, 1, dtype=dtype)
    for key in ("poisson", "mcxent"):
        loss = losses.get(key, "softplus", dl4j_exact=exact)
        assert loss(x, y) == -z and gradient(loss, x, y) == -1


def test_kernels_equal_formulas_where_slopes_underflow() -> None:
    z = torch.linspace(-120, -80, 400).unsqueeze(1)
    y = torch.ones(400, 1)
    for key, f, exact in itertools.product(
        ("poisson", "kld"), ("softplus", "sigmoid"), (False, True)
    ):
        loss = losses.get(key, f, dl4j_exact=exact)
        by_formula = torch.func.grad(lambda z, loss=loss: loss.score(z, y, None, False))
        torch.testing.assert_close(gradient(loss, z, y), by_formula(z))


@pytest.mark.parametrize("exact", [False, True])
def test_distance_to_minus_one(exact: bool, by: str) -> None:
    z, y = torch.tensor([[-20.0], [-0.5]]), torch.zeros(2, 1)
    for f in ("tanh", "softsign", "elu"):
        loss = losses.get("msle", f, dl4j_exact=exact)
        wide = losses.get("msle", f)(z.double(), y.double())
        torch.testing.assert_close(loss(z, y), wide.float())
        assert gradient(loss, z, y).isfinite().all()


def test_a_deviation_that_underflows() -> None:
    z = torch.tensor([[0.0, -60.0, 1e-26]], requires_grad=True)
    loss = losses.get("mixture_density", gaussians=1, labels=1)
    score = loss(z, torch.zeros(1, 1))
    u = 1e-26 * math.exp(60)
    right = u * u / 2 - 60 + math.log(2 * math.pi) / 2
    torch.testing.assert_close(score, torch.tensor(right))
    score.backward()
    slope = torch.tensor([[0.0, 1 - u * u, u * math.exp(60)]])
    torch.testing.assert_close(z.grad, slope)


def test_poisson_of_softplus_has_dl4j_digits(by: str) -> None:
    """In exact mode f and its logarithm are those of a rounded 1 + eˣ."""
    z = torch.tensor([[-30.0, -16.5, -3.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 2.0, 0.5, 3.0]], dtype=torch.float64)
    a = np.log(1 + np.exp(z.numpy()))
    score = (a - y.numpy() * np.log(a)).sum()
    slope = (1 - y.numpy() / a) / (1 + np.exp(-z.numpy()))
    loss = losses.get("poisson", "softplus", dl4j_exact=True)
    np.testing.assert_allclose(loss(z, y), score, rtol=1e-14)
    np.testing.assert_allclose(gradient(loss, z, y), slope, rtol=1e-14)
    right = losses.get("poisson", "softplus")(z, y)
    assert 1e-5 < abs(score - float(right)) < 1  # e⁻³⁰ has three digits left of 16
    assert (
        loss.activation(z[:, :1] - 10) == 0
        and loss.activation(z + 800).isfinite().all()
    )
