"""Whether one buffer for all parameters and gradients would make training faster.

``flat`` trains the same network with every parameter and gradient a view of one
buffer, so that a step of the updater is one call on one tensor. The gradients must then
be set to 0 and added to, where autograd otherwise hands them over: a pass over memory
more. A ratio below 0.9 would speak for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dl4py import updaters
from tests.benchmarks.harness import Case, Table


def _dense(*sizes: int) -> nn.Sequential:
    pairs = zip(sizes, sizes[1:], strict=False)
    return nn.Sequential(*(m for n, k in pairs for m in (nn.Linear(n, k), nn.ReLU())))


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, int]]] = {
    "4-10-10-3": (lambda: _dense(4, 10, 10, 3), (32, 4)),
    "150 layers of 16": (lambda: _dense(*[16] * 151), (32, 16)),
    "784-1000-1000-10": (lambda: _dense(784, 1000, 1000, 10), (128, 784)),
}


def plain(network: nn.Sequential, x: Tensor, updater: str) -> Callable[[], None]:
    optimizer = updaters.get(updater)(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return step


def flat(network: nn.Sequential, x: Tensor, updater: str) -> Callable[[], None]:
    parameters = list(network.parameters())
    sizes = [p.numel() for p in parameters]
    whole = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    whole.grad = torch.zeros_like(whole)
    values = zip(whole.detach().split(sizes), whole.grad.split(sizes), strict=True)
    for p, (value, gradient) in zip(parameters, values, strict=True):
        p.data, p.grad = value.view_as(p), gradient.view_as(p)
    optimizer = updaters.get(updater)([whole])

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        network(x).square().mean().backward()
        optimizer.step()

    return step


def cases(quick: bool) -> Iterator[Case]:
    for label, (network, shape) in NETWORKS.items():
        size = sum(p.numel() for p in network().parameters())
        for updater in ("adam",) if quick else ("adam", "nesterovs"):
            x = torch.randn(shape)
            ours = plain(network(), x, updater)
            peers = {"flat": flat(network(), x, updater)}
            yield Case(updater, size, label, ours, peers)


TABLE = Table("Parameters in one buffer, training step", cases, axis="parameters")
