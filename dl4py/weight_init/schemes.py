"""DL4J's schemes: how weights follow from the fans of their layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dl4py.fields import number
from dl4py.noise import Noise, Source
from dl4py.registry import WEIGHT_INITS
from dl4py.weight_init.base import WeightInit
from dl4py.weight_init.distributions import TruncatedNormalDistribution


class _Normal(WeightInit):
    """A scheme with normal weights of mean 0."""

    def variance(self, fi: float, fo: float) -> float:
        raise NotImplementedError

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        std = math.sqrt(self.variance(fi, fo))
        Noise.of(generator).normal_(tensor, 0.0, std)


class _Uniform(WeightInit):
    """A scheme with uniform weights around 0."""

    def bound(self, fi: float, fo: float) -> float:
        raise NotImplementedError

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        b = self.bound(fi, fo)
        Noise.of(generator).uniform_(tensor, -b, b)


@WEIGHT_INITS.add("xavier", "xavier_normal", java="WeightInitXavier")
@dataclass(frozen=True)
class Xavier(_Normal):
    """N(0, 2/(fi + fo)).

    Example:
        >>> import torch
        >>> Xavier()(torch.empty(300, 200), 200, 300).std().round(decimals=2)
        tensor(0.0600)

    Reference: Glorot & Bengio, AISTATS 2010

    DL4J: org.deeplearning4j.nn.weights.WeightInitXavier
    """

    def variance(self, fi: float, fo: float) -> float:
        return 2 / (fi + fo)


@WEIGHT_INITS.add("xavier_uniform", "glorot_uniform", java="WeightInitXavierUniform")
@dataclass(frozen=True)
class XavierUniform(_Uniform):
    """U(±√(6/(fi + fo))).

    DL4J: org.deeplearning4j.nn.weights.WeightInitXavierUniform
    """

    def bound(self, fi: float, fo: float) -> float:
        return math.sqrt(6) / math.sqrt(fi + fo)


@WEIGHT_INITS.add("xavier_legacy", java="WeightInitXavierLegacy")
@dataclass(frozen=True)
class XavierLegacy(WeightInit):
    """N(0, 1/(s₀ + s₁)), s the shape of DL4J's array.

    DL4J: org.deeplearning4j.nn.weights.WeightInitXavierLegacy
    """

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        Noise.of(generator).normal_(tensor).div_(math.sqrt(sum(tensor.shape[:2])))


@WEIGHT_INITS.add("normal", "lecun_normal", "xavier_fan_in", java="WeightInitNormal")
@dataclass(frozen=True)
class Normal(WeightInit):
    """N(0, 1/fi).

    Reference: LeCun et al., Efficient BackProp (1998)

    DL4J: org.deeplearning4j.nn.weights.WeightInitNormal
    """

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        Noise.of(generator).normal_(tensor).div_(math.sqrt(fi))


@WEIGHT_INITS.add(
    "relu",
    "kaiming_normal",
    java="WeightInitRelu",
    near={
        "he_normal": "Keras cuts off: var_scaling_normal_fan_in with scale=2.5848",
    },
)
@dataclass(frozen=True)
class Relu(_Normal):
    """N(0, 2/fi).

    Reference: He et al., arXiv:1502.01852

    DL4J: org.deeplearning4j.nn.weights.WeightInitRelu
    """

    def variance(self, fi: float, fo: float) -> float:
        return 2 / fi


@WEIGHT_INITS.add(
    "relu_uniform", "he_uniform", "kaiming_uniform", java="WeightInitReluUniform"
)
@dataclass(frozen=True)
class ReluUniform(_Uniform):
    """U(±√(6/fi)).

    DL4J: org.deeplearning4j.nn.weights.WeightInitReluUniform
    """

    def bound(self, fi: float, fo: float) -> float:
        return math.sqrt(6 / fi)


@WEIGHT_INITS.add("sigmoid_uniform", java="WeightInitSigmoidUniform")
@dataclass(frozen=True)
class SigmoidUniform(_Uniform):
    """U(±4·√(6/(fi + fo))).

    DL4J: org.deeplearning4j.nn.weights.WeightInitSigmoidUniform
    """

    def bound(self, fi: float, fo: float) -> float:
        return 4 * math.sqrt(6 / (fi + fo))


@WEIGHT_INITS.add("uniform", java="WeightInitUniform")
@dataclass(frozen=True)
class Uniform(_Uniform):
    """U(±1/√fi).

    DL4J: org.deeplearning4j.nn.weights.WeightInitUniform
    """

    def bound(self, fi: float, fo: float) -> float:
        return 1 / math.sqrt(fi)


@WEIGHT_INITS.add("lecun_uniform", java="WeightInitLecunUniform")
@dataclass(frozen=True)
class LecunUniform(_Uniform):
    """U(±3/√fi), as DL4J defines it; elsewhere √(3/fi).

    DL4J: org.deeplearning4j.nn.weights.WeightInitLecunUniform
    """

    def bound(self, fi: float, fo: float) -> float:
        return 3 / math.sqrt(fi)


@dataclass(frozen=True)
class _Scaled(WeightInit):
    """A scheme with a scale s."""

    scale: float | None = number(None, low=0.0)

    @property
    def s(self) -> float:
        return 1.0 if self.scale is None else self.scale


class _TruncatedNormal(_Scaled):
    """A scheme with normal weights cut off at two standard deviations."""

    def variance(self, fi: float, fo: float) -> float:
        raise NotImplementedError

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        std = math.sqrt(self.variance(fi, fo))
        TruncatedNormalDistribution(0.0, std).sample_(tensor, generator)


@WEIGHT_INITS.add(
    "var_scaling_normal_fan_in",
    java="WeightInitVarScalingNormalFanIn",
    near={
        "variance_scaling": "Keras's scale is of the variance after the cut",
    },
)
@dataclass(frozen=True)
class VarScalingNormalFanIn(_TruncatedNormal):
    """N(0, s/fi) cut off at ± two standard deviations.

    Args:
        scale: s >= 0, of the variance before the cut; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingNormalFanIn
    """

    def variance(self, fi: float, fo: float) -> float:
        return self.s / fi


@WEIGHT_INITS.add("var_scaling_normal_fan_out", java="WeightInitVarScalingNormalFanOut")
@dataclass(frozen=True)
class VarScalingNormalFanOut(_TruncatedNormal):
    """N(0, s/fo) cut off at ± two standard deviations.

    Args:
        scale: s >= 0, of the variance before the cut; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingNormalFanOut
    """

    def variance(self, fi: float, fo: float) -> float:
        return self.s / fo


@WEIGHT_INITS.add(
    "var_scaling_normal_fan_avg",
    java="WeightInitVarScalingNormalFanAvg",
    near={
        "glorot_normal": "scale=1.2924 has Keras's standard deviation after the cut",
    },
)
@dataclass(frozen=True)
class VarScalingNormalFanAvg(_TruncatedNormal):
    """N(0, 2s/(fi + fo)) cut off at ± two standard deviations.

    Args:
        scale: s >= 0, of the variance before the cut; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingNormalFanAvg
    """

    def variance(self, fi: float, fo: float) -> float:
        return 2 * self.s / (fi + fo)


@WEIGHT_INITS.add("var_scaling_uniform_fan_in", java="WeightInitVarScalingUniformFanIn")
@dataclass(frozen=True)
class VarScalingUniformFanIn(_Scaled, _Uniform):
    """U(±3s/√fi).

    Args:
        scale: s >= 0, of the bound; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingUniformFanIn
    """

    def bound(self, fi: float, fo: float) -> float:
        return 3 * self.s / math.sqrt(fi)


@WEIGHT_INITS.add(
    "var_scaling_uniform_fan_out", java="WeightInitVarScalingUniformFanOut"
)
@dataclass(frozen=True)
class VarScalingUniformFanOut(_Scaled, _Uniform):
    """U(±3s/√fo).

    Args:
        scale: s >= 0, of the bound; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingUniformFanOut
    """

    def bound(self, fi: float, fo: float) -> float:
        return 3 * self.s / math.sqrt(fo)


@WEIGHT_INITS.add(
    "var_scaling_uniform_fan_avg", java="WeightInitVarScalingUniformFanAvg"
)
@dataclass(frozen=True)
class VarScalingUniformFanAvg(_Scaled, _Uniform):
    """U(±3s/√((fi + fo)/2)).

    Args:
        scale: s >= 0, of the bound; ``None`` is 1.

    DL4J: org.deeplearning4j.nn.weights.WeightInitVarScalingUniformFanAvg
    """

    def bound(self, fi: float, fo: float) -> float:
        return 3 * self.s / math.sqrt((fi + fo) / 2)


@WEIGHT_INITS.add("identity", java="WeightInitIdentity")
@dataclass(frozen=True)
class Identity(WeightInit):
    """The identity: of a square matrix, or of a convolution with odd kernels.

    Args:
        scale: a factor; ``None`` is 1.

    Example:
        >>> import torch
        >>> Identity(2.0)(torch.empty(2, 2), 2, 2)
        tensor([[2., 0.],
                [0., 2.]])

    DL4J: org.deeplearning4j.nn.weights.WeightInitIdentity
    """

    scale: float | None = number(None)

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        rows, columns, *kernel = tensor.shape if tensor.dim() > 1 else (0, 1)
        if rows != columns or any(k % 2 == 0 for k in kernel):
            raise ValueError(
                f"IDENTITY needs a square matrix, or as many channels out as in and an "
                f"odd kernel, got a weight of shape {tuple(tensor.shape)}"
            )
        tensor.zero_()
        centre = tensor
        for k in reversed(kernel):
            centre = centre[..., k // 2]
        centre.diagonal().fill_(1.0 if self.scale is None else self.scale)


@WEIGHT_INITS.add("zero", "zeros")
class Zero(WeightInit):
    """0 everywhere: ``Zero()`` is ``Constant(0.0)``, as in DL4J's files.

    Example:
        >>> Zero()
        Constant(value=0.0)

    DL4J: org.deeplearning4j.nn.weights.WeightInitConstant
    """

    def __new__(cls) -> Any:
        return Constant(0.0)


@WEIGHT_INITS.add("ones")
class Ones(WeightInit):
    """1 everywhere: ``Ones()`` is ``Constant(1.0)``, as in DL4J's files.

    Example:
        >>> Ones()
        Constant(value=1.0)

    DL4J: org.deeplearning4j.nn.weights.WeightInitConstant
    """

    def __new__(cls) -> Any:
        return Constant(1.0)


@WEIGHT_INITS.add("constant", java="WeightInitConstant")
@dataclass(frozen=True)
class Constant(WeightInit):
    """One value everywhere.

    Args:
        value: the value.

    Example:
        >>> import torch
        >>> Constant(0.5)(torch.empty(2), 1, 1)
        tensor([0.5000, 0.5000])

    DL4J: org.deeplearning4j.nn.weights.WeightInitConstant
    """

    value: float = number()

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        tensor.fill_(self.value)
