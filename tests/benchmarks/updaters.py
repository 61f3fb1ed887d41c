"""Updaters against torch's own optimizers: the step of a 784-1000-1000-10 network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RMSprop

from dl4py import updaters
from tests.benchmarks.harness import Case, Table

# what torch has of the same kind, with its default settings and fused
PEERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": SGD,
    "nesterovs": partial(SGD, momentum=0.9, nesterov=True),
    "adam": Adam,
    "amsgrad": partial(Adam, amsgrad=True),
    "adamax": Adamax,
    "nadam": NAdam,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "rmsprop": RMSprop,
}
FUSED = {"sgd", "nesterovs", "adam", "amsgrad", "adagrad"}


def stepping(make: Callable[..., torch.optim.Optimizer]) -> Callable[[], object]:
    """One step of an optimizer over the parameters of the network."""
    sizes = [784, 1000, 1000, 10]
    layers = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    optimizer = make([p for layer in layers for p in layer.parameters()])
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p) * 1e-3
    return optimizer.step


def cases(quick: bool) -> Iterator[Case]:
    for name, peer in PEERS.items():
        peers = {"torch": stepping(peer)}
        if name in FUSED:
            peers["fused"] = stepping(partial(peer, fused=True))
        yield Case(name, 1_796_010, "1.8e6", stepping(updaters.get(name)), peers)


TABLE = Table("Updaters, one step", cases, axis="parameters")
