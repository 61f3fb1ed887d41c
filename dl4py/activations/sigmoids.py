"""Activations of one piece, and the clipped ones that imitate them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py import ops
from dl4py.activations.base import Activation, gradient_of, literal_note, split
from dl4py.registry import ACTIVATIONS


@ACTIVATIONS.add("cube", java="ActivationCube")
class Cube(Activation):
    """Third power.

    f(x) = x³

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Cube()(torch.tensor([-1.0, 2.0]))
        tensor([-1.,  8.])

    DL4J: org.nd4j.linalg.activations.impl.ActivationCube
    """

    kernel = "cube"

    def forward(self, x: Tensor) -> Tensor:
        return ops.cube(x)

    def log(self, x: Tensor) -> Tensor:
        zero = x == 0
        return (3 * x.masked_fill(zero, 1.0).log()).masked_fill(zero, -math.inf)


@ACTIVATIONS.add(
    "gelu",
    java="ActivationGELU",
    near={
        "gelu_tanh gelu_new": "write gelu with precise=True",
        "gelu_erf": "it has the forms of σ and, with precise=True, of tanh",
    },
)
class GELU(Activation):
    """Gaussian error linear unit in its sigmoid form, not torch's erf form.

    f(x) = x·σ(1.702·x), or with ``precise``
    f(x) = x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))

    Args:
        precise: the tanh form.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> GELU()(torch.tensor([-1.0, 1.0]))
        tensor([-0.1542,  0.8458])

    DL4J: org.nd4j.linalg.activations.impl.ActivationGELU
    """

    def __init__(self, precise: bool = False, *, dl4j_exact: bool = False) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        if not isinstance(precise, bool):
            raise ValueError(
                f"GELU(precise=...) must be True or False, got {precise!r}"
            )
        self.precise = precise

    def forward(self, x: Tensor) -> Tensor:
        if not self.precise:
            return ops.gelu(x, self.literal(1.702, x))
        if not self.dl4j_exact:
            if ops.exporting():
                return F.gelu(x, approximate="tanh")
            return ops.gelutanh(x)
        # DL4J cubes the constant too; its derivative has six-digit literals of its own
        v = x.clamp(-100, 100)  # tanh is ±1 beyond, and no power of x overflows
        t = torch.tanh(math.sqrt(2 / math.pi) * (v + (0.044715 * v) ** 3))
        s = torch.tanh(0.797885 * v + (0.0356774 * v) ** 3)
        slope = 0.5 + (0.398942 * v + (0.0535161 * v) ** 3) * (1 - s * s) + 0.5 * s
        value = x.clamp(min=-100) / 2 * (1 + t)  # -∞ · 0
        return gradient_of(x * slope.detach(), value)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        if not self.precise:
            return "gelu", (self.literal(1.702, x),)
        return None if self.dl4j_exact else ("gelutanh", ())

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        if self.precise:
            return "DL4J cubes the constant 0.044715 too (up to 0.033 at |x| = 2)"
        return literal_note(1.702, dtype)


@ACTIVATIONS.add("hardsigmoid", java="ActivationHardSigmoid")
class HardSigmoid(Activation):
    """Piecewise linear sigmoid; torch's and Keras 3's have slope 1/6.

    f(x) = min(1, max(0, 0.2·x + 0.5)),  f'(±2.5) = 0.2

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> HardSigmoid()(torch.tensor([-3.0, 0.0, 1.0]))
        tensor([0.0000, 0.5000, 0.7000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationHardSigmoid
    """

    kinks = (-2.5, 2.5)

    def forward(self, x: Tensor) -> Tensor:
        return ops.hardsigmoid(x, self.literal(0.2, x))

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "hardsigmoid", (self.literal(0.2, x),)

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        return literal_note(0.2, dtype)


@ACTIVATIONS.add("hardtanh", java="ActivationHardTanH")
class HardTanh(Activation):
    """Identity clipped to [-1, 1].

    f(x) = min(1, max(-1, x)),  f'(±1) = 1 (torch's is 0)

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> HardTanh()(torch.tensor([-2.0, 0.5]))
        tensor([-1.0000,  0.5000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationHardTanH
    """

    kernel = "hardtanh"
    kinks = (-1.0, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return ops.hardtanh(x)


@ACTIVATIONS.add("identity", "linear", java="ActivationIdentity")
class Identity(Activation):
    """f(x) = x

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Identity()(torch.tensor([-2.0, 0.5]))
        tensor([-2.0000,  0.5000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationIdentity
    """

    kernel = "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x


@ACTIVATIONS.add("mish", java="ActivationMish")
class Mish(Activation):
    """f(x) = x·tanh(ln(1 + eˣ))

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Mish()(torch.tensor([-1.0, 1.0]))
        tensor([-0.3034,  0.8651])

    DL4J: org.nd4j.linalg.activations.impl.ActivationMish
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(x) if ops.exporting() else ops.mish(x)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "mish", ()


@ACTIVATIONS.add("rationaltanh", java="ActivationRationalTanh")
class RationalTanh(Activation):
    """Rational approximation of 1.7159·tanh(2x/3).

    f(x) = 1.7159·sgn(v)·(1 - 1 / (1 + |v| + v² + 1.41645·v⁴)),  v = 2x/3

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> RationalTanh()(torch.tensor([-1.0, 3.0]))
        tensor([-0.9982,  1.6581])

    Reference: Anguita et al., "Speed improvement of the back-propagation on current
        generation workstations", 1993; LeCun, "Efficient BackProp", 1998

    DL4J: org.nd4j.linalg.activations.impl.ActivationRationalTanh
    """

    def forward(self, x: Tensor) -> Tensor:
        return ops.rationaltanh(x, self.literal(1.7159, x), self.literal(1.41645, x))

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        numbers = self.literal(1.7159, x), self.literal(1.41645, x)
        return "rationaltanh", numbers

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        return literal_note(1.7159, dtype)


@ACTIVATIONS.add(
    "sigmoid",
    java="ActivationSigmoid",
    near={
        "log_sigmoid": "losses with activation='sigmoid' take its logarithm themselves",
    },
)
class Sigmoid(Activation):
    """f(x) = 1 / (1 + e⁻ˣ)

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Sigmoid()(torch.tensor([0.0, 1.0]))
        tensor([0.5000, 0.7311])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSigmoid
    """

    kernel = "sigmoid"
    exact_kernel = None

    def forward(self, x: Tensor) -> Tensor:
        # torch's slope, as DL4J's, is that of the rounded value: s·(1 - s)
        own = ops.serves(x) and not self.dl4j_exact
        return ops.sigmoid(x) if own else torch.sigmoid(x)

    def differs(self, dtype: torch.dtype = torch.float64) -> str:
        end = 37 if dtype == torch.float64 else 17
        return f"DL4J's derivative is that of the rounded f: 0 from {end} up"

    def log(self, x: Tensor) -> Tensor:
        return F.logsigmoid(x)

    def log_below(self, x: Tensor) -> Tensor:
        return F.logsigmoid(-x)


@ACTIVATIONS.add(
    "softmax",
    java="ActivationSoftmax",
    near={
        "log_softmax": "losses with activation='softmax' take its logarithm themselves",
    },
)
class Softmax(Activation):
    """f(x)ⱼ = exp(xⱼ) / Σₖ exp(xₖ) along the last axis, whatever it means, as DL4J.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Softmax()(torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 0.5000]])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSoftmax
    """

    elementwise = False

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, dim=-1)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "softmax", ()

    def log(self, x: Tensor) -> Tensor:
        return F.log_softmax(x, dim=-1)


@ACTIVATIONS.add("softplus", java="ActivationSoftPlus")
class Softplus(Activation):
    """f(x) = ln(1 + eˣ), without DL4J's overflow; in exact mode with its rounded 1 + eˣ

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Softplus()(torch.tensor([0.0, 100.0]))
        tensor([  0.6931, 100.0000])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSoftPlus
    """

    kernel = "softplus"
    exact_kernel = "log1exp"

    def forward(self, x: Tensor) -> Tensor:
        if self.dl4j_exact:
            return ops.log1exp(x)
        if ops.serves(x):
            return ops.softplus(x)
        # torch's default of 20 leaves 1e-10 of a double behind
        return F.softplus(x, threshold=40.0)

    def log(self, x: Tensor) -> Tensor:
        if self.dl4j_exact:  # where DL4J's f is 0 its logarithm is not finite
            a = self.forward(x)
            gone = a == 0
            return torch.where(gone, x, a.masked_fill(gone, 1.0).log())
        # f(x) = eˣ - e²ˣ/2 + …
        return split(x, -40.0, lambda x: x, lambda x: self.forward(x).log())

    def differs(self, dtype: torch.dtype = torch.float64) -> str:
        end = -37 if dtype == torch.float64 else -17
        return f"DL4J rounds 1 + eˣ: f loses digits below 0 and is 0 from {end} down"


@ACTIVATIONS.add("softsign", java="ActivationSoftSign")
class Softsign(Activation):
    """f(x) = x / (1 + |x|)

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Softsign()(torch.tensor([-1.0, 3.0]))
        tensor([-0.5000,  0.7500])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSoftSign
    """

    kernel = "softsign"

    def forward(self, x: Tensor) -> Tensor:
        return ops.softsign(x)

    def log_above(self, x: Tensor) -> Tensor:
        return split(
            x, 0.0, lambda x: -torch.log1p(-x), lambda x: torch.log1p(self.forward(x))
        )

    def log_below(self, x: Tensor) -> Tensor:
        return self.log_above(-x)


@ACTIVATIONS.add(
    "swish",
    "silu",
    java="ActivationSwish",
    near={
        "hardswish hard_silu": "x·σ(x) is smooth, the other is not",
    },
)
class Swish(Activation):
    """f(x) = x·σ(x)

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Swish()(torch.tensor([-1.0, 1.0]))
        tensor([-0.2689,  0.7311])

    DL4J: org.nd4j.linalg.activations.impl.ActivationSwish
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if ops.exporting() else ops.gelu(x, 1.0)

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        return "gelu", (1.0,)


@ACTIVATIONS.add("tanh", java="ActivationTanH")
class Tanh(Activation):
    """f(x) = tanh x

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> Tanh()(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.7616])

    DL4J: org.nd4j.linalg.activations.impl.ActivationTanH
    """

    kernel = "tanh"
    exact_kernel = None

    def forward(self, x: Tensor) -> Tensor:
        # torch's slope, as DL4J's, is that of the rounded value: 1 - t²
        own = ops.serves(x) and not self.dl4j_exact
        return ops.tanh(x) if own else torch.tanh(x)

    def differs(self, dtype: torch.dtype = torch.float64) -> str:
        end = 20 if dtype == torch.float64 else 10
        return f"DL4J's derivative is that of the rounded f: 0 from ±{end} on"

    def log_above(self, x: Tensor) -> Tensor:
        return split(
            x,
            0.0,
            lambda x: 2 * x + torch.log1p(-self.forward(x)),  # 1 + f = e²ˣ·(1 - f)
            lambda x: torch.log1p(self.forward(x)),
        )

    def log_below(self, x: Tensor) -> Tensor:
        return self.log_above(-x)
