"""Hessian-free optimization (Martens 2010) on the graph of an ordinary closure."""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.registry import UPDATERS
from dl4py.solvers.base import Solver
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import Fisher, GaussNewton, Hessian
from dl4py.solvers.evaluations import Runs
from dl4py.solvers.likelihoods import carried, slopes
from dl4py.solvers.linear_cg import solve
from dl4py.solvers.observation import Watch
from dl4py.solvers.problem import Closure, Problem
from dl4py.solvers.quadratic_model import Matrix, Model

_WAY = (
    "use a loss of torch.nn.functional or dl4py.losses and l2= for "
    "penalties, or HessianFree(curvature='hessian')"
)


@UPDATERS.add("hessian_free")
class HessianFree(Solver):
    """x ← x + t·η·p, where (B + λ·1)·p = -g is solved by conjugate gradients.

    B is the Gauss-Newton matrix, Fisher's or the Hessian of the same batch, or of the
    batch of another closure, seen only in products. λ is Levenberg and Marquardt's,
    from ρ, the fall of the loss over the fall of the model without λ, both from the
    current point.

    Args:
        params: parameters or groups; a group may have its own ``lr`` and
            ``l2``.
        lr: η >= 0, the first length the search tries.
        damping: the first λ >= 0, in units of the loss; ``"auto"``: gᵀBg / gᵀg, which
            is an upper end, so that λ is multiplied with ``damping_factor``⁴ until ρ is
            first below 0.95. Martens' advice is a first λ that gives ρ in 0.75 … 0.95.
        damping_factor: in (0, 1): λ is multiplied with it where ρ > 3/4, divided by it
            where ρ < 1/4.
        damping_bounds: (least, most) λ.
        structural_damping: μ >= 0; μ·λ·S is added to λ·1, where S measures how much
            hidden states change, those given to :func:`~dl4py.solvers.structural.damp`
            in the forward pass. Needs ``curvature="ggn"``.
        curvature: ``"ggn"``, ``"fisher"`` or ``"hessian"``. The first needs to see the
            loss function: one of :mod:`torch.nn.functional` or of dl4py; see
            :class:`~dl4py.solvers.capture.Capture`. Its curvature is taken of what it
            judges, or of the logits where ``nll_loss`` and ``kl_div`` judge their
            ``log_softmax``; where it is linear in that, as ``l1_loss`` is, B is 0 and
            ``damping="auto"`` refused.
            The second takes the squared
            gradients of labels drawn from what the network predicts, one a row, drawn
            anew at every step; the loss must be a likelihood, one of ``DRAWS`` in
            :mod:`dl4py.solvers.likelihoods`.
        cg_max_iter: products of one step, >= 1.
        cg_tol: Martens' relative progress per iteration, see
            :func:`dl4py.solvers.linear_cg.solve`.
        cg_decay: the next solve starts at this multiple of the last solution, [0, 1].
        cg_chunk: iterations between two host reads where a read waits, for an
            accelerator or for other ranks; elsewhere the host looks at every iteration.
            The result does not depend on it.
        preconditioner: ``"empirical"``: (D + λ + weight decay)^exponent, where D is an
            average of Monte-Carlo estimates of the mean squared gradients of the rows;
            of each rank its own. ``"monte_carlo"``: the same with labels drawn as for
            ``curvature="fisher"``, so that D is an estimate of the diagonal of the
            Gauss-Newton matrix. ``None``: none. Not with ``curvature="hessian"``.
        preconditioner_exponent: in [0, 1].
        micro_batches: m >= 1; if m > 1, ``closure(i)`` is called with i = 0, …, m-1 in
            place of ``closure()``, and the loss is the mean of theirs. One graph is in
            memory at a time; in exchange a product costs about two more gradients,
            since graphs are built anew for each.
        max_num_line_search_iterations: lengths tried, each 0.8 of the one before, >= 1.
        l2: adds l2/2·‖x‖² to the loss, exactly.
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
        "micro_batches",
        "iterations",
    )
    _curvature_closure: Closure | None = None

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
        micro_batches: int = 1,
        max_num_line_search_iterations: int = 60,
        l2: float = 0.0,
        maximize: bool = False,
        process_group: Any = None,
        **others: Any,
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
        if curvature not in ("ggn", "fisher", "hessian"):
            self.wrong("curvature", "'ggn', 'fisher' or 'hessian'", curvature)
        if structural_damping and curvature == "hessian":
            self.wrong(
                "structural_damping", "0 with curvature='hessian'", structural_damping
            )
        for name, count in (
            ("cg_max_iter", cg_max_iter),
            ("cg_chunk", cg_chunk),
            ("micro_batches", micro_batches),
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
        if preconditioner not in (None, "empirical", "monte_carlo"):
            self.wrong(
                "preconditioner", "'empirical', 'monte_carlo' or None", preconditioner
            )
        if preconditioner is not None and curvature == "hessian":
            self.wrong(
                "preconditioner", "None with curvature='hessian'", preconditioner
            )
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
        self.micro_batches = micro_batches
        self.iterations = max_num_line_search_iterations
        super().__init__(
            params,
            {"lr": lr, "l2": l2},
            maximize=maximize,
            process_group=process_group,
            **others,
        )

    def step(
        self, closure: Closure | None = None, curvature_closure: Closure | None = None
    ) -> Any:
        """One step.

        Args:
            closure: as for any torch optimizer: gradient and search. With
                ``micro_batches`` it takes the number of the slice.
            curvature_closure: the same for the rows whose curvature and ρ are used,
                mostly fewer; called without an argument. Its ``backward()`` is not
                carried out, and random numbers and statistics are as if it had not
                been called.
        """
        self._curvature_closure = curvature_closure
        try:
            return super().step(closure)
        finally:
            self._curvature_closure = None

    def carried(self, problem: Problem) -> dict[str, Any]:
        """λ, and the last solution where its parameters are still there."""
        vectors = ("solution", "diagonal", "averaged", "checked")
        known = {k: v for k, v in self.memory.items() if k not in vectors}
        if "solution" in self.memory:
            solution = problem.carried(self.memory["solution"], self.layout)
            known["solution"] = solution
        return known

    def watch(self, **options: Any) -> Watch:
        # where curvature comes from other graphs, none is kept
        if self.micro_batches > 1 or self._curvature_closure is not None:
            return Watch(**options)
        return Capture(**options)

    def advance(self, problem: Problem) -> Tensor:
        other = self._curvature_closure
        runs = problem.runs if other is None else problem.another(other)
        try:
            return self._advance(problem, runs)
        finally:
            if runs is not problem.runs:
                runs.finish()

    def _advance(self, problem: Problem, runs: Runs) -> Tensor:
        build = functools.partial(self._matrix, problem)
        capture = problem.watched if isinstance(problem.watched, Capture) else None
        model: Model | None = None
        try:
            model = Model(problem, build, runs, capture)
            last, kept = self._solve(problem, model)
        except RuntimeError as error:
            self._explain(error)
        finally:
            # trials overwrite parameters that the graph refers to
            for held in (model, capture):
                if held is not None:
                    held.release()
        assert model is not None
        try:
            return self._walk(problem, model, last, kept)
        finally:
            model.release()

    def _solve(
        self, problem: Problem, model: Model
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The last iterate of CG; those to choose from, with the model's fall."""
        g = problem.gradient
        if not self.memory.get("checked"):
            self._check(problem, model)
            self.memory["checked"] = True
        if "damping" not in self.memory:
            first = self.damping
            self.memory["settled"] = not isinstance(first, str)
            if isinstance(first, str):
                first = self._first_damping(problem, model)
            self.memory["damping"] = self._bounded(float(first))
            self.memory["steps"] = 0
        damping: float = self.memory["damping"]
        structural = damping * self.structural_damping
        scale: Tensor | None = None
        if self.preconditioner is not None:
            d = self._diagonal(model)
            decay = problem.per_group("l2")
            scale = (d + decay + damping) ** self.preconditioner_exponent
        start = self.memory.get("solution")
        start = torch.zeros_like(g) if start is None else self.cg_decay * start
        solved = solve(
            lambda v: model.product(v, structural).add_(v, alpha=damping),
            -g,
            start,
            scale,
            max_iter=self.cg_max_iter,
            tolerance=self.cg_tol,
            chunk=self.cg_chunk if problem.waits else 1,
            read=(lambda t: problem.read(*t)) if problem.waits else None,
        )
        # φ without the damping is the model that ρ is about
        kept = [
            (x, phi - 0.5 * damping * x.dot(x))
            for (_, x), phi in zip(solved.iterates, solved.models, strict=True)
        ]
        return solved.x, kept

    def _matrix(self, problem: Problem, capture: Capture, number: int) -> Matrix:
        with torch.enable_grad():
            loss = capture.loss()
        if self.curvature == "hessian":
            return Hessian(loss, problem.params)
        if not capture.outputs:
            self.fail(f".step(closure): saw no loss function in the closure; {_WAY}")
        if self.structural_damping and not capture.damped:
            self.fail(
                "(structural_damping=...) needs hidden states, and none were named: "
                "in the forward pass write h = dl4py.solvers.damp(h)"
            )
        damped = capture.damped if self.structural_damping else ()
        drawn = []
        sign = -1.0 if self.param_groups[0]["maximize"] else 1.0
        if self.curvature == "fisher" or self.preconditioner == "monte_carlo":
            # the same labels whenever a graph of this step is built
            seed = 2**32 + 2**16 * self.memory.get("steps", 0) + number
            generator = torch.Generator().manual_seed(seed)
            drawn = [slopes(j, loss, generator, sign) for j in capture.judged]
        if self.curvature == "fisher":
            fisher = Fisher(loss, capture.outputs, problem.params, damped, drawn)
            fisher.sign = sign
            return fisher
        logits = {id(z): z for z in map(capture.behind, capture.outputs)}
        drawn = [carried(z, capture.behind(z), s) for z, s in drawn]
        return GaussNewton(loss, [*logits.values()], problem.params, damped, drawn)

    def _check(self, problem: Problem, model: Model) -> None:
        """Whether the outputs show every parameter."""
        flags = model.unseen()
        bad = problem.read(*flags) if flags else [0.0] * len(problem.params)
        names = [n for n, flag in zip(self._names(problem), bad, strict=True) if flag]
        if names:
            self.fail(
                ".step(closure): the loss depends on "
                f"{', '.join(names)} in a way that does not pass through the outputs "
                f"of its loss functions, so that the curvature would miss it; {_WAY}"
            )

    def _first_damping(self, problem: Problem, model: Model) -> float:
        """gᵀBg / gᵀg; without curvature there is none."""
        g = problem.gradient
        bent = model.product(g)
        first = g.dot(bent).abs() / g.dot(g)
        if problem.decays:
            bent = bent - problem.per_group("l2") * g
        damping, some = problem.read(first, bent.any())
        if not some:
            self.fail(
                "(damping='auto'): the loss has no curvature along its gradient"
                f"{model.seen()}, so that none follows from it. l1_loss and nll_loss "
                "are linear in what they judge: use smooth_l1_loss, huber_loss or "
                "curvature='fisher' for the first, cross_entropy or nll_loss of "
                "log_softmax for the second, or a number as damping, with which a step "
                "is -gradient / damping"
            )
        return damping

    def _names(self, problem: Problem) -> list[str]:
        found = []
        for i, group in enumerate(self.param_groups):
            given = group.get("param_names")
            for j, p in enumerate(group["params"]):
                if p.requires_grad:
                    place = f"parameter {j} of group {i}, shape {tuple(p.shape)}"
                    found.append(given[j] if given else place)
        return found

    def _diagonal(self, model: Model) -> Tensor:
        """The running average, with its start taken out."""
        generator = torch.Generator().manual_seed(self.memory["steps"])
        name = "sampled_probe" if self.preconditioner == "monte_carlo" else "probe"
        new = model.diagonal(lambda m: getattr(m, name)(generator), self.probes)
        old, share = self.memory.get("diagonal"), self.memory.get("averaged", 0.0)
        average = 0.1 * new if old is None else 0.9 * old + 0.1 * new
        share = 0.9 * share + 0.1
        self.memory.update(diagonal=average, averaged=share)
        unbiased: Tensor = average / share
        return unbiased

    def _walk(
        self,
        problem: Problem,
        model: Model,
        last: Tensor,
        kept: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Back over the iterates while the loss falls; damping; Armijo's search."""
        lr = problem.per_group("lr")
        p, fall = kept.pop()
        [score] = problem.read(problem.value(problem.x + p))
        eps = torch.finfo(problem.dtype).eps
        while kept:
            [before] = problem.read(problem.value(problem.x + kept[-1][0]))
            # not by what CG's rounding makes, which other ranks would not repeat
            least = 16 * eps * abs(score) + 1e-8 * abs(problem.score - score)
            if math.isfinite(score) and not before < score - least:
                break
            (p, fall), score = kept.pop(), before
        if self.structural_damping:
            fall = model.fall(p)  # φ holds S too
        plain = isinstance(lr, float) and lr == 1.0
        d = p if plain else lr * p
        slope = self._adapt(problem, model, p, score, fall, d)
        self.memory["solution"] = last
        self.memory["steps"] = self.memory["steps"] + 1
        length = 1.0
        for i in range(self.iterations if slope < 0 else 0):
            end = problem.x + length * d
            if i or not plain:
                [score] = problem.read(problem.value(end))
            if score <= problem.score + 1e-2 * length * slope:
                return end
            length *= 0.8
        self.memory["solution"] = torch.zeros_like(last)
        return problem.x

    def _adapt(
        self,
        problem: Problem,
        model: Model,
        p: Tensor,
        score: float,
        fall: Tensor,
        d: Tensor,
    ) -> float:
        """ρ and the next λ; returns g·d."""
        start = problem.score
        numbers = [fall, problem.gradient.dot(d)]
        if model.runs is not problem.runs:  # ρ is of the rows whose curvature it is
            numbers += [
                problem.value(x, model.runs) for x in (problem.x, problem.x + p)
            ]
        expected, slope, *both = problem.read(*numbers)
        start, score = both or (start, score)
        rho = (score - start) / expected if expected < 0 else -math.inf
        if not score <= start:  # NaN too
            rho = -math.inf
        damping: float = self.memory["damping"]
        self.memory["settled"] = self.memory.get("settled", True) or not rho > 0.95
        if rho < 0.25:
            damping /= self.damping_factor
        elif rho > 0.75:
            damping *= self.damping_factor ** (1 if self.memory["settled"] else 4)
        self.memory["damping"] = self._bounded(damping)
        self.memory["rho"] = rho
        return slope

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
