"""Layers alone against torch's own of the same kind."""

import numpy as np
import pytest
import torch
from torch import nn

import dl4py
from dl4py.config import Dense, NeuralNetConfiguration, Output
from tests.models.test_java import assert_gradient


class TestAgainstTorch:
    def test_lstm(self):
        ours = dl4py.layers.LSTM(3, 5, forget_gate_bias_init=0.7).double()
        theirs = nn.LSTM(3, 5, batch_first=True).double()
        order = [3, 1, 0, 2]  # DL4J's blocks are candidate, f, o, i; torch's i, f, c, o
        with torch.no_grad():
            for mine, his in (
                (ours.weight, theirs.weight_ih_l0),
                (ours.recurrent_weight, theirs.weight_hh_l0),
                (ours.bias, theirs.bias_ih_l0),
            ):
                his.copy_(mine.view(4, 5, -1)[order].reshape(his.shape))
            theirs.bias_hh_l0.zero_()
        x = torch.randn(2, 3, 7, dtype=torch.float64)
        y, (h, c) = ours(x)
        z, (g, d) = theirs(x.transpose(1, 2))
        assert torch.allclose(y.transpose(1, 2), z, atol=1e-14)
        assert torch.allclose(h, g[0]) and torch.allclose(c, d[0], atol=1e-14)

    def test_lstm_steps_equal_the_fused_kernel(self):
        layer = dl4py.layers.LSTM(3, 5).double()
        x = torch.randn(2, 3, 7, dtype=torch.float64)
        fused, (h, c) = layer(x)
        steps, _ = layer(x, torch.ones(2, 7))
        assert torch.allclose(fused, steps, atol=1e-14)
        first, state = layer(x[..., :4])
        second, _ = layer(x[..., 4:], state=state)
        assert torch.allclose(torch.cat([first, second], 2), fused, atol=1e-14)

    def test_lstm_mask_is_a_fault_of_dl4j(self):
        layer = dl4py.layers.LSTM(3, 5)
        mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
        y, (h, _) = layer(torch.randn(2, 3, 5), mask)
        assert float(y.detach()[0, :, 3:].abs().sum()) == 0
        assert float(y.detach()[1, :, 1].abs().sum()) == 0
        assert any("mask" in line for line in layer.differs())

    @pytest.mark.parametrize(
        "kind, torchs", [("MAX", nn.MaxPool2d), ("AVG", nn.AvgPool2d)]
    )
    def test_pooling(self, kind, torchs):
        x = torch.randn(2, 3, 9, 8)
        ours = dl4py.layers.Subsampling(
            kind, (3, 2), (2, 1), 1, avg_pool_include_pad_in_divisor=True
        )
        assert torch.allclose(ours(x), torchs((3, 2), (2, 1), 1)(x), atol=1e-6)

    @pytest.mark.parametrize("kind", ["SUM", "AVG", "PNORM"])
    def test_dilated_pooling_sums_the_right_cells(self, kind):
        x = torch.rand(1, 2, 7, 6, dtype=torch.float64) + 0.1
        y = dl4py.layers.Subsampling(kind, 2, 1, 0, 2, pnorm=3)(x).numpy()
        a = x.numpy()
        cells = np.stack(
            [a[:, :, i : i + 5, j : j + 4] for i in (0, 2) for j in (0, 2)]
        )
        expected = {
            "SUM": cells.sum(0),
            "AVG": cells.mean(0),
            "PNORM": (cells**3).sum(0) ** (1 / 3),
        }[kind]
        np.testing.assert_allclose(y, expected, rtol=1e-12)

    def test_the_p_norm_of_nothing_is_zero(self):
        x = torch.tensor([[[[0.0, 0.0, 3.0, 4.0]]]], requires_grad=True)
        y = dl4py.layers.Subsampling("PNORM", (1, 2), pnorm=2)(x)
        assert y.flatten().tolist() == [0, 5]  # DL4J: not the root of eps
        (g,) = torch.autograd.grad(y.sum(), x)
        assert torch.allclose(g.flatten(), torch.tensor([0, 0, 0.6, 0.8]))

    def test_batch_norm(self):
        ours = dl4py.layers.BatchNormalization(3, use_log_std=False, decay=0.8).double()
        theirs = nn.BatchNorm2d(3, momentum=0.2).double()
        x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
        assert torch.allclose(ours(x), theirs(x), atol=1e-12)
        running = {n: getattr(ours, n) - g for n, g in ours.pending.items()}
        assert torch.allclose(running["mean"], theirs.running_mean, atol=1e-12)
        n = 4 * 5 * 5
        unbiased = 0.8 + (running["var"] - 0.8) * n / (n - 1)
        assert torch.allclose(unbiased, theirs.running_var, atol=1e-12)

    def test_embedding(self):
        layer = dl4py.layers.Embedding(5, 3, has_bias=True)
        for index in (torch.tensor([[1], [4]]), torch.tensor([1.0, 4.0])):
            expected = layer.weight.t()[[1, 4]] + layer.bias
            assert torch.equal(layer(index), expected)
        with pytest.raises(ValueError, match="must hold whole numbers"):
            layer(torch.tensor([1.5]))
        with pytest.raises(ValueError, match="indices must be in 0 to 4, got 1 to 5"):
            layer(torch.tensor([1, 5]))
        exact = dl4py.layers.Embedding(5, 3, dl4j_exact=True)
        assert torch.equal(exact(torch.tensor([1.5])), exact(torch.tensor([1])))


def test_layer_norm_of_equal_numbers(oracle, tmp_path):
    """It is 0 there, and no gradient comes through, as in DL4J."""
    chain = NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.updater("sgd", lr=0.1).list().layer(Dense(n_in=3, n_out=4, activation="tanh"))
    chain.layer(Dense(n_out=3, has_layer_norm=True)).layer(Output(n_out=2))
    net = chain.build().module(dl4j_exact=True)
    x = torch.tensor([[0.0, 0, 0], [1, -2, 3]], dtype=torch.float64)
    assert_gradient(oracle, net, x, torch.eye(2).double(), tmp_path)
    x = x.requires_grad_()
    net.loss(x, torch.eye(2).double()).backward()
    assert x.grad[0].eq(0).all() and x.grad[1].ne(0).all()
