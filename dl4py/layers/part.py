"""What layers and vertices share: arguments from their configuration, views, noise."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dl4py.activations import Activation
from dl4py.clock import Clock
from dl4py.config.layer import DEFAULTS
from dl4py.layers.view import View
from dl4py.losses import Loss
from dl4py.noise import TORCH, Noise
from dl4py.registry import LAYERS, MODULES, VERTICES

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
