"""One parameter or statistic of a layer as DL4J sees it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py import weight_init
from dl4py.clock import Clock
from dl4py.layers import leaves
from dl4py.noise import TORCH, Noise
from dl4py.ops.sharding import beside
from dl4py.weight_init import WeightInit

if TYPE_CHECKING:
    from dl4py.layers.part import Part


def _same(t: Tensor) -> Tensor:
    return t


@dataclass(frozen=True)
class View:
    """One parameter or statistic as DL4J sees it; it owns its tensor.

    Args:
        owner: the module that holds the tensor.
        name: DL4J's name of it, e.g. ``"W"``.
        attribute: the owner's attribute that holds it.
        kind: ``"weight"``, ``"bias"``, ``"gain"``, ``"scale"`` or ``"statistic"``:
            decides updater, penalties and first value. Statistics are buffers.
        order: ``"c"`` or ``"f"``: how DL4J lays its array out in the flat vector.
        shaped: from the module's tensor to DL4J's array, as a view of the same memory.
        named: likewise to an array with the axes that DL4J's documentation gives it,
            and that of its constraints mean; default: ``shaped``.
        fans: (fan_in, fan_out) of the weight initialisation.
        first: the first value (a number, or a function of the tensor) where it is
            neither drawn nor ``bias_init``.
        init: the field of the configuration with the weight initialisation.
        trained: ``"always"``, ``"pretraining"``, ``"still"`` (as the next, but it has
            an updater, which DL4J lets act on penalties) or ``"never"``.
        penalised: whether its layer's penalties act on it.
        own_updater: whether ``bias_updater``, if there is one, is for it.
        node: the network's node that it belongs to; the network fills it in.
        behind: whether no gradient comes to it past frozen layers; likewise.
        own: its name in its owner where a wrapper has renamed it.
        slips: (kind, start, stop) of runs of :meth:`flat` where DL4J's updater applies
            the rules of another kind; none: its own hold for all of it.
        part: (start, stop) of the segment, where the view is of a part of it only.
    """

    owner: Part = field(repr=False)
    name: str
    attribute: str
    kind: str = "weight"
    order: str = "c"
    shaped: Callable[[Tensor], Tensor] = _same
    named: Callable[[Tensor], Tensor] | None = None
    fans: tuple[float, float] = (1.0, 1.0)
    first: float | Callable[[Tensor], Tensor] | None = None
    init: str = "weight_init"
    trained: str = "always"
    penalised: bool = True
    own_updater: bool = True
    node: str = ""
    behind: bool = False
    own: str = ""
    slips: tuple[tuple[str, int, int], ...] = ()
    part: tuple[int, int] | None = None

    def renamed(self, name: str, **changes: Any) -> View:
        """This view under the name that a wrapper gives it."""
        own = self.own or self.name
        return dataclasses.replace(self, name=name, own=own, **changes)

    @property
    def tensor(self) -> Tensor:
        """The live tensor: moving a module to a device replaces its buffers.

        Of what is pruned or parametrized it is the present value.
        """
        return leaves.value(self.owner, self.attribute)

    @property
    def used(self) -> Tensor:
        """The tensor that the last forward pass computed with."""
        tensor: Tensor = getattr(self.owner, self.attribute)
        return tensor

    @property
    def leaves(self) -> dict[str, Tensor]:
        """What is trained: the tensor, or what it is computed from, by name."""
        return leaves.leaves(self.owner, self.attribute)

    @property
    def computed(self) -> bool:
        """Whether the tensor is computed from others."""
        return leaves.own(self.owner, self.attribute) is None

    def change(self, function: Callable[[Tensor], None]) -> None:
        """Let ``function`` change the tensor in place, through what is trained."""
        t = self.tensor
        if not self.computed:
            function(t)
            return
        new = t.detach().clone()
        function(new)
        leaves.write(self.owner, self.attribute, new)

    @property
    def size(self) -> int:
        """How many numbers :meth:`flat` has."""
        if self.part is not None:
            return self.part[1] - self.part[0]
        return self.tensor.numel()

    def pieces(self) -> Iterator[View]:
        """Views of the ``slips``, each of the kind whose rules DL4J applies there."""
        for kind, start, stop in self.slips:
            yield dataclasses.replace(self, kind=kind, slips=(), part=(start, stop))

    @property
    def array(self) -> Tensor:
        """The tensor in DL4J's shape, the same memory."""
        return self.shaped(self.tensor)

    @property
    def pending(self) -> Tensor | None:
        """What a forward pass wants a statistic to be lessened by."""
        if self.behind and self.exact:
            return None  # DL4J: it comes with the backward pass
        return self.owner.pending.get(self.attribute)

    @property
    def pseudo_gradient(self) -> Tensor | None:
        """:attr:`pending` before a division by the number of examples, if any."""
        pending = self.pending
        return None if pending is None else pending * self.owner.pending_divisor

    @property
    def conf(self) -> Any:
        """The configuration of the owner."""
        return self.owner.conf

    @property
    def exact(self) -> bool:
        """Whether the owner reproduces DL4J's faults."""
        return self.owner.dl4j_exact

    @property
    def updater(self) -> Any:
        """What its configuration says to train it with, ``None`` for statistics."""
        conf = self.conf
        if self.kind == "statistic":
            return None
        own = None
        if self.kind == "bias" and self.own_updater:
            own = getattr(conf, "bias_updater", None)
        return getattr(conf, "updater", None) if own is None else own

    @functools.cached_property
    def penalties(self) -> tuple[Any, ...]:
        """l1, l2 and weight decay on it."""
        own = self._penalties_of(self.kind)
        if not self.slips:
            return own
        kinds = dict.fromkeys((self.kind, *(kind for kind, _, _ in self.slips)))
        return tuple(
            Slipped(r, self, [run for run in self.slips if run[0] == kind])
            for kind in kinds
            for r in self._penalties_of(kind)
        )

    def _penalties_of(self, kind: str) -> tuple[Any, ...]:
        names = {"weight": "regularization", "gain": "regularization"}
        name = {**names, "bias": "regularization_bias"}.get(kind)
        if name is None or self.trained == "never" or not self.penalised:
            return ()
        return tuple(getattr(self.conf, name, None) or ())

    @functools.cached_property
    def constraints(self) -> tuple[Any, ...]:
        """Conditions that it meets after every step."""
        found = getattr(self.conf, "constraints", None) or ()
        own = self.own or self.name
        return tuple(c for c in found if own in (c.params or ()))

    def constrain(self, t: Tensor) -> None:
        """Let ``t`` meet the constraints, in place."""
        array = (self.named or self.shaped)(t)
        mistaken = self.exact and self.named is not None
        if mistaken:  # DL4J gives those axes to memory in the order of the others
            array = self.flat(t).reshape(array.shape).clone()
        for constraint in self.constraints:
            for _ in range(2 if self.exact else 1):  # DL4J: twice
                constraint.apply_(array, self.exact)
        if mistaken:
            self.fill(array.reshape(-1), t)

    def flat(self, t: Tensor | None = None) -> Tensor:
        """The tensor, or ``t`` of its shape, as DL4J's segment of the flat vector."""
        t = self.shaped(self.tensor if t is None else t)
        if self.order == "f":
            t = t.permute(*reversed(range(t.dim())))
        flat = t.reshape(-1)
        return flat if self.part is None else flat[slice(*self.part)]

    def fill(self, segment: Tensor, t: Tensor | None = None) -> None:
        """Write DL4J's ``segment`` into the tensor, or ``t`` of its shape, in place."""
        if t is None:
            self.change(lambda t: self.fill(segment, t))
            return
        if self.part is not None:
            whole = dataclasses.replace(self, part=None)
            flat = whole.flat(t).clone()
            flat[slice(*self.part)] = segment
            whole.fill(flat, t)
            return
        target = self.shaped(t)
        if self.order == "f":
            target = target.permute(*reversed(range(target.dim())))
        target.copy_(beside(segment.reshape(target.shape), target))

    @torch.no_grad()
    def reset(self, noise: Noise = TORCH) -> None:
        """Give the tensor its first value; draws are in DL4J's shape and order."""
        self.change(lambda t: self._reset(t, noise))

    def _reset(self, t: Tensor, noise: Noise) -> None:
        if t.is_meta:
            return  # nothing to draw into
        if callable(self.first):
            t.copy_(self.first(t))
        elif self.first is not None:
            t.fill_(self.first)
        elif self.kind == "bias":
            t.fill_(getattr(self.conf, "bias_init", None) or 0.0)
        elif self.kind == "gain":
            t.fill_(getattr(self.conf, "gain_init", 1.0))
        elif self.kind == "weight":
            init = weight_init.get(
                getattr(self.conf, self.init) or self.conf.weight_init
            )
            like = self.shaped(t).contiguous()
            source = noise.source if isinstance(init, WeightInit) else noise.torchs()
            drawn = init(noise.empty(like, self.order), *self.fans, generator=source)
            self.shaped(t).copy_(drawn)


