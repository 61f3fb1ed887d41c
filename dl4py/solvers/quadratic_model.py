"""The quadratic model that a step of HessianFree minimises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton, Hessian
from dl4py.solvers.evaluations import Runs
from dl4py.solvers.observation import Watch
from dl4py.solvers.problem import Problem

Matrix = GaussNewton | Hessian
Build = Callable[[Capture, int], Matrix]


class Model:
    """m(p) = g·p + ½·p·B·p, with B seen only in products.

    B is the mean of a matrix of each slice of the batch. The graph of a batch in one
    piece is kept; graphs of slices are built anew for every product, so that memory
    holds one at a time.

    Args:
        problem: whose gradient is g.
        build: graph, number of the slice → matrix.
        runs: the closure that gives the graphs.
        capture: its graph, where one is at hand already.
    """

    def __init__(
        self,
        problem: Problem,
        build: Build,
        runs: Runs,
        capture: Capture | None = None,
    ) -> None:
        self.problem = problem
        self.build = build
        self.runs = runs
        self._capture = capture
        self._matrix = None if capture is None else build(capture, 0)
        maximize = problem.solver.param_groups[0]["maximize"]
        self.sign = -1.0 if maximize else 1.0

    def matrices(self) -> Iterator[Matrix]:
        """One of each slice; what is not kept lives until the next is asked for."""
        if self._matrix is not None:
            yield self._matrix
            return
        run = self.problem.run(self.runs, self._watch, self.problem.x)
        for i, (watch, _) in enumerate(run):
            assert isinstance(watch, Capture)
            matrix = self.build(watch, i)
            if self.runs.slices == 1:
                self._capture, self._matrix = watch, matrix
                yield matrix
            else:
                yield matrix
                watch.release()

    def product(self, v: Tensor, structural: float = 0.0) -> Tensor:
        """(B + structural·S)·v, the mean over all ranks, weight decay included."""
        problem = self.problem
        pieces = problem.pieces(v)
        total: Tensor | None = None
        for matrix in self.matrices():
            part = problem.flat(matrix(pieces, self.sign * structural))
            total = part if total is None else total.add_(part)
        assert total is not None
        if self.runs.slices > 1:
            total /= self.runs.slices
        total = problem.mean(total)
        if self.sign < 0:
            total.neg_()
        if problem.decays:
            total += problem.per_group("l2") * v
        return problem.free(total)

    def fall(self, p: Tensor) -> Tensor:
        """m(p), at the price of a product."""
        return self.problem.gradient.dot(p) + 0.5 * p.dot(self.product(p))

    def diagonal(self, probe: Callable[[Matrix], list[Tensor]], count: int) -> Tensor:
        """The mean over slices, ranks and ``count`` probes."""
        total = torch.zeros_like(self.problem.x)
        for matrix in self.matrices():
            for _ in range(count):
                total += self.problem.flat(probe(matrix))
        return self.problem.mean(total / (count * self.runs.slices))

    def unseen(self) -> list[Tensor]:
        """Of every parameter, whether Jᵀ·∂loss/∂outputs is not the gradient there."""
        seen: list[Tensor] = []
        whole: list[Tensor] = []
        for matrix in self.matrices():
            if isinstance(matrix, Hessian):
                continue
            for total, parts in (
                (seen, matrix.gradient()),
                (whole, matrix.whole_gradient()),
            ):
                total[:] = [a + b for a, b in zip(total, parts, strict=False)] or parts
        if not whole:
            return []
        least = 1e-6 * torch.stack([b.norm() for b in whole]).norm()
        pairs = zip(seen, whole, strict=True)
        return [(a - b).norm() > 1e-4 * b.norm() + least for a, b in pairs]

    def seen(self) -> str:
        """Which losses the graph at hand is of, for a message."""
        judged = [] if self._capture is None else self._capture.judged
        names = sorted({j.name for j in judged})
        return f" ({', '.join(names)})" if names else ""

    def release(self) -> None:
        """Let go of the graph; the next product needs a new one."""
        if self._capture is not None:
            self._capture.release()
        self._capture = self._matrix = None

    def _watch(self) -> Watch:
        return Capture(differentiate=self.runs.whole, graph=True)
