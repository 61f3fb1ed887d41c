"""Noise on parameters while training: DL4J's ``IWeightNoise``.

The classes are plain data; ``apply`` states the formula on whatever has tensor methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.dropout import KEEP, Scheduled
from dl4py.config.kinds import Checked, Data, field, flag
from dl4py.registry import DISTRIBUTIONS, SCHEDULES, WEIGHT_NOISES

if TYPE_CHECKING:
    from torch import Tensor

    from dl4py.clock import Clock
    from dl4py.noise import Noise


@dataclass(frozen=True)
class ParameterNoise(Checked):
    """Base of all noise on parameters.

    DL4J draws it for biases at test time too where it is applied to them, and does not
    multiply the gradient by it: ``dl4j_exact``.
    """

    def draw(self, like: Tensor, noise: Noise, clock: Clock) -> Tensor:
        """The noise of one forward pass, in DL4J's shape."""
        raise NotImplementedError

    def apply(self, w: Tensor, drawn: Tensor) -> Tensor:
        """The parameter ``w`` with its noise."""
        raise NotImplementedError

    def hits(self, kind: str) -> bool:
        """Whether parameters of ``kind`` get noise."""
        return kind == "weight" or (kind == "bias" and self.on_biases)

    @property
    def on_biases(self) -> bool:
        """Whether biases get noise too."""
        raise NotImplementedError

    def differs(self) -> str:
        """What ``dl4j_exact`` changes, in one line."""
        rule = "DL4J's gradient passes the noise by"
        also = ", and biases are disturbed in testing too" if self.on_biases else ""
        return f"{type(self).__name__}: {rule}{also}"


@WEIGHT_NOISES.add("drop_connect", java="DropConnect")
@dataclass(frozen=True)
class DropConnect(ParameterNoise, Scheduled):
    """Keep a weight with probability p, else 0; kept ones are not scaled by 1/p.

    Args:
        p: probability of **keeping** a weight, in (0, 1], or a schedule of it.
        apply_to_biases: whether biases are dropped too.

    Reference: Wan et al., Regularization of Neural Networks using DropConnect, 2013.
    DL4J: org.deeplearning4j.nn.conf.weightnoise.DropConnect
    """

    p: Any = field(0.5, KEEP, json="weightRetainProb")
    apply_to_biases: bool = field(False, flag)
    p_schedule: Any = field(None, Data(SCHEDULES), json="weightRetainProbSchedule")

    json_last: ClassVar[tuple[str, ...]] = ("weightRetainProb",)

    @property
    def on_biases(self) -> bool:
        return self.apply_to_biases

    def draw(self, like: Tensor, noise: Noise, clock: Clock) -> Tensor:
        return noise.keep(like, self.now(clock))

    def apply(self, w: Tensor, drawn: Tensor) -> Tensor:
        return w * drawn


@WEIGHT_NOISES.add("weight_noise", java="WeightNoise")
@dataclass(frozen=True)
class WeightNoise(ParameterNoise):
    """w + ε or w·ε, with ε drawn from a distribution.

    Args:
        distribution: of ε, one of ``dl4py.weight_init``'s.
        apply_to_bias: whether biases are disturbed too.
        additive: whether ε is added; else it is a factor.

    DL4J: org.deeplearning4j.nn.conf.weightnoise.WeightNoise
    """

    distribution: Any = field(kind=Data(DISTRIBUTIONS))
    apply_to_bias: bool = field(False, flag)
    additive: bool = field(True, flag)

    @property
    def on_biases(self) -> bool:
        return self.apply_to_bias

    def draw(self, like: Tensor, noise: Noise, clock: Clock) -> Tensor:
        drawn: Tensor = self.distribution.sample_(
            noise.empty(like), generator=noise.source
        )
        return drawn

    def apply(self, w: Tensor, drawn: Tensor) -> Tensor:
        return w + drawn if self.additive else w * drawn
