"""What layers on images and volumes promise beyond ``test_every_layer``."""

import dataclasses

import numpy as np
import pytest
import torch

from dl4py import config as c
from dl4py import layers
from dl4py.config import InputType
from dl4py.config.inputs import Convolutional, Convolutional3D
from dl4py.config.layer import DEFAULTS
from dl4py.layers import Scored, module_of
from dl4py.registry import LAYERS
from tests.layers.test_every_layer import KINDS, activations, made
from tests.networks import builder

LAST = {Convolutional: "NHWC", Convolutional3D: "NDHWC"}
PLACES = [
    key
    for key in KINDS
    if type(LAYERS[key].example()[1]) in LAST
    and getattr(LAYERS[key].example()[0], "format", "stated") is None
]


def turned(key):
    """The kind's example with channels last."""
    layer, given = LAYERS[key].example()
    given = dataclasses.replace(given, format=LAST[type(given)])
    conf = layer.resolved({**DEFAULTS, "activation": "tanh"}).with_input(given)
    return module_of(conf).from_config(conf).double().eval()


@pytest.mark.parametrize("key", PLACES)
def test_channels_last_is_a_permutation(key):
    layer, x = made(key)
    last = turned(key)
    last.load_state_dict(layer.state_dict())
    z = x.movedim(1, -1).contiguous()
    y, w = activations(layer, x), activations(last, z)
    torch.testing.assert_close(w.movedim(-1, 1), y)
    if isinstance(layer, Scored):
        labels = torch.rand_like(y)
        score = last(z, labels=labels.movedim(1, -1))
        torch.testing.assert_close(score, layer(x, labels=labels))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_whose_rules_hold_for_depthwise_kernels(multiplier, exact):
    """DL4J's updater takes as many numbers for weights as there are, from the front."""
    layer = c.DepthwiseConvolution2D(kernel_size=2, depth_multiplier=multiplier)
    chain = builder("double").updater("sgd", lr=0.1).bias_updater("sgd", lr=0.01)
    chain.l1(0.5).weight_decay(0.2, apply_lr=False).bias_init(0.3)
    chain = chain.list().layer(layer).layer(c.Output(n_out=2))
    net = chain.input_type(InputType.convolutional(3, 3, 2)).build().module(exact)
    x, y = torch.ones(1, 2, 3, 3).double(), torch.tensor([[1.0, 0]]).double()
    count = sum(v.size for v in net.views() if v.node == "layer0")
    biases = 2 * multiplier
    weights = np.arange(count) < count - biases
    if not exact:
        weights = np.arange(count) >= biases
    p = net.params().numpy()[:count]
    g = net.gradient_and_score(x, y)[0].numpy()[:count]
    net.fit(x, y)
    rate = np.where(weights, 0.1, 0.01)
    expected = p - rate * (g + 0.5 * np.sign(p) * weights) - 0.2 * p * weights
    found = net.params().numpy()[:count]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_locally_connected_layers_put_results_where_they_belong():
    """Equal weights everywhere make a convolution; in DL4J's order a turned one."""
    args = {"kernel_size": (2, 3), "convolution_mode": "Truncate"}
    local = layers.LocallyConnected2D(2, 3, input_size=(6, 5), **args).double()
    plain = layers.Convolution2D(2, 3, activation="tanh", **args).double()
    kernel = plain.weight.flatten(1).t()
    with torch.no_grad():
        local.weight.copy_(kernel.expand_as(local.weight))
        local.bias.copy_(plain.bias)
    x = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(local(x), plain(x))
    local.dl4j_exact = True
    turned = plain(x).transpose(2, 3).reshape(4, 3, 5, 3)
    torch.testing.assert_close(local(x), turned)


def test_one_channel_keeps_its_point():
    layer = layers.SeparableConvolution2D(1, 1, 2, activation="identity")
    x = torch.randn(1, 1, 3, 3)
    with torch.no_grad():
        layer.point.fill_(3.0)
    tripled = layer(x)
    layer.dl4j_exact = True
    torch.testing.assert_close(3 * layer(x), tripled)


def test_an_ordinary_mask_of_volumes_hides_them():
    """Means over what is shown are those of the volume cut to it."""
    chain = builder("double").list().layer(c.Subsampling3D(kernel_size=1, stride=1))
    chain.layer(c.Upsampling3D(size=2)).layer(c.GlobalPooling(pooling_type="AVG"))
    net = chain.input_type(InputType.convolutional3d(4, 3, 2, 2)).build().module()
    x = torch.randn(2, 2, 4, 3, 2, dtype=torch.float64)
    mask = torch.ones(2, 1, 4, 3, 2)
    mask[:, :, 2:] = 0
    cut = x[:, :, :2].mean((2, 3, 4))
    torch.testing.assert_close(net.output(x, mask), cut)
