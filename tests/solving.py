"""What tests of solvers share: who solves what, and how it went."""

import functools

import numpy as np
import torch
from torch import nn

from dl4py.solvers import LBFGS, ConjugateGradient, HessianFree, LineGradientDescent

SOLVERS = [LineGradientDescent, ConjugateGradient, LBFGS]
EVERY = {
    **{cls.__name__: cls for cls in (*SOLVERS, HessianFree)},
    "exact": functools.partial(LineGradientDescent, dl4j_exact=True),
    "empirical": functools.partial(HessianFree, preconditioner="empirical"),
}


def solve(make, loss, start, steps, dtype=torch.float64):
    """(parameters, solver, losses at every evaluation) after some steps."""
    w = nn.Parameter(torch.tensor(start, dtype=dtype))
    solver = make([w])
    seen = []

    def closure():
        solver.zero_grad()
        value = loss(w)
        value.backward()
        seen.append(value.item())
        return value

    for _ in range(steps):
        solver.step(closure)
    return w.detach(), solver, seen


def rosenbrock(w):
    return (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum()


def quadratic(n=10, condition=30.0):
    generator = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator).double())
    a = q @ torch.diag(torch.logspace(0, np.log10(condition), n).double()) @ q.T
    minimum = torch.randn(n, generator=generator).double()

    def loss(w):
        e = w - minimum.to(w.dtype)
        return 0.5 * e @ a.to(w.dtype) @ e

    return loss, minimum, a
