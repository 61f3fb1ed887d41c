"""How far a network has been trained: what schedules depend on."""

from __future__ import annotations

from typing import Any

from dl4py.registry import SCHEDULES


class Clock:
    """DL4J's zero-based iteration and epoch counters, shared by all parts of a network.

    Args:
        iteration: steps taken so far.
        epoch: passes over the data finished so far.
        dl4j_exact: whether schedules reproduce DL4J's faults too.

    Attributes:
        examples: how many the present gradient is a mean of, where DL4J's optimizer
            divides by it once more.

    Example:
        >>> Clock(iteration=3).at(lambda iteration, epoch: 0.1 / (1 + iteration))
        0.025
    """

    def __init__(
        self, iteration: int = 0, epoch: int = 0, dl4j_exact: bool = False
    ) -> None:
        self.iteration = iteration
        self.epoch = epoch
        self.dl4j_exact = dl4j_exact
        self.examples = 1

    def at(self, rate: Any) -> float:
        """The present value of a number, a schedule or a function of both counters."""
        if not callable(rate):
            return float(rate)
        if SCHEDULES.entry_of(type(rate)) is not None:
            return float(rate(self.iteration, self.epoch, self.dl4j_exact))
        return float(rate(self.iteration, self.epoch))
