"""Layers on rows of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config import sliding
from dl4py.config.inputs import FeedForward, InputType, Recurrent, Shape
from dl4py.config.kinds import Choice, Integer, Item, field, flag
from dl4py.config.layer import FeedForwardLayer, Layer
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES

NCW = Choice("NCW", "NWC")


@LAYERS.add("dense", java="DenseLayer")
@dataclass(frozen=True, kw_only=True)
class Dense(FeedForwardLayer):
    """Fully connected: act(x·W + b), with layer normalisation act(LN(x·W)·g + b).

    Args:
        has_bias: whether there is a b.
        has_layer_norm: whether x·W is normalised over the outputs.

    DL4J: org.deeplearning4j.nn.conf.layers.DenseLayer
    """

    has_bias: bool = field(True, flag)
    has_layer_norm: bool = field(False, flag)

    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def variables(self) -> tuple[str, ...]:
        return ("W", *["b"] * self.has_bias, *["g"] * self.has_layer_norm)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias


class HasLoss:
    """Mark of layers that end a network with a score."""

    loss: Any


@LAYERS.add("output", java="OutputLayer")
@dataclass(frozen=True, kw_only=True)
class Output(FeedForwardLayer, HasLoss):
    """Dense layer with a loss.

    Args:
        loss: a name, a torch loss module or a function ``fn(output, labels)``.
        activation: DL4J's default is softmax whatever the loss.
        has_bias: whether there is a b.

    DL4J: org.deeplearning4j.nn.conf.layers.OutputLayer
    """

    loss: Any = field("mcxent", Item(LOSSES), json="lossFn")
    activation: Any = field("softmax", Item(ACTIVATIONS), json="activationFn")
    has_bias: bool = field(True, flag)

    positional: ClassVar[tuple[str, ...]] = ("loss",)
    leading: ClassVar[tuple[str, ...]] = ("n_in", "n_out", "activation", "loss")
    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias


@LAYERS.add("loss_layer", java="LossLayer")
@dataclass(frozen=True, kw_only=True)
class LossLayer(FeedForwardLayer, HasLoss):
    """A loss without weights: its input is the pre-activation.

    Args:
        loss: as in :class:`Output`.
        activation: DL4J's default is identity.

    DL4J: org.deeplearning4j.nn.conf.layers.LossLayer
    """

    loss: Any = field("mcxent", Item(LOSSES), json="lossFn")
    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    n_out: int | None = field(0, Integer(0, bits=63), json="nout")

    positional: ClassVar[tuple[str, ...]] = ("loss",)
    leading: ClassVar[tuple[str, ...]] = ("activation", "loss")
    family: ClassVar[str] = "ff"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), FeedForward(3)

    def output(self, given: InputType) -> InputType:
        return FeedForward(given.features)


@LAYERS.add("activation_layer", java="ActivationLayer")
@dataclass(frozen=True, kw_only=True)
class ActivationLayer(Layer):
    """An activation as a layer of its own.

    Args:
        activation: a name, a torch module or a function; default: the network's.

    DL4J: org.deeplearning4j.nn.conf.layers.ActivationLayer
    """

    activation: Any = field(None, Item(ACTIVATIONS), json="activationFn", inherit=True)

    positional: ClassVar[tuple[str, ...]] = ("activation",)
    leading: ClassVar[tuple[str, ...]] = ("activation",)


@LAYERS.add("dropout_layer", java="DropoutLayer")
@dataclass(frozen=True, kw_only=True)
class DropoutLayer(FeedForwardLayer):
    """Noise as a layer of its own; identity when testing.

    Args:
        dropout: the noise, or the probability of **keeping** a value.

    DL4J: org.deeplearning4j.nn.conf.layers.DropoutLayer
    """

    n_in: int | None = field(0, Integer(0, bits=63), json="nin")
    n_out: int | None = field(0, Integer(0, bits=63), json="nout")

    positional: ClassVar[tuple[str, ...]] = ("dropout",)
    leading: ClassVar[tuple[str, ...]] = ("dropout",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(dropout=0.8), FeedForward(3)

    def with_input(self, given: InputType) -> DropoutLayer:
        return self

    def output(self, given: InputType) -> InputType:
        return given


@LAYERS.add("embedding", java="EmbeddingLayer")
@dataclass(frozen=True, kw_only=True)
class Embedding(FeedForwardLayer):
    """One row of W per class index: act(W[index] + b).

    The input holds indices, ``[n, 1]`` or ``[n]``: integers or whole floats.

    Args:
        n_in: number of classes; it must be given, since the input is one column.
        activation: DL4J's default is identity.
        has_bias: whether there is a b.

    DL4J: org.deeplearning4j.nn.conf.layers.EmbeddingLayer
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    has_bias: bool = field(False, flag)

    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=4, n_out=2), FeedForward(1)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return ("n", 1), ("n",)

    def with_input(self, given: InputType) -> Embedding:
        return self

    def check(self) -> None:
        super().check()
        if self.n_in is None:
            raise ValueError("n_in: expected the number of classes, got nothing")


@LAYERS.add("rnn_output", java="RnnOutputLayer")
@dataclass(frozen=True, kw_only=True)
class RnnOutput(FeedForwardLayer, HasLoss):
    """An output layer at every time step; the score is summed over time.

    Args:
        loss, activation, has_bias: as in :class:`Output`.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``;
            default: that of the input.

    DL4J: org.deeplearning4j.nn.conf.layers.RnnOutputLayer
    """

    loss: Any = field("mcxent", Item(LOSSES), json="lossFn")
    activation: Any = field("softmax", Item(ACTIVATIONS), json="activationFn")
    has_bias: bool = field(True, flag)
    format: str | None = field(None, NCW, json="rnnDataFormat")

    positional: ClassVar[tuple[str, ...]] = ("loss",)
    leading: ClassVar[tuple[str, ...]] = ("n_in", "n_out", "activation", "loss")
    family: ClassVar[str] = "rnn"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    def with_input(self, given: InputType) -> Any:
        return in_format(super().with_input(given), given)

    def output(self, given: InputType) -> InputType:
        return as_series(self.n_out, given)


def in_format(layer: Any, given: InputType) -> Any:
    """:func:`sliding.in_format` of layers on series, where ``given`` is one."""
    return sliding.in_format(layer, given) if isinstance(given, Recurrent) else layer


def as_series(size: int | None, given: InputType) -> Recurrent:
    """The series of ``size`` features with the length and format of ``given``."""
    assert size is not None
    if isinstance(given, Recurrent):
        return Recurrent(size, given.length, given.format)
    return Recurrent(size)
