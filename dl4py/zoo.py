"""Networks of DL4J's model zoo as configurations.

The others of the zoo (ResNet50, VGG16, Darknet19 ...) are in torchvision and timm;
their DL4J zips open with ``dl4py.restore``.
"""

from __future__ import annotations

from typing import Any

from dl4py.config import (
    ActivationLayer,
    BatchNormalization,
    Convolution2D,
    DropoutLayer,
    GlobalPooling,
    GravesLSTM,
    InputType,
    MultiLayerConfiguration,
    NeuralNetConfiguration,
    RnnOutput,
    Subsampling,
)
from dl4py.registry import UPDATERS


def simple_cnn(
    num_classes: int,
    input_shape: tuple[int, int, int] = (3, 48, 48),
    seed: int = 1234,
    updater: Any = None,
) -> MultiLayerConfiguration:
    """A small convolutional network for images: blocks of 16, 32, 64, 128, 256 kernels.

    As in DL4J it ends in softmax and no loss: it predicts, and whoever trains it calls
    a loss of his own on its output.

    Args:
        num_classes: how many classes there are.
        input_shape: channels, height, width of an image.
        seed: of the initial parameters.
        updater: default: AdaDelta.

    Example:
        >>> import torch
        >>> net = simple_cnn(7).module()
        >>> net.output(torch.zeros(1, 3, 48, 48)).shape
        torch.Size([1, 7])

    Reference: Arriaga, Valdenegro-Toro, Plöger, 2017. Real-time Convolutional Neural
        Networks for Emotion and Gender Classification.

    DL4J: org.deeplearning4j.zoo.model.SimpleCNN
    """
    channels, height, width = input_shape
    chain = (
        NeuralNetConfiguration.builder()
        .seed(seed)
        .activation("identity")
        .weight_init("relu")
        .updater(updater or UPDATERS.named("adadelta"))
        .convolution_mode("Same")
        .list()
    )
    for block, (kernel, n_out) in enumerate([(7, 16), (5, 32), (3, 64), (3, 128)]):
        first = Convolution2D(kernel_size=(kernel, kernel), n_out=n_out)
        if block == 0:
            first = Convolution2D(
                name="image_array",
                kernel_size=(kernel, kernel),
                n_in=channels,
                n_out=n_out,
            )
        chain.layer(first)
        chain.layer(BatchNormalization())
        chain.layer(Convolution2D(kernel_size=(kernel, kernel), n_out=n_out))
        chain.layer(BatchNormalization())
        chain.layer(ActivationLayer(activation="relu"))
        chain.layer(Subsampling(pooling_type="avg", kernel_size=(2, 2)))
        chain.layer(DropoutLayer(dropout=0.5))
    chain.layer(Convolution2D(kernel_size=(3, 3), n_out=256))
    chain.layer(BatchNormalization())
    chain.layer(Convolution2D(kernel_size=(3, 3), n_out=num_classes))
    chain.layer(GlobalPooling(pooling_type="avg"))
    chain.layer(ActivationLayer(activation="softmax"))
    return chain.input_type(InputType.convolutional(height, width, channels)).build()


def text_generation_lstm(
    characters: int = 47, seed: int = 12345, updater: Any = None
) -> MultiLayerConfiguration:
    """Two Graves LSTMs of 256 cells that predict the next character of a text.

    Trained by truncated back-propagation through 50 steps.

    Args:
        characters: how many different ones there are.
        seed: of the initial parameters.
        updater: default: RMSProp with a rate of 0.01.

    Example:
        >>> import torch
        >>> net = text_generation_lstm(30).module()
        >>> net.output(torch.zeros(1, 30, 4)).shape  # a distribution a step
        torch.Size([1, 30, 4])

    DL4J: org.deeplearning4j.zoo.model.TextGenerationLSTM
    """
    return (
        NeuralNetConfiguration.builder()
        .seed(seed)
        .l2(0.001)
        .weight_init("xavier")
        .updater(updater or UPDATERS.named("rmsprop", lr=0.01))
        .list()
        .layer(GravesLSTM(n_in=characters, n_out=256, activation="tanh"))
        .layer(GravesLSTM(n_out=256, activation="tanh"))
        .layer(RnnOutput(n_out=characters, activation="softmax", loss="mcxent"))
        .backprop_type("TruncatedBPTT")
        .tbptt_fwd_length(50)
        .tbptt_back_length(50)
        .build()
    )
