"""The distributions that weights can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dl4py.fields import Checked, number
from dl4py.noise import Noise, Source
from dl4py.registry import DISTRIBUTIONS


class Distribution(Checked):
    """Base of the distributions: ``sample_`` fills a tensor in place."""

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        """Fill ``tensor`` with draws and return it."""
        raise NotImplementedError


@DISTRIBUTIONS.add("normal", java="NormalDistribution")
@dataclass(frozen=True)
class NormalDistribution(Distribution):
    """The normal distribution N(mean, std²).

    Args:
        mean: its mean.
        std: its standard deviation, >= 0.

    Example:
        >>> NormalDistribution(3.0, 0.0).sample_(torch.empty(2))
        tensor([3., 3.])

    DL4J: org.deeplearning4j.nn.conf.distribution.NormalDistribution
    """

    mean: float = number()
    std: float = number(low=0.0)

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        return Noise.of(generator).normal_(tensor, self.mean, self.std)


@DISTRIBUTIONS.add("gaussian", java="GaussianDistribution")
@dataclass(frozen=True)
class GaussianDistribution(NormalDistribution):
    """DL4J's other name for :class:`NormalDistribution`.

    Args:
        mean: its mean.
        std: its standard deviation, >= 0.

    DL4J: org.deeplearning4j.nn.conf.distribution.GaussianDistribution
    """


@DISTRIBUTIONS.add("uniform", java="UniformDistribution")
@dataclass(frozen=True)
class UniformDistribution(Distribution):
    """The uniform distribution on [lower, upper).

    Args:
        lower: smallest value.
        upper: above all values, > ``lower``.

    DL4J: org.deeplearning4j.nn.conf.distribution.UniformDistribution
    """

    lower: float = number()
    upper: float = number()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lower >= self.upper:
            raise ValueError(
                f"UniformDistribution(lower=..., upper=...): lower must be less than "
                f"upper, got {self.lower:g} and {self.upper:g}"
            )

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        return Noise.of(generator).uniform_(tensor, self.lower, self.upper)


@DISTRIBUTIONS.add("truncated_normal", java="TruncatedNormalDistribution")
@dataclass(frozen=True)
class TruncatedNormalDistribution(Distribution):
    """The normal distribution cut off at mean ± 2·std.

    ``std`` belongs to the uncut distribution; the draws have 0.880 of it. DL4J's
    generator redraws once and sets what is still outside to the mean: 0.865.

    Args:
        mean: its mean.
        std: standard deviation before the cut, >= 0.

    DL4J: org.deeplearning4j.nn.conf.distribution.TruncatedNormalDistribution
    """

    mean: float = number()
    std: float = number(low=0.0)

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        return Noise.of(generator).truncated_normal_(tensor, self.mean, self.std)


@DISTRIBUTIONS.add("log_normal", java="LogNormalDistribution")
@dataclass(frozen=True)
class LogNormalDistribution(Distribution):
    """exp of a normal distribution.

    Args:
        mean: mean of the logarithm.
        std: standard deviation of the logarithm, >= 0.

    DL4J: org.deeplearning4j.nn.conf.distribution.LogNormalDistribution
    """

    mean: float = number()
    std: float = number(low=0.0)

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        return Noise.of(generator).log_normal_(tensor, self.mean, self.std)


@DISTRIBUTIONS.add("binomial", java="BinomialDistribution")
@dataclass(frozen=True)
class BinomialDistribution(Distribution):
    """How many of n trials succeed.

    Args:
        number_of_trials: n >= 1.
        probability_of_success: of each trial.

    DL4J: org.deeplearning4j.nn.conf.distribution.BinomialDistribution
    """

    number_of_trials: int = number(low=1, whole=True)
    probability_of_success: float = number(low=0.0, high=1.0)

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        trials, p = self.number_of_trials, self.probability_of_success
        return Noise.of(generator).binomial_(tensor, trials, p)


@DISTRIBUTIONS.add("constant", java="ConstantDistribution")
@dataclass(frozen=True)
class ConstantDistribution(Distribution):
    """Always the same value.

    Args:
        value: the value.

    DL4J: org.deeplearning4j.nn.conf.distribution.ConstantDistribution
    """

    value: float = number()

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        return tensor.fill_(self.value)


@DISTRIBUTIONS.add("orthogonal", java="OrthogonalDistribution")
@dataclass(frozen=True)
class OrthogonalDistribution(Distribution):
    """A random matrix with orthonormal columns, or rows where those are fewer.

    The columns are the last axis, the rows all others; torch's ``orthogonal_`` splits
    after the first.

    Args:
        gain: a factor.

    Example:
        >>> q = OrthogonalDistribution(2.0).sample_(torch.empty(3, 2))
        >>> bool(torch.allclose(q.T @ q, 4 * torch.eye(2), atol=1e-5))
        True

    Reference: Saxe et al., arXiv:1312.6120

    DL4J: org.deeplearning4j.nn.conf.distribution.OrthogonalDistribution
    """

    gain: float = number(1.0)

    def sample_(self, tensor: Tensor, generator: Source = None) -> Tensor:
        if tensor.dim() < 2:
            raise ValueError(
                f"OrthogonalDistribution needs at least 2 axes, got a tensor of shape "
                f"{tuple(tensor.shape)}"
            )
        if tensor.numel() == 0:
            return tensor
        wide = tensor.dtype if tensor.element_size() >= 4 else torch.float32
        matrix = torch.empty(
            tensor[..., 0].numel(), tensor.shape[-1], dtype=wide, device=tensor.device
        )
        Noise.of(generator).orthogonal_(matrix, self.gain)
        return tensor.copy_(matrix.view(tensor.shape))
