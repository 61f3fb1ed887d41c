"""Autoencoders: what they say of their input, and what waits for pretraining."""

import numpy as np
import pytest
import torch

from dl4py import config, layers
from dl4py.config import InputType, NeuralNetConfiguration
from dl4py.layers.reconstruction import distribution_of
from dl4py.registry import RECONSTRUCTIONS
from tests.models.test_java import assert_gradient, go_on_in_java

G = torch.Generator().manual_seed(0)
D = torch.randn(4, 6, generator=G, dtype=torch.float64)
X = torch.rand(4, 3, generator=G, dtype=torch.float64)


def with_torch(name, x, d):
    """(ln p, mean) by torch's own distributions."""
    if name == "gaussian":
        mean, log_var = d[:, :3], d[:, 3:]
        p = torch.distributions.Normal(mean, (log_var / 2).exp())
    elif name == "bernoulli":
        p = torch.distributions.Bernoulli(logits=d, validate_args=False)
    else:
        p = torch.distributions.Exponential(d.exp())
    return p.log_prob(x).sum(1), p.mean


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "exponential"])
def test_probability_and_mean(name, exact):
    part = distribution_of(RECONSTRUCTIONS[name](), exact)
    d = D if name == "gaussian" else D[:, :3]
    log_p, mean = with_torch(name, X, d)
    torch.testing.assert_close(part.log_probability(X, d), log_p)
    torch.testing.assert_close(part.mean(d), mean)
    torch.manual_seed(1)
    many = torch.stack([part.sample(d, layers.Part.noise) for _ in range(4000)])
    torch.testing.assert_close(many.mean(0), mean, rtol=0.1, atol=0.1)


def test_composite_is_the_sum_of_its_parts():
    conf = config.CompositeReconstruction(sizes=(1, 2), parts=("gaussian", "bernoulli"))
    whole = distribution_of(conf)
    d, x = D[:, :4], X
    one, two = (distribution_of(part) for part in conf.parts)
    expected = one.log_probability(x[:, :1], d[:, :2])
    expected = expected + two.log_probability(x[:, 1:], d[:, 2:])
    torch.testing.assert_close(whole.log_probability(x, d), expected)
    mean = torch.cat([one.mean(d[:, :2]), two.mean(d[:, 2:])], 1)
    torch.testing.assert_close(whole.mean(d), mean)


def test_what_is_impossible():
    """A certain 1 against a 0: DL4J takes the logarithm of 0 for 0."""
    d = torch.tensor([[800.0, -800.0]], dtype=torch.float64)
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    plain, exact = (
        distribution_of(config.BernoulliReconstruction(), flag) for flag in (0, 1)
    )
    assert plain.log_probability(x, d).item() == -1600
    assert exact.log_probability(x, d).item() == 0


def vae(**options):
    sizes = {"encoder_layer_sizes": (4,), "decoder_layer_sizes": 5}
    return layers.VariationalAutoencoder(3, 2, **sizes, **options).double()


def test_error_of_a_loss():
    layer = vae(distribution=config.LossReconstruction(loss="mse", activation="tanh"))
    back = layer.reconstruct(X)
    expected = (X - back).square().mean(1)
    torch.testing.assert_close(layer.reconstruction_error(X), expected)
    with pytest.raises(ValueError, match="a loss is no probability"):
        layer.reconstruction_log_probability(X)
    with pytest.raises(ValueError, match="has no loss; use reconstruction_log_prob"):
        vae().reconstruction_error(X)
    parts = (config.LossReconstruction(loss="l1"), config.LossReconstruction())
    both = config.CompositeReconstruction(sizes=(1, 2), parts=parts)
    layer = vae(distribution=both)
    back = layer.reconstruct(X)
    expected = (X - back)[:, 0].abs() + (X - back)[:, 1:].square().mean(1)
    torch.testing.assert_close(layer.reconstruction_error(X), expected)


def test_an_autoencoder_goes_back_by_its_own_weight():
    layer = layers.AutoEncoder(3, 2, "tanh", visible_bias_init=0.5).double()
    w, b, v = (view.array.detach().numpy() for view in layer.views())
    assert (v == 0.5).all()
    y = np.tanh(X.numpy() @ w + b)
    np.testing.assert_allclose(
        layer.reconstruct(X).detach().numpy(), np.tanh(y @ w.T + v), rtol=1e-12
    )


def test_rows_that_are_masked():
    mask = torch.tensor([1.0, 0, 1, 1]).double()
    for kind in (vae, lambda **o: layers.AutoEncoder(3, 2, **o).double()):
        assert (kind()(X, mask)[1] == 0).all()
        exact = kind(dl4j_exact=True)
        assert (exact(X, mask)[1] != 0).any() and "mask" in exact.differs()[-1]


