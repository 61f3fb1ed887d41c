"""A network's training step against the same step in hand-written torch.

``python -m tests.benchmarks.training [--quick]``

Ours: the emitted network with its own optimizer. Theirs: an ``nn.Sequential`` with
torch's functions, cross entropy and torch's optimizer of the same kind, default
settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from dl4py.config import (
    Convolution2D,
    Dense,
    InputType,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from dl4py.network import Network
from tests.benchmarks.harness import compare, table

OPTIMIZERS = {
    "nesterovs": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=1e-3),
}
RATES = {"nesterovs": 0.01, "adam": 1e-3}


def lenet(updater: str) -> Network:
    return (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater(updater, lr=RATES[updater])
        .input_type(InputType.convolutional(28, 28, 1))
        .layer(Convolution2D(kernel_size=5, n_out=20, activation="identity"))
        .layer(Subsampling(kernel_size=2))
        .layer(Convolution2D(kernel_size=5, n_out=50, activation="identity"))
        .layer(Subsampling(kernel_size=2))
        .layer(Dense(n_out=500, activation="relu"))
        .layer(Output(n_out=10))
        .build()
        .module()
        .train()
    )


def mlp(updater: str) -> Network:
    return (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater(updater, lr=RATES[updater])
        .activation("relu")
        .layer(Dense(n_in=784, n_out=1000))
        .layer(Dense(n_out=1000))
        .layer(Output(n_out=10))
        .build()
        .module()
        .train()
    )


def torch_lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def torch_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 1000),
        nn.ReLU(),
        nn.Linear(1000, 1000),
        nn.ReLU(),
        nn.Linear(1000, 10),
    )


NETWORKS: dict[str, tuple[Callable[[str], Network], Callable[[], nn.Module], tuple]] = {
    "lenet": (lenet, torch_lenet, (1, 28, 28)),
    "mlp": (mlp, torch_mlp, (784,)),
}


def step(
    loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer
) -> Callable[[], object]:
    def call() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return call


def variants(name: str, updater: str, batch: int) -> dict[str, Callable[[], object]]:
    ours, theirs, shape = NETWORKS[name]
    x, y = torch.rand(batch, *shape), torch.eye(10)[torch.randint(10, (batch,))]
    net, twin, criterion = ours(updater), theirs(), nn.CrossEntropyLoss()
    return {
        "ours": step(lambda: net.loss(x, y), net.optimizer),
        "torch": step(
            lambda: criterion(twin(x), y), OPTIMIZERS[updater](twin.parameters())
        ),
    }


def rows(threads: list[int], rounds: int) -> Iterator[list[object]]:
    for count in threads:
        torch.set_num_threads(count)
        for name in NETWORKS:
            for updater in OPTIMIZERS:
                for batch in (64, 512):
                    t = compare(
                        variants(name, updater, batch), rounds=rounds, block=0.05
                    )
                    ratio = t["ours"] / t["torch"]
                    yield [name, updater, batch, count, t["ours"] * 1e3, ratio]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, one thread")
    quick = parser.parse_args().quick
    head = ["network", "updater", "batch", "threads", "ms", "ours / torch"]
    print(table(head, rows([1] if quick else [1, 2], 5 if quick else 21)))


if __name__ == "__main__":
    main()
