"""What a variational autoencoder says of its input: distributions of x given z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.kinds import Checked, Data, Integer, Item, Many, field
from dl4py.registry import ACTIVATIONS, LOSSES, RECONSTRUCTIONS


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Checked):
    """Base of all distributions of the input given what the decoder computes.

    DL4J: org.deeplearning4j.nn.conf.layers.variational.ReconstructionDistribution
    """

    def width(self, size: int) -> int:
        """How many numbers the decoder gives for ``size`` values of the input."""
        return size

    @property
    def has_loss(self) -> bool:
        """Whether it is a loss, without a probability."""
        return False

    def check(self, size: int) -> None:
        """Whether it fits an input of ``size`` values; raises ``ValueError``."""


@RECONSTRUCTIONS.add("gaussian", java="GaussianReconstructionDistribution")
@dataclass(frozen=True, kw_only=True)
class GaussianReconstruction(Reconstruction):
    """Real values: x ~ N(μ, σ²), (μ, ln σ²) = f(decoder), the means first.

    Args:
        activation: f; DL4J's default is identity, that of its layer tanh.

    DL4J: org.deeplearning4j.nn.conf.layers.variational.
        GaussianReconstructionDistribution
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")

    def width(self, size: int) -> int:
        return 2 * size


@RECONSTRUCTIONS.add("bernoulli", java="BernoulliReconstructionDistribution")
@dataclass(frozen=True, kw_only=True)
class BernoulliReconstruction(Reconstruction):
    """Values in [0, 1], best 0 or 1: P(x = 1) = f(decoder).

    Args:
        activation: f, with values in [0, 1].

    DL4J: org.deeplearning4j.nn.conf.layers.variational.
        BernoulliReconstructionDistribution
    """

    activation: Any = field("sigmoid", Item(ACTIVATIONS), json="activationFn")


@RECONSTRUCTIONS.add("exponential", java="ExponentialReconstructionDistribution")
@dataclass(frozen=True, kw_only=True)
class ExponentialReconstruction(Reconstruction):
    """Values >= 0: p(x) = λ·exp(-λ·x), ln λ = f(decoder).

    Args:
        activation: f.

    DL4J: org.deeplearning4j.nn.conf.layers.variational.
        ExponentialReconstructionDistribution
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")


@RECONSTRUCTIONS.add("loss", java="LossFunctionWrapper")
@dataclass(frozen=True, kw_only=True)
class LossReconstruction(Reconstruction):
    """No distribution: a loss between the input and f(decoder).

    Args:
        activation: f.
        loss: its name; a registered one.

    DL4J: org.deeplearning4j.nn.conf.layers.variational.LossFunctionWrapper
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    loss: Any = field("mse", Item(LOSSES), json="lossFunction")

    @property
    def has_loss(self) -> bool:
        return True


@RECONSTRUCTIONS.add("composite", java="CompositeReconstructionDistribution")
@dataclass(frozen=True, kw_only=True)
class CompositeReconstruction(Reconstruction):
    """Several distributions beside each other, each of its own piece of the input.

    Args:
        sizes: how many values each is of, >= 1.
        parts: the distributions.

    Example:
        >>> parts = "gaussian", "bernoulli"
        >>> CompositeReconstruction(sizes=(2, 3), parts=parts).width(5)
        7

    DL4J: org.deeplearning4j.nn.conf.layers.variational.
        CompositeReconstructionDistribution
    """

    sizes: tuple[int, ...] = field(kind=Many(Integer(1), 1), json="distributionSizes")
    parts: tuple[Any, ...] = field(
        kind=Many(Data(RECONSTRUCTIONS), 1), json="reconstructionDistributions"
    )

    json_derived: ClassVar[tuple[str, ...]] = ("totalSize",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sizes) != len(self.parts):
            raise ValueError(
                f"CompositeReconstruction(parts=...) must be {len(self.sizes)}, one "
                f"for each of sizes, got {len(self.parts)}"
            )
        if len({part.has_loss for part in self.parts}) > 1:
            raise ValueError(
                "CompositeReconstruction(parts=...) must all be distributions, or all "
                "losses: their sum would mean nothing"
            )

    def json_extra(self) -> dict[str, Any]:
        """What DL4J writes beside the fields."""
        return {"totalSize": sum(self.sizes)}

    def width(self, size: int) -> int:
        pairs = zip(self.parts, self.sizes, strict=True)
        return sum(part.width(own) for part, own in pairs)

    @property
    def has_loss(self) -> bool:
        return bool(self.parts[0].has_loss)

    def check(self, size: int) -> None:
        if sum(self.sizes) != size:
            raise ValueError(
                f"distribution: its sizes {list(self.sizes)} must sum to n_in = {size}"
            )
