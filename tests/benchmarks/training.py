"""A network's training step against the same step in hand-written torch.

Ours: the emitted network with its own optimizer. Theirs: an ``nn.Sequential`` with
torch's functions, cross entropy and torch's optimizer of the same kind, default
settings.
"""

from __future__ import annotations

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
from tests.benchmarks.harness import Call, Case, Floor, Table

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


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Call:
    def call() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return call


def case(name: str, updater: str, batch: int) -> Case:
    ours, theirs, shape = NETWORKS[name]
    x, y = torch.rand(batch, *shape), torch.eye(10)[torch.randint(10, (batch,))]
    net, twin, criterion = ours(updater), theirs(), nn.CrossEntropyLoss()
    return Case(
        f"{name}, {updater}",
        batch,
        str(batch),
        step(lambda: net.loss(x, y), net.optimizer),
        {
            "torch": step(
                lambda: criterion(twin(x), y), OPTIMIZERS[updater](twin.parameters())
            )
        },
    )


def cases(quick: bool) -> Iterator[Case]:
    for name in NETWORKS:
        for updater in OPTIMIZERS:
            for batch in (64,) if quick else (64, 512):
                yield case(name, updater, batch)


TABLE = Table(
    "Training step of a network",
    cases,
    (Floor("torch", 1 / 1.05),),
    axis="examples in a batch",
    block=0.05,
)
