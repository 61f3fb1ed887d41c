"""Noise on a layer's input while training: DL4J's ``IDropout``.

The classes are plain data; ``apply`` states the formula on whatever has tensor methods
and draws through the network's :class:`~dl4py.noise.Noise`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.kinds import Checked, Data, Rate, Real, field, flag
from dl4py.registry import DROPOUTS, SCHEDULES

if TYPE_CHECKING:
    from torch import Tensor

    from dl4py.clock import Clock
    from dl4py.noise import Noise


KEEP = Rate(0.0, 1.0, above=0.0)  # a probability of keeping


@dataclass(frozen=True)
class Scheduled(Checked):
    """Base of noise with a rate that may be a schedule.

    DL4J keeps a schedule in a field of its own beside the number, which is then NaN.
    """

    rate_field: ClassVar[str] = "p"

    def __post_init__(self) -> None:
        super().__post_init__()
        beside = f"{self.rate_field}_schedule"
        rate = getattr(self, self.rate_field)
        if callable(rate):
            object.__setattr__(self, beside, rate)
            object.__setattr__(self, self.rate_field, float("nan"))
        elif math.isnan(rate) and getattr(self, beside) is None:
            raise ValueError(
                f"{type(self).__name__}({self.rate_field}=...) must be a number or a "
                f"schedule, got {rate}"
            )

    def now(self, clock: Clock) -> float:
        """The present rate."""
        schedule = getattr(self, f"{self.rate_field}_schedule")
        rate = clock.at(schedule or getattr(self, self.rate_field))
        if schedule is not None:
            self._check(rate, clock)
        return rate

    def _check(self, rate: float, clock: Clock) -> None:
        """Refuse what a schedule gives, where no number could be given."""
        what = f"{type(self).__name__}({self.rate_field}=...): the schedule's value"
        when = f"at iteration {clock.iteration}, epoch {clock.epoch}"
        try:
            if rate != rate:
                raise ValueError(f"must be a number, got {rate}")
            self.__dataclass_fields__[self.rate_field].metadata["kind"](rate)
        except ValueError as error:
            raise ValueError(f"{what} {when} {error}") from None


@dataclass(frozen=True)
class InputNoise(Scheduled):
    """Base of all noise on a layer's input while training; identity while testing."""

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        """``x`` with one draw of the noise."""
        raise NotImplementedError


@DROPOUTS.add("dropout", java="Dropout")
@dataclass(frozen=True)
class Dropout(InputNoise):
    """Keep a value with probability p and scale it by 1/p, else 0.

    Args:
        p: probability of **keeping** a value, in (0, 1], or a schedule of it; torch's
            is that of dropping.
        helper_allow_fallback: kept for DL4J's files; it changes nothing.

    Reference: Srivastava et al., Dropout, 2014.
    DL4J: org.deeplearning4j.nn.conf.dropout.Dropout
    """

    json_last: ClassVar[tuple[str, ...]] = ("helperAllowFallback", "pschedule")

    p: Any = field(0.5, KEEP)
    p_schedule: Any = field(None, Data(SCHEDULES), json="pschedule")
    helper_allow_fallback: bool = field(True, flag)

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        p = self.now(clock)
        return x * noise.keep(x, p).div_(p)


@DROPOUTS.add("spatial_dropout", java="SpatialDropout")
@dataclass(frozen=True)
class SpatialDropout(InputNoise):
    """Dropout of whole channels: one draw per example and entry of axis 1.

    Args:
        p: probability of **keeping** a channel, in (0, 1], or a schedule of it.

    Shape:
        ``[n, channels, ...]`` with at least three axes in, the same shape out.

    Reference: Tompson et al., Efficient Object Localization Using Convolutional
        Networks, 2015.
    DL4J: org.deeplearning4j.nn.conf.dropout.SpatialDropout
    """

    p: Any = field(0.5, KEEP)
    p_schedule: Any = field(None, Data(SCHEDULES), json="pschedule")

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        if x.dim() < 3:
            raise ValueError(
                "SpatialDropout needs [n, channels, ...] with at least one axis after "
                f"the channels, got shape {tuple(x.shape)}; use Dropout for rows"
            )
        p = self.now(clock)
        # ND4J: as an array of its own, whatever the order of x
        kept = noise.ordered("c").bernoulli(x.flatten(2)[..., 0], p)
        return x * kept.div_(p).reshape(*kept.shape, *(1,) * (x.dim() - 2))


@DROPOUTS.add("alpha_dropout", java="AlphaDropout")
@dataclass(frozen=True)
class AlphaDropout(InputNoise):
    """Dropout for SELU networks: keeps mean and variance.

    x ← A·(x·d + α'·(1 - d)) + B with d ~ Bernoulli(p), α' = -λα,
    A = 1/√(p + α'²·p·(1 - p)), B = -A·(1 - p)·α'

    Args:
        p: probability of **keeping** a value, in (0, 1], or a schedule of it.
        alpha, scale: α and λ of SELU.

    Reference: Klambauer et al., Self-Normalizing Neural Networks, 2017.
    DL4J: org.deeplearning4j.nn.conf.dropout.AlphaDropout
    """

    p: Any = field(0.5, KEEP)
    p_schedule: Any = field(None, Data(SCHEDULES), json="pschedule")
    alpha: float = field(1.6732632423543772, Real())
    scale: float = field(1.0507009873554805, Real(), json="lambda")

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        p = self.now(clock)
        alpha = -self.scale * self.alpha
        a = 1 / math.sqrt(p + alpha**2 * p * (1 - p))
        b = -a * (1 - p) * alpha
        d = noise.bernoulli(x, p)
        return a * (x * d + alpha * (1 - d)) + b


@DROPOUTS.add("gaussian_dropout", java="GaussianDropout")
@dataclass(frozen=True)
class GaussianDropout(InputNoise):
    """Multiplicative noise: x ← x·N(1, rate / (1 - rate)).

    Args:
        rate: in [0, 1), or a schedule of it: the one class where DL4J means the
            probability of **dropping**.

    Reference: Srivastava et al., Dropout, 2014, section 10.
    DL4J: org.deeplearning4j.nn.conf.dropout.GaussianDropout
    """

    rate: Any = field(0.5, Rate(0.0, 1.0, below=1.0))
    rate_schedule: Any = field(None, Data(SCHEDULES))

    rate_field: ClassVar[str] = "rate"

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        rate = self.now(clock)
        return x * noise.normal(x, 1.0, math.sqrt(rate / (1 - rate)))


@DROPOUTS.add("gaussian_noise", java="GaussianNoise")
@dataclass(frozen=True)
class GaussianNoise(InputNoise):
    """Additive noise: x ← x + N(0, stddev²).

    Args:
        stddev: standard deviation, >= 0, or a schedule of it.

    DL4J: org.deeplearning4j.nn.conf.dropout.GaussianNoise
    """

    stddev: Any = field(0.1, Rate(0.0))
    stddev_schedule: Any = field(None, Data(SCHEDULES))

    rate_field: ClassVar[str] = "stddev"

    def apply(self, x: Tensor, noise: Noise, clock: Clock) -> Tensor:
        stddev = self.now(clock)
        return x + noise.normal(x, 0.0, stddev)
