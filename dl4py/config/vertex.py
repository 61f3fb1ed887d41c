"""What all vertices of a graph share: their base, and what they ask of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import encode
from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    ConvolutionalFlat,
    FeedForward,
    InputType,
    Recurrent,
)
from dl4py.config.kinds import (
    Checked,
    Data,
    Item,
    Many,
    Real,
    field,
)
from dl4py.config.layer import (
    GRADIENT_NORMALIZATION,
    WEIGHT_INIT,
    ConfigurationError,
    filled,
)
from dl4py.registry import REGULARIZATIONS, UPDATERS


@dataclass(frozen=True)
class Vertex(Checked):
    """Base of all vertices.

    A vertex of one's own is such a dataclass, registered with
    ``@VERTICES.add("name")``, and a module that :func:`dl4py.layers.implements` it; one
    with parameters derives from :class:`TrainedVertex`.
    """

    least: ClassVar[int] = 1  # inputs that it needs
    most: ClassVar[int | None] = 1  # inputs that it takes; None: any number
    reads: ClassVar[tuple[str, ...]] = ()  # fields that name a network input
    variables: ClassVar[tuple[str, ...]] = ()  # DL4J lists those of layers only
    pieces: ClassVar[str] = "all"  # as a layer's

    def resolved(self, settings: Mapping[str, Any]) -> Any:
        """The final form: with what it inherits from the network's settings."""
        return self

    def with_inputs(self, given: tuple[InputType, ...]) -> Any:
        """This vertex with what follows from its inputs."""
        return self

    def output(self, given: tuple[InputType, ...]) -> InputType:
        """What leaves the vertex; a ``ConfigurationError`` where shapes do not fit."""
        return given[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters inside."""
        return self.variables

    @property
    def named_inputs(self) -> tuple[str, ...]:
        """The network inputs that it looks at beside its own."""
        names = (getattr(self, name) for name in self.reads)
        return tuple(name for name in names if name is not None)

    def check(self) -> None:
        """Conditions on the finished vertex; raises ``ValueError("field: …")``."""

    def to_dict(self, name: str, data_type: str, path: str) -> dict[str, Any]:
        """DL4J's JSON of the vertex as plain types.

        Args:
            name, data_type: its own, and the network's.
            path: where it stands, for messages.
        """
        content: dict[str, Any] = encode(self, path)
        return content


@dataclass(frozen=True, kw_only=True)
class TrainedVertex(Vertex):
    """Base of vertices with parameters, which are trained as those of layers are.

    Args:
        updater, bias_updater: a name, or a torch optimizer class; biases follow
            ``updater`` unless they have their own.
        regularization, regularization_bias: penalties on weights and on biases.
        gradient_normalization: one of DL4J's five rules, or ``"None"``.
        gradient_normalization_threshold: the threshold of the clipping rules, >= 0.
        weight_init: a name, a distribution or a function.

    What is not given is the network's.

    DL4J: org.deeplearning4j.nn.conf.layers.samediff.SameDiffVertex
    """

    updater: Any = field(None, Item(UPDATERS), inherit=True, training=True)
    bias_updater: Any = field(None, Item(UPDATERS), inherit=True, training=True)
    regularization: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    regularization_bias: Any = field(
        None, Many(Data(REGULARIZATIONS)), inherit=True, training=True
    )
    gradient_normalization: Any = field(
        None, GRADIENT_NORMALIZATION, inherit=True, training=True
    )
    gradient_normalization_threshold: Any = field(
        None, Real(0.0), inherit=True, training=True
    )
    weight_init: Any = field(None, WEIGHT_INIT, json="weightInitFn", inherit=True)

    def resolved(self, settings: Mapping[str, Any]) -> Any:
        return filled(self, settings)

    def around(self) -> dict[str, Any]:
        """What else DL4J writes beside the fields."""
        return {}

    def to_dict(self, name: str, data_type: str, path: str) -> dict[str, Any]:
        content = super().to_dict(name, data_type, path)
        kind = content.pop("@class")
        content |= {"dataType": data_type, "layerName": name, "name": name}
        content |= self.around()
        return {"@class": kind, **{k: content[k] for k in sorted(content)}}


def same_kind(given: tuple[InputType, ...]) -> None:
    if len({(type(g), getattr(g, "format", "")) for g in given}) > 1:
        raise ConfigurationError(
            f"inputs: expected arrays of one kind and format, got {few(given)}"
        )


def few(given: tuple[InputType, ...]) -> str:
    """The inputs for a message; of many those that differ."""
    names = list(dict.fromkeys(map(str, given)))
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def axes_of(given: InputType) -> tuple[str, ...]:
    """What the axes behind that of the examples are."""
    words = {
        Recurrent: ("size", "length"),
        Convolutional: ("channels", "height", "width"),
        Convolutional3D: ("channels", "depth", "height", "width"),
    }
    first, *rest = words.get(type(given), ("size",))
    last = getattr(given, "format", "") in ("NWC", "NHWC", "NDHWC")
    return (*rest, first) if last else (first, *rest)


def as_rows(given: tuple[InputType, ...]) -> tuple[InputType, ...]:
    """Flat images as the rows that they are."""
    return tuple(
        FeedForward(g.features) if isinstance(g, ConvolutionalFlat) else g
        for g in given
    )


def width_of(given: InputType) -> int:
    return int(getattr(given, "channels", given.features))


def channels_first(given: InputType) -> InputType:
    """``given``, where axis 1 holds features or channels."""
    if getattr(given, "format", "") in ("NWC", "NHWC", "NDHWC"):
        raise ConfigurationError(
            "inputs: expected features or channels on axis 1, as DL4J does here, got "
            f"{given}"
        )
    return given


def time_series(given: InputType) -> Recurrent:
    """``given``, where it is a time series ``[n, size, time]``."""
    if not isinstance(given, Recurrent):
        raise ConfigurationError(f"inputs: expected a time series, got {given}")
    channels_first(given)
    return given
