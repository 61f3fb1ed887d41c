"""Layers as ``torch.nn.Module``s with DL4J's definitions and shapes."""

from dl4py.layers.base import Layer, View
from dl4py.layers.convolutional import Convolution2D
from dl4py.layers.feedforward import ActivationLayer, Dense, DropoutLayer, Embedding
from dl4py.layers.normalization import BatchNormalization
from dl4py.layers.output import LossLayer, Output, RnnOutput, Scored
from dl4py.layers.pooling import GlobalPooling, Subsampling
from dl4py.layers.recurrent import LSTM

__all__ = [
    "ActivationLayer",
    "BatchNormalization",
    "Convolution2D",
    "Dense",
    "DropoutLayer",
    "Embedding",
    "GlobalPooling",
    "LSTM",
    "Layer",
    "LossLayer",
    "Output",
    "RnnOutput",
    "Scored",
    "Subsampling",
    "View",
]
