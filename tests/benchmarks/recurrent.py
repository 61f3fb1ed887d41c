"""Training steps of recurrent networks that torch has no kernel for, beside torch.lstm.

Ours: two layers of 200 units on series of 50 steps and an output at each step. Theirs:
``nn.LSTM`` of the same size without peepholes and masks (``nn.RNN`` with tanh for plain
layers), cross entropy and torch's optimizer; and as "loop" ours step by step, as it is
where no kernel of dl4py serves.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dl4py.config import (
    LSTM,
    GravesLSTM,
    InputType,
    NeuralNetConfiguration,
    RnnOutput,
    SimpleRnn,
)
from dl4py.layers.recurrent import Recurrent
from dl4py.network import Network
from tests.benchmarks.harness import Call, Case, Floor, Table
from tests.benchmarks.training import step

UNITS, TIME, CLASSES = 200, 50, 10
LAYERS = {
    "peepholes": GravesLSTM(n_out=UNITS, activation="tanh"),
    "masked": LSTM(n_out=UNITS, activation="tanh"),
    "hardsigmoid gates": LSTM(
        n_out=UNITS, activation="softsign", gate_activation="hardsigmoid"
    ),
    "plain, softsign": SimpleRnn(n_out=UNITS, activation="softsign"),
    "plain, layer norm": SimpleRnn(n_out=UNITS, activation="tanh", has_layer_norm=True),
}


class Twin(nn.Module):
    """What a user of torch writes instead."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.steps = (nn.RNN if plain else nn.LSTM)(UNITS, UNITS, 2)
        self.output = nn.Linear(UNITS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.steps(x)[0])
        return y


def network(name: str) -> Network:
    chain = NeuralNetConfiguration.builder().seed(1).updater("sgd", lr=0.01)
    chain.input_type(InputType.recurrent(UNITS, TIME))
    chain.layer(LAYERS[name]).layer(LAYERS[name]).layer(RnnOutput(n_out=CLASSES))
    return chain.build().module().train()


def case(name: str, batch: int) -> Case:
    net = network(name)
    looped = copy.deepcopy(net)
    for module in looped.modules():
        if isinstance(module, Recurrent):
            module.run = lambda x, *rest, m=module: m.loop(  # type: ignore[method-assign]
                m.inputs(x, rest[2]), *rest
            )
    x = torch.randn(batch, UNITS, TIME)
    labels = torch.randint(CLASSES, (TIME, batch))
    y = torch.eye(CLASSES)[labels].permute(1, 2, 0).contiguous()
    mask = (torch.rand(batch, TIME) > 0.2).float() if name == "masked" else None
    twin, criterion = Twin("plain" in name), nn.CrossEntropyLoss(reduction="sum")
    steps = x.permute(2, 0, 1).contiguous()  # torch's own layout
    flat = labels.flatten()

    def fit(net: Network) -> Call:
        return step(lambda: net.loss(x, y, mask), net.optimizer)

    def theirs() -> Tensor:
        return criterion(twin(steps).flatten(0, 1), flat) / batch

    return Case(
        name,
        batch,
        str(batch),
        fit(net),
        {
            "torch": step(theirs, torch.optim.SGD(twin.parameters(), lr=0.01)),
            "loop": fit(looped),
        },
    )


def cases(quick: bool) -> Iterator[Case]:
    for name in LAYERS:
        for batch in (64,) if quick else (16, 64, 256):
            yield case(name, batch)


TABLE = Table(
    "Training step of a recurrent network",
    cases,
    (Floor("torch", 1 / 1.5), Floor("loop", 1.0)),
    axis="examples in a batch",
    block=0.05,
    computes=True,
)
