"""What shapes parameters besides the loss: l1, l2, weight decay, constraints.

The classes are plain data and state their formula on whatever has tensor methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.kinds import (
    Checked,
    Data,
    Integer,
    Many,
    Rate,
    Real,
    Text,
    field,
    flag,
)
from dl4py.registry import CONSTRAINTS, REGULARIZATIONS, SCHEDULES

if TYPE_CHECKING:
    from torch import Tensor

    from dl4py.clock import Clock

PIECE = 2**16  # numbers


class _Coefficient:
    """DL4J writes a coefficient as a schedule, a plain number as ``FixedSchedule``."""

    def __call__(self, value: Any) -> Any:
        rate = Rate()(value)
        return rate if callable(rate) else SCHEDULES["fixed"](rate)

    def from_json(self, value: Any) -> Any:
        return Data(SCHEDULES).from_json(value)


def _pieces(*tensors: Any) -> Sequence[tuple[Any, ...]]:
    """Flat views so short that what is made of them stays in a processor's cache.

    On other devices, where nothing is gained, where there are none, and of tensors that
    are spread over ranks, which may have no flat view: the tensors.
    """
    if all(
        t.is_cpu
        and t.is_contiguous()
        and t.numel() > PIECE
        and not hasattr(t, "device_mesh")
        for t in tensors
    ):
        return list(zip(*(t.view(-1).split(PIECE) for t in tensors), strict=True))
    return [tensors]


def _squares(w: Tensor) -> Any:
    """Σw²."""
    first, *rest = (
        # a dot writes no squares
        piece.square().sum() if piece is w else piece.dot(piece)
        for (piece,) in _pieces(w)
    )
    return sum(rest, first)


@dataclass(frozen=True)
class Regularization(Checked):
    """Base of penalties on a parameter w; ``before_updater`` says when they act."""

    before_updater: ClassVar[bool] = True

    def score(self, w: Tensor, clock: Clock) -> Tensor:
        """What the penalty adds to the score."""
        raise NotImplementedError

    def gradient(self, w: Tensor, clock: Clock) -> Tensor:
        """What it adds: to the gradient before the updater, else to the update."""
        raise NotImplementedError

    def slope(self, clock: Clock) -> float | None:
        """c, where the gradient is c·w."""
        return None

    def add(self, g: Tensor, w: Tensor, clock: Clock, out: Tensor) -> None:
        """Write g + :meth:`gradient` to ``out``, which may be g."""
        out.copy_(g + self.gradient(w, clock))


@REGULARIZATIONS.add("l1", java="L1Regularization")
@dataclass(frozen=True)
class L1(Regularization):
    """Lasso: score c·Σ|w|, gradient c·sgn(w) with sgn(0) = 0.

    Args:
        l1: c >= 0, or a schedule of it.

    DL4J: org.nd4j.linalg.learning.regularization.L1Regularization
    """

    l1: Any = field(kind=_Coefficient())

    def score(self, w: Tensor, clock: Clock) -> Tensor:
        first, *rest = (piece.abs().sum() for (piece,) in _pieces(w))
        total: Tensor = clock.at(self.l1) * sum(rest, first)
        return total

    def gradient(self, w: Tensor, clock: Clock) -> Tensor:
        return clock.at(self.l1) * w.sign()

    def add(self, g: Tensor, w: Tensor, clock: Clock, out: Tensor) -> None:
        c = clock.at(self.l1)
        for o, a, b in _pieces(out, g, w):
            (o if out is g else o.copy_(a)).add_(b.sign(), alpha=c)


@REGULARIZATIONS.add("l2", java="L2Regularization")
@dataclass(frozen=True)
class L2(Regularization):
    """Ridge: score ½·c·Σw², gradient c·w.

    Args:
        l2: c >= 0, or a schedule of it.

    DL4J: org.nd4j.linalg.learning.regularization.L2Regularization
    """

    l2: Any = field(kind=_Coefficient())

    def score(self, w: Tensor, clock: Clock) -> Tensor:
        total: Tensor = 0.5 * clock.at(self.l2) * _squares(w)
        return total

    def gradient(self, w: Tensor, clock: Clock) -> Tensor:
        return clock.at(self.l2) * w

    def slope(self, clock: Clock) -> float | None:
        return clock.at(self.l2)

    def add(self, g: Tensor, w: Tensor, clock: Clock, out: Tensor) -> None:
        c = clock.at(self.l2)
        for o, a, b in _pieces(out, g, w):
            (o if out is g else o.copy_(a)).add_(b, alpha=c)


@REGULARIZATIONS.add("weight_decay", java="WeightDecay")
@dataclass(frozen=True)
class WeightDecay(Regularization):
    """Decoupled weight decay: the update grows by η·c·w, or by c·w.

    The score counts ½·c·Σw² in both cases, as DL4J's does. Updaters without a learning
    rate (AdaDelta, NoOp) use η = 1.

    Args:
        coeff: c >= 0, or a schedule of it.
        apply_lr: whether the learning rate η is a factor.

    Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
    DL4J: org.nd4j.linalg.learning.regularization.WeightDecay
    """

    coeff: Any = field(kind=_Coefficient())
    apply_lr: bool = field(True, flag, json="applyLR")

    before_updater: ClassVar[bool] = False

    def factor(self, w: Tensor, rate: float, clock: Clock) -> Any:
        """The share of w that a step takes away."""
        return clock.at(self.coeff) * (rate if self.apply_lr else 1.0)

    def score(self, w: Tensor, clock: Clock) -> Tensor:
        total: Tensor = 0.5 * clock.at(self.coeff) * _squares(w)
        return total

    def gradient(self, w: Tensor, clock: Clock) -> Tensor:
        return clock.at(self.coeff) * w


def combine(current: Sequence[Regularization], new: Any) -> tuple[Regularization, ...]:
    """``current`` with ``new``, by the rule of DL4J's builder.

    A second one of a kind replaces the first, L2 and weight decay exclude each other,
    and a coefficient of 0 removes.

    Example:
        >>> terms = combine((L1(0.3), L2(0.1)), WeightDecay(0.2))
        >>> [type(term).__name__ for term in terms]
        ['L1', 'WeightDecay']
    """
    rivals = (L2, WeightDecay) if isinstance(new, (L2, WeightDecay)) else (type(new),)
    kept = tuple(r for r in current if not isinstance(r, rivals))
    coefficient = getattr(new, {L1: "l1", L2: "l2"}.get(type(new), "coeff"))
    return kept if coefficient == 0 else (*kept, new)


@dataclass(frozen=True)
class Constraint(Checked):
    """A condition that parameters meet after every step.

    Args:
        epsilon: ε >= 0, added to a norm that divides.
        dimensions: DL4J's axes over which a norm is taken; the scale is one number per
            entry of the other axes. Default: all but the first, which is what DL4J's
            pages advise: 1 for ``[n_in, n_out]``, 1, 2, 3 for convolutions.
        params: DL4J's names of the constrained parameters; the builder's
            ``constrain_weights``, ``constrain_bias`` and ``constrain_all_parameters``
            fill them in.
    """

    epsilon: float = field(1e-6, Real(0.0))
    dimensions: tuple[int, ...] | None = field(None, Many(Integer(), least=1))
    params: tuple[str, ...] | None = field(None, Many(Text()))

    def apply(self, w: Tensor, dl4j_exact: bool = False) -> Tensor:
        """The constrained value of ``w``, an array in DL4J's shape."""
        raise NotImplementedError

    def apply_(self, w: Tensor, dl4j_exact: bool = False) -> None:
        """Constrain ``w`` in place."""
        w.copy_(self.apply(w, dl4j_exact))

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes, in one line."""
        return None

    def norm(self, w: Tensor) -> Tensor:
        """Norms over ``dimensions``, which stay as axes of length 1."""
        axes = self.dimensions or tuple(range(1, w.dim())) or (0,)
        if any(not 0 <= axis < w.dim() for axis in axes):
            raise ValueError(
                f"{type(self).__name__}(dimensions={axes}): a parameter of shape "
                f"{tuple(w.shape)} has only axes 0 to {w.dim() - 1}"
            )
        length = max(1, PIECE * w.shape[axes[0]] // max(1, w.numel()))
        whole: Any = w
        parts = whole.split(length, axes[0]) if w.is_cpu else (w,)
        sums = [part.square().sum(axes, keepdim=True) for part in parts]
        total: Tensor = sum(sums[1:], sums[0])
        return total.sqrt()


class Scaling(Constraint):
    """A constraint that multiplies every vector by one number."""

    def scale(self, n: Tensor, dl4j_exact: bool) -> Tensor:
        """The numbers, from the vectors' norms."""
        raise NotImplementedError

    def apply(self, w: Tensor, dl4j_exact: bool = False) -> Tensor:
        return w * self.scale(self.norm(w), dl4j_exact)

    def apply_(self, w: Tensor, dl4j_exact: bool = False) -> None:
        w.mul_(self.scale(self.norm(w), dl4j_exact))


