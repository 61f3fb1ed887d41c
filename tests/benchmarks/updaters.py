"""Updaters against torch's own optimizers: one large network, and 300 small tensors.

``torch``: with its defaults (for-loop on the CPU), ``foreach``, ``fused``; ``others``:
pytorch_optimizer's, where that is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RMSprop

from dl4py import updaters
from tests.benchmarks.harness import Case, Floor, Row, Table

# what torch has of the same kind, with its default settings
PEERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": Adam,
    "nesterovs": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "sgd": SGD,
    "amsgrad": partial(Adam, amsgrad=True),
    "adamax": Adamax,
    "nadam": NAdam,
}
OTHERS = {  # pytorch_optimizer's of the same formula
    "adabelief": "AdaBelief",
    "adamax": "AdaMax",
    "nadam": "NAdam",
    "rmsprop": "RMSprop",
}
FUSED = {"sgd", "nesterovs", "adam", "amsgrad", "adagrad"}  # where the device has it
FEW = {"adam", "nesterovs", "rmsprop", "adagrad", "adadelta"}
# name → shapes: the parameters of a 784-1000-1000-10 network, of many small layers,
# and one tensor that no cache holds
NETWORK = [(1000, 784), (1000,), (1000, 1000), (1000,), (10, 1000), (10,)]
SIZES = {"300 x 256": [(256,)] * 300, "1.8e6": NETWORK, "1e7": [(10_000_000,)]}


def others() -> dict[str, Any]:
    """pytorch_optimizer's classes by our names; none where it is not installed."""
    try:
        package = importlib.import_module("pytorch_optimizer")
    except ImportError:
        return {}
    return {name: getattr(package, theirs) for name, theirs in OTHERS.items()}


def stepping(
    make: Callable[..., torch.optim.Optimizer], shapes: list[tuple[int, ...]]
) -> Callable[[], object]:
    """One step of an optimizer."""
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p) * 1e-3
    return make(parameters).step


def fused(
    make: Callable[..., torch.optim.Optimizer], shapes: list[tuple[int, ...]]
) -> dict[str, Callable[[], object]]:
    """The peer ``fused``; none where torch has none for the device: AdaGrad on CUDA."""
    try:
        step = stepping(partial(make, fused=True), shapes)
        step()
    except RuntimeError:
        return {}
    return {"fused": step}


def cases(quick: bool) -> Iterator[Case]:
    more = others()
    for label, shapes in SIZES.items():
        size = sum(torch.Size(shape).numel() for shape in shapes)
        for name in sorted(PEERS.keys() | more.keys()):
            if quick and (name not in FEW or label == "1e7"):
                continue
            peers = {}
            if name in PEERS:
                peers["foreach"] = stepping(partial(PEERS[name], foreach=True), shapes)
                if not quick:
                    peers["torch"] = stepping(PEERS[name], shapes)
            if name in FUSED:
                peers |= fused(PEERS[name], shapes)
            if name in more and not quick:
                peers["others"] = stepping(more[name], shapes)
            yield Case(name, size, label, stepping(updaters.get(name), shapes), peers)


def _large(*names: str) -> Callable[[Row], bool]:
    return lambda row: row.name in names and row.size > 10**6


FLOORS = (
    Floor("fused", 1.0, _large("adam", "nesterovs")),
    Floor("fused", 1 / 1.2, lambda row: row.name == "adam" and row.size < 10**6),
    Floor("foreach", 5.0, _large("rmsprop", "adagrad", "adadelta")),
)
TABLE = Table("Updaters, one step", cases, FLOORS, axis="parameters")
