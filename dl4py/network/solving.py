"""A solver in the place of a network's updaters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.registry import UPDATERS
from dl4py.solvers import LineSolver, Solver, dl4j

if TYPE_CHECKING:
    from dl4py.network.optimizer import NetworkOptimizer

Closure = Callable[[], Any]


class Solution:
    """One iteration of a network whose ``optimization_algo`` is a solver.

    The solver works on the score, penalties included; a search finds the length of a
    step, so that updaters, their rates and gradient normalisation have no part in it.
    Statistics advance once an iteration, constraints are applied after it. With
    ``dl4j_exact`` DL4J's own solvers work on the updated gradient instead.

    Args:
        optimizer: the network's.
    """

    def __init__(self, optimizer: NetworkOptimizer) -> None:
        conf = optimizer.conf
        self.optimizer = optimizer
        self.algorithm: str = conf.optimization_algo
        self.iterations: int = conf.max_num_line_search_iterations
        self.step_function = dl4j.step_function(_java_name(conf.step_function))
        self.exact = optimizer.dl4j_exact and self.algorithm != "HESSIAN_FREE"
        self.memory: dict[str, Any] = {}  # of DL4J's own
        self._is_trial = False
        cls = UPDATERS[self.algorithm]
        options: dict[str, Any] = {"maximize": optimizer.uphill}
        if issubclass(cls, LineSolver):
            options["step_function"] = self.step_function
            options["max_num_line_search_iterations"] = self.iterations
        params = [t.tensor for t in optimizer.tracks if t.group is not None]
        self.solver: Solver = cls([{"params": params}], **options)

    def step(self, closure: Closure | None) -> Any:
        """One iteration.

        Returns:
            what the closure returned before the step; DL4J's own: the score after it.
        """
        if closure is None or not self.exact:
            return self._step(closure)
        model = _Exact(self, closure)
        before = model.params()
        remembered = dict(self.memory)
        try:
            score = dl4j.optimize(
                model, self.memory, self.algorithm, self.iterations, self.step_function
            )
        except BaseException:
            model.set_params(before)
            self.memory = remembered
            raise
        finally:
            self._is_trial = False
        with torch.no_grad():
            self.optimizer.finish(statistics=False)  # they are parameters like others
        return score

    @property
    def is_trial(self) -> bool:
        """Whether an evaluation but the first of an iteration is going on."""
        return self._is_trial or self.solver.is_trial

    def _step(self, closure: Closure | None) -> Any:
        owners = (track.view.owner for track in self.optimizer.tracks)
        layers = list({id(owner): owner for owner in owners}.values())
        first: list[dict[str, Tensor]] = []

        def counted() -> Any:
            loss = closure() if closure is not None else None
            if not first:
                first.extend(dict(layer.pending) for layer in layers)
            return loss

        loss = self.solver.step(counted if closure is not None else None)
        for layer, pending in zip(layers, first, strict=True):
            layer.pending = pending
        with torch.no_grad():
            self.optimizer.finish()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The solver's, and what DL4J's own remembers."""
        return {"solver": self.solver.state_dict(), "memory": dict(self.memory)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.solver.load_state_dict(state_dict["solver"])
        self.memory = dict(state_dict["memory"])


class _Exact:
    """The network as DL4J's solvers see it; parameters and statistics in one vector."""

    def __init__(self, solution: Solution, closure: Closure) -> None:
        self.solution = solution
        self.optimizer = solution.optimizer
        self.closure = closure

    def params(self) -> Tensor:
        parts = [t.tensor.detach().reshape(-1) for t in self.optimizer.tracks]
        return torch.cat(parts) if parts else torch.zeros(0)

    @torch.no_grad()
    def set_params(self, x: Tensor) -> None:
        start = 0
        for track in self.optimizer.tracks:
            t = track.tensor
            t.copy_(x[start : start + t.numel()].view(t.shape))
            start += t.numel()

    def score(self) -> float:
        with torch.enable_grad():
            loss = self.closure()
        self.solution._is_trial = True
        clock = self.optimizer.clock
        with torch.no_grad():
            penalties = [
                float(r.score(track.view.tensor, clock))
                for track in self.optimizer.tracks
                for r in track.view.penalties
                if track.place == 0
            ]
        return float(loss.detach()) + sum(penalties)

    def update(self) -> tuple[float, Tensor]:
        score = self.score()
        with torch.no_grad():
            return score, self.optimizer.updates()


def _java_name(given: Any) -> str | None:
    """The name of a step function as a configuration holds it."""
    return None if given is None else str(next(iter(given)))
