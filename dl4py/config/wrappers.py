"""Layers around other layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.feedforward import Dense
from dl4py.config.inputs import FeedForward, InputType, Recurrent
from dl4py.config.kinds import Choice, Data, Many, Real, field
from dl4py.config.layer import DROPOUT, Layer, inner
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.recurrent import LSTM
from dl4py.config.sliding import in_format
from dl4py.registry import CONSTRAINTS, LAYERS


@dataclass(frozen=True, kw_only=True)
class Wrapper(Layer):
    """Base of layers around others, whose noise and training rules count."""

    dropout: Any = field(None, DROPOUT, json="idropout")
    constraints: Any = field(None, Many(Data(CONSTRAINTS)), training=True)

    holds: ClassVar[tuple[str, ...]] = ("underlying",)  # fields with layers

    @property
    def inside(self) -> Any:
        """The layer that decides what goes in and out."""
        return getattr(self, self.holds[0])

    @property
    def family(self) -> str:  # type: ignore[override]
        return str(self.inside.family)

    @property
    def pieces(self) -> str:  # type: ignore[override]
        return str(self.inside.pieces)

    @property
    def format(self) -> Any:
        """The data format of the layer inside."""
        return getattr(self.inside, "format", None)

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.variables or tuple(self.inside.parameters)

    @property
    def n_in(self) -> Any:
        """What comes in at the layer inside."""
        return getattr(self.inside, "n_in", None)

    def each(self, change: Any) -> Any:
        """This wrapper with ``change(layer)`` in the place of every layer inside."""
        found = {name: change(getattr(self, name)) for name in self.holds}
        return replace(self, **found)

    def named(self, name: str) -> Any:
        changed = self.each(lambda layer: layer.named(name))
        return replace(changed, name=self.name or name)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        held: dict[str, Any] = {cls.holds[0]: LSTM(n_in=3, n_out=2)}
        return cls(**held), Recurrent(3, 5)

    def takes(self, given: InputType) -> Preprocessor | None:
        found: Preprocessor | None = self.inside.takes(given)
        return found

    def with_input(self, given: InputType) -> Any:
        return self.each(lambda layer: layer.with_input(given))

    def output(self, given: InputType) -> InputType:
        found: InputType = self.inside.output(given)
        return found

    def resolved(self, settings: Mapping[str, Any]) -> Any:
        if self.inside is None:
            raise ValueError(f"{self.holds[0]}: expected a layer, got nothing")
        final = super().resolved(settings)
        rule = final.inside
        return replace(
            final,
            gradient_normalization=rule.gradient_normalization,
            gradient_normalization_threshold=rule.gradient_normalization_threshold,
        )


@dataclass(frozen=True, kw_only=True)
class Around(Wrapper):
    """Base of layers around one other.

    Args:
        underlying: the configuration of the layer inside.
    """

    underlying: Any = field(None, inner)

    positional: ClassVar[tuple[str, ...]] = ("underlying",)
    leading: ClassVar[tuple[str, ...]] = ("underlying",)


@LAYERS.add("bidirectional", java="recurrent.Bidirectional")
@dataclass(frozen=True, kw_only=True)
class Bidirectional(Wrapper):
    """A recurrent layer forwards and a second one backwards in time.

    Args:
        mode: how both are joined: ``"CONCAT"`` (along the features), ``"ADD"``,
            ``"MUL"`` or ``"AVERAGE"``.
        fwd: the layer that reads from first to last.
        bwd: the one that reads from last to first; default: as ``fwd``, with
            parameters of its own.

    Reference: Schuster and Paliwal, Bidirectional Recurrent Neural Networks, 1997.
    DL4J: org.deeplearning4j.nn.conf.layers.recurrent.Bidirectional
    """

    mode: str = field("CONCAT", Choice("CONCAT", "ADD", "MUL", "AVERAGE"))
    fwd: Any = field(None, inner)
    bwd: Any = field(None, inner)

    positional: ClassVar[tuple[str, ...]] = ("mode", "fwd")
    leading: ClassVar[tuple[str, ...]] = ("mode", "fwd")
    holds: ClassVar[tuple[str, ...]] = ("fwd", "bwd")
    pieces: ClassVar[str] = "no"
    json_derived: ClassVar[tuple[str, ...]] = ("nin", "nout", "rnndataFormat")

    @property
    def n_out(self) -> Any:
        """Features going out."""
        size = self.fwd.n_out
        return 2 * size if self.mode == "CONCAT" and size is not None else size

    @property
    def variables(self) -> tuple[str, ...]:
        pairs = (("f", self.fwd), ("b", self.bwd))
        return tuple(p + name for p, layer in pairs for name in layer.variables)

    def json_extra(self) -> dict[str, Any]:
        """What DL4J writes of the layers inside."""
        return {"nin": self.n_in, "nout": self.n_out, "rnndataFormat": self.format}

    def resolved(self, settings: Mapping[str, Any]) -> Any:
        if self.bwd is None and self.fwd is not None:
            return replace(self, bwd=self.fwd).resolved(settings)
        return super().resolved(settings)

    def output(self, given: InputType) -> InputType:
        one = super().output(given)
        assert isinstance(one, Recurrent)
        return Recurrent(self.n_out, one.length, one.format)


@LAYERS.add("last_time_step", java="recurrent.LastTimeStep")
@dataclass(frozen=True, kw_only=True)
class LastTimeStep(Around):
    """The last step of a recurrent layer, of a masked series the last unmasked one.

    DL4J: org.deeplearning4j.nn.conf.layers.recurrent.LastTimeStep
    """

    pieces: ClassVar[str] = "no"

    def output(self, given: InputType) -> InputType:
        return FeedForward(super().output(given).features)


@LAYERS.add("time_distributed", java="recurrent.TimeDistributed")
@dataclass(frozen=True, kw_only=True)
class TimeDistributed(Around):
    """A layer on rows, at every step of a series.

    Args:
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``;
            default: that of the input.

    DL4J: org.deeplearning4j.nn.conf.layers.recurrent.TimeDistributed
    """

    format: Any = field(None, Choice("NCW", "NWC"), json="rnnDataFormat")

    family: ClassVar[str] = "rnn"
    json_first: ClassVar[tuple[str, ...]] = ("rnnDataFormat", "underlying")

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(underlying=Dense(n_in=3, n_out=2)), Recurrent(3, 5)

    def takes(self, given: InputType) -> Preprocessor | None:
        return Layer.takes(self, given)

    def with_input(self, given: InputType) -> Any:
        sized = self.each(lambda layer: layer.with_input(FeedForward(given.features)))
        return in_format(sized, given)

    def output(self, given: InputType) -> InputType:
        size = self.inside.output(FeedForward(given.features)).features
        return Recurrent(size, getattr(given, "length", None), self.format or "NCW")


@LAYERS.add("mask_zero", java="util.MaskZeroLayer")
@dataclass(frozen=True, kw_only=True)
class MaskZero(Around):
    """A recurrent layer for which steps are masked where all features have one value.

    Args:
        masking_value: the value.

    DL4J: org.deeplearning4j.nn.conf.layers.util.MaskZeroLayer
    """

    masking_value: float = field(0.0, Real())

    positional: ClassVar[tuple[str, ...]] = ("underlying", "masking_value")
    leading: ClassVar[tuple[str, ...]] = ("underlying", "masking_value")
    json_first: ClassVar[tuple[str, ...]] = ("maskingValue", "underlying")


@LAYERS.add("frozen", java="misc.FrozenLayer")
@dataclass(frozen=True, kw_only=True)
class Frozen(Around):
    """A layer that is not trained and always works as in testing.

    No gradient goes through it: what stands before it is not trained either.

    DL4J: org.deeplearning4j.nn.conf.layers.misc.FrozenLayer
    """

    underlying: Any = field(None, inner, json="layer")

    json_first: ClassVar[tuple[str, ...]] = ("layer",)

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self.underlying.variables)


@LAYERS.add("frozen_with_backprop", java="misc.FrozenLayerWithBackprop")
@dataclass(frozen=True, kw_only=True)
class FrozenWithBackprop(Around):
    """A layer that is not trained, through which gradients go to what is before it.

    DL4J: org.deeplearning4j.nn.conf.layers.misc.FrozenLayerWithBackprop
    """

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self.underlying.variables)
