"""DL4J's weight initialisations, and the distributions they can draw from.

A scheme states how it fills a tensor from its fans. Where it looks at the shape, the
axes are those of DL4J's array; for dense and convolutional weights torch's do as well.
"""

from dl4py.weight_init.base import (
    FromDistribution,
    WeightInit,
    get,
)
from dl4py.weight_init.distributions import (
    BinomialDistribution,
    ConstantDistribution,
    Distribution,
    GaussianDistribution,
    LogNormalDistribution,
    NormalDistribution,
    OrthogonalDistribution,
    TruncatedNormalDistribution,
    UniformDistribution,
)
from dl4py.weight_init.schemes import (
    Constant,
    Identity,
    LecunUniform,
    Normal,
    Ones,
    Relu,
    ReluUniform,
    SigmoidUniform,
    Uniform,
    VarScalingNormalFanAvg,
    VarScalingNormalFanIn,
    VarScalingNormalFanOut,
    VarScalingUniformFanAvg,
    VarScalingUniformFanIn,
    VarScalingUniformFanOut,
    Xavier,
    XavierLegacy,
    XavierUniform,
    Zero,
)

__all__ = [
    "BinomialDistribution",
    "Constant",
    "ConstantDistribution",
    "Distribution",
    "FromDistribution",
    "GaussianDistribution",
    "Identity",
    "LecunUniform",
    "LogNormalDistribution",
    "Normal",
    "NormalDistribution",
    "Ones",
    "OrthogonalDistribution",
    "Relu",
    "ReluUniform",
    "SigmoidUniform",
    "TruncatedNormalDistribution",
    "Uniform",
    "UniformDistribution",
    "VarScalingNormalFanAvg",
    "VarScalingNormalFanIn",
    "VarScalingNormalFanOut",
    "VarScalingUniformFanAvg",
    "VarScalingUniformFanIn",
    "VarScalingUniformFanOut",
    "WeightInit",
    "Xavier",
    "XavierLegacy",
    "XavierUniform",
    "Zero",
    "get",
]
