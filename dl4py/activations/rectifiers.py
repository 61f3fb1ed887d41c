"""Activations of two pieces, one for each side of a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dl4py import ops
from dl4py.activations.base import (
    Activation,
    gradient_of,
    literal_note,
    number,
    split,
)
from dl4py.noise import TORCH, Noise
from dl4py.registry import ACTIVATIONS


@ACTIVATIONS.add(
    "elu",
    java="ActivationELU",
    near={
        "celu": "celu's slope at 0 is 1, that of elu α: they are equal at alpha=1",
    },
)
class ELU(Activation):
    """Exponential linear unit.

    f(x) = x if x >= 0 else α·(eˣ - 1)

    Args:
        alpha: minus the limit at -∞.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ELU(alpha=0.5)(torch.tensor([-100.0, 2.0]))
        tensor([-0.5000,  2.0000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationELU
    """

    kinks = (0.0,)

    def __init__(self, alpha: float = 1.0, *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.alpha = number(self, "alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.elu(x, self.alpha)
        if self.dl4j_exact and self.alpha != 1:
            return gradient_of(ops.elu(x, 1.0), y)
        return y

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "elu_steps", (self.alpha, 1.0 if self.dl4j_exact else self.alpha)

    def log_above(self, x: Tensor) -> Tensor:
        if self.alpha != 1:  # 1 + f does not vanish, or does so at a finite x
            return torch.log1p(self.forward(x))
        return split(x, 0.0, lambda x: x, torch.log1p)

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        return None if self.alpha == 1 else "DL4J's gradient is that of α = 1"


@ACTIVATIONS.add("leakyrelu", "lrelu", java="ActivationLReLU")
class LeakyReLU(Activation):
    """Rectifier with a slope on the negative side.

    f(x) = x if x >= 0 else α·x,  f'(0) = 1 (torch's is α)

    Args:
        alpha: the slope below 0.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> LeakyReLU(alpha=0.5)(torch.tensor([-2.0, 3.0]))
        tensor([-1.,  3.])

    DL4J: org.nd4j.linalg.activations.impl.ActivationLReLU
    """

    kinks = (0.0,)

    def __init__(self, alpha: float = 0.01, *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.alpha = number(self, "alpha", alpha)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.leakyrelu(x, self.alpha)
        slope = self.literal(self.alpha, x)
        return y if slope == self.alpha else gradient_of(ops.leakyrelu(x, slope), y)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "leakyrelu_steps", (self.alpha, self.literal(self.alpha, x))

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        return literal_note(self.alpha, dtype, " in the gradient")


@ACTIVATIONS.add("prelu", java="ActivationPReLU")
class PReLU(Activation):
    """Rectifier with learned slopes.

    f(x) = x if x >= 0 else α·x,  f'(0) = 1 (torch's is α)

    Args:
        shape: of one example, 1 along the axes that share a slope; one slope for all
            by default.

    Shape:
        ``[n, ...]`` in, the same shape out; ``alpha`` is broadcast against ``[...]``.

    Example:
        >>> PReLU((2,))(torch.tensor([[-2.0, 3.0]]))
        tensor([[-0., 3.]], grad_fn=<WhereBackward0>)

    DL4J: org.nd4j.linalg.activations.impl.ActivationPReLU
    """

    kinks = (0.0,)

    def __init__(self, shape: Sequence[int] = (), *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.shape = tuple(shape)
        if not all(isinstance(size, int) and size > 0 for size in self.shape):
            raise ValueError(f"PReLU(shape=...) must be positive sizes, got {shape!r}")
        self.alpha = nn.Parameter(torch.zeros(self.shape))  # DL4J starts at 0 whatever

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, x, self.alpha * x)


@ACTIVATIONS.add("rectifiedtanh", java="ActivationRectifiedTanh")
class RectifiedTanh(Activation):
    """f(x) = max(0, tanh x)

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> RectifiedTanh()(torch.tensor([-1.0, 1.0]))
        tensor([0.0000, 0.7616])

    DL4J: org.nd4j.linalg.activations.impl.ActivationRectifiedTanh
    """

    kinks = (0.0,)

    def forward(self, x: Tensor) -> Tensor:
        return ops.rectifiedtanh(x)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "rectifiedtanh", ()

    def log_below(self, x: Tensor) -> Tensor:
        return split(
            x,
            1.0,
            lambda x: torch.log1p(-self.forward(x)),
            lambda x: math.log(2) + F.logsigmoid(-2 * x),  # 1 - tanh x = 2·σ(-2x)
        )


@ACTIVATIONS.add("relu", java="ActivationReLU")
class ReLU(Activation):
    """Rectifier with optional ceiling, threshold and negative slope.

    f(x) = min(max, x if x >= θ else s·(x - θ));  all ``None``: f(x) = max(0, x)

    Args:
        max: the ceiling, ``None`` for no ceiling.
        threshold: θ; the function jumps there, as in Keras. ``None`` is 0.
        negative_slope: s, ``None`` is 0.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ReLU()(torch.tensor([-1.0, 7.0]))
        tensor([0., 7.])
        >>> ReLU(max=6.0, negative_slope=0.5)(torch.tensor([-1.0, 7.0]))
        tensor([-0.5000,  6.0000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationReLU
    """

    def __init__(
        self,
        max: float | None = None,
        threshold: float | None = None,
        negative_slope: float | None = None,
        *,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.max = self._optional("max", max)
        self.threshold = self._optional("threshold", threshold)
        self.negative_slope = self._optional("negative_slope", negative_slope)
        ceiling = () if self.max is None else (self.max,)
        self.kinks = (self.threshold or 0.0, *ceiling)

    def _optional(self, name: str, value: float | None) -> float | None:
        return None if value is None else number(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        top = math.inf if self.max is None else self.max
        s = self.negative_slope or 0.0
        y = self._rectify(x, top, s)
        # DL4J back-propagates through max = 0 as through no ceiling, and with θ = 0 its
        # slope has been a float32
        slope = s if self.threshold else self.literal(s, x)
        if self.dl4j_exact and (top == 0 or slope != s):
            return gradient_of(self._rectify(x, top or math.inf, slope), y)
        return y

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        if self.dl4j_exact and self.differs(x.dtype) is not None:
            return None
        top = math.inf if self.max is None else self.max
        return "rectifier", (top, self.threshold or 0.0, self.negative_slope or 0.0)

    def _rectify(self, x: Tensor, top: float, slope: float) -> Tensor:
        theta = self.threshold or 0.0
        if theta == slope == 0 <= top:  # as DL4J no gradient, NaN or not, comes through
            return F.relu(x) if top == math.inf else F.hardtanh(x, 0.0, top)
        return ops.rectifier(x, top, theta, slope)

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        if self.max == 0:
            return "DL4J's gradient ignores max = 0"
        if self.threshold:
            return None
        return literal_note(self.negative_slope or 0.0, dtype, " in the gradient")


@ACTIVATIONS.add("relu6", java="ActivationReLU6")
class ReLU6(Activation):
    """f(x) = min(6, max(0, x))

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ReLU6()(torch.tensor([-1.0, 7.0]))
        tensor([0., 6.])

    DL4J: org.nd4j.linalg.activations.impl.ActivationReLU6
    """

    kinks = (0.0, 6.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "rectifier", (6.0, 0.0, 0.0)


@ACTIVATIONS.add("rrelu", java="ActivationRReLU")
class RReLU(Activation):
    """Rectifier with a random slope per element.

    f(x) = x if x >= 0 else α·x, α ~ U(l, u) in training and (l + u)/2 in evaluation.
    DL4J's own test mode is max(x, (l + u)/2), and its gradient is 1 everywhere.

    Args:
        l: smallest slope.
        u: largest slope, at least ``l``.

    Attributes:
        noise: where the slopes come from (:class:`dl4py.noise.Noise`).

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> RReLU(l=0.25, u=0.75).eval()(torch.tensor([-2.0, 3.0]))
        tensor([-1.,  3.])

    DL4J: org.nd4j.linalg.activations.impl.ActivationRReLU
    """

    kinks = (0.0,)
    noise: Noise

    def __init__(
        self, l: float = 1 / 8, u: float = 1 / 3, *, dl4j_exact: bool = False  # noqa: E741
    ) -> None:  # fmt: skip
        super().__init__(dl4j_exact=dl4j_exact)
        self.l = number(self, "l", l)
        self.u = number(self, "u", u)
        if self.l > self.u:
            raise ValueError(f"RReLU(l=..., u=...) must have l <= u, got {l!r} > {u!r}")
        self.noise = TORCH

    def forward(self, x: Tensor) -> Tensor:
        mean = (self.l + self.u) / 2
        if self.dl4j_exact:
            if self.training:
                alpha = self.noise.uniform(x, self.l, self.u)
                return gradient_of(x, torch.where(x >= 0, x, alpha * x))
            return gradient_of(x, x.clamp(min=mean))
        if self.training and self.noise.native:
            return torch.where(x >= 0, x, self.noise.uniform(x, self.l, self.u) * x)
        if self.training:
            return ops.rrelu(x, self.noise.seed(x), self.l, self.u)
        return ops.leakyrelu(x, mean)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        if self.dl4j_exact or self.training:
            return None
        mean = (self.l + self.u) / 2
        return "leakyrelu_steps", (mean, mean)

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        return "DL4J tests with max(x, (l + u)/2), and its gradient is 1 everywhere"


@ACTIVATIONS.add("selu", java="ActivationSELU")
class SELU(Activation):
    """Self-normalising linear unit.

    f(x) = λ·x if x > 0 else λ·α·(eˣ - 1),  λ = 1.0507…, α = 1.6732…,  f'(0) = λ·α

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> SELU()(torch.tensor([-1.0, 1.0]))
        tensor([-1.1113,  1.0507])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSELU
    """

    kinks = (0.0,)

    def forward(self, x: Tensor) -> Tensor:
        return ops.selu(x) if ops.serves(x) else F.selu(x)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "selu", ()


@ACTIVATIONS.add(
    "thresholdedrelu",
    java="ActivationThresholdedReLU",
    near={
        "threshold": "it gives 0 up to theta, threshold a value of your choice",
    },
)
class ThresholdedReLU(Activation):
    """f(x) = x if x > θ else 0

    Args:
        theta: θ.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ThresholdedReLU(theta=1.0)(torch.tensor([0.5, 1.5]))
        tensor([0.0000, 1.5000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationThresholdedReLU
    """

    def __init__(self, theta: float = 1.0, *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.theta = number(self, "theta", theta)
        self.kinks = (self.theta,)

    def forward(self, x: Tensor) -> Tensor:
        if ops.exporting():  # torch.onnx knows no threshold but 0
            return x.masked_fill(x <= self.theta, 0)
        return F.threshold(x, self.theta, 0.0)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "thresholdedrelu", (self.theta,)
