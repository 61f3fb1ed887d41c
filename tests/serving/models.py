"""Models that are served."""

import torch

from dl4py.config import (
    Convolution2D,
    Dense,
    InputType,
    NeuralNetConfiguration,
    Output,
    Subsampling,
)
from dl4py.normalizers import Standardize

FEATURES = 4


def iris(seed=1, n_in=FEATURES):
    """A small classifier of raw features, which its normalizer scales."""
    chain = NeuralNetConfiguration.builder().seed(seed)
    chain.layer(Dense(n_in=n_in, n_out=16, activation="tanh"))
    net = chain.layer(Output(n_out=3)).build().module(dl4j_exact=True)
    rows = torch.randn(50, n_in, generator=torch.Generator().manual_seed(seed))
    net.normalizer = Standardize().fit(rows * 3 + 5)
    return net


def towers():
    """A graph of two inputs and two outputs."""
    graph = NeuralNetConfiguration.builder().seed(2).graph_builder()
    graph.add_inputs("left", "right")
    graph.add_layer("a", Dense(n_in=2, n_out=3, activation="tanh"), "left")
    graph.add_layer("b", Dense(n_in=3, n_out=3, activation="tanh"), "right")
    graph.add_layer("one", Output(n_in=6, n_out=2), "a", "b")
    graph.add_layer(
        "two", Output(n_in=3, n_out=1, activation="identity", loss="mse"), "b"
    )
    return graph.set_outputs("one", "two").build().module(dl4j_exact=True)


def heavy(width=4500):
    """A network whose forward reads so many weights that it takes milliseconds."""
    chain = NeuralNetConfiguration.builder().seed(3)
    chain.layer(Dense(n_in=FEATURES, n_out=width, activation="relu"))
    chain.layer(Dense(n_out=width, activation="relu"))
    return chain.layer(Output(n_out=3)).build().module(dl4j_exact=True)


def lenet():
    """LeNet for images of 28 x 28."""
    chain = NeuralNetConfiguration.builder().seed(4)
    chain.input_type(InputType.convolutional(28, 28, 1))
    chain.layer(Convolution2D(kernel_size=5, n_out=20, activation="relu"))
    chain.layer(Subsampling(kernel_size=2, stride=2))
    chain.layer(Convolution2D(kernel_size=5, n_out=50, activation="relu"))
    chain.layer(Subsampling(kernel_size=2, stride=2))
    chain.layer(Dense(n_out=500, activation="relu"))
    return chain.layer(Output(n_out=10)).build().module(dl4j_exact=True)
