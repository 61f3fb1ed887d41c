"""What happens to gradients, weights and activations of a network on the way."""

import numpy as np
import pytest
import torch
from torch import nn

import dl4py
from dl4py.config import (
    BatchNormalization,
    Dense,
    Dropout,
    Frozen,
    FrozenWithBackprop,
    MaxNorm,
    MinMaxNorm,
    NeuralNetConfiguration,
    NonNegative,
    Output,
    UnitNorm,
)
from dl4py.network.gradients import normalised
from dl4py.plain import MODES
from tests.models.test_java import assert_gradient, go_on_in_java
from tests.networks import builder, examples, mlp


class TestNormalisation:
    """The five rules, in NumPy."""

    G = [np.array([[3.0, -4.0], [0.0, 12.0]]), np.array([0.5, -0.2])]

    @pytest.mark.parametrize("theta", [0.7, 100.0])
    @pytest.mark.parametrize(
        "mode, rule",
        [
            ("RenormalizeL2PerLayer", lambda g, n, m, t: g / n),
            ("RenormalizeL2PerParamType", lambda g, n, m, t: g / m),
            ("ClipElementWiseAbsoluteValue", lambda g, n, m, t: np.clip(g, -t, t)),
            ("ClipL2PerLayer", lambda g, n, m, t: g * (t / n if n > t else 1)),
            ("ClipL2PerParamType", lambda g, n, m, t: g * (t / m if m > t else 1)),
        ],
    )
    def test_rule(self, mode, rule, theta):
        n = np.sqrt(sum((g**2).sum() for g in self.G))
        ours = normalised([torch.from_numpy(g) for g in self.G], mode, theta)
        for g, u in zip(self.G, ours, strict=True):
            expected = rule(g, n, np.sqrt((g**2).sum()), theta)
            np.testing.assert_allclose(u.numpy(), expected, rtol=1e-12)

    def test_a_norm_of_zero(self):
        zero = [torch.zeros(3)]
        assert torch.equal(normalised(zero, "RenormalizeL2PerLayer", 1.0)[0], zero[0])


class TestConstraints:
    W = torch.tensor([[3.0, 4.0], [0.3, -0.4], [0.0, 0.0]], dtype=torch.float64)

    @pytest.mark.parametrize(
        "constraint, norms",
        [
            (MaxNorm(max_norm=1.0), [1, 0.5, 0]),
            (MinMaxNorm(min=0.8, max=1.0), [1, 0.8, 0]),
            (MinMaxNorm(min=0.8, max=1.0, rate=0.5), [3, 0.65, 0]),
            (UnitNorm(), [1, 1, 0]),
            (NonNegative(), [5, 0.3, 0]),
        ],
    )
    def test_norms_afterwards(self, constraint, norms):
        w = constraint.apply(self.W)
        expected = torch.tensor(norms, dtype=torch.float64)
        assert torch.allclose(w.norm(dim=1), expected, rtol=1e-5)

    def test_wrong_axis(self):
        with pytest.raises(ValueError, match=r"MaxNorm\(dimensions=\(2,\)\)"):
            MaxNorm(dimensions=(2,)).apply(self.W)

    def test_holds_after_every_step(self):
        chain = builder().updater("sgd", lr=10.0)
        chain.constrain_weights(MaxNorm(max_norm=0.5))
        chain.layer(Dense(n_in=4, n_out=5)).layer(Output(n_out=3))
        net = chain.build().module()
        net.fit(*examples())
        for layer in net.layers.values():
            assert layer.weight.t().norm(dim=1).max().item() <= 0.5 + 1e-9


