"""Parts of a user's own: a layer, an activation, a loss, an updater."""

from dataclasses import dataclass

import lightning
import torch

import dl4py
from dl4py.config import (
    FeedForwardLayer,
    NeuralNetConfiguration,
    Output,
)
from dl4py.layers.feedforward import Affine
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES, UPDATERS
from tests.training.test_lightning import loader, trainer


@LAYERS.add("gated_dense")
@dataclass(frozen=True, kw_only=True)
class GatedDense(FeedForwardLayer):
    """A layer of a user's own: act(xW + b) · sharpness."""

    sharpness: float = 1.0

    family = "ff"
    weights = ("W",)
    biases = ("b",)


@dl4py.layers.implements(GatedDense)
class GatedDenseModule(Affine):
    """Its module."""

    def finish(self, y):
        return super().finish(y) * self.conf.sharpness


@ACTIVATIONS.add("wave")
class Wave(dl4py.activations.Activation):
    """sin(f·x)"""

    def __init__(self, frequency=1.0, *, dl4j_exact=False):
        super().__init__(dl4j_exact=dl4j_exact)
        self.frequency = frequency

    def forward(self, x):
        return torch.sin(self.frequency * x)


@LOSSES.add("quartic")
class Quartic(dl4py.losses.Loss):
    """(a - y)⁴"""

    def scores(self, a, y):
        return (a - y) ** 4


@UPDATERS.add("sign_descent")
class SignDescent(dl4py.updaters.Updater):
    """p ← p - η·sgn(g)"""

    def __init__(self, params, lr=0.01, dl4j_exact=False, **options):
        super().__init__(params, {"lr": lr}, dl4j_exact, **options)

    @classmethod
    def update_(cls, batch):
        for p, g in zip(batch.params, batch.grads, strict=True):
            p.add_(g.sign(), alpha=-batch.hyper["lr"])


def test_parts_of_ones_own_go_through_everything(tmp_path):
    gated = GatedDense.builder().nIn(4).nOut(5).sharpness(1.5)
    conf = (
        NeuralNetConfiguration.builder()
        .seed(1)
        .data_type("double")
        .updater("sign_descent", lr=0.02)
        .layer(gated.activation("wave", frequency=2.0).build())
        .layer(Output(n_out=3, loss="quartic", activation="identity"))
        .build()
    )
    assert NeuralNetConfiguration.from_json(conf.to_json()) == conf
    assert conf.to_dict()["confs"][0]["layer"]["@class"] == "gated_dense"
    module = conf.lightning(package="lightning")
    net = module.network
    assert net.layers["layer0"].activation.frequency == 2.0
    x, y = loader().dataset.tensors
    before = net.score(x, y)
    t = trainer(lightning, tmp_path, max_epochs=5)
    t.fit(module, loader())
    assert net.score(x, y) < before
    t.save_checkpoint(tmp_path / "a.ckpt")
    again = type(module).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(again.network.output(x), net.output(x))
    dl4py.save(net, tmp_path / "a.zip", allow_difference=True)
    restored = dl4py.restore(tmp_path / "a.zip", dl4j_exact=False)
    assert restored.fit(x, y) == net.fit(x, y)
    assert torch.equal(restored.params(), net.params())
