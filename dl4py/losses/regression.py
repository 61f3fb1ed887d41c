"""Losses between real numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from dl4py import activations
from dl4py.activations.base import gradient_of
from dl4py.losses.base import Loss, WeightedLoss
from dl4py.losses.terms import (
    per_output,
    scale_gradient,
    times,
    whole,
)
from dl4py.registry import LOSSES

SMALL = 8192  # elements below which ATen's own op costs less than a kernel's call


@LOSSES.add("mse", "squared_loss", "mean_squared_error", "mse_loss", java="LossMSE")
class MSE(WeightedLoss):
    """Mean squared error: score = w·(y - a)² / K.

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MSE()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(2.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMSE
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "squared", 0.0, 1 / k

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (y - a) ** 2 / y.shape[1]

    def fused(
        self, z: Tensor, labels: Tensor, m: Tensor | None, reduction: str
    ) -> Tensor | None:
        if (
            z.numel() <= SMALL
            and reduction == "mean"
            and self._f is activations.Identity
            and type(self) is MSE
            and m is None
            and self.weights is None
        ):
            y = self.encode(labels, z)
            return torch.ops.aten.mse_loss.default(z, y, 1)  # type: ignore[no-any-return]
        return super().fused(z, labels, m, reduction)


@LOSSES.add("l2", java="LossL2")
class L2(WeightedLoss):
    """Sum of squared errors: score = w·(y - a)².

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> L2()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(4.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossL2
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "squared", 0.0, 1.0

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (y - a) ** 2


@LOSSES.add("l1", java="LossL1")
class L1(WeightedLoss):
    """Sum of absolute errors: score = w·|y - a|.

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> L1()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(2.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossL1
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "absolute", 0.0, 1.0

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (y - a).abs()


@LOSSES.add(
    "mae",
    "mean_absolute_error",
    java="LossMAE",
    near={
        "l1_loss": "that is torch's mean over the outputs, DL4J's 'l1' is their sum",
        "smooth_l1 huber": "the other is a parabola near 0",
        "log_cosh": "the other is smooth at 0",
    },
)
class MAE(WeightedLoss):
    """Mean absolute error: score = w·|y - a| / K.

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MAE()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(1.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMAE
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "absolute", 0.0, 1 / k

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (y - a).abs() / y.shape[1]

    def per_example(
        self, output: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        result = super().per_example(output, labels, mask)
        return result * output.shape[1] if self.dl4j_exact else result

    def fault(self) -> str | None:
        return "DL4J's per-example scores are K times too large"


@LOSSES.add("mape", "mean_absolute_percentage_error", java="LossMAPE")
class MAPE(WeightedLoss):
    """Mean absolute percentage error: score = 100·w·|(y - a) / y| / K; y must not be 0.

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MAPE()(torch.tensor([[3.0]]), torch.tensor([[4.0]]))
        tensor(25.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMAPE
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "percentage", 0.0, 100 / k

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return ((y - a) / y).abs() * (100 / y.shape[1])


@LOSSES.add("msle", "mean_squared_logarithmic_error", java="LossMSLE")
class MSLE(WeightedLoss):
    """Mean squared logarithmic error: score = w·ln²((a + 1) / (y + 1)) / K; a, y > -1.

    Args:
        activation: applied to the output first.
        weights: one factor per output.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> MSLE()(torch.tensor([[0.0]]), torch.tensor([[1.0]]).expm1())
        tensor(1.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMSLE
    """

    def summand(self, k: int) -> tuple[str, float, float] | None:
        # ln of DL4J's rounded 1 + a is a matter of the last bit of a
        rounded = self.dl4j_exact and self.logarithm("log_above")
        return None if rounded else ("logarithmic", 0.0, 1 / k)

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (torch.log1p(a) - torch.log1p(y)) ** 2 / y.shape[1]

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        log = self.logarithm("log_above")
        if log is None:
            return super().terms(z, y)
        return (log(z) - torch.log1p(y)) ** 2 / y.shape[1]

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        if not self.logarithm("log_above"):
            return super().value(z, y)
        # to the last bit, which 1 + a makes large, DL4J's tanh is ATen's
        f = torch.tanh if self._f is activations.Tanh else self.activation
        lost = f(z) == -1
        known = self.scores(f(z.masked_fill(lost, 0.0)), y)
        return torch.where(lost, self.terms(z, y), known)


@LOSSES.add("rmse_xent")
class RMSEXent(Loss):
    """Root of the squared error, of old DL4J releases: score = √((y - a)²) = |y - a|.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> RMSEXent()(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(2.)

    DL4J: LossFunctions.LossFunction.RMSE_XENT up to 0.5.0
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "absolute", 0.0, 1.0

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return (y - a).abs()


@LOSSES.add("wasserstein", java="LossWasserstein")
class Wasserstein(Loss):
    """Critic's loss: score = y·a / K with labels ±1.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> Wasserstein()(torch.tensor([[2.0, 4.0]]), torch.tensor([[1.0, -1.0]]))
        tensor(-1.)

    Reference: Arjovsky et al., "Wasserstein GAN", 2017

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossWasserstein
    """

    def summand(self, k: int) -> tuple[str, float, float]:
        return "product", 0.0, 1 / k

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return y * a / y.shape[1]

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        if not per_output(m, y):
            return super().exact_terms(z, y, w, m)
        # DL4J masks the gradient after the activation only
        terms = self.terms(scale_gradient(z, m), y)
        return gradient_of(terms, times(terms, m))

    def _gone(self, m: Tensor) -> Tensor:
        gone = super()._gone(m)
        return whole(gone) if self.dl4j_exact and not self._alone else gone


@LOSSES.add(
    "cosine_proximity",
    java="LossCosineProximity",
    near={
        "cosine_similarity": "its lengths have a floor of 1e-5",
        "cosine_embedding_loss": "it is minus the cosine, torch's 1 minus it",
    },
)
class CosineProximity(Loss):
    """Minus the cosine of the angle between output and label.

    score = -y·a / (max(‖y‖, 10⁻⁵)·max(‖a‖, 10⁻⁵))

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> CosineProximity()(torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(-1.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossCosineProximity
    """

    coupled = True

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return -y * a / (_norm(y) * _norm(a))

    def source(self, z: Tensor, y: Tensor) -> Tensor:
        a: Tensor = self.activation(z)
        square = (a * a).sum(1, keepdim=True)
        inner = (y * a).sum(1, keepdim=True)
        slope = a * inner - y * square
        slope = slope / (_norm(y) * _norm(a) * square.clamp(min=1e-5))
        return a * slope.detach()

    def fault(self) -> str | None:
        if self.link == "softmax":  # never that short
            return None
        return "DL4J's gradient has a floor of 1e-5 under ‖a‖², its score under ‖a‖"


def _norm(v: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return norm.clamp(min=1e-5)
