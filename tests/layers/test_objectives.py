"""Output layers with more in their score than a loss."""

import numpy as np
import pytest
import torch

from dl4py import config, layers
from dl4py.config import NeuralNetConfiguration
from tests.models.test_java import assert_gradient, go_on_in_java

G = torch.Generator().manual_seed(0)
X = torch.randn(5, 4, generator=G, dtype=torch.float64)
CLASS = [0, 1, 2, 0, 0]
Y = torch.eye(3, dtype=torch.float64)[CLASS]


def network(output, exact=False, **words):
    chain = NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("sgd", lr=0.1)
    for word, value in words.items():
        getattr(chain, word)(value)
    chain.layer(config.Dense(n_in=4, n_out=3, activation="tanh"))
    net = chain.layer(output).build().module(dl4j_exact=exact)
    with torch.no_grad():
        for name, b in net.named_buffers():
            if name.endswith("centers"):
                b.copy_(torch.arange(9.0).reshape(3, 3) / 9)
    return net


def center(**options):
    return config.CenterLossOutput(n_out=3, alpha=0.3, lambda_=0.2, **options)


def ocnn(**options):
    """With an r that some z are below, and some above."""
    given = {"activation": "sigmoid", "initial_r_value": 0.39, **options}
    return config.OCNNOutput(hidden_size=6, **given)


@pytest.mark.parametrize("mini_batch", [False, True])
@pytest.mark.parametrize(
    "output, labels",
    [
        (center(), Y),
        (center(gradient_check=True), Y),
        (ocnn(nu=0.3), torch.ones(5, 1).double()),
    ],
)
def test_java(oracle, output, labels, mini_batch, tmp_path):
    """Penalties act on W alone, or on nothing; DL4J's divisions are its own."""
    net = network(output, exact=True, mini_batch=mini_batch, l2=0.1)
    assert_gradient(oracle, net, X, labels, tmp_path)
    go_on_in_java(oracle, net, X, labels, tmp_path, dtype="DOUBLE")


def test_biases_have_the_updater_of_weights(oracle, tmp_path):
    """DL4J's centre loss knows one updater, but the penalties of both kinds."""
    net = network(center(), exact=True, bias_updater="adam", l2_bias=0.1)
    assert [g["name"] for g in net.optimizer.param_groups if "beta1" in g] == [
        "layer0/bias"
    ]
    go_on_in_java(oracle, net, X, Y, tmp_path, dtype="DOUBLE")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_centers_move(check, exact):
    """The paper's rule, which DL4J divides by the batch size; or a gradient."""
    net = network(center(gradient_check=check), exact)
    inside, last = net.layers.values()
    h = inside(X).detach().numpy()
    c = last.centers.numpy().copy()
    expected = c.copy()
    for k in range(3):
        own = [i for i, label in enumerate(CLASS) if label == k]
        pull = sum(c[k] - h[i] for i in own)
        by = 0.2 / 5 if check else 1 / (1 + len(own)) / (5 if exact else 1)
        expected[k] -= 0.3 * pull * by
    score = net.fit(X, Y)
    np.testing.assert_allclose(last.centers.numpy(), expected, rtol=1e-12)
    away = sum(((h[i] - c[label]) ** 2).sum() for i, label in enumerate(CLASS))
    plain = network(config.Output(n_out=3)).score(X, Y)
    assert score == pytest.approx(plain + 0.1 * away / 5, rel=1e-12)


def test_masked_labels_do_not_pull():
    mask = torch.tensor([1.0, 0, 1, 1, 0]).double()
    broken = X.clone()
    broken[[1, 4]] = torch.nan
    net = network(center())
    score = net.fit(broken, Y, labels_mask=mask)
    other = network(center())
    kept = mask.bool()
    assert score == pytest.approx(other.fit(X[kept], Y[kept]) * 3 / 5)
    ours, theirs = (list(n.layers.values())[1].centers for n in (net, other))
    torch.testing.assert_close(ours, theirs)


def test_the_gradient_of_a_one_class_network():
    """By default a derivative; DL4J's goes back to the layer before as it is not."""
    labels = torch.ones(5, 1).double()
    default, exact = (network(ocnn(nu=0.5), exact=e) for e in (False, True))
    assert 0 < (default.output(X) < 0.39).sum() < 5
    ours, score = default.gradient_and_score(X, labels)
    theirs, told = exact.gradient_and_score(X, labels)
    assert score == pytest.approx(5 * told)
    torch.testing.assert_close(ours[15:], theirs[15:])
    assert not torch.allclose(ours[:15], theirs[:15])
    flat = default.params()
    for i in range(len(flat)):
        scores = []
        for step in (1e-6, -1e-6):
            moved = flat.clone()
            moved[i] += step
            default.set_params(moved)
            scores.append(default.score(X, labels, training=True))
        assert ours[i].item() == pytest.approx((scores[0] - scores[1]) / 2e-6, abs=1e-7)


def test_masked_rows_are_no_anomalies():
    layer = layers.OCNNOutput(4, 3, "sigmoid", nu=0.5).double()
    mask = torch.tensor([1.0, 0, 1, 1, 1]).double()
    y = torch.ones(5, 1)
    broken = X.clone()
    broken[1] = 7
    one, two = (layer(x, labels=y, labels_mask=mask) for x in (X, broken))
    assert one == two
    assert layer(X, mask.unsqueeze(1))[1] == 0
    assert layer(X).shape == (5, 1)


def test_epochs_are_not_exact():
    labels = torch.ones(5, 1).double()
    network(ocnn()).fit([(X, labels)], epochs=2)
    net = network(ocnn(), exact=True)
    net.fit([(X, labels)])
    with pytest.warns(UserWarning, match="DL4J sets r to a percentile of a window"):
        net.fit(X, labels)
    net.fit(X, labels)  # once is enough


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.CenterLossOutput(3, 2, alpha=1.5), "alpha: must be in"),
        (
            lambda: layers.CenterLossOutput(3, 2, lambda_=-1.0),
            "lambda_: must be a finite number >= 0",
        ),
        (lambda: layers.OCNNOutput(3), "hidden_size: expected a whole number >= 1"),
        (lambda: layers.OCNNOutput(3, 4, nu=0), r"nu: expected a share in \(0, 1\]"),
        (lambda: layers.OCNNOutput(3, 4, n_out=2), "n_out: expected 1, one score"),
        (
            lambda: layers.CenterLossOutput(4, 3).double()(X, labels=Y[:, :2]),
            r"labels must be \[n, n_out\] = \[5, 3\]",
        ),
        (
            lambda: layers.CenterLossOutput(4, 3).double()(X, labels=Y.argmax(1)),
            "of class indices torch.nn.functional.one_hot",
        ),
        (
            lambda: layers.OCNNOutput(4, 3).double()(X, labels=Y[:3]),
            r"labels must be \[5, 1\], one row per example",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
