"""A step of one direction and one line search, whatever they are."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.registry import SEARCHES
from dl4py.solvers import dl4j
from dl4py.solvers.base import Solver
from dl4py.solvers.directions import (
    Direction,
    Steepest,
    Taken,
    wide,
)
from dl4py.solvers.problem import Problem
from dl4py.solvers.searches import Line, Point, Search

Bounds = tuple[Any, Any]


class LineSolver(Solver):
    """A direction and a line search: x ← x + t·lr·d, ``max_iter`` times a step.

    Where a search finds nothing better, what the direction remembers is dropped and
    the steepest descent is tried in its place; if that fails too, x stays.

    Args:
        params: parameters or groups; a group may have its own ``lr`` and
            ``l2``.
        direction: where to go.
        lr: η >= 0, what the direction is multiplied with before the search.
        line_search: a name (``"dl4j"``, ``"armijo"``, ``"strong_wolfe"``,
            ``"hager_zhang"``, ``"fixed"``) or a :class:`Search`.
        max_num_line_search_iterations: points a search may try, >= 1; ``None``: what
            suits the search.
        max_iter: directions and searches of one step, on the same data, >= 1.
        l2: adds l2/2·‖x‖² to the loss.
        maximize: go uphill.
        tolerance_grad: a step ends early where ‖g‖ is less than it.
        tolerance_change: a step ends early where the loss changed by less than it.
        bounds: (lower, upper), numbers or lists of tensors, one for every parameter:
            x stays within. Needs a back-tracking search.
        process_group: the ranks that solve one problem together.
        step_function: one of DL4J's: ``"NegativeDefaultStepFunction"``; ``Default...``
            goes uphill, ``NegativeGradient...`` takes the whole direction unseen,
            ``Gradient...`` does both.
        dl4j_exact: DL4J's own steps, see :mod:`dl4py.solvers.dl4j`; direction and
            search are then DL4J's, of ``algorithm``.

    Attributes:
        algorithm: DL4J's name.
    """

    algorithm: ClassVar[str] = "LINE_GRADIENT_DESCENT"
    fault = "DL4J searches with the updated gradient, in its own copy"
    _own: ClassVar[tuple[str, ...]] = (
        *Solver._own,
        "direction",
        "search",
        "iterations",
        "max_iter",
        "tolerance_grad",
        "tolerance_change",
        "bounds",
        "step_function",
        "dl4j_exact",
    )

    def __init__(
        self,
        params: ParamsT,
        direction: Direction,
        *,
        lr: float = 1.0,
        line_search: str | Search = "dl4j",
        max_num_line_search_iterations: int | None = None,
        max_iter: int = 1,
        l2: float = 0.0,
        maximize: bool = False,
        tolerance_grad: float = 0.0,
        tolerance_change: float = 0.0,
        bounds: Bounds | None = None,
        process_group: Any = None,
        step_function: str | None = None,
        dl4j_exact: bool = False,
        **others: Any,
    ) -> None:
        if not isinstance(dl4j_exact, bool):
            self.wrong("dl4j_exact", "True or False", dl4j_exact)
        self.dl4j_exact = dl4j_exact
        self.step_function = dl4j.step_function(step_function)
        sign, searches = dl4j.STEP_FUNCTIONS[self.step_function]
        if not dl4j_exact:
            maximize = maximize or sign > 0
            line_search = line_search if searches else "fixed"
        elif maximize or bounds is not None:
            self.fail(": DL4J knows neither maximize nor bounds; dl4j_exact=False does")
        self.direction = direction
        self.search = self._search(line_search)
        if self.search.blind and isinstance(direction, Steepest):
            direction.adapts = False  # nothing shows that longer steps are better
        if max_num_line_search_iterations is None:
            max_num_line_search_iterations = self.search.iterations
        self.iterations = self._count(
            "max_num_line_search_iterations", max_num_line_search_iterations
        )
        self.max_iter = self._count("max_iter", max_iter)
        for name, value in (
            ("tolerance_grad", tolerance_grad),
            ("tolerance_change", tolerance_change),
        ):
            if not (isinstance(value, (int, float)) and value >= 0):
                self.wrong(name, "a number >= 0", value)
        self.tolerance_grad = tolerance_grad
        self.tolerance_change = tolerance_change
        self.bounds = self._bounds(bounds)
        super().__init__(
            params,
            {"lr": lr, "l2": l2},
            maximize=maximize,
            process_group=process_group,
            **others,
        )

    def _search(self, given: str | Search) -> Search:
        if isinstance(given, Search):
            return given
        search: Search = SEARCHES[given]()
        return search

    def _count(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.wrong(name, "a whole number >= 1", value)
        return value

    def _bounds(self, bounds: Bounds | None) -> Bounds | None:
        if bounds is None:
            return None
        if not (isinstance(bounds, (tuple, list)) and len(bounds) == 2):
            self.wrong("bounds", "a pair (lower, upper)", bounds)
        if self.search.straight or self.search.blind:
            self.wrong(
                "line_search",
                "'armijo' or 'dl4j' with bounds, since the way along them is no line",
                type(self.search).__name__,
            )
        return bounds[0], bounds[1]

    @property
    def searches(self) -> bool:
        return not self.search.blind

    @property
    def kind(self) -> str:
        if self.dl4j_exact:
            return f"{super().kind}(dl4j_exact=True)"
        own = type(self) is LineSolver
        return f"LineSolver({type(self.direction).__name__})" if own else super().kind

    def fitted(self, name: str, value: Any, like: Tensor) -> Any:
        if name in self.direction.wide:
            return value.to(like.device, wide(like.device))
        return super().fitted(name, value, like)

    def recalled(self, memory: dict[str, Any]) -> dict[str, Any]:
        """What remains after a failed step: nothing, where it was overwritten."""
        same = memory.get("count") == self.memory.get("count")
        return memory if same or "pairs" not in memory else {}

    def advance(self, problem: Problem) -> Tensor:
        rate = problem.per_group("lr")
        if self.dl4j_exact:
            model = dl4j.OfProblem(problem, rate)
            dl4j.optimize(
                model, self.memory, self.algorithm, self.iterations, self.step_function
            )
            return model.params()
        bounds = self._within(problem)
        here = Point(0.0, problem.x, problem.score, gradient=problem.gradient)
        here.square = problem.slope
        if bounds is not None and bool((here.x != torch.clamp(here.x, *bounds)).any()):
            self.fail(
                "(bounds=...): parameters are outside of their bounds before the step; "
                "clamp them first"
            )
        for i in range(self.max_iter):
            last = i + 1 == self.max_iter
            point = self._found(problem, here, rate, bounds, last)
            if point is None:
                break
            change = abs(point.loss - here.loss)
            here = point
            if last or not math.isfinite(here.square):
                break
            if here.square == 0 or math.sqrt(here.square) < self.tolerance_grad:
                break
            if change < self.tolerance_change:
                break
        return here.x

    def _found(
        self,
        problem: Problem,
        here: Point,
        rate: Tensor | float,
        bounds: tuple[Tensor, Tensor] | None,
        last: bool,
    ) -> Point | None:
        """The next point, the direction told of it; ``None`` where there is none."""
        g = here.gradient
        assert g is not None
        square = here.square
        if bounds is not None:  # what would leave the bounds is no part of it
            out = ((here.x <= bounds[0]) & (g > 0)) | ((here.x >= bounds[1]) & (g < 0))
            g = g.masked_fill(out, 0.0)
        wanted = self.direction.learns or not last
        for tries_left in (True, False):
            d = self.direction.at(g, square, self.memory)
            if bounds is not None:
                d = d.masked_fill(out, 0.0)
            line = Line(problem, here, d * rate, bounds)
            point = self.search(line, self.iterations, wanted)
            if point is not None:
                break
            if not (self.direction.forget(self.memory) and tries_left):
                break
        if point is None:
            return None
        if wanted:
            line.complete(point)
        self._tell(here, line, point, d, rate)
        return point

    def _tell(
        self, here: Point, line: Line, point: Point, d: Tensor, rate: Tensor | float
    ) -> None:
        if self.direction.learns and not point.finite:
            return  # a blind step to where nothing can be learnt
        assert here.gradient is not None
        self.direction.learn(
            Taken(
                direction=d,
                rate=rate if isinstance(rate, float) and line.bounds is None else None,
                step=point.step,
                s=point.x - here.x if self.direction.learns else point.x,
                old=here.gradient,
                new=point.gradient,
                sy=point.step * point.slope - point.predicted,
                predicted=point.predicted,
                square=here.square,
            ),
            self.memory,
        )

    def _within(self, problem: Problem) -> tuple[Tensor, Tensor] | None:
        if self.bounds is None:
            return None
        low, high = (self._along(problem, bound) for bound in self.bounds)
        if bool((low > high).any()):
            self.wrong("bounds", "a pair (lower, upper)", self.bounds)
        return low, high

    def _along(self, problem: Problem, bound: Any) -> Tensor:
        if isinstance(bound, (int, float)):
            return torch.full_like(problem.x, bound)
        tensors = [bound] if isinstance(bound, Tensor) else list(bound)
        if [t.shape for t in tensors] != [p.shape for p in problem.params]:
            shapes = [tuple(p.shape) for p in problem.params]
            self.wrong("bounds", f"numbers or tensors of shapes {shapes}", bound)
        return problem.flat(tensors)
