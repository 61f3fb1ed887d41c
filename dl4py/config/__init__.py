"""Networks as plain data, without torch: DL4J's fields in snake_case and their JSON.

Every registered layer, vertex, noise, penalty, constraint and preprocessor is here by
the name of its class.
"""

from typing import TYPE_CHECKING

from dl4py.config import (
    attention,
    autoencoders,
    capsules,
    convolutional,
    deconvolution,
    detection,
    dropout,
    elementwise,
    feedforward,
    local,
    normalization,
    objectives,
    pixels,
    pooling,
    preprocessors,
    reconstruction,
    recurrent,
    regularization,
    reshaping,
    resizing,
    timeseries,
    vertices,
    weight_noise,
    wrappers,
)
from dl4py.config.builder import NeuralNetConfiguration
from dl4py.config.chain import MultiLayerConfiguration
from dl4py.config.codec import DL4JFormatError
from dl4py.config.graph import ComputationGraphConfiguration
from dl4py.config.inputs import InputType
from dl4py.config.kinds import field
from dl4py.config.layer import BaseLayer, ConfigurationError, FeedForwardLayer, Layer
from dl4py.config.plan import Plan, Step
from dl4py.config.vertex import TrainedVertex, Vertex
from dl4py.registry import (
    CONSTRAINTS,
    DROPOUTS,
    LAYERS,
    PREPROCESSORS,
    RECONSTRUCTIONS,
    REGULARIZATIONS,
    VERTICES,
    WEIGHT_NOISES,
)

if TYPE_CHECKING:
    from dl4py.config.attention import *
    from dl4py.config.autoencoders import *
    from dl4py.config.capsules import *
    from dl4py.config.convolutional import *
    from dl4py.config.deconvolution import *
    from dl4py.config.detection import *
    from dl4py.config.dropout import *
    from dl4py.config.elementwise import *
    from dl4py.config.feedforward import *
    from dl4py.config.local import *
    from dl4py.config.normalization import *
    from dl4py.config.objectives import *
    from dl4py.config.pixels import *
    from dl4py.config.pooling import *
    from dl4py.config.preprocessors import *
    from dl4py.config.reconstruction import *
    from dl4py.config.recurrent import *
    from dl4py.config.regularization import *
    from dl4py.config.reshaping import *
    from dl4py.config.resizing import *
    from dl4py.config.timeseries import *
    from dl4py.config.vertices import *
    from dl4py.config.weight_noise import *
    from dl4py.config.wrappers import *

_found = {
    registry[key].__name__: registry[key]
    for registry in (
        CONSTRAINTS,
        DROPOUTS,
        LAYERS,
        PREPROCESSORS,
        RECONSTRUCTIONS,
        REGULARIZATIONS,
        VERTICES,
        WEIGHT_NOISES,
    )
    for key in registry
}
globals().update(_found)
__all__ = [
    "BaseLayer",
    "ComputationGraphConfiguration",
    "ConfigurationError",
    "DL4JFormatError",
    "FeedForwardLayer",
    "InputType",
    "Layer",
    "MultiLayerConfiguration",
    "NeuralNetConfiguration",
    "Plan",
    "Step",
    "TrainedVertex",
    "Vertex",
    "field",
    *_found,
]
