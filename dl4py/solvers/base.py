"""Base of all solvers: torch optimizers whose step is a transaction."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.registry import UPDATERS, parameters
from dl4py.solvers.observation import Watch
from dl4py.solvers.problem import Closure, Problem, alike
from dl4py.updaters import options

Context = Callable[[], contextlib.AbstractContextManager[Any]]


class Solver(torch.optim.Optimizer):
    """Base of all solvers: everything but how one finds the next point.

    ``step(closure)`` takes the closure of any torch optimizer: clear the gradients,
    compute the loss, call ``backward()``, return the loss. It may be called several
    times a step, each time with the same random numbers and statistics; one call
    counts.

    What the closure does to gradients after ``backward()``: where it sets them to 0,
    parameters stay as they are, whatever the penalty, so that a mask keeps pruned
    weights pruned. Clipping, by norm or by value, changes nothing, since a search
    bounds the step instead. Anything else is refused: the search compares losses, and
    such gradients are those of another. Without a search (``line_search="fixed"``)
    gradients are taken as the closure leaves them.

    ``l2`` is DL4J's penalty l2/2·‖x‖² (what torch's SGD calls ``weight_decay``), a part
    of the function that is minimised and of its curvature. Decay beside the step, the
    ``weight_decay`` of AdamW and of dl4py's updaters, would undo what a search found,
    and is refused.

    A subclass writes :meth:`advance`, and keeps what it remembers in ``memory``:
    tensors and plain numbers, replaced rather than changed, so that a step that fails
    leaves no trace. Parameters may be frozen, thawed and added between steps; they then
    make another vector, and :meth:`carried` says what remains known.

    Args:
        params: parameters or groups, as for any torch optimizer.
        hyper: name → default of the hyper-parameters that a group may set for itself,
            ``lr`` and ``l2`` among them.
        maximize: go uphill.
        process_group: the ranks that solve one problem together; default: all of
            them. Loss and gradient are their means.

    Attributes:
        memory: what is carried from step to step; part of ``state_dict``.
        layout: of which parameters its vectors are, as ``Problem.layout`` has it.
        mask: of which numbers the closure sets the gradient to 0; ``None``: none.
        trials: context managers entered around every evaluation but the first of a
            step: ``solver.trials.append(my_model.muted)``.
        is_trial: whether such an evaluation is going on.

    Example:
        >>> class Descent(Solver):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, {"lr": lr, "l2": 0.0})
        ...
        ...     def advance(self, problem):
        ...         return problem.x - problem.per_group("lr") * problem.gradient
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> solver = Descent([w])
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = w.square().sum()
        ...     loss.backward()
        ...     return loss
        >>> solver.step(closure).item(), w.tolist()
        (5.0, [0.800000011920929, 1.600000023841858])
    """

    fault: ClassVar[str | None] = None  # of DL4J's own, in one line
    micro_batches = 1  # slices of which a closure is called with the number
    _own: ClassVar[tuple[str, ...]] = (
        "memory",
        "layout",
        "mask",
        "process_group",
        "trials",
        "is_trial",
        "_keep_gradients",
    )

    def __init__(
        self,
        params: ParamsT,
        hyper: dict[str, Any],
        *,
        maximize: bool = False,
        process_group: Any = None,
        **others: Any,
    ) -> None:
        own = dict.fromkeys((*hyper, *parameters(type(self)), "maximize"))
        options.refuse(type(self), others, list(own))
        if not isinstance(maximize, bool):
            self.wrong("maximize", "True or False", maximize)
        self.memory: dict[str, Any] = {}
        self.layout: list[int] = []
        self.mask: Tensor | None = None
        self.process_group = process_group
        self.trials: list[Context] = []
        self.is_trial = False
        self._keep_gradients = False
        super().__init__(params, {**hyper, "maximize": maximize})

    def advance(self, problem: Problem) -> Tensor:
        """The next point, from ``problem.x``, its loss and its gradient ≠ 0."""
        raise NotImplementedError

    @property
    def searches(self) -> bool:
        """Whether losses are compared before a step is taken."""
        return True

    def carried(self, problem: Problem) -> dict[str, Any]:
        """What remains of ``memory`` where other parameters are free to move."""
        return {}

    def fitted(self, name: str, value: Any, like: Tensor) -> Any:
        """An entry of ``memory`` on the device and in the precision of ``like``."""
        return alike(value, like)

    def recalled(self, memory: dict[str, Any]) -> dict[str, Any]:
        """What remains of ``memory``, as it was before a step that failed."""
        return memory

    def watch(self, **options: Any) -> Watch:
        """What stands around an evaluation with a gradient; see :class:`Watch`."""
        return Watch(**options)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step; returns what the closure returned at first, before the step.

        Raises:
            ValueError: closure missing or without ``backward()``, a loss that is no
                finite number, gradients that were not cleared.

            RuntimeError: another rank failed.

        Whatever is raised, parameters are afterwards what they were before, on all
        ranks; one that waits for another inside DistributedDataParallel's
        ``backward()`` ends by its time-out, which no solver can shorten.
        """
        if closure is None:
            self.fail(
                ".step(closure) needs a closure that clears the gradients, computes "
                "the loss, calls backward() and returns it. Lightning's precision="
                "'16-mixed' passes none: use Trainer(precision='bf16-mixed') or "
                "'32-true'"
            )
        problem = Problem(self, closure)
        remembered, layout, mask = dict(self.memory), self.layout, self.mask
        try:
            known: Tensor | None = None
            if mask is not None:
                known = problem.carried(mask.to(problem.x), layout) > 0
            problem.start(known)
            if problem.size and problem.slope > 0:
                self._fit(problem, known)
                end = self.advance(problem)
                problem.write(end)
        except BaseException as error:
            problem.ranks.fail(error)
            problem.write(problem.x)
            self.memory = self.recalled(remembered)
            self.layout, self.mask = layout, mask
            raise
        finally:
            problem.finish()
        return problem.returned

    def _fit(self, problem: Problem, known: Tensor | None) -> None:
        """Bring ``memory`` to the parameters as they are now."""
        mask = problem.mask
        more = mask is not None and (known is None or bool((mask & ~known).any()))
        if more or self.layout != problem.layout:
            self.memory = self.carried(problem)
        self.layout, self.mask = problem.layout, mask
        self.memory = {
            name: self.fitted(name, value, problem.x)
            for name, value in self.memory.items()
        }

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; in an evaluation without gradient the last one stays."""
        if not self._keep_gradients:
            super().zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        group = {**self.defaults, **param_group}
        for name in ("lr", "l2"):
            value = group.get(name, 0.0)
            number = isinstance(value, (int, float, Tensor)) and value is not True
            if not (number and math.isfinite(value) and value >= 0):
                self.wrong(name, "a number >= 0", value)
        others = [g["maximize"] for g in self.param_groups]
        if not all(other == group["maximize"] for other in others):
            self.wrong("maximize", f"{others[0]} as in other groups", not others[0])
        options.refuse_in_group(type(self), param_group, list(self.defaults))
        super().add_param_group(param_group)
        try:
            for p in self.param_groups[-1]["params"]:
                self._refuse(p)
        except ValueError:
            self.param_groups.pop()
            raise

    def _refuse(self, p: Tensor) -> None:
        shape = f"shape {tuple(p.shape)}"
        tensors = sys.modules.get("torch.distributed.tensor")
        if tensors is not None and isinstance(p, tensors.DTensor):
            self.fail(
                f" needs whole parameters on every rank, got a DTensor of {shape}: "
                "with FSDP2 or tensor parallelism there is no double backward and no "
                "flat vector; use Trainer(strategy='ddp')"
            )
        if getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False):
            self.fail(
                f" needs whole parameters on every rank, got one that FSDP has split, "
                f"of {shape}; use Trainer(strategy='ddp')"
            )
        if p.is_complex():
            self.fail(
                f" solves for real parameters, got a {p.dtype} one of {shape}; use "
                "torch.view_as_real"
            )
        if p.layout != torch.strided:
            self.fail(f" solves for dense parameters, got {p.layout} of {shape}")
        if not p.is_floating_point():
            self.fail(f" solves for floating point parameters, got {p.dtype}")

    @classmethod
    def difference(cls, hyper: Mapping[str, Any]) -> str | None:
        """What ``dl4j_exact`` changes, in one line."""
        return cls.fault

    def differs(self) -> str | None:
        """What ``dl4j_exact`` changes for this solver, in one line."""
        return self.difference({})

    def fail(self, message: str) -> NoReturn:
        """Raise with ``message`` after the solver's name."""
        raise ValueError(f"{type(self).__name__}{message}")

    def wrong(self, name: str, expected: str, value: object) -> NoReturn:
        """Raise because of an argument."""
        self.fail(f"({name}=...) must be {expected}, got {value!r}")

    @property
    def kind(self) -> str:
        """Whose state this is; one kind does not read another's."""
        registered = (c for c in type(self).__mro__ if UPDATERS.entry_of(c))
        return next(registered, type(self)).__name__

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the solver's ``memory``; plain types and tensors only."""

        def complete(_: Any, state: dict[str, Any]) -> dict[str, Any]:
            own = {"layout": self.layout, "mask": self.mask, "memory": self.memory}
            return {**state, "solver": self.kind, **copy.deepcopy(own)}

        # hooks of one's own see the whole
        handle = self.register_state_dict_post_hook(complete, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken, by a solver of the same ``kind``.

        Raises:
            ValueError: it is another optimizer's, after hooks of one's own; nothing is
                changed.
        """
        own: dict[str, Any] = {}

        def check(_: Any, state: dict[str, Any]) -> dict[str, Any]:
            rest = dict(state)
            names = ("solver", "layout", "mask", "memory")
            own.update({name: rest.pop(name, None) for name in names})
            if own["solver"] != self.kind or None in (own["layout"], own["memory"]):
                found = own["solver"] or "another optimizer"
                self.fail(
                    f".load_state_dict: expected a state of {self.kind}, got one of "
                    f"{found}; go on with that, or begin anew without its state"
                )
            for group in rest["param_groups"]:
                options.refuse_in_group(type(self), group, list(self.defaults))
            return rest

        def keep(_: Any) -> None:
            self.memory = copy.deepcopy(dict(own["memory"]))
            self.layout, self.mask = list(own["layout"]), own["mask"]

        handles = (
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(keep, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only its own attributes
        own = {k: v for k, v in vars(self).items() if k in self._own}
        return {**super().__getstate__(), **own, "process_group": None}