class Slipped:
    """A penalty that DL4J's updater applies to other entries than the score counts.

    Args:
        of: the penalty.
        view: of the tensor.
        runs: (kind, start, stop) in ``view.flat()`` of the entries that it changes.
    """

    def __init__(
        self, of: Any, view: View, runs: Sequence[tuple[str, int, int]]
    ) -> None:
        self.of, self.view, self.runs = of, view, runs
        self.before_updater: bool = of.before_updater
        self.counts = of in view._penalties_of(view.kind)

    def score(self, w: Tensor, clock: Clock) -> Any:
        """Of the whole tensor, if the penalty is its own."""
        return self.of.score(w, clock) if self.counts else w.new_zeros(())

    def gradient(self, w: Tensor, clock: Clock) -> Tensor:
        """Where the updater applies it."""
        gradient: Tensor = self.of.gradient(w, clock) * self.hit(w)
        return gradient

    def slope(self, clock: Clock) -> None:
        """Not one for all entries."""

    def add(self, g: Tensor, w: Tensor, clock: Clock, out: Tensor) -> None:
        """Write g + :meth:`gradient` to ``out``."""
        torch.add(g, self.gradient(w, clock), out=out)

    def factor(self, w: Tensor, rate: float, clock: Clock) -> Any:
        """The decay of each entry."""
        return self.of.factor(w, rate, clock) * self.hit(w)

    def hit(self, w: Tensor) -> Tensor:
        """1 where the updater applies it, else 0."""
        flat = w.new_zeros(w.numel())
        for _, start, stop in self.runs:
            flat[start:stop] = 1
        where = torch.empty_like(w)
        self.view.fill(flat, where)
        return where


def weights_first(views: Sequence[View]) -> Iterator[View]:
    """The views of a layer whose updater, in DL4J, walks over weights and then biases.

    The biases stand first in the flat vector all the same.
    """
    sizes = [v.tensor.numel() for v in views]
    starts = {v.name: sum(sizes[:i]) for i, v in enumerate(views)}
    walked = sorted(views, key=lambda v: v.kind == "bias")
    bounds, at = [], 0
    for v in walked:
        bounds.append((v.kind, at, at := at + v.tensor.numel()))
    for v, size in zip(views, sizes, strict=True):
        first = starts[v.name]
        runs = (
            (kind, max(a - first, 0), min(b - first, size)) for kind, a, b in bounds
        )
        yield dataclasses.replace(v, slips=tuple(r for r in runs if r[1] < r[2]))
