"""Hessian-free optimization (Martens 2010) on the graph of an ordinary closure."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.registry import UPDATERS
from dl4py.solvers.base import Problem, Solver
from dl4py.solvers.capture import Capture
from dl4py.solvers.cg import solve
from dl4py.solvers.curvature import GaussNewton, Hessian


@UPDATERS.add("hessian_free")
class HessianFree(Solver):
    """x ← x + t·η·p, where (B + λ·1)·p = -g is solved by conjugate gradients.

    B is the Gauss-Newton matrix or the Hessian of the same batch, seen only in
    products. λ is Levenberg and Marquardt's, from ρ, the fall of the loss over the fall
    of the model without λ, both from the current point.

    Args:
        params: parameters or groups; a group may have its own ``lr`` and
            ``weight_decay``.
        lr: η >= 0, the first length the search tries.
        damping: the first λ >= 0, in units of the loss; ``"auto"``: gᵀBg / gᵀg.
        damping_factor: in (0, 1): λ is multiplied with it where ρ > 3/4, divided by it
            where ρ < 1/4.
        damping_bounds: (least, most) λ.
        structural_damping: μ >= 0; μ·λ·S is added to λ·1, where S measures how much
            hidden states change, those given to :func:`~dl4py.solvers.structural.damp`
            in the forward pass. Needs ``curvature="ggn"``.
        curvature: ``"ggn"`` or ``"hessian"``. The first needs to see the loss
            function: one of :mod:`torch.nn.functional` or of dl4py; see
            :class:`~dl4py.solvers.capture.Capture`.
        cg_max_iter: products of one step, >= 1.
        cg_tol: Martens' relative progress per iteration, see
            :func:`dl4py.solvers.cg.solve`.
        cg_decay: the next solve starts at this multiple of the last solution, [0, 1].
        cg_chunk: iterations between two host reads; the result does not depend on it.
        preconditioner: ``"empirical"``: (D + λ + weight decay)^exponent, where D is an
            average of Monte-Carlo estimates of the mean squared gradients of the rows;
            of each rank its own. Needs ``curvature="ggn"``. ``None``: none.
        preconditioner_exponent: in [0, 1].
        max_num_line_search_iterations: lengths tried, each 0.8 of the one before, >= 1.
        weight_decay: adds weight_decay/2·‖x‖² to the loss, exactly.
        maximize: go uphill.
        process_group: the ranks that solve one problem together.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> solver = HessianFree([w], damping=1e-3)
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = torch.nn.functional.mse_loss(w, torch.ones(2))
        ...     loss.backward()
        ...     return loss
        >>> for _ in range(3):
        ...     loss = solver.step(closure)
        >>> bool(closure() < 1e-6)
        True

    DL4J: org.deeplearning4j.optimize.solvers.StochasticHessianFree, until 0.4
    """

    algorithm: ClassVar[str] = "HESSIAN_FREE"
    probes: ClassVar[int] = 4
    _own: ClassVar[tuple[str, ...]] = (
        *Solver._own,
        "damping",
        "damping_factor",
        "damping_bounds",
        "structural_damping",
        "curvature",
        "cg_max_iter",
        "cg_tol",
        "cg_decay",
        "cg_chunk",
        "preconditioner",
        "preconditioner_exponent",
        "iterations",
    )

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        damping: float | str = "auto",
        damping_factor: float = 2 / 3,
        damping_bounds: tuple[float, float] = (1e-8, 1e8),
        structural_damping: float = 0.0,
        curvature: str = "ggn",
        cg_max_iter: int = 100,
        cg_tol: float = 5e-4,
        cg_decay: float = 0.95,
        cg_chunk: int = 10,
        preconditioner: str | None = None,
        preconditioner_exponent: float = 0.75,
        max_num_line_search_iterations: int = 60,
        weight_decay: float = 0.0,
        maximize: bool = False,
        process_group: Any = None,
    ) -> None:
        if damping != "auto" and not _within(damping, 0, math.inf):
            self.wrong("damping", "'auto' or a number >= 0", damping)
        if not (_within(damping_factor, 0, 1) and 0 < damping_factor < 1):
            self.wrong("damping_factor", "in (0, 1)", damping_factor)
        bounds = damping_bounds
        if not (
            isinstance(bounds, (tuple, list))
            and len(bounds) == 2
            and all(_within(b, 0, math.inf) for b in bounds)
            and bounds[0] <= bounds[1]
        ):
            self.wrong("damping_bounds", "a pair 0 <= least <= most", bounds)
        if not _within(structural_damping, 0, math.inf):
            self.wrong("structural_damping", "a number >= 0", structural_damping)
        if curvature not in ("ggn", "hessian"):
            self.wrong("curvature", "'ggn' or 'hessian'", curvature)
        if structural_damping and curvature != "ggn":
            self.wrong(
                "structural_damping", "0 with curvature='hessian'", structural_damping
            )
        for name, count in (
            ("cg_max_iter", cg_max_iter),
            ("cg_chunk", cg_chunk),
            ("max_num_line_search_iterations", max_num_line_search_iterations),
        ):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                self.wrong(name, "a whole number >= 1", count)
        for name, value in (
            ("cg_tol", cg_tol),
            ("cg_decay", cg_decay),
            ("preconditioner_exponent", preconditioner_exponent),
        ):
            if not _within(value, 0, 1):
                self.wrong(name, "in [0, 1]", value)
        if preconditioner not in (None, "empirical"):
            self.wrong("preconditioner", "'empirical' or None", preconditioner)
        if preconditioner is not None and curvature != "ggn":
            self.wrong("preconditioner", "None with curvature='hessian'", "empirical")
        self.damping = damping
        self.damping_factor = damping_factor
        self.damping_bounds = (float(bounds[0]), float(bounds[1]))
        self.structural_damping = structural_damping
        self.curvature = curvature
        self.cg_max_iter = cg_max_iter
        self.cg_tol = cg_tol
        self.cg_decay = cg_decay
        self.cg_chunk = cg_chunk
        self.preconditioner = preconditioner
        self.preconditioner_exponent = preconditioner_exponent
        self.iterations = max_num_line_search_iterations
        super().__init__(
            params,
            {"lr": lr, "weight_decay": weight_decay},
            maximize=maximize,
            process_group=process_group,
        )

    def watch(self, **options: Any) -> Capture:
        return Capture(**options)

    def advance(self, problem: Problem) -> Tensor:
        try:
            last, kept = self._solve(problem)
        except RuntimeError as error:
            self._explain(error)
        finally:
            self._release(problem)
        return self._walk(problem, last, kept)

    def _solve(self, problem: Problem) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The last iterate of CG; those to choose from, with the model's fall."""
        matrix = self._matrix(problem)
        decay = problem.per_group("weight_decay")
        g = problem.gradient
        if "damping" not in self.memory:
            first = self.damping
            if isinstance(first, str):
                gbg = g.dot(self._product(problem, matrix, g))
                [first] = problem.read(gbg.abs() / g.dot(g))
            self.memory["damping"] = self._bounded(float(first))
            self.memory["steps"] = 0
        damping: float = self.memory["damping"]
        structural = damping * self.structural_damping
        scale = None
        if self.preconditioner is not None:
            assert isinstance(matrix, GaussNewton)
            d = self._diagonal(problem, matrix)
            scale = (d + decay + damping) ** self.preconditioner_exponent
        start = self.memory.get("solution")
        start = torch.zeros_like(g) if start is None else self.cg_decay * start

        def product(v: Tensor) -> Tensor:
            return self._product(problem, matrix, v, structural).add_(v, alpha=damping)

        solved = solve(
            product,
            -g,
            start,
            1.0 if scale is None else scale,
            max_iter=self.cg_max_iter,
            tolerance=self.cg_tol,
            chunk=self.cg_chunk,
            read=lambda t: problem.read(*t),
        )
        # φ without the damping is the model that ρ is about
        kept = [
            (x, phi - 0.5 * damping * x.dot(x))
            for (_, x), phi in zip(solved.iterates, solved.models, strict=True)
        ]
        return solved.x, kept

    def _product(
        self,
        problem: Problem,
        matrix: GaussNewton | Hessian,
        v: Tensor,
        structural: float = 0.0,
    ) -> Tensor:
        """(B + structural·S)·v, the mean over all ranks."""
        sign = -1.0 if self.param_groups[0]["maximize"] else 1.0
        parts = matrix(problem.pieces(v.to(problem.dtype)), sign * structural)
        decay = problem.per_group("weight_decay")
        return problem._mean(problem.flat(parts)) * sign + decay * v

    def _release(self, problem: Problem) -> None:
        assert isinstance(problem.watched, Capture)
        problem.watched.release()

    def _matrix(self, problem: Problem) -> GaussNewton | Hessian:
        capture = problem.watched
        assert isinstance(capture, Capture)
        with torch.enable_grad():
            loss = capture.loss()
        if self.curvature == "hessian":
            return Hessian(loss, problem.params)
        way = (
            "use a loss of torch.nn.functional or dl4py.losses and weight_decay= for "
            "penalties, or HessianFree(curvature='hessian')"
        )
        if not capture.outputs:
            self.fail(f".step(closure): saw no loss function in the closure; {way}")
        if self.structural_damping and not capture.damped:
            self.fail(
                "(structural_damping=...) needs hidden states, and none were named: "
                "in the forward pass write h = dl4py.solvers.damp(h)"
            )
        damped = capture.damped if self.structural_damping else ()
        matrix = GaussNewton(loss, capture.outputs, problem.params, damped)
        if "damping" not in self.memory:
            self._check(problem, matrix, way)
        return matrix

    def _check(self, problem: Problem, matrix: GaussNewton, way: str) -> None:
        """Whether Jᵀ·∂loss/∂outputs is the gradient."""
        seen = problem._mean(problem.flat(matrix.gradient()))
        if self.param_groups[0]["maximize"]:
            seen = -seen
        seen = seen + problem.per_group("weight_decay") * problem.x
        least = 1e-6 * problem.gradient.norm()
        bad = [
            (a - b).norm() > 1e-4 * b.norm() + least
            for a, b in zip(
                problem.pieces(seen), problem.pieces(problem.gradient), strict=True
            )
        ]
        flags = problem.read(*bad)
        names = [
            name for name, flag in zip(self._names(problem), flags, strict=True) if flag
        ]
        if names:
            self.fail(
                ".step(closure): the loss depends on "
                f"{', '.join(names)} in a way that does not pass through the outputs "
                f"of its loss functions, so that the curvature would miss it; {way}"
            )

    def _names(self, problem: Problem) -> list[str]:
        found = []
        for i, group in enumerate(self.param_groups):
            given = group.get("param_names")
            for j, p in enumerate(group["params"]):
                if p.requires_grad:
                    place = f"parameter {j} of group {i}, shape {tuple(p.shape)}"
                    found.append(given[j] if given else place)
        return found

    def _diagonal(self, problem: Problem, matrix: GaussNewton) -> Tensor:
        """The running average, with its start taken out."""
        steps = self.memory["steps"]
        generator = torch.Generator().manual_seed(steps)
        total = torch.zeros_like(problem.x)
        for _ in range(self.probes):
            total += problem.flat(matrix.probe(generator))
        new = problem._mean(total / self.probes)
        old = self.memory.get("diagonal")
        average = 0.1 * new if old is None else 0.9 * old + 0.1 * new
        self.memory["diagonal"] = average
        unbiased: Tensor = average / (1 - 0.9 ** (steps + 1))
        return unbiased

    def _walk(
        self, problem: Problem, last: Tensor, kept: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Back over the iterates while the loss falls; damping; Armijo's search."""
        lr = problem.per_group("lr")
        p, model = kept.pop()
        value = problem.value(problem.x + p)
        [score] = problem.read(value)
        while kept:
            [before] = problem.read(problem.value(problem.x + kept[-1][0]))
            if math.isfinite(score) and not before < score:
                break
            (p, model), score = kept.pop(), before
        if self.structural_damping:
            model = self._undamped(problem, p)
        fall, slope = problem.read(model, problem.gradient.dot(p))
        rho = (score - problem.score) / fall if fall < 0 else -math.inf
        if not score <= problem.score:  # NaN too
            rho = -math.inf
        damping: float = self.memory["damping"]
        if rho < 0.25:
            damping /= self.damping_factor
        elif rho > 0.75:
            damping *= self.damping_factor
        self.memory["damping"] = self._bounded(damping)
        self.memory["rho"] = rho
        self.memory["steps"] = self.memory["steps"] + 1
        self.memory["solution"] = last
        length, plain = 1.0, isinstance(lr, float) and lr == 1.0
        for i in range(self.iterations):
            end = problem.x + length * (lr * p)
            if i or not plain:
                [score] = problem.read(problem.value(end))
            if slope < 0 and score <= problem.score + 1e-2 * length * slope:
                return end
            length *= 0.8
        self.memory["solution"] = torch.zeros_like(last)
        return problem.x

    def _undamped(self, problem: Problem, p: Tensor) -> Tensor:
        """g·p + ½·p·B·p, since φ holds S too; the graph is that of a new evaluation."""
        problem.evaluate(problem.x)
        try:
            product = self._product(problem, self._matrix(problem), p)
        finally:
            self._release(problem)
        return problem.gradient.dot(p) + 0.5 * p.dot(product)

    def _bounded(self, damping: float) -> float:
        least, most = self.damping_bounds
        return min(max(damping, least), most)

    def _explain(self, error: RuntimeError) -> NoReturn:
        text = str(error)
        if "scaled_dot_product" in text or "attention" in text:
            self.fail(
                ".step(closure): this attention kernel has no double backward; wrap "
                "the forward pass in torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
            )
        if "double backward" in text or "is not implemented" in text:
            self.fail(
                f".step(closure) needs double backward, and there is none: {text}; "
                "use the module before torch.compile (its _orig_mod), or LBFGS"
            )
        raise error


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
