"""One Gauss-Newton product beside one gradient, forward and backward.

HessianFree's step is made of both, and Gauss-Newton by CG can be no faster than its
products. A hand-written product on stored activations costs 1.16 gradients of the
autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py.solvers.curvature import GaussNewton
from examples.autoencoder import SIZES, sparse
from tests.benchmarks.harness import Case, Floor, Row, Table

MOST = {"autoencoder": 1.30, "convolutions": 1.6}  # gradients a product may cost


def convolutions(norm: bool) -> nn.Sequential:
    def block(a: int, b: int) -> list[nn.Module]:
        between = [nn.BatchNorm2d(b)] if norm else []
        return [nn.Conv2d(a, b, 3, padding=1), *between, nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 16), *block(16, 32), nn.Flatten(), nn.LazyLinear(10))


def case(
    name: str, net: nn.Module, x: Tensor, criterion: Callable[..., Tensor]
) -> Case:
    net(x)  # lazy layers
    params = list(net.parameters())

    def gradient() -> object:
        return torch.autograd.grad(criterion(net(x)), params)

    z = net(x)
    product = GaussNewton(criterion(z), [z], params)
    v = [torch.randn_like(p) for p in params]
    return Case(name, len(x), str(len(x)), lambda: product(v), {"gradient": gradient})


def cases(quick: bool) -> Iterator[Case]:
    torch.manual_seed(0)
    for rows in [1000] if quick else [100, 1000, 4000]:
        x = torch.rand(rows, 784)

        def entropy(z: Tensor, x: Tensor = x) -> Tensor:
            return F.binary_cross_entropy_with_logits(z, x)

        deep = sparse(SIZES, seed=0)
        yield case("autoencoder", deep, x, entropy)
    x, y = torch.rand(128, 1, 28, 28), torch.randint(10, (128,))
    for name, norm in ("convolutions", False), ("convolutions, batch norm", True):
        yield case(name, convolutions(norm), x, lambda z: F.cross_entropy(z, y))


def promised(row: Row) -> bool:
    return row.name != "autoencoder" or row.size == 1000


TABLE = Table(
    "Gauss-Newton products, a gradient's time over a product's",
    cases,
    tuple(
        Floor("gradient", 1 / most, lambda r, n=name: r.name == n and promised(r))
        for name, most in MOST.items()
    ),
    axis="rows",
    block=0.1,
)