def test_what_waits_for_pretraining():
    """No gradient, no penalty and no update, but constraints and a state."""
    chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.1).l2(0.1)
    chain.constrain_weights(config.MaxNorm(max_norm=0.1, dimensions=(0,)))
    sizes = {"encoder_layer_sizes": (4,), "decoder_layer_sizes": (5,)}
    chain.layer(config.VariationalAutoencoder(n_in=3, n_out=2, **sizes))
    net = chain.layer(config.Output(n_out=2)).build().module()
    waits = {v.name: v for v in net.views() if v.trained == "pretraining"}
    assert set(waits) == {*("pZXLogStd2W", "pZXLogStd2b", "d0W", "d0b", "pXZW", "pXZb")}
    with torch.no_grad():
        waits["d0W"].tensor.fill_(0.001)
        waits["pXZW"].tensor.fill_(7.0)
    before = sum(0.05 * w.square().sum() for w, _ in net.penalised(True))
    torch.testing.assert_close(net.penalty(), before)
    assert not {id(w) for w, _ in net.penalised(True)} & {
        id(v.tensor) for v in waits.values()
    }
    x, y = torch.randn(5, 3), torch.eye(2)[[0, 1, 0, 1, 0]]
    net.fit(x, y)
    torch.testing.assert_close(waits["d0W"].tensor, torch.full((5, 2), 0.001))
    assert waits["pXZW"].array.square().sum(0).sqrt().max() < 0.11
    assert len(net.updater_state()) == 2 * net.num_params()


@pytest.mark.parametrize(
    "distribution, message",
    [
        (
            lambda: config.CompositeReconstruction(sizes=(1, 1), parts=["gaussian"]),
            "must be 2, one for each of sizes, got 1",
        ),
        (
            lambda: config.CompositeReconstruction(
                sizes=(1, 1), parts=("gaussian", "loss")
            ),
            "must all be distributions, or all losses",
        ),
        (
            lambda: config.CompositeReconstruction(
                sizes=(1, 1), parts=("gaussian", "bernoulli")
            ),
            r"its sizes \[1, 1\] must sum to n_in = 3",
        ),
        (lambda: "cauchy", "unknown reconstruction distribution 'cauchy'"),
    ],
)
def test_bad_distributions(distribution, message):
    with pytest.raises(ValueError, match=message):
        vae(distribution=distribution())


def test_the_visible_bias_is_no_bias_to_updaters(oracle, tmp_path):
    """DL4J gives it the updater of weights, and no penalties."""
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double").l2_bias(0.1)
    chain.updater("adam", lr=0.01).bias_updater("adagrad", lr=0.1)
    chain.layer(config.AutoEncoder(n_in=4, n_out=3))
    net = chain.layer(config.Output(n_out=2)).build().module(dl4j_exact=True)
    assert len(net.updater_state()) == 2 * (12 + 4 + 6) + 3 + 2
    x = torch.randn(5, 4, generator=G, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1, 0]]
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


def test_bad_input():
    with pytest.raises(ValueError, match="num_samples: expected >= 1, got 0"):
        vae().reconstruction_log_probability(X, 0)
    with pytest.raises(ValueError, match=r"z: expected \[n, n_out\] = \[n, 2\]"):
        vae().generate_at_mean(X)
    with pytest.raises(ValueError, match="encoder_layer_sizes: must be 1 or more"):
        layers.VariationalAutoencoder(3, 2, encoder_layer_sizes=())
    with pytest.raises(ValueError, match="corruption_level: must be in"):
        layers.AutoEncoder(3, 2, corruption_level=1.5)
    chain = NeuralNetConfiguration.builder().input_type(InputType.feed_forward(3))
    with pytest.raises(ValueError, match="loss: must be one of MSE"):
        chain.layer(config.AutoEncoder(n_out=2, loss="nothing")).build()


def test_java(oracle, tmp_path):
    """What waits has a block of the updater's state; the rest joins its neighbours."""
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double").l2(0.1)
    chain.updater("adam", lr=0.01)
    chain.layer(config.Dense(n_in=4, n_out=3, activation="tanh"))
    sizes = {"encoder_layer_sizes": (4,), "decoder_layer_sizes": (5,)}
    chain.layer(config.VariationalAutoencoder(n_out=3, **sizes))
    chain.layer(config.AutoEncoder(n_out=3))
    net = chain.layer(config.Output(n_out=2)).build().module(dl4j_exact=True)
    x = torch.randn(5, 4, generator=G, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1, 0]]
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")
