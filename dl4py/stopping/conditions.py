"""What ends a training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Condition:
    """Base of what ends training; a condition of one's own states :meth:`ends`.

    Attributes:
        each_iteration: whether it is asked after every step, with the step's score,
            not after epochs that were evaluated.
    """

    each_iteration: ClassVar[bool] = False

    def begin(self) -> None:
        """Forget earlier trainings."""

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        """Whether training ends now.

        Args:
            epoch: zero-based.
            score: of the score calculator, or of the last step.
            minimize: whether a smaller score is better.
        """
        raise NotImplementedError


@dataclass
class MaxEpochs(Condition):
    """After ``epochs`` >= 1; as in DL4J epochs that are not evaluated never end."""

    epochs: int

    def __post_init__(self) -> None:
        _at_least(1, self, "epochs")

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        return epoch + 1 >= self.epochs


@dataclass
class BestScore(Condition):
    """As soon as a score is better than ``score``."""

    score: float

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        return score < self.score if minimize else score > self.score


@dataclass
class ScoreImprovement(Condition):
    """After ``epochs`` >= 0 without an improvement of more than ``least``.

    A score that is NaN is no improvement, and nothing improves on a first one.
    """

    epochs: int
    least: float = 0.0
    best_epoch: int = field(default=-1, init=False, repr=False)
    best_score: float = field(default=math.nan, init=False, repr=False)

    def __post_init__(self) -> None:
        _at_least(0, self, "epochs")

    def begin(self) -> None:
        self.best_epoch, self.best_score = -1, math.nan

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        better = self.best_score - score if minimize else score - self.best_score
        if self.best_epoch == -1 or better > self.least:
            self.best_epoch, self.best_score = epoch, score
            return False
        return epoch >= self.best_epoch + self.epochs


@dataclass
class MaxTime(Condition):
    """After the first step that ends ``seconds`` > 0 after the beginning."""

    seconds: float
    started: float = field(default=0.0, init=False, repr=False)
    each_iteration: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"MaxTime(seconds=...) must be > 0, got {self.seconds!r}")

    def begin(self) -> None:
        self.started = time.monotonic()

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        return time.monotonic() - self.started >= self.seconds


@dataclass
class MaxScore(Condition):
    """After a step whose score is above ``score``, or NaN."""

    score: float
    each_iteration: ClassVar[bool] = True

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        return score > self.score or math.isnan(score)


@dataclass
class InvalidScore(Condition):
    """After a step whose score is NaN or infinite."""

    each_iteration: ClassVar[bool] = True

    def ends(self, epoch: int, score: float, minimize: bool) -> bool:
        return not math.isfinite(score)


def _at_least(least: int, condition: Condition, name: str) -> None:
    value = getattr(condition, name)
    if not isinstance(value, int) or value < least:
        raise ValueError(
            f"{type(condition).__name__}({name}=...) must be a whole number >= "
            f"{least}, got {value!r}"
        )
