"""Listeners look between the stages of a step."""

import math

import torch

from dl4py.config import Output
from tests.networks import builder, examples, mlp


class Stats:
    """As DL4J's StatsListener: log₁₀ of mean |update| / mean |parameter|, per layer."""

    def __init__(self, net):
        self.net, self.ratios, self.gradients = net, {}, {}

    def __call__(self, stage, values):
        if stage == "gradients":
            self.gradients = {k: float(g.abs().mean()) for k, g in values.items()}
        if stage == "updates":
            for view in self.net.views():
                name = f"{view.node}/{view.name}"
                size = values[name].abs().mean() / view.tensor.detach().abs().mean()
                self.ratios[name] = math.log10(size)


def test_a_listener_sees_gradients_and_updates():
    net = mlp().module()
    stats = Stats(net)
    net.optimizer.listeners.append(stats)
    before = {f"{v.node}/{v.name}": v.tensor.detach().clone() for v in net.views()}
    seen = {}
    net.optimizer.listeners.append(lambda stage, values: seen.update({stage: values}))
    net.fit(*examples())
    assert stats.ratios.keys() == stats.gradients.keys() == before.keys()
    for view in net.views():
        name = f"{view.node}/{view.name}"
        moved = before[name] - view.tensor.detach()
        torch.testing.assert_close(seen["updates"][name], moved)
    assert all(-6 < ratio < 1 for ratio in stats.ratios.values())


def test_gradients_are_what_goes_into_the_updater():
    chain = builder().updater("sgd", lr=0.1).l2(0.5)
    chain.gradient_normalization("ClipElementWiseAbsoluteValue")
    chain.gradient_normalization_threshold(1e-3)
    net = chain.layer(Output(n_in=4, n_out=3)).build().module()
    seen = {}
    net.optimizer.listeners.append(lambda stage, values: seen.update({stage: values}))
    w = net.layers["layer0"].weight.detach().clone()
    net.fit(*examples())
    assert (seen["gradients"]["layer0/W"] - 0.5 * w).abs().max() <= 1e-3 + 1e-12
    torch.testing.assert_close(
        seen["updates"]["layer0/W"], 0.1 * seen["gradients"]["layer0/W"]
    )


def test_listeners_stay_with_a_network_under_a_trainer():
    net = mlp().module()
    seen = []
    net.optimizer.listeners.append(lambda stage, values: seen.append(stage))
    net.renew_optimizer()
    net.fit(*examples())
    assert seen == ["gradients", "updates"]
