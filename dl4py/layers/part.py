"""What layers and vertices share: arguments from their configuration, views, noise."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dl4py import weight_init
from dl4py.activations import Activation
from dl4py.clock import Clock
from dl4py.config.layer import DEFAULTS
from dl4py.layers import leaves
from dl4py.losses import Loss
from dl4py.noise import TORCH, Noise
from dl4py.ops.sharding import beside
from dl4py.registry import LAYERS, MODULES, VERTICES
from dl4py.weight_init import WeightInit


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


P = TypeVar("P", bound="Part")


class Part(nn.Module):
    """A module whose arguments are the fields of a configuration.

    ``Dense(4, 3, activation="tanh")`` takes what ``dl4py.config.Dense`` declares; what
    is not given is DL4J's default. What only trains a parameter (updaters, penalties,
    constraints) belongs to a network's configuration and is refused.

    Args:
        dl4j_exact: whether DL4J's faults are reproduced too.

    Attributes:
        conf: the configuration, in its final form.
        neighbour: torch's nearest module, and what differs from it.
        scores_penalties: whether DL4J's score counts penalties on its parameters.
        stops: whether no gradient comes through to what it reads.
        leaves: the order of ND4J's array that leaves, ``"c"`` or ``"f"``, or ``"same"``
            as the one that comes in.
    """

    configuration: ClassVar[type[Any]]
    neighbour: ClassVar[tuple[str, str]] = ("—", "")
    scores_penalties: ClassVar[bool] = True
    stops: ClassVar[bool] = False
    leaves: ClassVar[str] = "c"
    pending_divisor: int = 1  # of what is in ``pending``: a number of examples
    noise: Noise = TORCH

    def __init__(self, *values: Any, dl4j_exact: bool = False, **fields: Any) -> None:
        super().__init__()
        self._setup(alone(type(self), values, fields), dl4j_exact)
        self.reset_parameters()

    @classmethod
    def from_config(cls: type[P], conf: Any, dl4j_exact: bool = False) -> P:
        """The module that a configuration describes; nothing is drawn."""
        part = cls.__new__(cls)
        nn.Module.__init__(part)
        part._setup(conf, dl4j_exact)
        return part

    def _setup(self, conf: Any, dl4j_exact: bool) -> None:
        self.conf, self.dl4j_exact = conf, dl4j_exact
        self.clock = Clock(dl4j_exact=dl4j_exact)
        self.pending: dict[str, Tensor] = {}  # statistic → DL4J's pseudo-gradient
        self.build()

    def build(self) -> None:
        """Make parameters, statistics and parts from ``self.conf``."""

    def views(self) -> Iterator[View]:
        """The parameters and statistics in the order of DL4J's flat vector."""
        return iter(())

    def follow(self, order: str) -> str:
        """The order of ND4J's array that leaves where one of ``order`` comes in."""
        return order if self.leaves == "same" else self.leaves

    def reset_parameters(self) -> None:
        """Give all parameters their first values, in DL4J's order."""
        self.draw(self.noise)

    def draw(self, noise: Noise) -> None:
        """:meth:`reset_parameters` with the draws of ``noise``."""
        for view in self.views():
            view.reset(noise)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        """One line per way in which ``dl4j_exact`` changes what is computed."""
        parts = (m for m in self.modules() if isinstance(m, (Activation, Loss)))
        lines = [part.differs(dtype) for part in parts]
        return list(dict.fromkeys(line for line in lines if line))

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        """Those of :meth:`differs` that show in test mode on ordinary data."""
        return [
            str(part.differs(dtype))
            for part in self.modules()
            if isinstance(part, Activation) and not _predicts_as_dl4j(part, dtype)
        ]


def _predicts_as_dl4j(part: Activation, dtype: torch.dtype) -> bool:
    """Whether exact mode changes what an activation gives when testing."""
    if part.dl4j_exact or part.differs(dtype) is None:
        return True
    exact, plain = copy.deepcopy(part).eval(), copy.deepcopy(part).eval()
    exact.dl4j_exact = True
    x = torch.linspace(-4, 4, 81, dtype=dtype)
    rounding = 4 * torch.finfo(dtype).eps
    return torch.allclose(exact(x), plain(x), rtol=rounding, atol=rounding)


C = TypeVar("C", bound=type[Part])


