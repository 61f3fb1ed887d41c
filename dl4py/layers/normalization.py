"""Batch normalization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations
from dl4py.layers.base import Layer, View
from dl4py.layers.convolutional import channels_as_given, channels_first
from dl4py.registry import MODULES


@MODULES.add("batch_normalization")
class BatchNormalization(Layer):
    """Batch normalisation: γ·(x - μ)/√(σ² + ε) + β.

    While training μ and σ² are the batch's (population variance), while testing the
    running ones. A training forward only stores what it wants the running statistics to
    become, as DL4J's pseudo-gradient (1 - decay)·(running - batch) in ``pending``; the
    network's optimizer applies it once a step.

    Args:
        n_out: features or channels.
        decay: in [0, 1]; torch's momentum is 1 - decay.
        eps: ε >= 0.
        gamma, beta: first values, or the constants when locked.
        lock_gamma_beta: γ and β are not parameters. DL4J then applies the constants
            only if γ ≠ 1 **and** β ≠ 0; by default they are always applied.
        use_log_std: the running variance is kept as log₁₀σ.
        format: ``"NCHW"`` or ``"NHWC"``.

    Shape:
        ``[n, n_out]`` or ``[n, n_out, h, w]``, the same out.

    Example:
        >>> BatchNormalization(2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).detach()
        tensor([[-1.0000, -1.0000],
                [ 1.0000,  1.0000]])

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    DL4J: org.deeplearning4j.nn.conf.layers.BatchNormalization
    """

    def __init__(
        self,
        n_out: int,
        *,
        decay: float = 0.9,
        eps: float = 1e-5,
        gamma: float = 1.0,
        beta: float = 0.0,
        lock_gamma_beta: bool = False,
        use_log_std: bool = True,
        format: str | None = "NCHW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(None, dl4j_exact)
        self.n_out, self.decay, self.eps = n_out, decay, eps
        self.format = format or "NCHW"
        self.locked, self.use_log_std = lock_gamma_beta, use_log_std
        self.first = {"gamma": float(gamma), "beta": float(beta)}
        if not lock_gamma_beta:
            self.gamma = nn.Parameter(torch.full((n_out,), float(gamma)))
            self.beta = nn.Parameter(torch.full((n_out,), float(beta)))
        self.register_buffer("mean", torch.zeros(n_out))
        spread = torch.zeros(n_out) if use_log_std else torch.ones(n_out)
        self.spread_name = "log10stdev" if use_log_std else "var"
        self.register_buffer(self.spread_name, spread)

    def dl4j_views(self) -> Iterator[View]:
        if not self.locked:
            for name in ("gamma", "beta"):
                yield View(name, name, kind="scale", first=self.first[name])
        yield View("mean", "mean", kind="statistic", first=0.0)
        name, unit = self.spread_name, 0.0 if self.use_log_std else 1.0
        yield View(name, name, kind="statistic", first=unit)

    def buffer(self, name: str) -> Tensor:
        """A statistic by DL4J's name."""
        statistic: Tensor = getattr(self, name)
        return statistic

    def variance(self) -> Tensor:
        """The running variance."""
        spread = self.buffer(self.spread_name)
        return 10.0 ** (2 * spread) if self.use_log_std else spread

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        image = x.dim() == 4
        x = channels_first(x, self.format) if image else x
        axes = (0, 2, 3) if image else (0,)
        if self.training:
            var, mean = torch.var_mean(x, axes, correction=0)
            self._remember(mean.detach(), var.detach())
        else:
            mean, var = self.buffer("mean"), self.variance()
        if self.locked:
            shape = (1, self.n_out, 1, 1) if image else (1, self.n_out)
            scale = (var + self.eps).rsqrt()
            y = self._constants((x - mean.view(shape)) * scale.view(shape))
        else:
            running_mean, running_var = (None, None) if self.training else (mean, var)
            y = F.batch_norm(
                x,
                running_mean,
                running_var,
                self.gamma,
                self.beta,
                self.training,
                eps=self.eps,
            )
        return channels_as_given(y, self.format) if image else y

    def _constants(self, normal: Tensor) -> Tensor:
        gamma, beta = self.first["gamma"], self.first["beta"]
        if self.dl4j_exact and (gamma == 1 or beta == 0):
            # DL4J leaves the constants out, but sends the gradient back times γ
            return activations.gradient_of(normal * gamma, normal)
        return normal * gamma + beta

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        step = 1 - self.decay
        self.pending["mean"] = step * (self.buffer("mean") - mean)
        if self.use_log_std:
            # DL4J averages the variance and then takes the logarithm
            after = self.decay * self.variance() + step * var
            now = self.buffer(self.spread_name)
            self.pending[self.spread_name] = now - 0.5 * torch.log10(after)
        else:
            self.pending["var"] = step * (self.buffer("var") - var)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        gamma, beta = self.first["gamma"], self.first["beta"]
        if self.locked and (gamma == 1) != (beta == 0):
            rule = "DL4J applies locked γ and β only if γ ≠ 1 and β ≠ 0"
            return [f"BatchNormalization: {rule}"]
        return []

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.differs(dtype)

    def extra_repr(self) -> str:
        return f"{self.n_out}, decay={self.decay}, eps={self.eps}"
