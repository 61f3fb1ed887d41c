"""Noise and rules around torch modules give what a network of the builder gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import dl4py
from dl4py import NativeRandom, NeuralNetConfiguration, config, schedules
from dl4py.clock import Clock
from dl4py.config import L1, L2, MaxNorm, NonNegative, WeightDecay
from dl4py.noise import Noise
from dl4py.plain import MODES
from dl4py.registry import DROPOUTS


def seeded() -> Noise:
    return Noise(torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", list(DROPOUTS))
class TestDropout:
    def kind(self, name: str, rate: Any) -> Any:
        return DROPOUTS[name](rate)

    def test_acts_on_the_input_while_training(self, name: str) -> None:
        noise = self.kind(name, 0.6)
        module = dl4py.with_dropout(nn.Identity(), noise, seeded())
        x = torch.ones(2, 5, 3)
        expected = noise.apply(x, seeded(), Clock())
        assert torch.equal(module(x), expected) and not torch.equal(expected, x)
        assert torch.equal(module.eval()(x), x)

    def test_follows_a_schedule(self, name: str) -> None:
        step = schedules.get("step", initial_value=0.8, decay_rate=0.5, step=1)
        clock, random = Clock(), NativeRandom(3)
        kind = self.kind(name, step)
        module = dl4py.with_dropout(nn.Identity(), kind, random, clock)
        x = torch.ones(2, 5, 3)
        for rate in (0.8, 0.4):
            expected = self.kind(name, rate).apply(x, NativeRandom(3), Clock())
            random.set_seed(3)
            assert torch.equal(module(x), expected)
            clock.iteration += 1

    def test_refuses_what_a_schedule_gives(self, name: str) -> None:
        bad = -0.5 if name == "gaussian_noise" else 1.5
        module = dl4py.with_dropout(nn.Identity(), self.kind(name, lambda i, e: bad))
        with pytest.raises(ValueError, match="value at iteration 0, epoch 0"):
            module(torch.ones(2, 5, 3))


@pytest.mark.parametrize("given", [lambda p: p, config.DropConnect])
def test_drop_connect_follows_a_schedule(given: Any) -> None:
    falling = schedules.get("step", initial_value=0.8, decay_rate=0.5, step=1)
    clock, random = Clock(), NativeRandom(3)
    layer = nn.Linear(50, 40)
    before = layer.weight.detach().clone()
    dl4py.with_weight_noise(layer, given(falling), noise=random, clock=clock)
    for p in (0.8, 0.4, 0.2):
        kept = NativeRandom(3).uniform(torch.empty(40, 50)) < p
        random.set_seed(3)
        assert torch.equal(layer.weight, before * kept)
        assert kept.float().mean() == pytest.approx(p, abs=0.03)
        clock.iteration += 1


def test_drop_connect_is_a_parametrization() -> None:
    layer = nn.Linear(50, 40)
    before = layer.weight.detach().clone()
    dl4py.with_weight_noise(layer, 0.5, noise=NativeRandom(1))
    with parametrize.cached():
        w = layer.weight
        assert torch.equal(w, layer.weight)
    kept = NativeRandom(1).keep(before, 0.5)
    assert torch.equal(w, before * kept)
    w.sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, kept)
    assert torch.equal(layer.eval().weight, before)
    noisy = config.WeightNoise(dl4py.weight_init.NormalDistribution(0.0, 0.1))
    layer = dl4py.with_weight_noise(nn.Linear(50, 40), noisy, "bias")
    original = layer.parametrizations.bias.original
    assert float((layer.bias - original).detach().std()) == pytest.approx(0.1, rel=0.5)


def test_a_copy_has_noise_too() -> None:
    module = copy.deepcopy(dl4py.with_dropout(nn.Linear(4, 4), 0.5, NativeRandom(5)))
    a, b = module(torch.ones(8, 4)), module(torch.ones(8, 4))
    assert not torch.equal(a, b)


PENALTIES = [
    [L1(0.01), L2(0.02)],
    [WeightDecay(0.05)],
    [L2(schedules.get("exponential", initial_value=0.1, gamma=0.5))],
]


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("mode", [None, *MODES])
def test_equals_a_network(mode: str | None, penalties: list[Any]) -> None:
    """Three steps with penalties, normalised gradients and a constraint."""
    builder = NeuralNetConfiguration.builder().data_type("DOUBLE")
    builder = builder.updater("adam", lr=0.1).gradient_normalization(mode or "None")
    builder = builder.gradient_normalization_threshold(0.05)
    builder = builder.constrain_weights(MaxNorm(1.0)).l1(0).l2(0)
    layers = [
        config.Dense(n_in=4, n_out=6, activation="tanh", regularization=penalties),
        config.Output(
            n_out=3, activation="identity", loss="mse", regularization=penalties
        ),
    ]
    for layer in layers:
        builder = builder.layer(layer)
    net = builder.build().module()
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for ours, theirs in zip(model.parameters(), net.parameters(), strict=True):
            ours.copy_(theirs)
    optimizer = dl4py.updaters.get("adam")(model.parameters(), lr=0.1)
    rules = dl4py.regularize(
        optimizer,
        model,
        gradient_normalization=mode,
        gradient_normalization_threshold=0.05,
        penalties=penalties,
        constraints=[MaxNorm(1.0)],
    )
    criterion = dl4py.losses.get("mse")
    x = NativeRandom(1).normal(torch.empty(5, 4, dtype=torch.float64))
    y = NativeRandom(2).normal(torch.empty(5, 3, dtype=torch.float64))
    for _ in range(3):
        penalty = rules.penalty()

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = criterion(model(x), y)
            loss.backward()
            return loss.detach()

        score = float(optimizer.step(closure) + penalty)
        assert net.fit(x, y) == pytest.approx(score, rel=1e-12)
        for ours, theirs in zip(model.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    rules.remove()
    before = model[0].weight.detach().clone()
    optimizer.step(closure)
    assert rules.clock.iteration == 3 and not torch.equal(before, model[0].weight)


def test_constraints_leave_biases() -> None:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.bias, -1.0)
    nn.init.constant_(model.weight, -1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    dl4py.regularize(optimizer, model, constraints=[NonNegative()])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert (model.weight == 0).all() and (model.bias == -1).all()


def sgd() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(2, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def regularized(**given: Any) -> Any:
    model, optimizer = sgd()
    return dl4py.regularize(optimizer, model, **given)


def with_optimizer(kind: Any) -> Any:
    model, _ = sgd()
    return dl4py.regularize(kind(model.parameters()), model)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: dl4py.with_dropout(nn.Identity(), 1.5), r"in \(0, 1\], got 1.5"),
        (lambda: dl4py.with_dropout(nn.Identity(), 0.0), r"dropout=...\): .*got 0.0"),
        (lambda: config.GaussianDropout(1.0), r"rate=.* in \[0, 1\), got 1.0"),
        (lambda: dl4py.with_dropout(nn.Identity(), "x"), "probability of keeping"),
        (lambda: dl4py.with_dropout(nn.Identity(), 0.5, 42), "NativeRandom.seed"),
        (
            lambda: dl4py.with_dropout(nn.Identity(), 0.5)(input=torch.ones(1)),
            "by position",
        ),
        (
            lambda: dl4py.with_dropout(nn.Identity(), config.SpatialDropout(0.5))(
                torch.ones(2, 3)
            ),
            "at least one axis after",
        ),
        (lambda: dl4py.with_weight_noise(nn.Linear(2, 2), 2), "got 2"),
        (
            lambda: dl4py.with_weight_noise(nn.Linear(2, 2), 0.5, "w"),
            "no such parameter; it has weight, bias",
        ),
        (lambda: regularized(gradient_normalization="Clip"), "expected one of"),
        (lambda: regularized(gradient_normalization_threshold=0), "a number > 0"),
        (lambda: regularized(penalties=[0.1]), "expected Regularizations .*got 0.1"),
        (lambda: regularized(constraints=[L2(0.1)]), "expected Constraints"),
        (lambda: with_optimizer(torch.optim.LBFGS), "penalties to the loss"),
        (
            lambda: dl4py.regularize(sgd()[1], nn.Linear(2, 2)),
            "none of the model's parameters",
        ),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()
