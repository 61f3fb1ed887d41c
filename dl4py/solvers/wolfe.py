"""Line searches that look at slopes too: Wolfe's conditions, exact or approximate."""

from __future__ import annotations

import math
from collections.abc import Generator

import torch

from dl4py.registry import SEARCHES
from dl4py.solvers.searches import Line, Point, Search, Steps


@SEARCHES.add("strong_wolfe")
class StrongWolfe(Search):
    """The loss has fallen enough, and the slope is small.

    φ(t) <= φ(0) + c₁·t·φ'(0) and |φ'(t)| <= c₂·|φ'(0)|. An interval that must hold such
    a t is found by growing t, then narrowed, both by cubic interpolation.

    Args:
        c1, c2: 0 < c1 < c2 < 1; small c2 is exact and expensive.
        probe: compute only the value at t = 1, which costs less than half of a
            gradient, and begin at the minimum of the parabola through φ(0), φ'(0) and
            φ(1). It pays where 1 is seldom accepted.

    Reference: Nocedal and Wright, Numerical Optimization, 2006, section 3.5.
    """

    iterations = 25
    needs_gradient = True
    straight = True

    def __init__(self, c1: float = 1e-4, c2: float = 0.9, probe: bool = False) -> None:
        self.c1 = c1
        self.c2 = c2
        self.probe = probe

    def wants_gradient(self, i: int, gradient: bool) -> bool:
        return i > 0 or not self.probe

    def enough(self, line: Line, point: Point) -> bool:
        """Whether the loss has fallen enough."""
        return point.loss <= line.loss + self.c1 * point.predicted

    def accepts(self, line: Line, point: Point) -> bool:
        return self.enough(line, point) and abs(point.slope) <= -self.c2 * line.slope

    def steps(self, line: Line) -> Steps:
        t = 1.0
        if self.probe:
            t = _parabola(line, (yield t))
        point = yield t
        low, high = Point(0.0, line.start.x, line.loss, line.slope), None
        while True:
            before = low
            fell = point.finite and self.enough(line, point) and point.loss < low.loss
            if not fell:
                high = point
            else:
                ahead = 1.0 if high is None or high.step > low.step else -1.0
                if point.slope * ahead >= 0:
                    high = low
                low = point
            if high is None:
                t = _beyond(before, low)
            elif line.lost(high.step - low.step):
                return
            else:
                t = _between(low, high)
            point = yield t


def _parabola(line: Line, point: Point) -> float:
    """The minimum of the parabola through φ(0), φ'(0) and φ(1), in [0.05, 10]."""
    if not point.finite:
        return 0.2
    excess = point.loss - line.loss - line.slope
    if abs(excess) <= 32 * torch.finfo(line.direction.dtype).eps * abs(line.loss):
        return 1.0  # it may be rounding
    if excess < 0:
        return 10.0  # it only falls
    return min(max(-line.slope / (2 * excess), 0.05), 10.0)


def _minimum(a: Point, b: Point) -> float:
    """The minimum of the cubic with the values and slopes of two points, or NaN."""
    h = b.step - a.step
    z = 3 * (a.loss - b.loss) / h + a.slope + b.slope
    root = z * z - a.slope * b.slope
    if not root >= 0:
        return math.nan
    w = math.copysign(math.sqrt(root), h)
    below = b.slope - a.slope + 2 * w
    return b.step - h * (b.slope + w - z) / below if below else math.nan


def _between(low: Point, high: Point) -> float:
    """A step inside the interval, not too near its ends."""
    h = high.step - low.step
    if not high.finite:
        return low.step + 0.2 * h
    share = (_minimum(low, high) - low.step) / h
    return low.step + (min(max(share, 0.1), 0.9) if math.isfinite(share) else 0.5) * h


def _beyond(before: Point, point: Point) -> float:
    """A longer step: the minimum of the cubic, up to 10 times as far."""
    t = _minimum(before, point)
    least = point.step + 0.01 * (point.step - before.step)
    most = 10 * point.step
    return min(max(t, least), most) if math.isfinite(t) else most


