"""Losses that are the likelihood of counts and of densities."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dl4py.activations.base import number
from dl4py.losses.base import Loss
from dl4py.losses.terms import times, times_log
from dl4py.registry import LOSSES


@LOSSES.add(
    "poisson",
    "expll",
    java="LossPoisson",
    near={
        "poisson_nll": "it takes rates and sums over the outputs, torch's takes logs",
    },
)
class Poisson(Loss):
    """Poisson likelihood: score = a - y·ln a; the activation must make a > 0.

    Args:
        activation: applied to the output first.

    Shape:
        output and labels ``[n, K]``.

    Example:
        >>> Poisson()(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
        tensor(1.)

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossPoisson
    """

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        return a - times_log(y, a)

    def terms(self, z: Tensor, y: Tensor) -> Tensor:
        a: Tensor = self.activation(z)
        return a - self.times_log(y, z)

    def value(self, z: Tensor, y: Tensor) -> Tensor:
        return self.terms(z, y)

    def summand(self, k: int) -> tuple[str, float, float]:
        return "poisson", float(self.dl4j_exact), 1.0

    def source(self, z: Tensor, y: Tensor) -> Tensor:
        a: Tensor = self.activation(z)
        return a - self.exact_times_log(y, z)


@LOSSES.add("mixture_density", java="LossMixtureDensity")
class MixtureDensity(Loss):
    """Negative log-likelihood of a mixture of M spherical Gaussians over W labels.

    score = -ln Σᵢ αᵢ·exp(-‖y - μᵢ‖² / (2σᵢ²)) / (σᵢ·√(2π))ᵂ

    where the output holds M logits of α (softmax), M values ln σ, and M·W means μ.

    Args:
        activation: applied to the output first; the formula wants ``"identity"``.
        gaussians: M >= 1.
        labels: W >= 1.

    Shape:
        output ``[n, (W + 2)·M]``, labels ``[n, W]``, mask ``[n]`` or ``[n, 1]``.

    Example:
        >>> MixtureDensity(gaussians=1, labels=1)(torch.zeros(1, 3), torch.zeros(1, 1))
        tensor(0.9189)

    Reference: Bishop, "Mixture density networks", 1994

    DL4J: org.nd4j.linalg.lossfunctions.impl.LossMixtureDensity
    """

    json = {"gaussians": "mixtures", "labels": "labelWidth"}
    output_masks = False

    def __init__(
        self,
        activation: Any = "identity",
        *,
        gaussians: int,
        labels: int,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(activation, dl4j_exact=dl4j_exact)
        self.gaussians = _whole(self, "gaussians", gaussians)
        self.labels = _whole(self, "labels", labels)

    def scores(self, a: Tensor, y: Tensor) -> Tensor:
        m, w = self.gaussians, self.labels
        log_alpha = a[:, :m].log_softmax(1)
        log_sigma = a[:, m : 2 * m]
        mu = a[:, 2 * m :].reshape(-1, m, w)
        least = -math.log(torch.finfo(a.dtype).max)  # 1/σ is finite, and σ² not formed
        by_sigma = (-log_sigma.clamp(min=least)).exp().unsqueeze(2)
        distance = (((y.unsqueeze(1) - mu) * by_sigma) ** 2).sum(2)
        log_phi = -distance / 2 - w * (log_sigma + math.log(2 * math.pi) / 2)
        return -(log_alpha + log_phi).logsumexp(1, keepdim=True)

    def exact_terms(
        self, z: Tensor, y: Tensor, w: Tensor | None, m: Tensor | None
    ) -> Tensor:
        return times(self.terms(z, y), m)

    def encode(self, labels: Tensor, z: Tensor) -> Tensor:
        m, w = self.gaussians, self.labels
        if z.shape[1] != (w + 2) * m:
            raise ValueError(
                "MixtureDensity: output must have (labels + 2)·gaussians = "
                f"{(w + 2) * m} columns, got {list(z.shape)}"
            )
        if labels.shape != (z.shape[0], w):
            raise ValueError(
                f"MixtureDensity: labels must be [n, labels] = {[z.shape[0], w]}, got "
                f"{list(labels.shape)}"
            )
        return labels.to(z.dtype)


def _whole(owner: object, name: str, value: int) -> int:
    """``value`` as a whole number >= 1 that fits in Java's ``int``."""
    real = number(owner, name, value, low=1)
    if not real.is_integer() or real >= 2**31:
        raise ValueError(
            f"{type(owner).__name__}({name}=...) must be a whole number in "
            f"[1, 2147483647], got {value!r}"
        )
    return int(real)
