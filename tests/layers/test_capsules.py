"""Capsules: their sizes, and what is refused."""

import pytest
import torch

from dl4py import config, layers
from dl4py.config import InputType, NeuralNetConfiguration
from dl4py.layers.capsules import squash
from tests.models.test_java import assert_gradient, go_on_in_java

IMAGE = InputType.convolutional(7, 7, 1)


def chain(*parts, given=IMAGE):
    words = NeuralNetConfiguration.builder().seed(1).input_type(given)
    for part in parts:
        words.layer(part)
    return words.build()


def primary(**options):
    sizes = {"capsule_dimensions": 4, "channels": 2, "kernel_size": 3, **options}
    return config.PrimaryCapsules(**sizes)


def test_sizes_follow_from_the_input():
    conf = chain(primary(), config.Capsule(capsules=3, capsule_dimensions=5))
    first, second = conf.layers
    assert (first.input_channels, first.capsules) == (1, 18)
    assert (second.input_capsules, second.input_capsule_dimensions) == (18, 4)
    assert conf.module().output(torch.zeros(2, 1, 7, 7)).shape == (2, 3, 5)


@pytest.mark.parametrize(
    "parts",
    [
        (primary(), config.Capsule(capsules=2, capsule_dimensions=3, has_bias=True)),
        (config.LocallyConnected2D(n_out=2, kernel_size=3),),
    ],
    ids=["capsules", "local"],
)
def test_java_with_penalties(oracle, parts, tmp_path):
    """DL4J's score leaves out penalties of what SameDiff computes, its steps do not."""
    words = NeuralNetConfiguration.builder().seed(1).data_type("double").l2(0.1)
    words.updater("adam", lr=0.01).input_type(InputType.convolutional(5, 5, 2))
    words.layer(config.Convolution2D(n_out=2, kernel_size=1, activation="tanh"))
    for part in parts:
        words.layer(part)
    if len(parts) > 1:
        words.layer(config.CapsuleStrength())
    conf = words.layer(config.Output(n_out=2)).build()
    net = conf.module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 5, 5, generator=g, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]]
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")
    told = [line for line in net.differs() if "leaves out its penalties" in line]
    assert len(told) == len(parts)
    default = conf.module()
    default.set_params(net.params())
    whole = net.penalty(whole=True)
    assert whole > net.penalty() and default.penalty() == whole


def test_squash_and_strength_have_gradients_at_0():
    x = torch.zeros(1, 2, 3, requires_grad=True)
    y = layers.CapsuleStrength()(squash(x))
    (g,) = torch.autograd.grad(y.sum(), x)
    assert (y == 0).all() and g.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_squash_of_little_in_half_types(dtype):
    x = torch.full((1, 4), 1e-4, dtype=dtype, requires_grad=True)
    squash(x).sum().backward()
    wide = x.detach().double().requires_grad_()
    squash(wide).sum().backward()
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-2, atol=1e-3)


def test_a_rectifier_and_its_leak():
    x = torch.randn(3, 1, 7, 7, dtype=torch.float64)
    plain = layers.PrimaryCapsules(1, 4, 2, kernel_size=3).double()
    for leak in (0.0, 0.25):
        layer = layers.PrimaryCapsules(
            1, 4, 2, kernel_size=3, use_relu=True, leak=leak
        ).double()
        layer.load_state_dict(plain.state_dict())
        z = torch.nn.functional.conv2d(x, plain.weight, plain.bias, 2)
        z = torch.where(z >= 0, z, leak * z).reshape(3, -1, 4)
        torch.testing.assert_close(layer(x), squash(z))


def test_masked_pixels_are_as_padding():
    layer = layers.PrimaryCapsules(1, 4, 2, kernel_size=3)
    x, mask = torch.randn(2, 1, 7, 7), torch.ones(2, 1, 7, 7)
    mask[:, :, 4:] = 0
    other = torch.where(mask == 0, torch.full_like(x, torch.nan), x)
    torch.testing.assert_close(layer(other, mask), layer(x * mask))
    assert layer.feed_mask(mask, x.shape) is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: chain(primary(capsules=17)), "capsules: expected 18, 2 at each place"),
        (lambda: chain(primary(input_channels=3)), "the layer before gives 1, got 3"),
        (
            lambda: chain(config.PrimaryCapsules()),
            "capsule_dimensions: expected a whole number >= 1, got nothing",
        ),
        (lambda: chain(primary(kernel_size=9)), "a window of 9 does not fit"),
        (
            lambda: chain(
                primary(),
                config.Capsule(
                    capsules=3, capsule_dimensions=5, input_capsule_dimensions=5
                ),
            ),
            "input_capsule_dimensions: the layer before gives 4, got 5",
        ),
        (lambda: chain(config.CapsuleStrength()), "input: expected capsules, which"),
        (
            lambda: chain(
                config.Capsule(capsules=3, capsule_dimensions=5),
                given=InputType.recurrent(3),
            ),
            r"InputType.recurrent\(capsules, dimensions\)",
        ),
        (lambda: layers.Capsule(5, 4, 3, 2, 0), "routings: must be a whole number >="),
        (lambda: layers.Capsule(5, 4, 3), "capsule_dimensions: expected a whole"),
        (lambda: layers.Capsule(capsules=3, capsule_dimensions=2), "give them, or set"),
        (lambda: layers.PrimaryCapsules(capsule_dimensions=2), "give it, or set input"),
        (
            lambda: layers.Capsule(5, 4, 3, 2)(torch.zeros(2, 5, 3)),
            r"x: Capsule expects \[n, 5, 4\], got \[2, 5, 3\]",
        ),
        (
            lambda: layers.CapsuleStrength()(torch.zeros(2, 5)),
            r"expects \[n, capsules, dimensions\], got \[2, 5\]",
        ),
    ],
)
def test_bad_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
