"""Networks as plain data, without torch: DL4J's fields in snake_case and their JSON."""

from dl4py.config.builder import NeuralNetConfiguration
from dl4py.config.codec import DL4JFormatError
from dl4py.config.convolutional import (
    BatchNormalization,
    Convolution2D,
    GlobalPooling,
    Subsampling,
)
from dl4py.config.dropout import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout,
)
from dl4py.config.feedforward import (
    ActivationLayer,
    Dense,
    DropoutLayer,
    Embedding,
    LossLayer,
    Output,
    RnnOutput,
)
from dl4py.config.inputs import InputType
from dl4py.config.kinds import field
from dl4py.config.layer import BaseLayer, ConfigurationError, FeedForwardLayer, Layer
from dl4py.config.network import MultiLayerConfiguration
from dl4py.config.preprocessors import (
    CnnToFeedForward,
    CnnToRnn,
    FeedForwardToCnn,
    FeedForwardToRnn,
    RnnToCnn,
    RnnToFeedForward,
)
from dl4py.config.recurrent import LSTM
from dl4py.config.regularization import (
    L1,
    L2,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    UnitNorm,
    WeightDecay,
)

__all__ = [
    "L1",
    "L2",
    "LSTM",
    "ActivationLayer",
    "AlphaDropout",
    "BaseLayer",
    "BatchNormalization",
    "CnnToFeedForward",
    "CnnToRnn",
    "ConfigurationError",
    "Convolution2D",
    "DL4JFormatError",
    "Dense",
    "Dropout",
    "DropoutLayer",
    "Embedding",
    "FeedForwardLayer",
    "FeedForwardToCnn",
    "FeedForwardToRnn",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalPooling",
    "InputType",
    "Layer",
    "LossLayer",
    "MaxNorm",
    "MinMaxNorm",
    "MultiLayerConfiguration",
    "NeuralNetConfiguration",
    "NonNegative",
    "Output",
    "RnnOutput",
    "RnnToCnn",
    "RnnToFeedForward",
    "SpatialDropout",
    "Subsampling",
    "UnitNorm",
    "WeightDecay",
    "field",
]
