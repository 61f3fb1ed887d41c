"""A closure as a function of one flat vector, for the length of one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.solvers.evaluations import Runs
from dl4py.solvers.gradients import Gradients
from dl4py.solvers.observation import Watch
from dl4py.solvers.ranks import Ranks

if TYPE_CHECKING:
    from dl4py.solvers.base import Solver

Closure = Callable[..., Any]


class Problem:
    """A closure as a function of one flat vector, for the length of one step.

    The function is the closure's loss, with l2/2·‖x‖² of the groups added,
    its sign turned where the solver maximizes, and the mean over all ranks.

    Args:
        solver: whose parameters are the vector; frozen ones are left out.
        closure: an ordinary closure.

    Attributes:
        params: the parameters that make up the vector, in its order.
        size: its length.
        layout: of all parameters of the solver, how many numbers each has in the
            vector: 0 where it is frozen.
        x: the point where the step began, ``[size]``, float32 at least.
        loss: the function there, a tensor of one number.
        gradient: its gradient there, ``[size]``; never changed in place.
        score, slope: that loss and ‖gradient‖² as floats.
        returned: what the closure returned there.
        watched: the :class:`~dl4py.solvers.observation.Watch` of the latest gradient.
        gradients, values: evaluations so far, with gradient and without.
        decays: whether any group has weight decay.
        mask: of every number of the vector, whether the closure has set its gradient
            to 0, now or before; ``None``: none of them.
        held: of every number, whether it stays where it is because of that.
        ranks: those that solve it together.
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
        self.layout = [
            p.numel() if p.requires_grad else 0
            for group in solver.param_groups
            for p in group["params"]
        ]
        self.size = sum(self.layout)
        self._sizes = [p.numel() for p in self.params]
        self.device = self.params[0].device if self.params else torch.device("cpu")
        self.dtype = torch.float32
        for p in self.params:
            self.dtype = torch.promote_types(self.dtype, p.dtype)
        self.ranks = Ranks(solver.process_group, self.device, type(solver).__name__)
        # lists of one device and type are copied in one call
        self._alike = all(
            p.device == self.device and p.dtype == self.dtype for p in self.params
        )
        self.decays = any(group.get("l2", 0.0) for group, _ in self._parts)
        self._sign = -1.0 if solver.param_groups[0]["maximize"] else 1.0
        self.x = self.flat([p.detach() for p in self.params])
        self.loss = self.gradient = self.x.new_zeros(())
        self.score = self.slope = 0.0
        self.returned: Any = None
        self.watched: Watch | None = None
        self.gradients = self.values = 0
        self._here: Tensor | None = self.x
        self._grads = Gradients(self.params, self.flat, solver.fail, solver.searches)
        self._bare = self.x
        self.mask: Tensor | None = None
        self.held: Tensor | None = None
        self.runs = self.another(closure, solver.micro_batches, counts=True)

    def another(self, closure: Closure, slices: int = 1, counts: bool = False) -> Runs:
        """The runs of a closure of the same parameters."""
        devices = [p.device for p in self.params]
        return Runs(self.solver, closure, devices, slices, counts)

    def start(self, known: Tensor | None = None) -> None:
        """Evaluate where the step begins; refuse what has no finite value there.

        Args:
            known: what was ``mask`` in the last step.
        """
        self.loss, self.gradient = self.evaluate(self.x)
        square = self.gradient.dot(self.gradient)
        facts = self._grads.facts(self.x)
        self.score, self.slope, *found = self.read(self.loss, square, *facts)
        if not (math.isfinite(self.score) and math.isfinite(self.slope)):
            what = f"loss is {self._sign * self.score}"
            if math.isfinite(self.score):
                what = "gradient is not finite"
            self.solver.fail(
                f".step(closure): the {what} before the step, so that there is nothing "
                "to compare with: check data and learning rate, or go back to the last "
                "checkpoint"
            )
        if any(found):
            self._hold(known, *found[1:])
        self._grads.changes, self._grads.notes = [], False

    def _hold(
        self, known: Tensor | None, some: float, whole: float, odd: float
    ) -> None:
        """Find out where the closure masks gradients."""
        if odd and not self._averaged():
            self.solver.fail(
                ".step(closure): the closure changed gradients after backward(), and "
                "neither to 0 nor by clipping, so that they are no longer those of the "
                "loss that it returns. Write penalties as l2= or into the "
                "loss, scale layers by the lr of their groups, let backward() see the "
                "rest"
            )
        if whole and known is None:
            self.solver.fail(
                ".step(closure): all gradients are 0 after backward(), since the "
                "closure sets them to 0; clear them before it, or freeze parameters by "
                "requires_grad_(False)"
            )
        mask = torch.zeros_like(self.x, dtype=torch.bool) if known is None else known
        if some:
            mask = mask | (self.mean(self._grads.zeroed(self.x).to(self.dtype)) > 0)
        mask = mask & (self._bare == 0)
        if not self.read(mask.any())[0]:
            return
        # in a parameter with a mask a 0 of the loss's own may be masked too
        near = [part.any().expand_as(part) for part in torch.split(mask, self._sizes)]
        self.mask, self.held = mask, mask | torch.cat(near) & (self.gradient == 0)
        self.gradient = self.free(self.gradient)
        [self.slope] = self.read(self.gradient.dot(self.gradient))

    def _averaged(self) -> bool:
        """Whether they differ because the closure itself took the mean over ranks."""
        if self.ranks.count == 1:
            return False
        raw, left = self.x.new_zeros(2, self.size)
        for before, after in self._grads.changes:
            raw += before
            left += after
        return bool(self._grads.clipped(self.mean(raw), self.mean(left)))

    def evaluate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(function, gradient) at ``x``: one run of the closure."""
        first = self.gradients == 0
        self.gradients += 1
        losses: list[Tensor] = []
        gradient: Tensor | None = None
        for watch, returned in self.run(self.runs, self._watch, x):
            losses.append(self._total(watch))
            part = self._grads.take(watch.touched)
            gradient = part if gradient is None else gradient + part
            self.watched = watch
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
        return self.solver.watch(before=self._before, after=self._grads.collect)

    def _before(self) -> None:
        self._check_cleared()
        self.ranks.meet()  # inside backward() ranks may wait for each other too

    @property
    def waits(self) -> bool:
        """Whether a read waits: for an accelerator or for other ranks."""
        return self.device.type != "cpu" or self.ranks.count > 1

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

    def free(self, v: Tensor) -> Tensor:
        """``v``, 0 where parameters are held."""
        return v if self.held is None else v.masked_fill(self.held, 0.0)

    def carried(self, v: Tensor, layout: list[int]) -> Tensor:
        """A flat vector of another ``layout`` in this one: 0 where it had no part."""
        was = dict(enumerate(zip(layout, torch.split(v, layout), strict=True)))
        parts = [self.x.new_zeros(0)]
        for i, size in enumerate(self.layout):
            before, part = was.get(i, (0, v))
            parts.append(part.to(self.x) if before == size else self.x.new_zeros(size))
        return self.free(torch.cat(parts))

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

    def _completed(
        self, x: Tensor, loss: Tensor, gradient: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Ranks, sign and weight decay, the same for loss and gradient."""
        if gradient is None:
            loss = self.mean(loss.clone()) * self._sign
        else:
            if self.ranks.count > 1:
                both = self.mean(torch.cat([gradient, loss.reshape(1)]))
                gradient, loss = both[:-1], both[-1]
            if self._sign < 0:
                gradient, loss = -gradient, -loss
        if gradient is not None and self._grads.notes:
            self._bare = gradient
        if self.decays:
            decay = self.per_group("l2")
            loss = loss + 0.5 * (decay * x).dot(x)
            if gradient is not None:
                gradient = gradient + decay * x
        if gradient is None:
            return loss, self.x
        return loss, self.free(gradient)

    def mean(self, t: Tensor) -> Tensor:
        """The mean over all ranks; ``t`` may be overwritten."""
        return self.ranks.mean(t)


def alike(value: Any, like: Tensor) -> Any:
    """What a solver remembers, on the device and in the precision of ``like``.

    >>> alike([torch.ones(1), 2], torch.zeros(1, dtype=torch.float64))
    [tensor([1.], dtype=torch.float64), 2]
    """
    if isinstance(value, list):
        return [alike(v, like) for v in value]
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        return value
    return value.to(like)


def _average(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()
