"""Line searches: how far to go along a direction.

A search is a generator of step lengths: it yields one, is sent the :class:`Point`
there, and yields the next. The first is always 1: a direction has the length of the
step that it expects. φ(t) is the loss at x + t·d, φ' its slope; every point costs one
evaluation of the closure and one host read.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dl4py.registry import SEARCHES
from dl4py.solvers.problem import Problem

Steps = Generator[float, "Point", None]


@dataclass
class Point:
    """A point of a line.

    Attributes:
        step: t.
        x: the flat vector there.
        loss: φ(t).
        slope: g(t)·(x(t) - x(0))/t, which is φ'(t) on a straight line; NaN where only
            the value was computed.
        predicted: g(0)·(x(t) - x(0)), which is t·φ'(0) on a straight line.
        square: ‖g(t)‖².
        gradient: g(t), or ``None``.
    """

    step: float
    x: Tensor
    loss: float
    slope: float = math.nan
    predicted: float = math.nan
    square: float = math.nan
    gradient: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether loss and, where it was computed, gradient are finite."""
        whole = self.gradient is None or math.isfinite(self.square)
        return math.isfinite(self.loss) and whole


class Line:
    """The loss along x + t·d, projected into bounds where there are any.

    Args:
        problem: the problem.
        start: where the line begins, with loss and gradient.
        direction: d, ``[size]``.
        bounds: (lower, upper), tensors or numbers.

    Attributes:
        loss: φ(0).
        slope: φ'(0); known from the first point on, so that it costs no read.
    """

    def __init__(
        self,
        problem: Problem,
        start: Point,
        direction: Tensor,
        bounds: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        assert start.gradient is not None
        self.problem = problem
        self.start = start
        self.direction = direction
        self.bounds = bounds
        self.loss = start.loss
        self.slope = math.nan
        self._first: Tensor | None = start.gradient.dot(direction)

    def at(self, step: float, gradient: bool) -> Point:
        """The point at ``step``, with its gradient or without."""
        return self._filled(Point(step, self._x(step), math.nan), gradient)

    def complete(self, point: Point) -> Point:
        """The same point with its gradient."""
        return point if point.gradient is not None else self._filled(point, True)

    def unseen(self, step: float) -> Point:
        """The point at ``step``, nothing evaluated."""
        return Point(step, self._x(step), math.nan)

    def reach(self) -> float:
        """max |dᵢ| / max(|xᵢ|, 1): what a step of 1 changes, as a share of x."""
        share = self.direction.abs() / self.start.x.abs().clamp(min=1)
        return self.problem.read(share.max())[0]

    def lost(self, step: float) -> bool:
        """Whether what a step promises is less than rounding of the loss hides."""
        promised = abs(step * self.slope)
        return promised <= torch.finfo(self.direction.dtype).eps * abs(self.loss)

    def _x(self, step: float) -> Tensor:
        x = torch.add(self.start.x, self.direction, alpha=step)
        return x if self.bounds is None else torch.clamp(x, *self.bounds)

    def _filled(self, point: Point, gradient: bool) -> Point:
        origin = self.start.gradient
        assert origin is not None
        moved = self.direction if self.bounds is None else point.x - self.start.x
        numbers: list[Tensor] = []
        if gradient:
            loss, g = self.problem.evaluate(point.x)
            numbers += [g.dot(moved), g.dot(g)]
            point.gradient = g
        else:
            loss = self.problem.value(point.x)
        if self.bounds is not None:
            numbers.append(origin.dot(moved))
        if self._first is not None:
            numbers.append(self._first)
        values = self.problem.read(loss, *numbers)
        if self._first is not None:
            self.slope, self._first = values.pop(), None
        point.loss = values[0]
        point.predicted = point.step * self.slope
        if self.bounds is not None:
            point.predicted = values.pop()
        if gradient:
            point.slope, point.square = values[1:]
            if self.bounds is not None and point.step:
                point.slope /= point.step
        return point


class Search:
    """Base of all searches.

    Attributes:
        iterations: the number of points it may try by default.
        needs_gradient: whether it decides by slopes too.
        straight: whether it needs a straight line: no bounds.
        blind: whether it accepts its first point unseen.
    """

    iterations: ClassVar[int] = 5
    needs_gradient: ClassVar[bool] = False
    straight: ClassVar[bool] = False
    blind: ClassVar[bool] = False

    def steps(self, line: Line) -> Steps:
        """Step lengths to try, given the points tried so far."""
        raise NotImplementedError

    def accepts(self, line: Line, point: Point) -> bool:
        """Whether a finite point is good enough to end the search."""
        raise NotImplementedError

    def wants_gradient(self, i: int, gradient: bool) -> bool:
        """Whether point ``i`` is computed with its gradient.

        If the caller wants it in the end, the first is, since mostly it is the one.
        """
        return self.needs_gradient or (gradient and i == 0)

    def falls_back(self, line: Line, point: Point) -> bool:
        """Whether the lowest point found is better than none."""
        return point.loss < line.loss

    def __call__(self, line: Line, iterations: int, gradient: bool) -> Point | None:
        """The point to go to, or ``None`` where nothing better was found.

        Args:
            line: the line.
            iterations: how many points may be tried.
            gradient: whether the caller will want the gradient there.
        """
        if self.blind:
            return line.unseen(1.0)
        steps = self.steps(line)
        step = next(steps)
        best: Point | None = None
        for i in range(iterations):
            point = line.at(step, self.wants_gradient(i, gradient))
            if not line.slope < 0:
                return None  # flat or uphill, or not a number
            if point.finite:
                if self.accepts(line, point):
                    return point
                if best is None or point.loss < best.loss:
                    best = point
            try:
                step = steps.send(point)
            except StopIteration:
                break
        return best if best is not None and self.falls_back(line, best) else None


@SEARCHES.add("fixed", "none")
class Fixed(Search):
    """No search: the step is 1 times the direction."""

    blind = True


@SEARCHES.add("armijo")
class Armijo(Search):
    """Back-tracking until the loss has fallen by a share of what the slope promises.

    φ(t) <= φ(0) + c₁·t·φ'(0); else t ← the minimum of the parabola through φ(0), φ'(0)
    and φ(t), kept in [0.1·t, 0.5·t]; 0.2·t where φ(t) is not finite.

    Args:
        c1: the share, in (0, 1).

    Reference: Nocedal and Wright, Numerical Optimization, 2006, section 3.5.
    """

    iterations = 20

    def __init__(self, c1: float = 1e-4) -> None:
        self.c1 = c1

    def accepts(self, line: Line, point: Point) -> bool:
        # projected into bounds, a descent direction may promise nothing
        return point.loss <= line.loss + self.c1 * min(point.predicted, 0.0)

    def steps(self, line: Line) -> Steps:
        t = 1.0
        while True:
            point = yield t
            if not point.finite:
                t *= 0.2
                continue
            excess = point.loss - line.loss - t * line.slope
            best = -line.slope * t * t / (2 * excess) if excess > 0 else 0.5 * t
            t = min(max(best, 0.1 * t), 0.5 * t)
            if line.lost(t):
                return


@SEARCHES.add("dl4j", "back_track_line_search")
class Dl4j(Armijo):
    """DL4J's back-tracking, which is ``lnsrch`` of Numerical Recipes.

    φ(t) <= φ(0) + 1e-4·t·φ'(0); else t ← the minimum of the parabola, from the second
    time of the cubic through the last two points, at most 0.5·t then; 0.2·t where φ is
    not finite; at least 0.1·t always. It ends where t moves no coordinate by 1e-7 of
    max(|xᵢ|, 1). With ``dl4j_exact=True`` solvers use DL4J's own form instead.

    DL4J: org.deeplearning4j.optimize.solvers.BackTrackLineSearch
    """

    iterations = 5
    smallest = 1e-7  # DL4J: relTolx

    def steps(self, line: Line) -> Steps:
        t, last, last_loss = 1.0, 0.0, math.nan
        least: float | None = None
        while True:
            point = yield t
            slope, rise = line.slope, point.loss - line.loss - t * line.slope
            if not (point.finite and (last == 0.0 or math.isfinite(last_loss))):
                proposed = 0.2 * t
            elif last == 0.0:
                proposed = -slope * t * t / (2 * rise) if rise > 0 else 0.5 * t
            else:
                before = last_loss - line.loss - last * slope
                proposed = min(_cubic(t, rise, last, before, slope), 0.5 * t)
            last, last_loss = t, point.loss
            t = max(proposed, 0.1 * t)
            if line.lost(t):
                return
            if t < 1e-6:  # as long as it is not near, it needs no reading
                least = self.smallest / line.reach() if least is None else least
                if t < least:
                    return


def _cubic(t: float, rise: float, last: float, before: float, slope: float) -> float:
    """The minimum of the cubic through φ(0), φ'(0) and two points."""
    a = (rise / t**2 - before / last**2) / (t - last)
    b = (-last * rise / t**2 + t * before / last**2) / (t - last)
    if a == 0:
        return -slope / (2 * b) if b != 0 else 0.5 * t
    root = b * b - 3 * a * slope
    if root < 0:
        return 0.5 * t
    if b <= 0:
        return (-b + math.sqrt(root)) / (3 * a)
    return -slope / (b + math.sqrt(root))
