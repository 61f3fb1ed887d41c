"""Convolutions and their kin where the catalogue has no case, beside the real DL4J."""

import pytest
import torch

import dl4py
from dl4py import config as c
from dl4py.config import InputType
from dl4py.config.inputs import Recurrent
from tests.models.test_java import assert_gradient, go_on_in_java

IMAGE = InputType.convolutional(6, 5, 2)
LAST = InputType.convolutional(6, 5, 2, "NHWC")
VOLUME = InputType.convolutional3d(4, 3, 5, 2)
VOLUME_LAST = InputType.convolutional3d(4, 3, 5, 2, "NDHWC")
SERIES = InputType.recurrent(3, 7)
ROWS = InputType.feed_forward(24)


NETWORKS = {
    "deconvolution with a kernel below its stride": (
        IMAGE,
        [c.Deconvolution2D(n_out=2, kernel_size=1, stride=2, convolution_mode="Same")],
    ),
    "deconvolution far below": (
        IMAGE,
        [c.Deconvolution2D(n_out=2, kernel_size=1, stride=3, convolution_mode="Same")],
    ),
    "deconvolution below, truncated": (
        IMAGE,
        [c.Deconvolution2D(n_out=2, kernel_size=(1, 2), stride=3)],
    ),
    "dilated deconvolution": (
        IMAGE,
        [c.Deconvolution2D(n_out=2, kernel_size=2, dilation=(2, 3), padding=1)],
    ),
    "dilated deconvolution, same": (
        IMAGE,
        [
            c.Deconvolution2D(
                n_out=2, kernel_size=3, dilation=2, convolution_mode="Same"
            )
        ],
    ),
    "deconvolution without bias": (
        IMAGE,
        [c.Deconvolution2D(n_out=2, kernel_size=3, stride=2, has_bias=False)],
    ),
    "deconvolution of volumes, last": (
        VOLUME_LAST,
        [c.Deconvolution3D(n_out=2, kernel_size=(2, 3, 2), stride=2, padding=1)],
    ),
    "deconvolution of volumes, below": (
        VOLUME,
        [c.Deconvolution3D(n_out=2, kernel_size=1, stride=4, convolution_mode="Same")],
    ),
    "depthwise, dilated": (
        IMAGE,
        [c.DepthwiseConvolution2D(kernel_size=2, dilation=2, depth_multiplier=2)],
    ),
    "separable, one channel": (
        InputType.convolutional(6, 5, 1),
        [c.SeparableConvolution2D(n_out=1, kernel_size=2)],
    ),
    "separable, dilated": (
        IMAGE,
        [c.SeparableConvolution2D(n_out=3, kernel_size=2, dilation=2, padding=1)],
    ),
    "dilated volumes": (
        VOLUME,
        [c.Convolution3D(n_out=2, kernel_size=(2, 1, 2), dilation=(2, 1, 3))],
    ),
    "mean over volumes, odd": (
        VOLUME,
        [c.Subsampling3D(pooling_type="AVG", kernel_size=2)],
    ),
    "mean over volumes, padded": (
        VOLUME,
        [
            c.Subsampling3D(
                pooling_type="AVG",
                kernel_size=2,
                padding=1,
                stride=1,
                convolution_mode="Truncate",
            )
        ],
    ),
    "maximum of volumes, padded": (
        VOLUME,
        [
            c.Subsampling3D(
                kernel_size=3, padding=1, stride=2, convolution_mode="Truncate"
            )
        ],
    ),
    "dilated pooling of volumes": (
        VOLUME,
        [c.Subsampling3D(kernel_size=2, dilation=2, stride=1)],
    ),
    "up-sampling volumes, last": (VOLUME_LAST, [c.Upsampling3D(size=(1, 2, 3))]),
    "pooling series, padded": (
        SERIES,
        [c.Subsampling1D(kernel_size=3, stride=2, padding=1)],
    ),
    "mean over series, padded": (
        SERIES,
        [c.Subsampling1D(pooling_type="AVG", kernel_size=3, padding=1)],
    ),
    "mean over series, same": (
        SERIES,
        [
            c.Subsampling1D(
                pooling_type="AVG", kernel_size=2, stride=2, convolution_mode="Same"
            )
        ],
    ),
    "dilated pooling of series": (
        SERIES,
        [c.Subsampling1D(kernel_size=2, dilation=3)],
    ),
    "locally connected, after a convolution": (
        IMAGE,
        [
            c.Convolution2D(n_out=2, kernel_size=2),
            c.LocallyConnected2D(n_out=2, kernel_size=(2, 3), stride=(2, 1)),
        ],
    ),
    "locally connected, truncated and padded": (
        IMAGE,
        [
            c.LocallyConnected2D(
                n_out=2, kernel_size=(2, 3), padding=1, convolution_mode="Truncate"
            )
        ],
    ),
    "locally connected, last": (
        LAST,
        [c.LocallyConnected2D(n_out=2, kernel_size=(3, 2), has_bias=False)],
    ),
    "locally connected series, truncated and padded": (
        SERIES,
        [
            c.LocallyConnected1D(
                n_out=2,
                kernel_size=3,
                stride=2,
                padding=1,
                convolution_mode="Truncate",
                activation="relu",
            )
        ],
    ),
    "blocks of pixels as channels": (
        InputType.convolutional(6, 9, 2),
        [c.SpaceToDepth(block_size=3)],
    ),
    "blocks of pixels, last": (
        InputType.convolutional(6, 4, 2, "NHWC"),
        [c.Convolution2D(n_out=2, kernel_size=1), c.SpaceToBatch(blocks=(3, 2))],
    ),
    "loss of volumes, last": (
        VOLUME_LAST,
        [
            c.Convolution3D(n_out=3, kernel_size=1),
            c.Cnn3DLoss(activation="softmax"),
        ],
    ),
    "loss of one channel": (
        IMAGE,
        [
            c.Convolution2D(n_out=1, kernel_size=2),
            c.CnnLoss(loss="xent", activation="sigmoid"),
        ],
    ),
    "rows as volumes": (
        ROWS,
        [
            c.FeedForwardToCnn3D(depth=2, height=3, width=2, channels=2),
            c.Convolution3D(n_out=2, kernel_size=2),
        ],
    ),
    "rows as volumes, last": (
        ROWS,
        [
            c.FeedForwardToCnn3D(depth=2, height=3, width=2, channels=2, ncdhw=False),
            c.Convolution3D(n_out=2, kernel_size=2),
        ],
    ),
    "permuted images": (
        IMAGE,
        [c.Permute(order=(1, 3, 2)), c.Convolution2D(n_out=2, kernel_size=(2, 3))],
    ),
    "reshaped rows": (
        ROWS,
        [
            c.Reshape(input_shape=(24,), target_shape=(3, 4, 2)),
            c.Convolution2D(n_out=2, kernel_size=2),
        ],
    ),
    "two preprocessors": (
        SERIES,
        [
            c.ComposableInput(
                preprocessors=[
                    c.Permute(order=(2, 1)),
                    c.KerasFlattenRnn(depth=7, length=3),
                ]
            ),
            c.Dense(n_out=3),
            c.Output(n_out=2),
        ],
    ),
}


