"""Bad input to layers on series, images and volumes: one clear error each."""

import pytest
import torch

from dl4py import config as c
from dl4py import layers
from dl4py.config import ConfigurationError, InputType, NeuralNetConfiguration

SERIES = InputType.recurrent(3, 5)
NWC = InputType.recurrent(3, 5, "NWC")
IMAGE = InputType.convolutional(4, 3, 2)
NHWC = InputType.convolutional(4, 3, 2, "NHWC")
VOLUME = InputType.convolutional3d(4, 3, 5, 2)
NDHWC = InputType.convolutional3d(4, 3, 5, 2, "NDHWC")

REFUSED = {
    "window of a volume": (
        VOLUME,
        c.Convolution3D(n_out=2, kernel_size=(2, 4, 2)),
        "kernel_size: a window of 4 does not fit an input of 3",
    ),
    "pool of a series": (
        SERIES,
        c.Subsampling1D(kernel_size=6),
        "kernel_size: a window of 6 does not fit an input of 5",
    ),
    "pool of a volume": (
        VOLUME,
        c.Subsampling3D(kernel_size=5, convolution_mode="Truncate"),
        "kernel_size: a window of 5 does not fit an input of 4",
    ),
    "local window": (
        IMAGE,
        c.LocallyConnected2D(n_out=2, kernel_size=4, convolution_mode="Truncate"),
        "kernel_size: a window of 4 does not fit an input of 3",
    ),
    "nothing opened": (
        IMAGE,
        c.Deconvolution2D(n_out=2, kernel_size=1, padding=2),
        "padding: 2 on both sides leaves nothing",
    ),
    "cropped away": (
        SERIES,
        c.Cropping1D(cropping=(3, 2)),
        "cropping: 3 before and 2 after leave nothing of an axis of 5",
    ),
    "image cropped away": (
        IMAGE,
        c.Cropping2D(cropping=2),
        "cropping: 2 before and 2 after leave nothing of an axis of 4",
    ),
    "volume cropped away": (
        VOLUME,
        c.Cropping3D(cropping=(0, 0, 3, 0, 0, 0)),
        "cropping: 3 before and 0 after leave nothing of an axis of 3",
    ),
    "block of channels": (
        IMAGE,
        c.SpaceToDepth(block_size=2),
        "block_size: must divide height and width, got 2 for an axis of 3",
    ),
    "block of examples": (
        IMAGE,
        c.SpaceToBatch(blocks=(2, 2)),
        "blocks: must divide height and width, got 2 for an axis of 3",
    ),
    "other format": (
        NHWC,
        c.DepthwiseConvolution2D(format="NCHW"),
        "format: the layer before gives NHWC, got NCHW",
    ),
    "other format of a volume": (
        VOLUME,
        c.Subsampling3D(format="NDHWC"),
        "format: the layer before gives NCDHW, got NDHWC",
    ),
    "other format of a series": (
        NWC,
        c.Subsampling1D(format="NCW"),
        "format: the layer before gives NHWC, got NCHW",
    ),
    "other format of steps": (
        SERIES,
        c.Convolution1D(n_out=2, format="NWC"),
        "format: the layer before gives NCW, got NWC",
    ),
    "other format of a recurrent layer": (
        SERIES,
        c.LSTM(n_out=2, format="NWC"),
        "format: the layer before gives NCW, got NWC; leave format out",
    ),
    "other format in both directions": (
        NWC,
        c.Bidirectional(fwd=c.SimpleRnn(n_out=2, format="NCW")),
        "format: the layer before gives NWC, got NCW",
    ),
    "other format of rows": (
        SERIES,
        c.TimeDistributed(underlying=c.Dense(n_out=2), format="NWC"),
        "format: the layer before gives NCW, got NWC",
    ),
    "other format of an output": (
        SERIES,
        c.RnnOutput(n_out=2, format="NWC"),
        "format: the layer before gives NCW, got NWC",
    ),
    "other format of a loss of series": (
        SERIES,
        c.RnnLoss(format="NWC"),
        "format: the layer before gives NCW, got NWC",
    ),
    "other format of a loss": (
        NHWC,
        c.CnnLoss(format="NCHW"),
        "format: the layer before gives NHWC, got NCHW",
    ),
    "no format of steps": (NWC, c.ZeroPadding1D(padding=1), r"axis 1 \(NCW\)"),
    "no format of cells": (NDHWC, c.Cropping3D(cropping=1), r"axis 1 \(NCDHW\)"),
    "no format of statistics": (NDHWC, c.BatchNormalization(), r"axis 1 \(NCDHW\)"),
    "no length": (
        InputType.recurrent(3),
        c.LocallyConnected1D(n_out=2),
        "input_size: expected the number of time steps",
    ),
    "another size": (
        IMAGE,
        c.LocallyConnected2D(n_out=2, input_size=(3, 3)),
        r"input_size: the layer before gives \(4, 3\), got \(3, 3\)",
    ),
    "gaps": (
        SERIES,
        c.LocallyConnected1D(n_out=2, dilation=2),
        "dilation: expected 1",
    ),
    "another number of channels": (
        IMAGE,
        c.DepthwiseConvolution2D(n_out=5, depth_multiplier=2),
        "n_out: follows from 2 channels and depth_multiplier=2: 4, got 5",
    ),
    "no multiplier": (
        IMAGE,
        c.SeparableConvolution2D(n_out=2, depth_multiplier=0),
        "depth_multiplier: must be a whole number >= 1, got 0",
    ),
    "no such pooling": (
        VOLUME,
        c.Subsampling3D(pooling_type="PNORM"),
        "pooling_type: must be one of MAX, AVG",
    ),
    "time in images": (
        IMAGE,
        c.Deconvolution2D(n_out=2, convolution_mode="Causal"),
        "convolution_mode: Causal is for one-dimensional convolutions",
    ),
    "three numbers": (
        IMAGE,
        c.ZeroPadding2D(padding=(1, 2, 3)),
        "padding: must be 1, 2 or 4 whole numbers",
    ),
    "gigabytes of zeros": (IMAGE, c.ZeroPadding2D(padding=10**6), "padding: at most"),
    "gigabytes of copies": (VOLUME, c.Upsampling3D(size=10**4), "size: at most"),
    "gigabytes of nothing": (
        IMAGE,
        c.Deconvolution2D(n_out=1, stride=10**5),
        "stride: at most",
    ),
    "rows as volumes": (
        InputType.feed_forward(8),
        c.Convolution3D(n_out=2),
        "FeedForwardToCnn3D",
    ),
    "volumes in time": (VOLUME, c.LSTM(n_out=2), "a layer on time series cannot take"),
    "volumes as images": (
        VOLUME,
        c.Convolution2D(n_out=2),
        "a layer on images cannot take",
    ),
    "channels of rows": (
        InputType.feed_forward(8),
        c.LocalResponseNormalization(),
        "convolutional_flat",
    ),
}


