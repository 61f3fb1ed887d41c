"""Updaters against torch's own optimizers: the step of a 784-1000-1000-10 network.

``python -m tests.benchmarks.updaters [--quick]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, NAdam, RMSprop

from dl4py import updaters
from dl4py.registry import UPDATERS
from tests.benchmarks.harness import compare, table

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


def rows(threads: list[int], rounds: int) -> Iterator[list[object]]:
    for count in threads:
        torch.set_num_threads(count)
        for name, peer in PEERS.items():
            variants = {"ours": stepping(updaters.get(name)), "torch": stepping(peer)}
            if name in FUSED:
                variants["fused"] = stepping(partial(peer, fused=True))
            t = compare(variants, rounds=rounds)
            fused = t["ours"] / t["fused"] if name in FUSED else "-"
            yield [name, count, t["ours"] * 1e3, t["ours"] / t["torch"], fused]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, one thread")
    quick = parser.parse_args().quick
    assert PEERS.keys() <= set(UPDATERS)
    head = ["updater", "threads", "ms", "ours/torch", "ours/fused"]
    print(table(head, rows([1] if quick else [1, 2], 3 if quick else 21)))


if __name__ == "__main__":
    main()
