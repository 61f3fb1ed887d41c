"""A network's training step against the same step in hand-written torch.

Ours: the emitted network with its own optimizer. Theirs: an ``nn.Sequential`` with
torch's functions, cross entropy and torch's optimizer of the same kind, default
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.config import (
    LSTM,
    ActivationLayer,
    BatchNormalization,
    Convolution1D,
    Convolution2D,
    Dense,
    ElementWiseVertex,
    GlobalPooling,
    InputType,
    NeuralNetConfiguration,
    Output,
    RnnOutput,
    Subsampling,
)
from dl4py.network import Network
from tests.benchmarks.harness import Call, Case, Floor, Table

OPTIMIZERS = {
    "nesterovs": partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=1e-3),
}
RATES = {"nesterovs": 0.01, "adam": 1e-3}


def begun(updater: str, settings: Mapping[str, Any]) -> Any:
    """A builder with an updater and what else is set for all layers."""
    chain: Any = NeuralNetConfiguration.builder().seed(1)
    chain.updater(updater, lr=RATES[updater])
    for name, value in settings.items():
        getattr(chain, name)(value)
    return chain


def lenet(updater: str, **settings: Any) -> Network:
    return (
        begun(updater, settings)
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


def mlp(updater: str, **settings: Any) -> Network:
    return (
        begun(updater, settings)
        .activation("relu")
        .layer(Dense(n_in=784, n_out=1000))
        .layer(Dense(n_out=1000))
        .layer(Output(n_out=10))
        .build()
        .module()
        .train()
    )


def lstm(updater: str, **settings: Any) -> Network:
    return (
        begun(updater, settings)
        .input_type(InputType.recurrent(77, 50))
        .layer(LSTM(n_out=200, activation="tanh"))
        .layer(LSTM(n_out=200, activation="tanh"))
        .layer(RnnOutput(n_out=77))
        .build()
        .module()
        .train()
    )


def series(updater: str) -> Network:
    """Convolutions over series of 8 channels."""
    return (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater(updater, lr=RATES[updater])
        .activation("relu")
        .input_type(InputType.recurrent(8, 128))
        .layer(Convolution1D(kernel_size=5, n_out=32))
        .layer(Convolution1D(kernel_size=5, n_out=64, stride=2))
        .layer(Convolution1D(kernel_size=3, n_out=64, stride=2))
        .layer(GlobalPooling(pooling_type="max"))
        .layer(Output(n_out=10))
        .build()
        .module()
        .train()
    )


WIDTHS = (16, 16, 32, 64)  # of the stem and of three residual blocks


def resnet(updater: str) -> Network:
    """Three residual blocks on images of 32 x 32, a graph."""
    graph = (
        NeuralNetConfiguration.builder()
        .seed(1)
        .updater(updater, lr=RATES[updater])
        .activation("identity")
        .graph_builder()
        .add_inputs("x")
        .set_input_types(InputType.convolutional(32, 32, 3))
    )

    def conv(name: str, of: str, n_out: int, stride: int, kernel: int = 3) -> str:
        # not "Same", which pads one side of even images: torch's user pads both
        bare = Convolution2D(
            kernel_size=kernel,
            stride=stride,
            padding=kernel // 2,
            n_out=n_out,
            has_bias=False,
        )
        graph.add_layer(f"{name}_c", bare, of)
        graph.add_layer(name, BatchNormalization(), f"{name}_c")
        return name

    def relu(name: str, of: str) -> str:
        graph.add_layer(name, ActivationLayer(activation="relu"), of)
        return name

    last = relu("r0", conv("s0", "x", WIDTHS[0], 1))
    for i, (n_in, n_out) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False), 1):
        stride = 1 if n_in == n_out else 2
        a = relu(f"a{i}", conv(f"p{i}", last, n_out, stride))
        b = conv(f"q{i}", a, n_out, 1)
        skip = last if stride == 1 else conv(f"k{i}", last, n_out, stride, 1)
        graph.add_vertex(f"add{i}", ElementWiseVertex("Add"), b, skip)
        last = relu(f"r{i}", f"add{i}")
    graph.add_layer("pool", GlobalPooling(pooling_type="avg"), last)
    graph.add_layer("out", Output(n_out=10), "pool")
    return graph.set_outputs("out").build().module().train()


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


class TorchLstm(nn.Module):
    """Two layers of 200 cells on 77 characters, DL4J's arrays in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(77, 200, num_layers=2)
        self.head = nn.Linear(200, 77)

    def forward(self, x: Tensor) -> Tensor:  # [n, features, time]
        y, _ = self.lstm(x.permute(2, 0, 1))
        return self.head(y).permute(1, 2, 0)


class TorchSeries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(8, 32, 5), nn.Conv1d(32, 64, 5, 2)
        self.c, self.head = nn.Conv1d(64, 64, 3, 2), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b, self.c):
            x = torch.relu(layer(x))
        return self.head(x.amax(2))


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.p = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.q = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.pn, self.qn = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            narrow = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.skip = nn.Sequential(narrow, nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.pn(self.p(x)))
        return torch.relu(self.qn(self.q(y)) + self.skip(x))


def torch_resnet() -> nn.Module:
    pairs = zip(WIDTHS, WIDTHS[1:], strict=False)
    return nn.Sequential(
        nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
        *(Block(a, b) for a, b in pairs),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 10),
    )


def classes(n: int) -> Tensor:
    return torch.eye(10)[torch.randint(10, (n,))]


def characters(n: int) -> Tensor:
    return torch.eye(77)[torch.randint(77, (n, 50))].permute(0, 2, 1).contiguous()


Made = tuple[
    Callable[..., Network],
    Callable[[], nn.Module],
    tuple[int, ...],
    Callable[[int], Tensor],
]
NETWORKS: dict[str, Made] = {
    "lenet": (lenet, torch_lenet, (1, 28, 28), classes),
    "mlp": (mlp, torch_mlp, (784,), classes),
    "lstm": (lstm, TorchLstm, (77, 50), characters),
    "conv1d": (series, TorchSeries, (8, 128), classes),
    "resnet": (resnet, torch_resnet, (3, 32, 32), classes),
}
BATCHES = {"lstm": (64,), "resnet": (64,)}  # else 64 and 512


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Call:
    def call() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return call


def case(name: str, updater: str, batch: int) -> Case:
    ours, theirs, shape, labels = NETWORKS[name]
    x, y = torch.rand(batch, *shape), labels(batch)
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
            for batch in (64,) if quick else BATCHES.get(name, (64, 512)):
                yield case(name, updater, batch)


TABLE = Table(
    "Training step of a network",
    cases,
    (Floor("torch", 1 / 1.05),),
    axis="examples in a batch",
    block=0.05,
)