def built(given, *parts):
    chain = NeuralNetConfiguration.builder().seed(1).input_type(given)
    for part in parts:
        chain.layer(part)
    return chain.build()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_built(name):
    given, layer, message = REFUSED[name]
    with pytest.raises(ConfigurationError, match=message):
        built(given, layer)


def test_used_alone():
    with pytest.raises(ValueError, match=r"input_size=\.\.\.\): expected the size"):
        layers.LocallyConnected2D(2, 3)
    local = layers.LocallyConnected1D(2, 3, input_size=4)
    with pytest.raises(ValueError, match=r"x: expected \[4\] behind the features"):
        local(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="leave nothing of an axis of 2"):
        layers.Cropping1D(1)(torch.zeros(1, 3, 2))
    with pytest.raises(ValueError, match="must divide height and width"):
        layers.SpaceToDepth(2)(torch.zeros(1, 3, 4, 5))


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (layers.Convolution2D(2, 3, kernel_size=7), (2, 6, 9), "of 7 does not fit"),
        (layers.Subsampling(kernel_size=7), (2, 9, 6), "of 7 does not fit"),
        (layers.Convolution1D(3, 2, 9), (3, 5), "a window of 9 does not fit .* of 5"),
        (
            layers.Convolution1D(3, 2, 3, dilation=4, format="NWC"),
            (5, 3),
            "of 9 .* of 5",
        ),
        (layers.Subsampling1D("MAX", 9), (3, 5), "a window of 9 does not fit"),
        (
            layers.Subsampling3D("AVG", 4, convolution_mode="Truncate"),
            (1, 5, 3, 5),
            "a window of 4 .* of 3",
        ),
        (layers.Convolution3D(2, 2, 5), (2, 6, 6, 3), "a window of 5 .* of 3"),
        (
            layers.DepthwiseConvolution2D(2, kernel_size=7),
            (2, 6, 6),
            "a window of 7 .* of 6",
        ),
        (layers.SeparableConvolution2D(2, 3, 7), (2, 6, 6), "a window of 7 .* of 6"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_windows_of_layers_alone(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(1, *shape))


def test_a_window_in_a_network_of_any_length():
    conv = c.Convolution1D(n_out=2, kernel_size=9, convolution_mode="Truncate")
    net = built(InputType.recurrent(3), conv, c.RnnOutput(n_out=2)).module()
    with pytest.raises(ValueError, match="'layer0' .*: kernel_size: a window of 9"):
        net.output(torch.zeros(2, 3, 5))


def test_masks_of_features():
    for layer, shape in (
        (layers.BatchNormalization(4), (2, 4)),
        (layers.Convolution2D(2, 3, 1), (2, 2, 3, 3)),
    ):
        with pytest.raises(ValueError, match="expected one entry for all features"):
            layer(torch.zeros(shape), torch.ones(shape))


def test_masks():
    net = built(VOLUME, c.Convolution3D(n_out=2), c.GlobalPooling(), c.Output(n_out=2))
    x = torch.zeros(2, 2, 4, 3, 5)
    for shape in ([2, 1, 4, 3], [2, 1, 4, 3, 4], [2, 2, 4, 3, 5]):
        with pytest.raises(ValueError, match=r"features_mask: expected \[2\] or"):
            net.module().output(x, torch.ones(shape))
    last = built(NDHWC, c.Convolution3D(n_out=2), c.GlobalPooling(), c.Output(n_out=2))
    shown = torch.ones(2, 1, 4, 1, 5)
    assert last.module().output(x.movedim(1, -1), shown).isfinite().all()
    ending = built(VOLUME, c.Dense(n_out=2), c.Output(n_out=2)).module()
    with pytest.raises(ValueError, match="a mask of places"):
        ending.output(x, torch.ones(2, 1, 4, 3, 5))


def test_labels_of_pixels():
    net = built(IMAGE, c.Convolution2D(n_out=2, kernel_size=2), c.CnnLoss()).module()
    x = torch.zeros(2, 2, 4, 3)
    for shape in ([2, 2], [2, 2, 4, 3], [2, 3, 2, 2]):
        with pytest.raises(ValueError, match=r"labels: expected \[2, 2, 3, 2\]"):
            net.score(x, torch.zeros(shape))
    y = torch.zeros(2, 2, 3, 2)
    with pytest.raises(ValueError, match="does not fit an array.*expected"):
        net.score(x, y, labels_mask=torch.ones(2, 1, 3, 3))


def test_preprocessors():
    with pytest.raises(ValueError, match="must be a permutation of 1 to 2"):
        c.Permute(order=(1, 3))
    with pytest.raises(ConfigurationError, match="expected 3 axes"):
        c.Permute(order=(2, 1)).output(IMAGE)
    with pytest.raises(ConfigurationError, match="whose length varies"):
        c.Permute(order=(2, 1)).output(InputType.recurrent(3))
    with pytest.raises(ConfigurationError, match="does not hold the 24 numbers"):
        c.Reshape(input_shape=(24,), target_shape=(5, 5)).output(IMAGE)
    with pytest.raises(ValueError, match=r"does not go into \[2, 3, 4\]"):
        c.Reshape(input_shape=(12,), target_shape=(3, 4)).apply(torch.zeros(2, 13), 2)
    with pytest.raises(ValueError, match="a mask of places"):
        c.Permute(order=(2, 1)).feed_mask(torch.ones(2, 5), 2)
    given = c.Reshape(input_shape=(24,), target_shape=(4, 3, 2)).output(
        InputType.feed_forward(24)
    )
    assert given == NHWC  # DL4J: what was rows has its channels last