class TestNoise:
    @pytest.mark.parametrize("name", list(dl4py.registry.DROPOUTS))
    def test_is_off_when_testing_and_keeps_the_mean(self, name):
        x = torch.full((400, 3, 50), 2.0, dtype=torch.float64)
        layer = dl4py.layers.DropoutLayer(dropout=dl4py.registry.DROPOUTS[name]())
        torch.manual_seed(0)
        noisy = layer(x)
        assert not torch.equal(noisy, x)
        if name != "alpha_dropout":  # keeps the mean of standardised values only
            assert float(noisy.mean()) == pytest.approx(2.0, rel=0.05)
        layer.eval()
        assert torch.equal(layer(x), x)

    def test_p_is_the_probability_of_keeping(self):
        torch.manual_seed(0)
        layer = dl4py.layers.DropoutLayer(dropout=0.8)
        y = layer(torch.ones(100_000))
        assert float((y > 0).float().mean()) == pytest.approx(0.8, abs=0.01)
        assert float(y.max()) == pytest.approx(1.25)

    def test_alpha_dropout_equals_torch(self):
        x = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(0)
        ours = dl4py.layers.DropoutLayer(dropout=dl4py.config.AlphaDropout(0.7))(x)
        theirs = nn.AlphaDropout(0.3)(x)
        for moment in (torch.mean, torch.std):
            assert float(moment(ours)) == pytest.approx(float(moment(theirs)), abs=0.01)

    def test_spatial_dropout_takes_whole_channels(self):
        layer = dl4py.layers.DropoutLayer(dropout=dl4py.config.SpatialDropout(0.5))
        y = layer(torch.ones(8, 4, 3, 3)).flatten(2)
        assert bool(((y == 0).all(2) | (y == 2).all(2)).all())
        with pytest.raises(ValueError, match="SpatialDropout needs"):
            layer(torch.ones(8, 4))

    def test_scheduled_rate(self):
        x, _ = examples()
        half = dl4py.schedules.get("step", initial_value=1.0, decay_rate=1e-9, step=1)
        chain = builder().layer(Dense(n_in=4, n_out=6, dropout=Dropout(half)))
        net = chain.layer(Output(n_out=3)).build().module()
        assert torch.equal(net.train()(x), net.output(x))  # keeps all
        net.clock.iteration = 1
        hidden = net.layers["layer0"](x)
        assert torch.equal(hidden[0], hidden[1])  # keeps nothing

    def test_networks_draw_from_torchs_generator(self):
        x, _ = examples()
        net = mlp(dropout=0.5).module().train()
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(net(x))
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_what_stands_behind_a_frozen_layer():
    """DL4J lets its penalties and its updater act on it; torch leaves it as it is."""
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double").l2(0.1)
    chain = chain.updater("sgd", lr=0.5).list().layer(Dense(n_in=3, n_out=4))
    chain = chain.layer(Frozen(underlying=Dense(n_in=4, n_out=4))).layer(
        Output(n_out=2)
    )
    conf = chain.build()
    x, y = torch.randn(5, 3).double(), torch.eye(2).double()[torch.arange(5) % 2]
    for exact in (False, True):
        net = conf.module(dl4j_exact=exact)
        first, still = (next(iter(n.layer.views())).tensor for n in net.nodes[:2])
        before, fixed = first.detach().clone(), still.detach().clone()
        net.fit(x, y)
        update = 0.5 * 0.1 * before if exact else 0 * before
        expected = before - update
        torch.testing.assert_close(first, expected, rtol=1e-12, atol=0)
        net.fit(x, y)  # DL4J: the last update, too, divided by the five examples
        update = 0.5 * (update / 5 + 0.1 * expected) if exact else update
        torch.testing.assert_close(first, expected - update, rtol=1e-12, atol=0)
        assert torch.equal(still, fixed)
        assert any("behind a frozen" in line for line in net.differs())


def test_runs_go_on_behind_a_frozen_layer(tmp_path):
    chain = NeuralNetConfiguration.builder().seed(1).l2(0.1).updater("adam", lr=0.1)
    chain.layer(Dense(n_in=3, n_out=4)).layer(Dense(n_in=4, n_out=4))
    chain.layer(Frozen(underlying=Dense(n_in=4, n_out=4))).layer(Output(n_out=2))
    conf = chain.build()
    x, y = torch.randn(5, 3), torch.eye(2)[torch.arange(5) % 2]
    net, other = (conf.module(dl4j_exact=True) for _ in range(2))
    net.fit(x, y)
    torch.save(net.optimizer.state_dict(), tmp_path / "state.pt")
    other.set_params(net.params())
    other.optimizer.load_state_dict(torch.load(tmp_path / "state.pt"))
    for _ in range(2):
        assert torch.equal(net.params(), other.params())
        for n in (net, other):
            n.fit(x, y)
    net.renew_optimizer()  # which keeps what there was
    again = other.optimizer.state_dict()
    assert again["left"].keys() == {f"layer{i}/{p}" for i in (0, 1) for p in "Wb"}
    again["left"]["layer0/W"] = torch.zeros(4, 4)
    before = other.updater_state()
    with pytest.raises(ValueError, match=r"left\['layer0/W'\] has shape \(4, 4\)"):
        other.optimizer.load_state_dict(again)
    assert torch.equal(other.updater_state(), before)


@pytest.mark.parametrize("rule", ["None", "RenormalizeL2PerLayer"])
def test_java_behind_a_frozen_layer(rule, oracle, tmp_path):
    """Penalties, updater, statistics of the batch, and what is still itself."""
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double").l1(0.01)
    chain.gradient_normalization(rule).updater("adam", lr=0.01).list()
    chain.layer(Dense(n_in=3, n_out=4)).layer(BatchNormalization(n_out=4))
    chain.layer(FrozenWithBackprop(underlying=Dense(n_in=4, n_out=4)))
    chain.layer(Frozen(underlying=Dense(n_in=4, n_out=4))).layer(Output(n_out=2))
    net = chain.build().module(dl4j_exact=True)
    x, y = torch.randn(5, 3).double(), torch.eye(2).double()[torch.arange(5) % 2]
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


@pytest.mark.parametrize("settings", [{"l1": 0.1}, {"l2": 0.1}, {}], ids=str)
@pytest.mark.parametrize("mode", ["None", *MODES])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_step_leaves_gradients_that_are_not_its_own(settings, mode):
    """``fit`` drops them and writes over them; in a loop of one's own they stay."""

    def made():
        chain = builder().updater("adam", lr=0.1).gradient_normalization(mode)
        for name, value in settings.items():
            getattr(chain, name)(value)
        chain.layer(Dense(n_in=300, n_out=300)).layer(Output(n_out=3))
        return chain.build().module()

    x = torch.randn(4, 300, generator=torch.manual_seed(1), dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    net, same = made().train(), made()
    for _ in range(2):
        net.objective(x, y).backward()
        grads = [p.grad.clone() for p in net.parameters()]
        net.optimizer.step()
        for p, grad in zip(net.parameters(), grads, strict=True):
            assert torch.equal(p.grad, grad) and grad.any()
        net.optimizer.zero_grad()
        same.fit(x, y)
        assert all(p.grad is None for p in same.parameters())
        assert torch.equal(net.params(), same.params())
