"""Updaters against torch's own optimizers: one large network, and 300 small tensors.

``torch``: with its defaults (for-loop on the CPU), ``foreach`` and ``fused``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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
FUSED = {"sgd", "nesterovs", "adam", "amsgrad", "adagrad"}
FEW = {"adam", "nesterovs", "rmsprop", "adagrad", "adadelta"}
# name → shapes: the parameters of a 784-1000-1000-10 network, of many small layers,
# and one tensor that no cache holds
NETWORK = [(1000, 784), (1000,), (1000, 1000), (1000,), (10, 1000), (10,)]
SIZES = {"300 x 256": [(256,)] * 300, "1.8e6": NETWORK, "1e7": [(10_000_000,)]}


def stepping(
    make: Callable[..., torch.optim.Optimizer], shapes: list[tuple[int, ...]]
) -> Callable[[], object]:
    """One step of an optimizer."""
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.randn_like(p) * 1e-3
    return make(parameters).step


def cases(quick: bool) -> Iterator[Case]:
    for label, shapes in SIZES.items():
        size = sum(torch.Size(shape).numel() for shape in shapes)
        for name, peer in PEERS.items():
            if quick and (name not in FEW or label == "1e7"):
                continue
            peers = {"foreach": stepping(partial(peer, foreach=True), shapes)}
            if not quick:
                peers["torch"] = stepping(peer, shapes)
            if name in FUSED:
                peers["fused"] = stepping(partial(peer, fused=True), shapes)
            yield Case(name, size, label, stepping(updaters.get(name), shapes), peers)


def _large(*names: str) -> Callable[[Row], bool]:
    return lambda row: row.name in names and row.size > 10**6


FLOORS = (
    Floor("fused", 1.0, _large("adam", "nesterovs")),
    Floor("fused", 1 / 1.2, lambda row: row.name == "adam" and row.size < 10**6),
    Floor("foreach", 5.0, _large("rmsprop", "adagrad", "adadelta")),
)
TABLE = Table("Updaters, one step", cases, FLOORS, axis="parameters")
