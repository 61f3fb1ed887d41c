"""One step of any solver: a transaction over an ordinary torch closure."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.solvers.runs import Runs
from dl4py.solvers.watch import Watch

Closure = Callable[[], Any]
Context = Callable[[], contextlib.AbstractContextManager[Any]]


class Solver(torch.optim.Optimizer):
    """Base of all solvers: everything but how one finds the next point.

    ``step(closure)`` takes the closure of any torch optimizer: clear the gradients,
    compute the loss, call ``backward()``, return the loss. It may be called several
    times a step, each time with the same random numbers and statistics; one call
    counts. With the gradient as ``backward()`` leaves it the solver works, so that
    clipping it afterwards changes nothing: a search bounds the step instead.

    A subclass writes :meth:`advance`, and keeps what it remembers in ``memory``:
    tensors and plain numbers, replaced rather than changed, so that a step that fails
    leaves no trace.

    Args:
        params: parameters or groups, as for any torch optimizer.
        hyper: name → default of the hyper-parameters that a group may set for itself,
            ``lr`` and ``weight_decay`` among them.
        maximize: go uphill.
        process_group: the ranks that solve one problem together; default: all of
            them. Loss and gradient are their means.

    Attributes:
        memory: what is carried from step to step; part of ``state_dict``.
        trials: context managers entered around every evaluation but the first of a
            step: ``solver.trials.append(my_model.muted)``.
        is_trial: whether such an evaluation is going on.

    Example:
        >>> class Descent(Solver):
        ...     def __init__(self, params, lr=0.1):
        ...         super().__init__(params, {"lr": lr, "weight_decay": 0.0})
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
    ) -> None:
        if not isinstance(maximize, bool):
            self.wrong("maximize", "True or False", maximize)
        self.memory: dict[str, Any] = {}
        self.process_group = process_group
        self.trials: list[Context] = []
        self.is_trial = False
        self._keep_gradients = False
        super().__init__(params, {**hyper, "maximize": maximize})

    def advance(self, problem: Problem) -> Tensor:
        """The next point, from ``problem.x``, its loss and its gradient ≠ 0."""
        raise NotImplementedError

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

        Whatever is raised, parameters are afterwards what they were before.
        """
        if closure is None:
            self.fail(
                ".step(closure) needs a closure that clears the gradients, computes "
                "the loss, calls backward() and returns it. Lightning's precision="
                "'16-mixed' passes none: use Trainer(precision='bf16-mixed') or "
                "'32-true'"
            )
        problem = Problem(self, closure)
        remembered = dict(self.memory)
        try:
            problem.start()
            if problem.size and problem.slope > 0:
                end = self.advance(problem)
                problem.write(end)
        except BaseException:
            problem.write(problem.x)
            self.memory = self.recalled(remembered)
            raise
        finally:
            problem.finish()
        return problem.returned

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; in an evaluation without gradient the last one stays."""
        if not self._keep_gradients:
            super().zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        group = {**self.defaults, **param_group}
        for name in ("lr", "weight_decay"):
            value = group.get(name, 0.0)
            number = isinstance(value, (int, float, Tensor)) and value is not True
            if not (number and math.isfinite(value) and value >= 0):
                self.wrong(name, "a number >= 0", value)
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            self._refuse(p)

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

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the solver's ``memory``; plain types and tensors only."""
        return {**super().state_dict(), "memory": copy.deepcopy(self.memory)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        rest = dict(state_dict)
        memory = rest.pop("memory", None)
        if memory is None:
            self.fail(".load_state_dict: expected what a solver's state_dict() saved")
        super().load_state_dict(rest)
        first = next((p for g in self.param_groups for p in g["params"]), None)
        device = torch.device("cpu") if first is None else first.device
        self.memory = {
            k: v.to(device, copy=True) if isinstance(v, Tensor) else copy.deepcopy(v)
            for k, v in memory.items()
        }

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps only its own attributes
        own = {k: v for k, v in vars(self).items() if k in self._own}
        return {**super().__getstate__(), **own, "process_group": None}


class Problem:
    """A closure as a function of one flat vector, for the length of one step.

    The function is the closure's loss, with weight_decay/2·‖x‖² of the groups added,
    its sign turned where the solver maximizes, and the mean over all ranks.

    Args:
        solver: whose parameters are the vector; frozen ones are left out.
        closure: an ordinary closure.

    Attributes:
        params: the parameters that make up the vector, in its order.
        size: its length.
        x: the point where the step began, ``[size]``, float32 at least.
        loss: the function there, a tensor of one number.
        gradient: its gradient there, ``[size]``; never changed in place.
        score, slope: that loss and ‖gradient‖² as floats.
        returned: what the closure returned there.
        watched: the :class:`~dl4py.solvers.watch.Watch` of the latest gradient.
        gradients, values: evaluations so far, with gradient and without.
        runs: the closure's.
    """

    def __init__(self, solver: Solver, closure: Closure) -> None:
        self.solver = solver
        self.params: list[Tensor] = []
        self._parts: list[tuple[dict[str, Any], int]] = []
        for group in solver.param_groups:
            free = [p for p in group["params"] if p.requires_grad]
            self.params += free
            self._parts.append((group, sum(p.numel() for p in free)))
        self.size = sum(size for _, size in self._parts)
        self._sizes = [p.numel() for p in self.params]
        self.device = self.params[0].device if self.params else torch.device("cpu")
        self.dtype = torch.float32
        for p in self.params:
            self.dtype = torch.promote_types(self.dtype, p.dtype)
        # lists of one device and type are copied in one call
        self._alike = all(
            p.device == self.device and p.dtype == self.dtype for p in self.params
        )
        self._decays = any(group.get("weight_decay", 0.0) for group, _ in self._parts)
        self._sign = -1.0 if solver.param_groups[0]["maximize"] else 1.0
        self.x = self.flat([p.detach() for p in self.params])
        self.loss = self.gradient = self.x.new_zeros(())
        self.score = self.slope = 0.0
        self.returned: Any = None
        self.watched: Watch | None = None
        self.gradients = self.values = 0
        self._here: Tensor | None = self.x
        self._raw: Tensor | None = None
        self.runs = self.another(closure, solver.micro_batches, counts=True)

    def another(self, closure: Closure, slices: int = 1, counts: bool = False) -> Runs:
        """The runs of a closure of the same parameters."""
        devices = [p.device for p in self.params]
        return Runs(self.solver, closure, devices, slices, counts)

    def start(self) -> None:
        """Evaluate where the step begins; refuse what has no finite value there."""
        self.loss, self.gradient = self.evaluate(self.x)
        square = self.gradient.dot(self.gradient)
        self.score, self.slope = self.read(self.loss, square)
        if not (math.isfinite(self.score) and math.isfinite(self.slope)):
            what = f"loss is {self._sign * self.score}"
            if math.isfinite(self.score):
                what = "gradient is not finite"
            self.solver.fail(
                f".step(closure): the {what} before the step, so that there is nothing "
                "to compare with: check data and learning rate, or go back to the last "
                "checkpoint"
            )

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(function, gradient) at ``x``: one run of the closure."""
        first = self.gradients == 0
        self.gradients += 1
        losses: list[Tensor] = []
        gradient: Tensor | None = None
        for watch, returned in self.run(self.runs, self._watch, x):
            losses.append(self._total(watch))
            part = self.x.new_zeros(self.size) if self._raw is None else self._raw
            gradient = part if gradient is None else gradient + part
            self.watched, self._raw = watch, None
            if first:
                self.returned = returned
        assert gradient is not None
        loss = _average(losses)
        if len(losses) > 1:
            gradient = gradient / len(losses)
            self.returned = loss if first else self.returned
        return self._completed(x, loss, gradient)

    def value(self, x: Tensor, runs: Runs | None = None) -> Tensor:
        """The function at ``x``: the closure without its ``backward()``.

        Args:
            runs: of another closure in its place.
        """
        runs = runs or self.runs
        if runs is self.runs and runs.whole:
            return self.evaluate(x)[0]
        self.values += 1

        def make() -> Watch:
            return Watch(differentiate=runs.whole)

        losses = [self._total(watch) for watch, _ in self.run(runs, make, x)]
        return self._completed(x, _average(losses), None)[0]

    def run(
        self, runs: Runs, make: Callable[[], Watch], x: Tensor
    ) -> Iterator[tuple[Watch, Any]]:
        """One run at ``x``, slice by slice."""
        self.write(x)
        return runs(make)

    def _watch(self) -> Watch:
        return self.solver.watch(before=self._check_cleared, after=self._collect)

    def read(self, *numbers: Tensor) -> list[float]:
        """Numbers that decide what is done next: equal on all ranks, one host read."""
        packed = torch.stack([n.to(self.dtype) for n in numbers])
        values: list[float] = self.mean(packed).tolist()
        return values

    def write(self, x: Tensor) -> None:
        """Make ``x`` the parameters, in place."""
        if x is self._here:
            return
        self._here = None  # while it is half done
        parts = self.pieces(x)
        if self._alike:
            torch._foreach_copy_(self.params, parts)
        else:
            for p, part in zip(self.params, parts, strict=True):
                p.copy_(part)
        self._here = x

    def pieces(self, x: Tensor) -> list[Tensor]:
        """A flat vector as views of the parameters' shapes."""
        parts = torch.split(x, self._sizes) if self.params else ()
        return [part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def flat(self, tensors: list[Tensor]) -> Tensor:
        """Tensors of the parameters' shapes as one new flat vector."""
        if not tensors:
            return torch.zeros(0, dtype=self.dtype, device=self.device)
        parts = [t.reshape(-1) for t in tensors]
        if not self._alike:
            parts = [part.to(self.device, self.dtype) for part in parts]
        return torch.cat(parts)

    def per_group(self, name: str) -> Tensor | float:
        """A hyper-parameter along the flat vector; one number where groups agree."""
        values = [(float(group[name]), size) for group, size in self._parts if size]
        if len({value for value, _ in values}) <= 1:
            return values[0][0] if values else 0.0
        return torch.cat([self.x.new_full((size,), value) for value, size in values])

    def finish(self) -> None:
        """Leave random numbers and statistics as after the first evaluation."""
        self.runs.finish()

    def _total(self, watch: Watch) -> Tensor:
        if watch.total is None:
            self.solver.fail(
                ".step(closure): the closure did not call backward() on its loss; "
                "write zero_grad(), loss = ..., loss.backward(), return loss. A "
                "training_step that returns None does the same"
            )
        return watch.total.to(self.device, self.dtype)

    def _check_cleared(self) -> None:
        kept = [p.grad for p in self.params if p.grad is not None]
        if kept and any(bool(g.any()) for g in kept):
            self.solver.fail(
                ".step(closure): gradients were there already when backward() was "
                "called, so that every evaluation would add to them. Clear them in the "
                "closure: solver.zero_grad(). Lightning's accumulate_grad_batches does "
                "the same: use Trainer(accumulate_grad_batches=1) and larger batches"
            )

    def _collect(self) -> None:
        grads = []
        for p in self.params:
            grad = p.grad
            if grad is not None and grad.layout != torch.strided:
                self.solver.fail(
                    f" needs dense gradients, got {grad.layout} for a parameter of "
                    f"shape {tuple(p.shape)}; use sparse=False"
                )
            grads.append(torch.zeros_like(p) if grad is None else grad.detach())
        with torch.no_grad():
            self._raw = self.flat(grads)

    def _completed(
        self, x: Tensor, loss: Tensor, gradient: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Ranks, sign and weight decay, the same for loss and gradient."""
        if gradient is None:
            loss = self.mean(loss.clone()) * self._sign
        else:
            if self._ranks() > 1:
                both = self.mean(torch.cat([gradient, loss.reshape(1)]))
                gradient, loss = both[:-1], both[-1]
            if self._sign < 0:
                gradient, loss = -gradient, -loss
        if self._decays:
            decay = self.per_group("weight_decay")
            loss = loss + 0.5 * (decay * x).dot(x)
            if gradient is not None:
                gradient = gradient + decay * x
        return loss, self.x if gradient is None else gradient

    def _ranks(self) -> int:
        if not (dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self.solver.process_group)

    def mean(self, t: Tensor) -> Tensor:
        """The mean over all ranks; ``t`` may be overwritten."""
        ranks = self._ranks()
        if ranks > 1:
            dist.all_reduce(t, group=self.solver.process_group)
            t /= ranks
        return t


def _average(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()