@SEARCHES.add("hager_zhang")
class HagerZhang(Search):
    """Wolfe's conditions, or approximate ones where rounding hides the fall of φ.

    Accepted is t with φ'(t) >= σ·φ'(0) and either φ(t) <= φ(0) + δ·t·φ'(0), or
    φ(t) <= φ(0) + ε·|φ(0)| and φ'(t) <= (2δ - 1)·φ'(0): near a minimum differences of φ
    are lost in rounding long before slopes are. Steps come from the secant of slopes,
    twice, then from bisection if the interval shrank too little.

    Args:
        delta, sigma: 0 < delta < 0.5, delta <= sigma < 1.
        epsilon: ε, the share of the loss that rounding may hide.

    Reference: Hager and Zhang, Algorithm 851: CG_DESCENT, ACM TOMS 32 (2006).
    """

    iterations = 25
    needs_gradient = True
    straight = True
    shrink, growth = 0.66, 5.0

    def __init__(
        self, delta: float = 0.1, sigma: float = 0.9, epsilon: float = 1e-6
    ) -> None:
        self.delta = delta
        self.sigma = sigma
        self.epsilon = epsilon

    def limit(self, line: Line) -> float:
        """φ(0) and what rounding may hide."""
        return line.loss + self.epsilon * abs(line.loss)

    def accepts(self, line: Line, point: Point) -> bool:
        if point.slope < self.sigma * line.slope:
            return False
        if point.loss <= line.loss + self.delta * point.predicted:
            return True
        flat = point.slope <= (2 * self.delta - 1) * line.slope
        return flat and point.loss <= self.limit(line)

    def falls_back(self, line: Line, point: Point) -> bool:
        calmer = abs(point.slope) < -line.slope
        return point.loss < line.loss or (calmer and point.loss <= self.limit(line))

    def steps(self, line: Line) -> Steps:
        low, high = yield from self._bracket(line)
        while True:
            width = high.step - low.step
            if width <= 1e-15 * high.step:
                return
            last = low, high
            first = yield _secant(low, high)
            low, high = yield from self._updated(line, low, high, first)
            # a second secant, through two slopes of one sign
            again = None
            if high is first:
                again = _secant(last[1], high)
            elif low is first:
                again = _secant(last[0], low)
            if again is not None and low.step < again < high.step:
                second = yield again
                low, high = yield from self._updated(line, low, high, second)
            if high.step - low.step > self.shrink * width:
                middle = yield 0.5 * (low.step + high.step)
                low, high = yield from self._updated(line, low, high, middle)

    def _bracket(self, line: Line) -> Generator[float, Point, tuple[Point, Point]]:
        """Two points with a slope below 0 at the first and not below at the second."""
        t = 1.0
        low: Point | None = None
        while True:
            point = yield t
            if low is None:
                low = Point(0.0, line.start.x, line.loss, line.slope)
            if not point.finite or point.loss > self.limit(line):
                if point.finite and point.slope >= 0:
                    return low, point
                return (yield from self._narrowed(line, low, point))
            if point.slope >= 0:
                return low, point
            low = point
            t *= self.growth

    def _narrowed(
        self, line: Line, low: Point, high: Point
    ) -> Generator[float, Point, tuple[Point, Point]]:
        """From an end that is too high to one whose slope is not below 0."""
        while True:
            share = 0.5 if high.finite else 0.2
            point = yield low.step + share * (high.step - low.step)
            if point.finite and point.slope >= 0:
                return low, point
            if point.finite and point.loss <= self.limit(line):
                low = point
            else:
                high = point

    def _updated(
        self, line: Line, low: Point, high: Point, point: Point
    ) -> Generator[float, Point, tuple[Point, Point]]:
        """The smaller interval that a new point allows."""
        if not low.step < point.step < high.step:
            return low, high
        if point.finite and point.slope >= 0:
            return low, point
        if point.finite and point.loss <= self.limit(line):
            return point, high
        return (yield from self._narrowed(line, low, point))


def _secant(a: Point, b: Point) -> float:
    """Where the line through two slopes is 0; the middle where that is nowhere."""
    change = b.slope - a.slope
    t = (a.step * b.slope - b.step * a.slope) / change if change else math.nan
    return t if math.isfinite(t) else 0.5 * (a.step + b.step)
