"""DL4J's activations as modules.

A class states its formula once, in ``forward``. Where the gradient that DL4J uses is
not the derivative of what it computes, ``dl4j_exact=True`` reproduces it:
:func:`gradient_of` joins one function's value with another one's gradient. Float32
constants inside DL4J's double arithmetic belong to exact mode too. The rest is the same
in both modes.
"""

from dl4py.activations.base import Activation, Custom, get, gradient_of
from dl4py.activations.rectifiers import (
    ELU,
    SELU,
    LeakyReLU,
    PReLU,
    RectifiedTanh,
    ReLU,
    ReLU6,
    RReLU,
    ThresholdedReLU,
)
from dl4py.activations.sigmoids import (
    GELU,
    Cube,
    HardSigmoid,
    HardTanh,
    Identity,
    Mish,
    RationalTanh,
    Sigmoid,
    Softmax,
    Softplus,
    Softsign,
    Swish,
    Tanh,
)

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Cube",
    "Custom",
    "HardSigmoid",
    "HardTanh",
    "Identity",
    "LeakyReLU",
    "Mish",
    "PReLU",
    "RReLU",
    "RationalTanh",
    "ReLU",
    "ReLU6",
    "RectifiedTanh",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Swish",
    "Tanh",
    "ThresholdedReLU",
    "get",
    "gradient_of",
]