def made(given, layers, words=None):
    """(network in exact mode, its input, labels); ``words`` set what holds for all."""
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain.updater("sgd", lr=0.1).activation("tanh").bias_init(0.1)
    chain = words(chain) if words else chain
    chain.input_type(given)
    count = 0
    for part in layers:
        if isinstance(part, c.Layer):
            chain.layer(part)
            count += 1
        else:
            chain.input_pre_processor(count, part)
    if not hasattr(layers[-1], "loss"):
        series = isinstance(given, Recurrent)
        for part in (
            c.GlobalPooling() if series else c.Dense(n_out=4),
            c.Output(n_out=3),
        ):
            chain.layer(part)
    net = chain.build().module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, *given.shape, generator=g, dtype=torch.float64)
    out = net.output(x)
    y = torch.rand(out.shape, generator=g, dtype=torch.float64)
    return net, x, (y / y.sum(1, keepdim=True)).round(decimals=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_dl4j(oracle, name, tmp_path):
    net, x, y = made(*NETWORKS[name])
    assert_gradient(oracle, net, x, y, tmp_path)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")


@pytest.mark.parametrize(
    "layer",
    [
        c.DepthwiseConvolution2D(kernel_size=2, depth_multiplier=2),
        c.SeparableConvolution2D(n_out=3, kernel_size=2, depth_multiplier=2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_rules_that_slip_from_weights_to_biases(oracle, layer, tmp_path):
    """DL4J's updater walks over weights first, the flat vector begins with biases."""

    def words(chain):
        chain.updater("adam", lr=0.01).bias_updater("nesterovs", lr=0.1, momentum=0.8)
        return chain.l2(0.02).l1_bias(0.03).weight_decay(0.01)

    net, x, y = made(IMAGE, [layer], words)
    for _ in range(2):
        net.fit(x, y)
    go_on_in_java(oracle, net, x, y, tmp_path, dtype="DOUBLE")
    dl4py.save(net, tmp_path / "again.zip")
    again = dl4py.restore(tmp_path / "again.zip")
    assert torch.equal(again.updater_state(), net.updater_state())
    again.optimizer.set_flat_state(net.updater_state().flip(0))
    assert torch.equal(again.updater_state(), net.updater_state().flip(0))
    plain = net.conf.module()
    plain.set_params(net.params())
    lines = [line for node in plain.nodes for line in node.layer.differs()]
    assert any("rules for weights act on biases" in line for line in lines)