def implements(configuration: type[Any]) -> Callable[[C], C]:
    """Make the decorated class the module of a registered configuration class.

    The module's signature is that of the configuration, and its docstring goes on where
    the configuration's ends.

    Example:
        >>> from dl4py import config
        >>> MODULES["dense"].configuration is config.Dense
        True
    """

    def register(module: C) -> C:
        entry = LAYERS.entry_of(configuration) or VERTICES.entry_of(configuration)
        if entry is None:
            name = configuration.__name__
            raise ValueError(
                f"{name} has no name yet: register it with @LAYERS.add('name') or "
                "@VERTICES.add('name')"
            )
        MODULES.add(entry.key)(module)
        module.configuration = configuration
        docs = (configuration.__doc__, module.__doc__)
        module.__doc__ = "\n\n".join(inspect.cleandoc(doc) for doc in docs if doc)
        module.__signature__ = _signature(configuration)  # type: ignore[attr-defined]
        return module

    return register


def module_of(conf: Any) -> type[Any]:
    """The module class of a layer's or vertex' configuration."""
    kind = type(conf)
    entry = LAYERS.entry_of(kind) or VERTICES.entry_of(kind)
    if entry is None or entry.key not in MODULES:
        raise ValueError(
            f"{kind.__name__} has no module: register the configuration with "
            "@LAYERS.add('name') and the module with "
            f"@dl4py.layers.implements({kind.__name__})"
        )
    found: type[Any] = MODULES[entry.key]
    return found


def _fields(configuration: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """What a module used alone takes: fields that shape what it computes."""
    return {
        f.name: f
        for f in dataclasses.fields(configuration)
        if f.init and not f.metadata.get("training")
    }


def _leading(configuration: type[Any]) -> tuple[str, ...]:
    """What a module takes by position: for vertices, what their dataclass does."""
    found: tuple[str, ...] = getattr(configuration, "leading", None) or ()
    if LAYERS.entry_of(configuration) is None:
        known = _fields(configuration).items()
        found = found or tuple(name for name, f in known if not f.kw_only)
    return found


_SIZES = ("n_in", "n_out")  # in a network they follow from the layer before


def _signature(configuration: type[Any]) -> inspect.Signature:
    known = _fields(configuration)
    leading = _leading(configuration)
    given: Mapping[str, Any] = getattr(configuration, "alone", {})
    parameters = []
    for name in (*leading, *(name for name in known if name not in leading)):
        default = known[name].default
        if default is None:
            default = given.get(name, DEFAULTS.get(name))
        if default is None and name in _SIZES:
            default = inspect.Parameter.empty
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if name in leading
                else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if default is dataclasses.MISSING
                else default,
            )
        )
    exact = inspect.Parameter(
        "dl4j_exact", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool
    )
    return inspect.Signature([*parameters, exact])


def alone(module: type[Part], values: tuple[Any, ...], fields: dict[str, Any]) -> Any:
    """The final configuration of a module that is used without a network."""
    name = module.__name__
    configuration = getattr(module, "configuration", None)
    if configuration is None:
        raise TypeError(f"{name} has no configuration: decorate it with @implements")
    leading = _leading(configuration)
    if len(values) > len(leading):
        raise TypeError(
            f"{name} takes {len(leading)} values by position {leading}, got {values!r}"
        )
    known = _fields(configuration)
    for word in fields:
        if word in known:
            continue
        if word in configuration.__dataclass_fields__:
            raise TypeError(
                f"{name}({word}=...) belongs to a network's configuration, "
                f"dl4py.config.{configuration.__name__}; give a layer used alone to a "
                "torch optimizer or one of dl4py.updaters"
            )
        raise TypeError(
            f"{name} has no argument {word!r}; it takes {', '.join(known)}, dl4j_exact"
        )
    twice = set(leading[: len(values)]) & fields.keys()
    if twice:
        raise TypeError(f"{name}: {', '.join(sorted(twice))} was given twice")
    given = {**dict(zip(leading, values, strict=False)), **fields}
    for size in _SIZES:
        if size in leading and given.get(size) is None and known[size].default is None:
            raise TypeError(f"{name}({size}=...) must be given where it is used alone")
    try:
        conf = configuration(**given)
        if hasattr(conf, "resolved"):
            conf = conf.resolved({**DEFAULTS, **getattr(conf, "alone", {})})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return conf
