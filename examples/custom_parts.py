"""Parts of one's own: an activation, a loss, an updater, a schedule and a layer.

Registered under a name, they work like DL4J's: in the builder, in its JSON, in
checkpoints and under the Trainer. Here they fit a wave in spite of outliers.

    python examples/custom_parts.py
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.activations import Activation
from dl4py.config import (
    FeedForwardLayer,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
    Output,
    field,
)
from dl4py.config.kinds import Integer
from dl4py.fields import number
from dl4py.layers import Layer, View, implements
from dl4py.lightning import Network
from dl4py.losses import Loss
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES, SCHEDULES, UPDATERS
from dl4py.schedules import Counted
from dl4py.updaters import Batch, Updater

SEED = 123


@ACTIVATIONS.add("snake")
class Snake(Activation):
    """f(x) = x + sin²(α·x) / α"""

    def __init__(self, alpha: float = 1.0, *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) ** 2 / self.alpha


@LOSSES.add("cauchy")
class Cauchy(Loss):
    """score = ln(1 + ((y - a) / c)²), which grows slowly for outliers"""

    def __init__(
        self, activation: Any = "identity", c: float = 1.0, *, dl4j_exact: bool = False
    ) -> None:
        super().__init__(activation, dl4j_exact=dl4j_exact)
        self.c = c

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return torch.log1p(((y - a) / self.c) ** 2)


@UPDATERS.add("lion")
class Lion(Updater):
    """u = η·sgn(β₁·m + (1 - β₁)·g),  m ← β₂·m + (1 - β₂)·g"""

    state_names = ("m",)

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-3,
        dl4j_exact: bool = False,
        *,
        beta1: float = 0.9,
        beta2: float = 0.99,
        **options: bool,
    ) -> None:
        hyper = {"lr": lr, "beta1": beta1, "beta2": beta2}
        super().__init__(params, hyper, dl4j_exact, **options)

    @classmethod
    def update_(cls, batch: Batch) -> None:
        lr, beta1, beta2 = (batch.hyper[name] for name in ("lr", "beta1", "beta2"))
        for p, g, m in zip(batch.params, batch.grads, batch.state["m"], strict=True):
            p.sub_(lr * torch.sign(beta1 * m + (1 - beta1) * g))
            m.mul_(beta2).add_(g, alpha=1 - beta2)


@SCHEDULES.add("half_cosine")
@dataclass(frozen=True)
class HalfCosine(Counted):
    """value(i) = v₀ · (1 + cos(π·min(i/n, 1))) / 2"""

    initial_value: float = number(low=0.0)
    n: int = number(low=1, whole=True)

    def at(self, i: int) -> float:
        return self.initial_value * (1 + math.cos(math.pi * min(i / self.n, 1))) / 2


@LAYERS.add("maxout")
@dataclass(frozen=True, kw_only=True)
class Maxout(FeedForwardLayer):
    """The configuration of a layer: its fields, beside what every layer has."""

    pieces: int = field(2, Integer(2))  # a whole number >= 2

    family = "ff"  # it takes rows
    weights = ("W",)
    biases = ("b",)


@implements(Maxout)
class MaxoutModule(Layer):
    """Its module: act(max over pieces k of (W⁽ᵏ⁾·x + b⁽ᵏ⁾))

    ``self.conf`` has the fields; input noise, masks and hooks are the base class's.
    """

    def build(self) -> None:
        """Make the parameters."""
        conf = self.conf
        self.weight = nn.Parameter(torch.empty(conf.pieces * conf.n_out, conf.n_in))
        self.bias = nn.Parameter(torch.empty(conf.pieces * conf.n_out))
        self.activation = dl4py.activations.get(conf.activation)

    def views(self) -> Iterator[View]:
        """The parameters, for initial values, penalties, updaters and flat vectors."""
        yield View(self, "W", "weight", fans=(self.conf.n_in, self.conf.n_out))
        yield View(self, "b", "bias", kind="bias")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the layer computes."""
        z = F.linear(x, self.param("weight"), self.param("bias"))
        z = z.unflatten(1, (self.conf.pieces, self.conf.n_out)).amax(1)
        return self.activation(z)


def configuration() -> MultiLayerConfiguration:
    """All five in one network."""
    return (
        NeuralNetConfiguration.builder()
        .seed(SEED)
        .updater("lion", lr=HalfCosine(0.01, 600))
        .list()
        .layer(
            Maxout.builder()
            .n_in(1)
            .n_out(32)
            .pieces(3)
            .activation("snake", alpha=2.0)
            .build()
        )
        .layer(
            Output.builder()
            .n_out(1)
            .loss("cauchy", c=0.2)
            .activation("identity")
            .build()
        )
        .build()
    )


def wave() -> tuple[Tensor, Tensor, Tensor]:
    """x in [-1, 1], sin(4·x), and the same with every tenth value far off."""
    x = torch.linspace(-1, 1, 200).unsqueeze(1)
    y = torch.sin(4 * x)
    measured = y.clone()
    measured[::10] += 5
    return x, y, measured


def main(arguments: Sequence[str] | None = None) -> dict[str, float | bool]:
    """Train, go through JSON and a checkpoint; returns what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    options = parser.parse_args(arguments)

    conf = configuration()
    again = NeuralNetConfiguration.from_json(conf.to_json())

    x, y, measured = wave()
    torch.manual_seed(SEED)  # of shuffling
    loader = DataLoader(TensorDataset(x, measured), batch_size=50, shuffle=True)
    model = conf.lightning()
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, loader)
    fitted = model.network.output(x)

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "wave.ckpt"
        trainer.save_checkpoint(checkpoint)
        loaded = Network.load_from_checkpoint(checkpoint, weights_only=True)

    result = {
        "error": float((fitted - y).square().mean().sqrt()),
        "same configuration from JSON": again == conf,
        "same predictions from checkpoint": torch.equal(
            loaded.network.output(x), fitted
        ),
    }
    for what, value in result.items():
        print(f"{what}: {value}")
    return result


if __name__ == "__main__":
    main()
