"""Weights for each value: slopes and their shapes, and what is refused."""

import pytest
import torch

from dl4py import config, layers
from dl4py.config import InputType, NeuralNetConfiguration


def chain(layer, given):
    return NeuralNetConfiguration.builder().input_type(given).layer(layer).build()


@pytest.mark.parametrize(
    "axes, given, shape",
    [
        (None, InputType.feed_forward(5), (5,)),
        ((2, 3), InputType.convolutional(4, 6, 3), (3, 1, 1)),
        (1, InputType.convolutional(4, 6, 3), (1, 4, 6)),
        ((1, 2), InputType.convolutional(4, 6, 3, "NHWC"), (1, 1, 3)),
        (2, InputType.recurrent(3), (3, 1)),
    ],
)
def test_slopes_follow_from_the_input(axes, given, shape):
    conf = chain(config.PReLU(shared_axes=axes), given)
    assert conf.layers[0].input_shape == shape
    net = conf.module()
    (view,) = net.views()
    assert view.array.shape == shape and (view.array == 0).all()
    with torch.no_grad():
        view.tensor.uniform_()
    x = torch.randn(2, *(size or 7 for size in given.shape))
    expected = torch.where(x >= 0, x, view.array * x)
    torch.testing.assert_close(net.output(x), expected)


def test_one_slope_per_channel_is_torchs():
    ours, torchs = layers.PReLU((3, 1, 1), (2, 3)), torch.nn.PReLU(3)
    with torch.no_grad():
        ours.weight.copy_(torch.rand(3, 1, 1))
        torchs.weight.copy_(ours.weight.flatten())
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(ours(x), torchs(x))


def test_at_0_the_slope_is_1():
    layer = layers.PReLU((2,), weight_init="ones").double()
    x = torch.tensor([[0.0, torch.inf]], dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert (x.grad == 1).all() and (layer.weight.grad == 0).all()


def test_elementwise_sizes():
    conf = chain(config.ElementWiseMultiplication(), InputType.feed_forward(4))
    assert (conf.layers[0].n_in, conf.layers[0].n_out) == (4, 4)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: chain(
                config.PReLU(input_shape=(4,)), InputType.convolutional(2, 3, 4)
            ),
            r"input_shape: expected \[4, 2, 3\], .* got \[4\]",
        ),
        (
            lambda: chain(config.PReLU(shared_axes=2), InputType.feed_forward(4)),
            r"shared_axes: expected axes 1 to 1 of \[n, 4\], got 2",
        ),
        (
            lambda: chain(config.PReLU(shared_axes=1), InputType.recurrent(4)),
            "shared_axes: axis 2 of the input varies; share it",
        ),
        (lambda: config.PReLU(shared_axes=0).resolved({}), "shared_axes: must be a"),
        (lambda: layers.PReLU(), r"expected the shape of one example, such as \(3"),
        (
            lambda: layers.PReLU((3, 1, 1))(torch.zeros(2, 3)),
            r"PReLU expects \[n, 3, axis 2, axis 3\], got \[2, 3\]",
        ),
        (
            lambda: layers.ElementWiseMultiplication(4, 3),
            "n_out: expected n_in = 4, since it weighs each feature by itself, got 3",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
