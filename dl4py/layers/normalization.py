"""Batch normalization."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.base import Layer, places_shown
from dl4py.layers.part import implements
from dl4py.layers.view import View


@implements(config.BatchNormalization)
class BatchNormalization(Layer):
    """
    A training forward only stores what it wants the running statistics to become, as
    DL4J's pseudo-gradient (1 - decay)·(running - batch) in ``pending``; the network's
    optimizer applies it once a step. Masked rows or pixels do not count, and are 0
    afterwards; DL4J ignores the mask, and so does exact mode.

    Shape:
        ``[n, n_out]`` or ``[n, n_out, h, w]``, the same out.

    Example:
        >>> BatchNormalization(2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).detach()
        tensor([[-1.0000, -1.0000],
                [ 1.0000,  1.0000]])
    """

    neighbour = (
        "BatchNorm1d, BatchNorm2d",
        "population variance; decay is 1 - momentum; masks",
    )

    noisy = False

    def build(self) -> None:
        conf = self.conf
        if not conf.lock_gamma_beta:
            self.gamma = nn.Parameter(torch.empty(conf.n_out))
            self.beta = nn.Parameter(torch.empty(conf.n_out))
        self.spread_name = "log10stdev" if conf.use_log_std else "var"
        for name in ("mean", self.spread_name):
            self.register_buffer(name, torch.empty(conf.n_out))

    def views(self) -> Iterator[View]:
        conf = self.conf
        if not conf.lock_gamma_beta:
            for name in ("gamma", "beta"):
                yield View(self, name, name, kind="scale", first=getattr(conf, name))
        spread, unit = self.spread_name, 0.0 if conf.use_log_std else 1.0
        for name, first in (("mean", 0.0), (spread, unit)):
            yield View(self, name, name, kind="statistic", first=first)

    def buffer(self, name: str) -> Tensor:
        """A statistic by DL4J's name."""
        statistic: Tensor = getattr(self, name)
        return statistic

    def variance(self) -> Tensor:
        """The running variance."""
        spread = self.buffer(self.spread_name)
        return 10.0 ** (2 * spread) if self.conf.use_log_std else spread

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None or self.dl4j_exact:
            return self._normal(x, None)
        shown = places_shown(mask, x)
        y = self._normal(x.masked_fill(~shown, 0), shown)
        return y.masked_fill(~shown, 0)

    def _normal(self, x: Tensor, shown: Tensor | None) -> Tensor:
        conf = self.conf
        axes = (0, *range(2, x.dim()))
        if not self.training:
            mean, var = self.buffer("mean"), self.variance()
        elif shown is None and not conf.lock_gamma_beta:
            single = self.dl4j_exact and x.numel() == x.shape[1]
            return self._single(x) if single else self._batch(x)
        elif shown is None:
            var, mean = torch.var_mean(x, axes, correction=0)
            self._remember(mean.detach(), var.detach())
        else:
            var, mean = self._moments(x, shown, axes)
        if conf.lock_gamma_beta or (self.training and shown is not None):
            shape = (1, conf.n_out, *(1,) * (x.dim() - 2))
            scale = (var + conf.eps).rsqrt()
            y = ((x - mean.view(shape)) * scale.view(shape)).to(x.dtype)
            if conf.lock_gamma_beta:
                return self._constants(y)
            gamma, beta = self.gamma.view(shape), self.beta.view(shape)
            scaled: Tensor = y * gamma + beta
            return scaled
        return F.batch_norm(x, mean, var, self.gamma, self.beta, eps=conf.eps)

    def _batch(self, x: Tensor) -> Tensor:
        """ATen's kernel in training: its running averages at once are the batch's."""
        mean, var = (torch.zeros_like(self.beta.detach()) for _ in range(2))
        y = F.batch_norm(x, mean, var, self.gamma, self.beta, True, 1.0, self.conf.eps)
        n = x.numel() // x.shape[1]
        self._remember(mean, var * ((n - 1) / n))  # DL4J's is the population's
        return y

    def _single(self, x: Tensor) -> Tensor:
        """A batch of one value a channel, which ATen refuses and DL4J trains on."""
        mean = x.detach().flatten()
        self._remember(mean, torch.zeros_like(mean))
        shape = (1, self.conf.n_out, *(1,) * (x.dim() - 2))
        return (x - x) * self.gamma.view(shape) + self.beta.view(shape)

    def _moments(
        self, x: Tensor, shown: Tensor, axes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Variance and mean of what is shown, remembered if there is anything."""
        wide = x.float() if x.itemsize < 4 else x
        weight = shown.to(wide.dtype)
        total = weight.sum()
        count = total.clamp(min=1)
        mean = (wide * weight).sum(axes, keepdim=True) / count
        var = ((wide - mean).square() * weight).sum(axes) / count
        mean = mean.flatten()
        self._remember(mean.detach().to(x.dtype), var.detach().to(x.dtype))
        for name, change in self.pending.items():
            self.pending[name] = change * (total > 0)
        return var, mean

    def _constants(self, normal: Tensor) -> Tensor:
        gamma, beta = self.conf.gamma, self.conf.beta
        if self.dl4j_exact and (gamma == 1 or beta == 0):
            # DL4J leaves the constants out, but sends the gradient back times γ
            return activations.gradient_of(normal * gamma, normal)
        constant: Tensor = normal * gamma + beta
        return constant

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        step = 1 - self.conf.decay
        self.pending["mean"] = step * (self.buffer("mean") - mean)
        if self.conf.use_log_std:
            # DL4J averages the variance and then takes the logarithm
            after = self.conf.decay * self.variance() + step * var
            now = self.buffer(self.spread_name)
            self.pending[self.spread_name] = now - 0.5 * torch.log10(after)
        else:
            self.pending["var"] = step * (self.buffer("var") - var)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        rule = "DL4J counts masked rows and pixels too; by default they are left out"
        return [*self.predicts_differently(dtype), f"BatchNormalization: {rule}"]

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        conf = self.conf
        if conf.lock_gamma_beta and (conf.gamma == 1) != (conf.beta == 0):
            rule = "DL4J applies locked γ and β only if γ ≠ 1 and β ≠ 0"
            return [f"BatchNormalization: {rule}"]
        return []

    def extra_repr(self) -> str:
        conf = self.conf
        return f"{conf.n_out}, decay={conf.decay}, eps={conf.eps}"


@implements(config.LocalResponseNormalization)
class LocalResponseNormalization(Layer):
    """
    Shape:
        ``[n, c, h, w]``, the same out; channels last for ``"NHWC"``.

    Example:
        >>> layer = LocalResponseNormalization(n=3, k=1.0, alpha=1.0, beta=1.0)
        >>> layer(torch.ones(1, 3, 1, 1)).flatten()
        tensor([0.3333, 0.2500, 0.3333])
    """

    neighbour = ("LocalResponseNorm", "α is not divided by the number of channels")

    noisy = False

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        conf, half = self.conf, int(self.conf.n) // 2
        width = 2 * half + 1
        # torch divides α by the width; its padding counts as 0, as DL4J's does
        y = F.local_response_norm(x, width, conf.alpha * width, conf.beta, conf.k)
        if not self.dl4j_exact:
            return y

        def near(t: Tensor) -> Tensor:
            wide = F.pad(t, (0, 0, 0, 0, half, half))
            return wide.unfold(1, width, 1).sum(-1)

        with torch.no_grad():
            total = conf.k + conf.alpha * near(x.square())
        # DL4J divides by the sum around where the gradient arrives, not where it leaves
        through = x * total**-conf.beta
        around = 2 * conf.alpha * conf.beta * near(x * (x / total).detach())
        return activations.gradient_of(through - y.detach() * around, y)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return ["LocalResponseNormalization: DL4J's gradient is not the derivative"]
