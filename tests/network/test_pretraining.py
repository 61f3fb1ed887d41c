"""Training on inputs alone: in networks, graphs and under a Trainer."""

import lightning
import pytest
import pytorch_lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.config import AutoEncoder, Dense, Output, VariationalAutoencoder

PACKAGES = {"lightning": lightning, "pytorch_lightning": pytorch_lightning}
SIZES = {"encoder_layer_sizes": 4, "decoder_layer_sizes": 4}


def network(*layers, exact=False, **settings):
    chain = dl4py.NeuralNetConfiguration.builder().seed(5).data_type("double")
    chain.updater("adam", lr=0.05).activation("sigmoid")
    for name, value in settings.items():
        getattr(chain, name)(value)
    for layer in layers:
        chain.layer(layer)
    return chain.layer(Output(n_out=3)).build().module(dl4j_exact=exact)


def stack(**settings):
    return network(
        AutoEncoder(n_in=6, n_out=5, loss="XENT", corruption_level=0.0),
        Dense(n_out=5),
        VariationalAutoencoder(n_out=2, distribution="bernoulli", **SIZES),
        **settings,
    )


def inputs():
    g = torch.Generator().manual_seed(0)
    return (torch.rand(20, 6, generator=g, dtype=torch.float64) < 0.3).double()


def batches():
    y = torch.eye(3, dtype=torch.float64)[torch.arange(20) % 3]
    return DataLoader(TensorDataset(inputs(), y), batch_size=8)


@pytest.mark.parametrize("loss", ["MSE", "XENT"])
def test_an_autoencoder_gives_back_more_of_its_input(loss):
    net = network(AutoEncoder(n_in=6, n_out=5, loss=loss))
    layer, x = net.layers["layer0"], inputs()
    before, fixed = layer.reconstruction_error(x).sum(), net.params()[-18:]
    net.pretrain(batches(), epochs=60)
    assert layer.reconstruction_error(x).sum() < 0.7 * before
    assert torch.equal(net.params()[-18:], fixed)
    assert layer.reconstruct(x).shape == x.shape


def test_the_score_is_the_mean_of_the_loss_and_penalties():
    net = network(AutoEncoder(n_in=6, n_out=5, loss="MSE", corruption_level=0), l2=0.1)
    layer, x = net.layers["layer0"], inputs()
    w = layer.weight.detach()
    error = (layer.reconstruct(x) - x).square().mean(1).mean() + 0.05 * w.square().sum()
    assert net.pretrain_layer(0, x) == pytest.approx(error.item())


def test_a_variational_autoencoder_learns_what_is_likely():
    net = network(VariationalAutoencoder(n_in=6, n_out=2, num_samples=3, **SIZES,
                                         distribution="bernoulli"))  # fmt: skip
    layer, x = net.layers["layer0"], inputs()
    torch.manual_seed(0)
    before = layer.reconstruction_log_probability(x, 20).mean()
    net.pretrain([x], epochs=100)
    assert layer.reconstruction_log_probability(x, 20).mean() > before + 0.2


def test_layers_are_trained_in_turn_on_what_those_before_give():
    net, same, data = stack(), stack(), [*batches()]
    torch.manual_seed(3)
    scores = net.pretrain(data, epochs=2)
    assert list(scores) == ["layer0", "layer2"] and net.clock.iteration == 0
    optimizers = [net.pretraining_optimizer(i) for i in (0, 2)]
    assert [(o.clock.iteration, o.clock.epoch) for o in optimizers] == [(6, 2)] * 2
    torch.manual_seed(3)
    same.pretrain_layer(0, data, epochs=2)
    alone = network(VariationalAutoencoder(n_in=5, n_out=2, distribution="bernoulli",
                                           **SIZES))  # fmt: skip
    at = sum(v.size for v in same.views() if v.node in ("layer0", "layer1"))
    alone.set_params(same.params()[at:])
    alone.pretrain([same.feed_forward(x)[1] for x, _ in data], epochs=2)
    torch.testing.assert_close(net.params()[at:], alone.params())
    assert torch.equal(net.params()[:at], same.params()[:at])


def test_fit_afterwards_begins_with_fresh_updaters():
    net = stack()
    net.pretrain(inputs())
    assert not net.updater_state().any()
    (x, y), *_ = batches()
    other = stack()
    other.set_params(net.params())
    net.fit(x, y)
    other.fit(x, y)
    assert torch.equal(net.params(), other.params())


def test_graphs_and_masks():
    graph = dl4py.NeuralNetConfiguration.builder().seed(5).data_type("double")
    graph = graph.updater("sgd", lr=0.1).graph_builder().add_inputs("x")
    code = AutoEncoder(n_in=6, n_out=3, corruption_level=0, loss="MSE")
    graph.add_layer("code", code, "x").add_layer("o", Output(n_in=3, n_out=3), "code")
    net, other = (graph.set_outputs("o").build().module() for _ in "ab")
    x, mask = inputs(), torch.ones(20, dtype=torch.float64)
    mask[12:] = 0
    score = net.pretrain_layer("code", [(x, None, mask)])
    assert score == pytest.approx(other.pretrain_layer(0, x[:12]) * 12 / 20)


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("algorithm", ["STOCHASTIC_GRADIENT_DESCENT", "LBFGS"])
def test_under_a_trainer(name, algorithm, tmp_path):
    net, same = (stack(optimization_algo=algorithm, l2=1e-3) for _ in "ab")
    module = getattr(dl4py, name).Pretraining(net, "layer0")
    trainer = PACKAGES[name].Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, batches())
    score = same.pretrain_layer("layer0", batches(), epochs=2)
    assert torch.equal(net.params(), same.params())
    assert float(trainer.callback_metrics["pretrain_loss"]) == pytest.approx(score)
    assert net.pretraining_optimizer(0).clock.epoch == 2


def test_exact_mode_says_that_it_goes_uphill():
    net, exact = (stack(exact=e) for e in (False, True))
    assert any("uphill" in line for line in exact.differs())
    x = inputs()
    scores = [[m.pretrain_layer(0, x) for _ in range(20)] for m in (net, exact)]
    assert scores[0][-1] < scores[0][0] and scores[1][-1] > scores[1][0]


def test_bad_input_is_refused():
    net, x = stack(), inputs()
    before = net.params()
    for call, message in {
        lambda: net.pretrain_layer(1, x): r"\(layer0, layer2\), got 1",
        lambda: net.pretrain(x, epochs=2): r"write pretrain\(\[x\], epochs=...\)",
        lambda: net.pretrain([x], epochs=0): "epochs: expected a whole number >= 1",
        lambda: net.pretrain([]): "at least one batch, got none",
        lambda: net.pretrain(x[:0]): "the batch is empty",
        lambda: net.pretrain(x[:, :5]): "'layer0' .* expects",
        lambda: network(Dense(n_in=6, n_out=2)).pretrain(x): "add an AutoEncoder",
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(FloatingPointError, match="score is nan at iteration 0"):
        net.pretrain(x * float("nan"))
    assert torch.equal(net.params(), before)