@CONSTRAINTS.add("max_norm", java="MaxNormConstraint")
@dataclass(frozen=True)
class MaxNorm(Scaling):
    """Norms of at most c: w ← w · min(‖w‖, c) / (‖w‖ + ε).

    DL4J applies it twice per step, which shrinks weights that are already inside the
    bound by (‖w‖ / (‖w‖ + ε))² each time; a network with ``dl4j_exact`` does so too,
    the default applies it once.

    Args:
        max_norm: c >= 0.

    DL4J: org.deeplearning4j.nn.conf.constraint.MaxNormConstraint
    """

    max_norm: float = field(1.0, Real(0.0))

    def scale(self, n: Tensor, dl4j_exact: bool) -> Tensor:
        return n.clamp(max=self.max_norm) / (n + self.epsilon)

    def differs(self) -> str:
        return "MaxNorm: DL4J applies it twice a step, which shrinks weights in bounds"


@CONSTRAINTS.add("min_max_norm", java="MinMaxNormConstraint")
@dataclass(frozen=True)
class MinMaxNorm(Scaling):
    """Norms between ``min`` and ``max``, approached by ``rate``.

    w ← w · (rate · clip(‖w‖, min, max) + (1 - rate) · ‖w‖) / (‖w‖ + ε)

    With rate < 1, DL4J mixes the ratio with the norm itself, which is ``dl4j_exact``:
    w ← w · (rate · clip(‖w‖) / (‖w‖ + ε) + (1 - rate) · (‖w‖ + ε)), twice per step.

    Args:
        min, max: the bounds, >= 0.
        rate: in [0, 1]; 1 takes norms to their bound at once.

    DL4J: org.deeplearning4j.nn.conf.constraint.MinMaxNormConstraint
    """

    min: float = field(0.0, Real(0.0))
    max: float = field(1.0, Real(0.0))
    rate: float = field(1.0, Real(0.0, 1.0))

    def scale(self, n: Tensor, dl4j_exact: bool) -> Tensor:
        clipped, m = n.clamp(self.min, self.max), n + self.epsilon
        if self.rate == 1:
            return clipped / m
        if dl4j_exact:
            return self.rate * clipped / m + (1 - self.rate) * m
        return (self.rate * clipped + (1 - self.rate) * n) / m

    def differs(self) -> str:
        mixed = "" if self.rate == 1 else " and mixes the ratio with the norm"
        return f"MinMaxNorm: DL4J applies it twice a step{mixed}"


@CONSTRAINTS.add("unit_norm", java="UnitNormConstraint")
@dataclass(frozen=True)
class UnitNorm(Scaling):
    """Norms of 1: w ← w / ‖w‖; a zero weight stays zero (DL4J makes it NaN).

    DL4J: org.deeplearning4j.nn.conf.constraint.UnitNormConstraint
    """

    def scale(self, n: Tensor, dl4j_exact: bool) -> Tensor:
        return n.masked_fill(n == 0, 1.0).reciprocal()


@CONSTRAINTS.add("non_negative", java="NonNegativeConstraint")
@dataclass(frozen=True)
class NonNegative(Constraint):
    """No negative weights: w ← max(w, 0).

    DL4J: org.deeplearning4j.nn.conf.constraint.NonNegativeConstraint
    """

    def apply(self, w: Tensor, dl4j_exact: bool = False) -> Tensor:
        return w.clamp(min=0)
