"""The solvers of one direction and one line search a step, by DL4J's names."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import ParamsT

from dl4py.registry import UPDATERS
from dl4py.solvers.directions import (
    Conjugate,
    LimitedMemory,
    Steepest,
)
from dl4py.solvers.line_solver import LineSolver
from dl4py.solvers.searches import Search
from dl4py.solvers.wolfe import HagerZhang, StrongWolfe


@UPDATERS.add("line_gradient_descent")
class LineGradientDescent(LineSolver):
    """Steepest descent with a line search: x ← x - t·η·g.

    The first step tried is 1, later ones are twice the one accepted last.

    Args:
        params, lr, line_search, max_num_line_search_iterations, max_iter, l2,
            maximize, process_group: as in :class:`LineSolver`.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> solver = LineGradientDescent([w], lr=0.5)
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = w.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> solver.step(closure).item(), w.tolist()
        (25.0, [0.0, 0.0])

    DL4J: org.deeplearning4j.optimize.solvers.LineGradientDescent
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        line_search: str | Search = "dl4j",
        max_num_line_search_iterations: int | None = None,
        max_iter: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            Steepest(),
            lr=lr,
            line_search=line_search,
            max_num_line_search_iterations=max_num_line_search_iterations,
            max_iter=max_iter,
            **options,
        )


@UPDATERS.add("conjugate_gradient")
class ConjugateGradient(LineSolver):
    """Non-linear conjugate gradients: d₊ = -P·g₊ + β·d, x ← x + t·η·d.

    Args:
        params, lr, max_num_line_search_iterations, max_iter, l2, maximize,
            process_group: as in :class:`LineSolver`.
        beta: ``"hz"`` (Hager-Zhang), ``"pr"`` (Polak-Ribière+, DL4J's formula),
            ``"fr"``, ``"hs"`` or ``"dy"``; see
            :class:`~dl4py.solvers.directions.Conjugate`.
        line_search: by name ``"strong_wolfe"`` has c2 = 0.4 and ``probe=True`` here,
            so that most steps cost a value and a gradient; ``"hager_zhang"`` has
            sigma = 0.1.
        restart: steps after which β is 0; ``None``: the number of parameters.
        preconditioner: ``"rms"`` scales every parameter by its past gradients, without
            which deep networks learn far slower; ``None`` is the textbook's method,
            with which a quadratic of n parameters takes n steps.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> solver = ConjugateGradient([w], max_iter=4)
        >>> scale = torch.tensor([1.0, 10.0])
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = (scale * w.square()).sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = solver.step(closure)
        >>> bool(closure() < 1e-6 * loss)
        True

    DL4J: org.deeplearning4j.optimize.solvers.ConjugateGradient
    """

    algorithm = "CONJUGATE_GRADIENT"
    fault = "DL4J's is line gradient descent"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        *,
        beta: str = "hz",
        line_search: str | Search = "strong_wolfe",
        max_num_line_search_iterations: int | None = None,
        max_iter: int = 1,
        restart: int | None = None,
        preconditioner: str | None = "rms",
        **options: Any,
    ) -> None:
        if beta not in Conjugate.betas:
            self.wrong("beta", f"one of {Conjugate.betas}", beta)
        if preconditioner not in Conjugate.preconditioners:
            known = Conjugate.preconditioners
            self.wrong("preconditioner", f"one of {known}", preconditioner)
        super().__init__(
            params,
            Conjugate(beta, restart=restart, preconditioner=preconditioner),
            lr=lr,
            line_search=line_search,
            max_num_line_search_iterations=max_num_line_search_iterations,
            max_iter=max_iter,
            **options,
        )

    def _search(self, given: str | Search) -> Search:
        search = super()._search(given)
        if isinstance(search, StrongWolfe) and search is not given:
            # conjugacy needs steps near the minimum of the line, of unforeseen length
            search.c2, search.probe = 0.4, True
        if isinstance(search, HagerZhang) and search is not given:
            search.sigma = 0.1
        return search


@UPDATERS.add("lbfgs")
class LBFGS(LineSolver):
    """Limited-memory BFGS: x ← x - t·η·H·g.

    Both gradients of a pair come from the same closure and the same random numbers, so
    that batches are never mixed.

    Args:
        params, lr, line_search, max_num_line_search_iterations, max_iter, l2,
            maximize, bounds, process_group: as in :class:`LineSolver`. The default
            search is not DL4J's, since it goes on where float32 hides the fall of the
            loss; small losses to the last digit take ``max_iter=20``.
        history_size: pairs kept, >= 1; None: 100 of up to 167,772 parameters, fewer of
            more, 20 of 800,000 and from there on. DL4J keeps 4, with which a PINN takes
            many times as long.
        damping: Powell's, in [0, 1); see
            :class:`~dl4py.solvers.directions.LimitedMemory`.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> solver = LBFGS([w], bounds=(1.0, 5.0), line_search="armijo", max_iter=9)
        >>> w.data.clamp_(1.0, 5.0).tolist()
        [3.0, 1.0]
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = w.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> loss = solver.step(closure)
        >>> w.tolist()
        [1.0, 1.0]

    DL4J: org.deeplearning4j.optimize.solvers.LBFGS
    """

    algorithm = "LBFGS"
    fault = "DL4J takes x·g and g·g for s·y and y·y, and y = 0 after the first step"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        history_size: int | None = None,
        *,
        line_search: str | Search = "hager_zhang",
        max_num_line_search_iterations: int | None = None,
        max_iter: int = 1,
        damping: float = 0.2,
        **options: Any,
    ) -> None:
        if history_size is not None:
            self._count("history_size", history_size)
        if not (isinstance(damping, (int, float)) and 0 <= damping < 1):
            self.wrong("damping", "a number in [0, 1)", damping)
        super().__init__(
            params,
            LimitedMemory(history_size, damping),
            lr=lr,
            line_search=line_search,
            max_num_line_search_iterations=max_num_line_search_iterations,
            max_iter=max_iter,
            **options,
        )
