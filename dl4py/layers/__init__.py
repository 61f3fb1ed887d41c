"""Layers as ``torch.nn.Module``s with DL4J's definitions and shapes.

Every class of ``dl4py.config`` with a module has it here under the same name.
"""

from typing import TYPE_CHECKING

from dl4py.layers import (
    attention,
    autoencoders,
    capsules,
    convolutional,
    deconvolution,
    detection,
    elementwise,
    feedforward,
    local,
    lstm,
    normalization,
    objectives,
    output,
    pixels,
    pooling,
    recurrent,
    resizing,
    timeseries,
    vertices,
    wrappers,
)
from dl4py.layers.base import Layer
from dl4py.layers.flow import Flow
from dl4py.layers.output import Scored
from dl4py.layers.part import Part, implements, module_of
from dl4py.layers.vertices import Vertex
from dl4py.layers.view import View
from dl4py.registry import MODULES

if TYPE_CHECKING:
    from dl4py.layers.attention import *
    from dl4py.layers.autoencoders import *
    from dl4py.layers.capsules import *
    from dl4py.layers.convolutional import *
    from dl4py.layers.deconvolution import *
    from dl4py.layers.detection import *
    from dl4py.layers.elementwise import *
    from dl4py.layers.feedforward import *
    from dl4py.layers.local import *
    from dl4py.layers.lstm import *
    from dl4py.layers.normalization import *
    from dl4py.layers.objectives import *
    from dl4py.layers.output import *
    from dl4py.layers.pixels import *
    from dl4py.layers.pooling import *
    from dl4py.layers.recurrent import *
    from dl4py.layers.resizing import *
    from dl4py.layers.timeseries import *
    from dl4py.layers.vertices import *
    from dl4py.layers.wrappers import *

_found = {MODULES[key].__name__: MODULES[key] for key in MODULES}
globals().update(_found)
__all__ = [
    "Flow",
    "Layer",
    "Part",
    "Scored",
    "Vertex",
    "View",
    "implements",
    "module_of",
    *_found,
]
