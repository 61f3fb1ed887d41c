"""What an optimizer of a network holds: its updaters, and parameters on their way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dl4py.clock import Clock
from dl4py.layers.view import View
from dl4py.registry import UPDATERS, Named
from dl4py.solvers import Solver
from dl4py.updaters import Updater


@dataclass
class Rule:
    """The updater of one parameter group: DL4J's, or any torch optimizer's."""

    updater: Any
    hyper: dict[str, Any] = field(default_factory=dict)
    inner: torch.optim.Optimizer | None = None

    @property
    def name(self) -> str:
        """Of the updater, as saved states hold it."""
        kind = getattr(self.updater, "func", self.updater)  # of a partial
        return getattr(kind, "__name__", type(kind).__name__)


@dataclass
class Track:
    """One parameter or statistic on its way through a step.

    Where the view's tensor is computed from others (pruned, ``weight_norm``), these are
    trained, and each has a track: the one at ``place`` of ``count``. Where DL4J updates
    a part of it by the rules of another kind (``View.slips``) it has ``pieces``, each a
    track of its own, whose ``whole`` it is. ``left`` is the last update of what stands
    behind a frozen layer.
    """

    view: View
    group: int | None  # its place in param_groups; None: not an updater's
    grad: Tensor | None = None
    place: int = 0
    count: int = 1
    pieces: list[Track] = field(default_factory=list)
    whole: Track | None = None
    left: Tensor | None = None
    kept: Tensor | None = field(default=None, compare=False, repr=False)
    spends: bool = False  # whether who calls for a step drops the gradients after it

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "kept": None}

    @property
    def tensor(self) -> Tensor:
        """The live tensor."""
        view = self.view
        if self.count == 1 and not view.computed:
            return view.tensor
        found = list(view.leaves.values())
        if len(found) != self.count:
            raise ValueError(
                f"{view.node}.{view.attribute} is computed from other tensors than "
                "when the optimizer was made: make a new one with "
                "net.renew_optimizer()"
            )
        return found[self.place]

    @property
    def name(self) -> str:
        """Node and DL4J's name, and that of the leaf where it is one."""
        name = f"{self.view.node}/{self.view.name}"
        if self.count == 1 and not self.view.computed:
            return name
        return f"{name}/{list(self.view.leaves)[self.place]}"

    @property
    def stands_for(self) -> bool:
        """Whether its state is that of DL4J's array: the first of the same shape."""
        view = self.view
        if self.count == 1 and not view.computed:
            return True
        shape = view.tensor.shape
        same = [p.shape == shape for p in view.leaves.values()]
        if not any(same):
            raise ValueError(
                f"{view.node}.{view.attribute}: none of the tensors that it is "
                "computed from has its shape, so that it has no updater state in "
                "DL4J's sense; make it a parameter again first"
            )
        return same.index(True) == self.place

    def room(self, g: Tensor) -> Tensor:
        """Memory for what becomes of the gradient g: its own, where it is dropped.

        Else kept memory, since new pages cost more than sums.
        """
        if self.spends and g is self.tensor.grad:
            return g
        kept = self.kept
        if kept is None or (kept.shape, kept.dtype, kept.device, kept.stride()) != (
            g.shape,
            g.dtype,
            g.device,
            g.stride(),
        ):
            kept = self.kept = torch.empty_like(g)
        return kept

    def penalised(self, g: Tensor, r: Any, clock: Clock) -> Tensor:
        """g with the gradient of a penalty on the view's tensor."""
        view = self.view
        if not view.computed:
            found = self.room(g)
            c = r.slope(clock)
            if c is None:
                r.add(g, self.tensor, clock, found)
            else:  # in one pass
                torch.add(g, self.tensor, alpha=c, out=found)
            return found
        with torch.enable_grad():
            w = view.tensor
        back: Tensor
        (back,) = torch.autograd.grad(
            w, self.tensor, r.gradient(w.detach(), clock), materialize_grads=True
        )
        return g + back

    @property
    def is_statistic(self) -> bool:
        """Whether a forward pass, no updater, says what it becomes."""
        return self.view.kind == "statistic"


def is_ours(updater: Any) -> bool:
    """Whether it is one of dl4py's, no other optimizer of torch."""
    return isinstance(updater, type) and issubclass(updater, Updater)


def rule_of(view: View) -> Rule:
    """The updater of one kind of parameter."""
    chosen, owner = view.updater, type(view.conf).__name__
    kind = chosen.entry.item if isinstance(chosen, Named) else chosen
    if isinstance(kind, type) and issubclass(kind, Solver):
        name = UPDATERS.entry_of(kind)
        raise ValueError(
            f"{owner}: updater {kind.__name__} solves for a whole network, not for a "
            "layer; write .optimization_algo"
            f"({name.key if name else kind.__name__!r}) in the builder"
        )
    if isinstance(chosen, Named):
        return Rule(chosen.entry.item, chosen.kwargs)
    if chosen is None:
        raise ValueError(
            f"{owner}: its parameters need an updater; derive the configuration from "
            "BaseLayer"
        )
    return Rule(chosen)
