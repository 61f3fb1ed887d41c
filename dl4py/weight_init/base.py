"""What all weight initialisations share, and how they are found."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dl4py.fields import Checked
from dl4py.noise import Noise, Source
from dl4py.registry import DISTRIBUTIONS, WEIGHT_INITS
from dl4py.weight_init.distributions import Distribution


@dataclass(frozen=True)
class WeightInit(Checked):
    """Base of all schemes: ``init(tensor, fan_in, fan_out, generator=None)``, in place.

    The generator is torch's, or a ``dl4py.NativeRandom`` for DL4J's own numbers.
    fi and fo stand for fan_in and fan_out; U(±b) is uniform on [-b, b).
    """

    @torch.no_grad()
    def __call__(
        self,
        tensor: Tensor,
        fan_in: float,
        fan_out: float,
        generator: Source = None,
    ) -> Tensor:
        """Fill ``tensor`` in place and return it."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            what = getattr(tensor, "dtype", type(tensor).__name__)
            raise TypeError(
                f"{type(self).__name__} fills floating-point tensors, got {what}"
            )
        for name, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
            if not (math.isfinite(fan) and fan > 0):
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a number > 0, got {fan!r}"
                )
        self.fill_(tensor, float(fan_in), float(fan_out), generator)
        return tensor

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        """Fill ``tensor``: the formula."""
        raise NotImplementedError


@WEIGHT_INITS.add(
    "distribution",
    java="WeightInitDistribution",
    near={
        "orthogonal": "pass OrthogonalDistribution(1.0) in its place",
        "random_normal": "pass NormalDistribution(0.0, 0.05) in its place",
        "random_uniform": "pass UniformDistribution(-0.05, 0.05) in its place",
        "truncated_normal": "pass TruncatedNormalDistribution(0.0, 0.05) in its place",
    },
)
@dataclass(frozen=True)
class FromDistribution(WeightInit):
    """Draws from a distribution, whatever the fans.

    Args:
        distribution: what to draw from.

    Example:
        >>> from dl4py.weight_init import ConstantDistribution
        >>> FromDistribution(ConstantDistribution(0.5))(torch.empty(2), 1, 1)
        tensor([0.5000, 0.5000])

    DL4J: org.deeplearning4j.nn.weights.WeightInitDistribution
    """

    distribution: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(getattr(self.distribution, "sample_", None)):
            raise TypeError(
                f"distribution must be one of dl4py.weight_init's, such as "
                f"NormalDistribution(0.0, 1.0), got {self.distribution!r}"
            )

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        self.distribution.sample_(tensor, generator)


@dataclass(frozen=True)
class _Function(WeightInit):
    """A function of the tensor alone, such as those of torch.nn.init."""

    function: Callable[..., Any]

    def fill_(self, tensor: Tensor, fi: float, fo: float, generator: Source) -> None:
        known = "generator" in inspect.signature(self.function).parameters
        source = Noise.of(generator).torchs() if known else None
        filled = self.function(tensor, **({"generator": source} if known else {}))
        if isinstance(filled, Tensor) and filled is not tensor:
            tensor.copy_(filled)


def get(
    name: str | WeightInit | Distribution | Callable[..., Any], **args: Any
) -> Callable[..., Any]:
    """A weight initialisation by DL4J's name: ``init(tensor, fan_in, fan_out)``.

    Args:
        name: a name, or in its place a scheme, a distribution, a function of the same
            arguments, or a function of the tensor alone.
        args: the arguments of the named scheme.

    Example:
        >>> get("CONSTANT", value=2.0)(torch.empty(2), fan_in=3, fan_out=2)
        tensor([2., 2.])
        >>> get(torch.nn.init.ones_)(torch.empty(2), fan_in=3, fan_out=2)
        tensor([1., 1.])
    """
    if isinstance(name, str):
        named = WEIGHT_INITS.named(name, **args)
        init: Callable[..., Any] = named.entry.item(**named.kwargs)
        return init
    if args:
        raise TypeError(f"weight init {name!r}: arguments {sorted(args)} need a name")
    if isinstance(name, WeightInit):
        return name
    if DISTRIBUTIONS.entry_of(type(name)) is not None:
        return FromDistribution(name)
    if inspect.isclass(name) and issubclass(name, WeightInit):
        return name()
    if callable(name):
        return name if _takes_fans(name) else _Function(name)
    raise TypeError(f"expected a weight init or its name, got {name!r}")


def _takes_fans(function: Callable[..., Any]) -> bool:
    known = inspect.signature(function).parameters.values()
    needed = [p for p in known if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return len(needed) >= 3 or any(p.name == "fan_in" for p in known)
