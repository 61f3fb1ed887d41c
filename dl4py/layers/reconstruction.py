"""Distributions of an input given what a variational autoencoder decodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config, losses
from dl4py.noise import Noise

_MODULES: dict[type[Any], type[Reconstruction]] = {}


class Reconstruction(nn.Module):
    """Base of the distributions; ``d`` is what the decoder gives, ``[n, width]``."""

    activation: nn.Module

    def __init__(self, conf: Any, dl4j_exact: bool = False) -> None:
        super().__init__()
        self.conf, self.dl4j_exact = conf, dl4j_exact
        self.build()

    def build(self) -> None:
        """Make activation and parts from ``self.conf``."""
        self.activation = activations.get(
            self.conf.activation, dl4j_exact=self.dl4j_exact
        )

    def f(self, d: Tensor) -> Tensor:
        """``d`` through the activation."""
        y: Tensor = self.activation(d)
        return y

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        """ln p(x | d) of each example, ``[n]``."""
        raise NotImplementedError

    def mean(self, d: Tensor) -> Tensor:
        """The mean of x, ``[n, size]``."""
        raise NotImplementedError

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        """A draw of x, ``[n, size]``."""
        raise NotImplementedError

    def error(self, x: Tensor, mean: Tensor) -> Tensor:
        """The loss of each example, ``[n]``, where it is one."""
        raise NotImplementedError

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes."""
        return None


R = TypeVar("R", bound=type[Reconstruction])


def describes(configuration: type[Any]) -> Callable[[R], R]:
    """Make the decorated class the module of a distribution's configuration."""

    def register(module: R) -> R:
        _MODULES[configuration] = module
        return module

    return register


def distribution_of(conf: Any, dl4j_exact: bool = False) -> Reconstruction:
    """The module of a distribution's configuration.

    >>> d = distribution_of(config.ExponentialReconstruction())
    >>> d.mean(torch.zeros(1, 2))
    tensor([[1., 1.]])
    """
    kind = type(conf)
    if kind not in _MODULES:
        raise ValueError(
            f"distribution: {kind.__name__} has no module: register it with "
            f"@dl4py.layers.reconstruction.describes({kind.__name__})"
        )
    return _MODULES[kind](conf, dl4j_exact)


@describes(config.GaussianReconstruction)
class Gaussian(Reconstruction):
    """N(μ, σ²) with (μ, ln σ²) = f(d)."""

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        mean, log_var = self.f(d).chunk(2, 1)
        terms = math.log(2 * math.pi) + log_var + (x - mean).square() / log_var.exp()
        return -0.5 * terms.sum(1)

    def mean(self, d: Tensor) -> Tensor:
        return self.f(d.chunk(2, 1)[0])  # as DL4J, of the means alone

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        mean, log_var = self.f(d).chunk(2, 1)
        return mean + (0.5 * log_var).exp() * noise.normal(mean)


@describes(config.BernoulliReconstruction)
class Bernoulli(Reconstruction):
    """P(x = 1) = f(d)."""

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        if self.dl4j_exact:
            p = self.f(d)
            one, none = p.log(), (1 - p).log()
            one, none = (t.masked_fill(t.isinf(), 0) for t in (one, none))
            return (x * one + (1 - x) * none).sum(1)
        if isinstance(self.activation, activations.Sigmoid):
            return (x * F.logsigmoid(d) + (1 - x) * F.logsigmoid(-d)).sum(1)
        p = self.f(d)
        return (torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p)).sum(1)

    def mean(self, d: Tensor) -> Tensor:
        return self.f(d)

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        p = self.mean(d)
        return (noise.uniform(p) < p).to(p.dtype)

    def differs(self) -> str:
        return "DL4J takes ln 0 for 0: what is impossible costs nothing"


@describes(config.ExponentialReconstruction)
class Exponential(Reconstruction):
    """p(x) = λ·exp(-λ·x) with ln λ = f(d)."""

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        log_rate = self.f(d)
        return (log_rate - log_rate.exp() * x).sum(1)

    def mean(self, d: Tensor) -> Tensor:
        return (-self.f(d)).exp()

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        mean = self.mean(d)
        tiny = torch.finfo(mean.dtype).tiny
        return -noise.uniform(mean).clamp(min=tiny).log() * mean


@describes(config.LossReconstruction)
class Loss(Reconstruction):
    """A loss between x and f(d): its negative stands for the logarithm."""

    def build(self) -> None:
        super().build()
        exact = self.dl4j_exact
        self.loss = losses.get(
            self.conf.loss, activation=self.activation, dl4j_exact=exact
        )
        self.plain = losses.get(self.conf.loss, dl4j_exact=exact)

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        return -self.loss.per_example(d, x)

    def mean(self, d: Tensor) -> Tensor:
        return self.f(d)

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        return self.mean(d)

    def error(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.plain.per_example(mean, x)


@describes(config.CompositeReconstruction)
class Composite(Reconstruction):
    """Distributions of pieces of x, each with its own piece of d."""

    parts: Any  # a list of distributions

    def build(self) -> None:
        conf = self.conf
        self.parts = nn.ModuleList(
            distribution_of(part, self.dl4j_exact) for part in conf.parts
        )
        pairs = zip(conf.parts, conf.sizes, strict=True)
        self.widths = [part.width(size) for part, size in pairs]

    def _split(self, d: Tensor) -> list[tuple[Any, Tensor]]:
        return list(zip(self.parts, d.split_with_sizes(self.widths, 1), strict=True))

    def log_probability(self, x: Tensor, d: Tensor) -> Tensor:
        pieces = x.split_with_sizes(list(self.conf.sizes), 1)
        both = zip(self._split(d), pieces, strict=True)
        found = [part.log_probability(own, given) for (part, given), own in both]
        return torch.stack(found).sum(0)

    def mean(self, d: Tensor) -> Tensor:
        return torch.cat([part.mean(own) for part, own in self._split(d)], 1)

    def sample(self, d: Tensor, noise: Noise) -> Tensor:
        return torch.cat([part.sample(own, noise) for part, own in self._split(d)], 1)

    def error(self, x: Tensor, mean: Tensor) -> Tensor:
        sizes = list(self.conf.sizes)
        both = zip(
            self.parts,
            x.split_with_sizes(sizes, 1),
            mean.split_with_sizes(sizes, 1),
            strict=True,
        )
        return torch.stack([part.error(own, m) for part, own, m in both]).sum(0)
