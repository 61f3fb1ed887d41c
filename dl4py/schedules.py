"""DL4J's schedules: pure functions of (iteration, epoch), both counted from zero.

A class states its formula once, in ``at``. Any callable ``(iteration, epoch) -> float``
may stand where a schedule does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.clock import Clock
from dl4py.fields import Checked, is_number, number
from dl4py.registry import SCHEDULES

__all__ = ["Counted", "Schedule", "get"]


@dataclass(frozen=True)
class Schedule(Checked):
    """Base of all schedules: a value for every moment."""

    def __call__(
        self, iteration: int = 0, epoch: int = 0, dl4j_exact: bool = False
    ) -> float:
        """The value at an iteration and an epoch; ``inf`` where it outgrows floats."""
        raise NotImplementedError

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes for these arguments, in one line."""
        return None


@dataclass(frozen=True)
class Counted(Schedule):
    """Base of the schedules that follow one counter i: the iteration or the epoch.

    Args:
        by: ``"iteration"`` or ``"epoch"``, kept in DL4J's spelling.
    """

    by: str = dataclasses.field(
        default="ITERATION", kw_only=True, metadata={"json": "scheduleType"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        word = getattr(self.by, "name", self.by)
        if not isinstance(word, str) or word.upper() not in ("ITERATION", "EPOCH"):
            raise self._wrong("by", "'iteration' or 'epoch'", self.by)
        object.__setattr__(self, "by", word.upper())

    def at(self, i: int) -> float:
        """The formula."""
        raise NotImplementedError

    def exact_at(self, i: int) -> float:
        """DL4J's own number, where the formula has a fault there."""
        return self.at(i)

    def __call__(
        self, iteration: int = 0, epoch: int = 0, dl4j_exact: bool = False
    ) -> float:
        i = iteration if self.by == "ITERATION" else epoch
        try:
            return self.exact_at(i) if dl4j_exact else self.at(i)
        except OverflowError:
            return math.inf


@SCHEDULES.add("fixed", java="FixedSchedule")
@dataclass(frozen=True)
class Fixed(Schedule):
    """Always the same value.

    Args:
        value: the value, >= 0.

    Example:
        >>> Fixed(0.1)(iteration=7)
        0.1

    DL4J: org.nd4j.linalg.schedule.FixedSchedule
    """

    value: float = number(low=0.0)

    def __call__(
        self, iteration: int = 0, epoch: int = 0, dl4j_exact: bool = False
    ) -> float:
        return self.value


@SCHEDULES.add(
    "exponential",
    java="ExponentialSchedule",
    near={
        "exponential_decay": "gamma is Keras's decay_rate ** (1 / decay_steps)",
        "exponential_lr": "torch counts its calls, it counts by='iteration' or 'epoch'",
    },
)
@dataclass(frozen=True)
class Exponential(Counted):
    """Exponential decay.

    value(i) = v₀ · γ^i

    Args:
        initial_value: v₀ >= 0.
        gamma: γ >= 0.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> Exponential(0.8, 0.5)(iteration=2)
        0.2

    DL4J: org.nd4j.linalg.schedule.ExponentialSchedule
    """

    initial_value: float = number(low=0.0)
    gamma: float = number(low=0.0)

    def at(self, i: int) -> float:
        return float(self.initial_value * self.gamma**i)


@SCHEDULES.add(
    "inverse",
    java="InverseSchedule",
    near={
        "inverse_time_decay": "gamma is Keras's decay_rate / decay_steps, power 1",
    },
)
@dataclass(frozen=True)
class Inverse(Counted):
    """Inverse decay.

    value(i) = v₀ / (1 + γ·i)^p

    Args:
        initial_value: v₀ >= 0.
        gamma: γ >= 0.
        power: p >= 0.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> Inverse(0.9, gamma=1.0, power=2.0)(iteration=2)
        0.1

    DL4J: org.nd4j.linalg.schedule.InverseSchedule
    """

    initial_value: float = number(low=0.0)
    gamma: float = number(low=0.0)
    power: float = number(low=0.0)

    def at(self, i: int) -> float:
        return float(self.initial_value / (1 + self.gamma * i) ** self.power)


@SCHEDULES.add(
    "poly",
    java="PolySchedule",
    near={
        "polynomial_decay": "it ends at 0, Keras's at end_learning_rate",
        "polynomial_lr": "torch's total_iters is its max_iter",
    },
)
@dataclass(frozen=True)
class Poly(Counted):
    """Polynomial decay to 0 at ``max_iter``.

    value(i) = v₀ · (1 - i/max_iter)^p while i < max_iter, then 0

    DL4J has a plus sign: its value rises to 2^p · v₀ and then drops to 0.
    ``dl4j_exact=True`` gives that.

    Args:
        initial_value: v₀ >= 0.
        power: p >= 0.
        max_iter: where the value reaches 0, >= 1.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> Poly(0.1, power=1.0, max_iter=4)(iteration=2)
        0.05
        >>> Poly(0.1, power=1.0, max_iter=4)(iteration=2, dl4j_exact=True)
        0.15000000000000002

    DL4J: org.nd4j.linalg.schedule.PolySchedule
    """

    initial_value: float = number(low=0.0)
    power: float = number(low=0.0)
    max_iter: int = number(low=1, whole=True)

    def at(self, i: int) -> float:
        if i >= self.max_iter:
            return 0.0
        return float(self.initial_value * (1 - i / self.max_iter) ** self.power)

    def exact_at(self, i: int) -> float:
        if i >= self.max_iter:
            return 0.0
        return float(self.initial_value * (1 + i / self.max_iter) ** self.power)

    def differs(self) -> str:
        return "DL4J's value is v0·(1 + i/max_iter)^p: it grows, then drops to 0"


@SCHEDULES.add("sigmoid", java="SigmoidSchedule")
@dataclass(frozen=True)
class Sigmoid(Counted):
    """A logistic curve; it grows with i for γ > 0 and decays for γ < 0.

    value(i) = v₀ / (1 + e^(-γ·(i - step_size)))

    Args:
        initial_value: v₀ >= 0, the upper limit.
        gamma: steepness γ.
        step_size: where the value is v₀/2.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> Sigmoid(0.1, gamma=-0.5, step_size=5)(iteration=5)
        0.05

    DL4J: org.nd4j.linalg.schedule.SigmoidSchedule
    """

    initial_value: float = number(low=0.0)
    gamma: float = number()
    step_size: int = number(low=0, whole=True)

    def at(self, i: int) -> float:
        z = self.gamma * (i - self.step_size)
        if z < 0:  # e^-z would overflow
            return self.initial_value * math.exp(z) / (1 + math.exp(z))
        return self.initial_value / (1 + math.exp(-z))


@SCHEDULES.add(
    "step",
    java="StepSchedule",
    near={
        "step_lr": "torch's gamma is its decay_rate, step_size its step",
        "multi_step_lr": "for steps of unequal length write 'map'",
    },
)
@dataclass(frozen=True)
class Step(Counted):
    """A factor every ``step`` counts.

    value(i) = v₀ · d^floor(i/step)

    Args:
        initial_value: v₀ >= 0.
        decay_rate: d >= 0.
        step: counts between two drops, > 0; need not be whole.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> Step(0.1, decay_rate=0.5, step=10, by="epoch")(epoch=10)
        0.05

    DL4J: org.nd4j.linalg.schedule.StepSchedule
    """

    initial_value: float = number(low=0.0)
    decay_rate: float = number(low=0.0)
    step: float = number(above=0.0)

    def at(self, i: int) -> float:
        return float(self.initial_value * self.decay_rate ** math.floor(i / self.step))


@SCHEDULES.add(
    "map",
    java="MapSchedule",
    near={
        "piecewise_constant_decay": "a value holds from its key on, in Keras after it",
    },
)
@dataclass(frozen=True)
class Map(Counted):
    """Values set at given counts, each until the next one.

    value(i) = values[the largest key <= i]

    Args:
        values: count → value >= 0; the key 0 is needed.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> [Map({0: 0.1, 3: 0.01})(i) for i in range(5)]
        [0.1, 0.1, 0.1, 0.01, 0.01]

    DL4J: org.nd4j.linalg.schedule.MapSchedule
    """

    values: Mapping[int, float] = dataclasses.field(hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:  # JSON's keys are strings
            values = {float(k): _real(v) for k, v in dict(self.values).items()}
        except (TypeError, ValueError):
            values = {}
        if 0 not in values or any(k < 0 or not k.is_integer() for k in values):
            expected = "{count: value} with whole counts >= 0, the first of them 0"
            raise self._wrong("values", expected, self.values)
        if not all(math.isfinite(v) and v >= 0 for v in values.values()):
            raise self._wrong("values", "finite and >= 0", self.values)
        values = {int(k): values[k] for k in sorted(values)}
        object.__setattr__(self, "values", values)

    def at(self, i: int) -> float:
        return self.values[max(k for k in self.values if k <= i)]


@SCHEDULES.add("cycle", java="CycleSchedule")
@dataclass(frozen=True)
class Cycle(Counted):
    """One cycle up and down, then annealing, over and over.

    With L = cycle_length, A = annealing_length, s = floor((L - A)/2) and p = i mod L:

    value(i) = v₀ + (v_max - v₀)·p/s        for p < s
    value(i) = v_max - (v_max - v₀)·(p - s)/s  for s <= p < 2s
    value(i) = v₀ · d^(A - (L - p))         for p >= 2s

    With an odd L - A the first exponent is -1, in both modes: choose L - A even.

    Args:
        initial_learning_rate: v₀ >= 0; default: v_max/10.
        max_learning_rate: v_max >= 0.
        cycle_length: L.
        annealing_length: A, at most L - 2; default: L/10, rounded.
        annealing_decay: d > 0.
        by: the counter i, ``"iteration"`` or ``"epoch"``.

    Example:
        >>> cycle = Cycle(max_learning_rate=0.5, cycle_length=10)
        >>> [round(cycle(i), 3) for i in (0, 4, 8, 9)]
        [0.05, 0.5, 0.5, 0.05]

    Reference: Smith & Topin, Super-Convergence, arXiv:1708.07120

    DL4J: org.nd4j.linalg.schedule.CycleSchedule
    """

    initial_learning_rate: float = number(None, low=0.0)
    max_learning_rate: float = number(None, low=0.0)
    cycle_length: int = number(None, low=2, whole=True)
    annealing_length: int = number(None, low=0, whole=True)
    annealing_decay: float = number(0.1, above=0.0)

    json_derived: ClassVar[tuple[str, ...]] = ("increment", "stepSize")
    json_last = json_derived

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("max_learning_rate", "cycle_length")
        if self.initial_learning_rate is None:
            tenth = 0.1 * self.max_learning_rate
            object.__setattr__(self, "initial_learning_rate", tenth)
        if self.annealing_length is None:  # Java rounds halves up
            tenth = math.floor(0.1 * self.cycle_length + 0.5)
            object.__setattr__(self, "annealing_length", tenth)
        if self.cycle_length - self.annealing_length < 2:
            limit = f"at most cycle_length - 2 = {self.cycle_length - 2}"
            raise self._wrong("annealing_length", limit, self.annealing_length)

    @property
    def step_size(self) -> int:
        return (self.cycle_length - self.annealing_length) // 2

    @property
    def increment(self) -> float:
        rise = self.max_learning_rate - self.initial_learning_rate
        return rise / self.step_size

    def json_extra(self) -> dict[str, float]:
        """DL4J writes these two, although they follow from the others."""
        return {"increment": self.increment, "stepSize": self.step_size}

    def at(self, i: int) -> float:
        s, p = self.step_size, i % self.cycle_length
        if p < s:
            return self.initial_learning_rate + self.increment * p
        if p < 2 * s:
            return self.max_learning_rate - self.increment * (p - s)
        exponent = self.annealing_length - (self.cycle_length - p)
        return float(self.initial_learning_rate * self.annealing_decay**exponent)


@SCHEDULES.add("ramp", java="RampSchedule")
@dataclass(frozen=True)
class Ramp(Schedule):
    """A linear start of another schedule.

    value(t, e) = base(t, e) · (t + 1)/n while t < n - 1, then base(t, e)

    The ramp counts iterations, whatever the base counts.

    Args:
        base_schedule: the schedule to start slowly, or a number.
        num_iter: n >= 1.

    Example:
        >>> [Ramp(0.4, 4)(i) for i in range(5)]
        [0.1, 0.2, 0.30000000000000004, 0.4, 0.4]

    DL4J: org.nd4j.linalg.schedule.RampSchedule
    """

    base_schedule: Any = None
    num_iter: int = number(None, low=1, whole=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # None: DL4J writes the class without its fields, so its files have lost them
        self._require("base_schedule", "num_iter")
        object.__setattr__(self, "base_schedule", get(self.base_schedule))

    def __call__(
        self, iteration: int = 0, epoch: int = 0, dl4j_exact: bool = False
    ) -> float:
        base = Clock(iteration, epoch, dl4j_exact).at(self.base_schedule)
        if iteration < self.num_iter - 1:
            return base * (iteration + 1) / self.num_iter
        return base

    def differs(self) -> str | None:
        base = self.base_schedule
        return base.differs() if isinstance(base, Schedule) else None


def _real(value: Any) -> float:
    return float(value) if is_number(value) else math.nan


def get(
    name: str | float | Callable[..., float], *, dl4j_exact: bool = False, **args: Any
) -> Callable[..., float]:
    """A schedule by DL4J's name.

    Args:
        name: a name, or in its place a schedule, a callable ``(iteration, epoch)`` or a
            constant.
        dl4j_exact: DL4J's own numbers also where ``differs`` names a fault.
        args: the arguments of the named schedule.

    Example:
        >>> get("exponential", initial_value=0.8, gamma=0.5, by="epoch")(epoch=1)
        0.4
    """
    schedule: Callable[..., float]
    if isinstance(name, str):
        named = SCHEDULES.named(name, **args)
        schedule = named.entry.item(**named.kwargs)
    elif args:
        raise TypeError(f"schedule {name!r}: arguments {sorted(args)} need a name")
    elif callable(name):
        schedule = name
    elif is_number(name):
        schedule = Fixed(name)
    else:
        raise TypeError(f"expected a schedule, its name or a number, got {name!r}")
    if dl4j_exact and isinstance(schedule, Schedule):
        return functools.partial(schedule, dl4j_exact=True)
    return schedule
