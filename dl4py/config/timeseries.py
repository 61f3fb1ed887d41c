"""Layers that make, mask and end time series and carry no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.feedforward import NCW, HasLoss, as_series, in_format
from dl4py.config.inputs import FeedForward, InputType, Recurrent, Shape
from dl4py.config.kinds import Integer, Item, field, flag
from dl4py.config.layer import ConfigurationError, FeedForwardLayer, Layer
from dl4py.config.preprocessors import Preprocessor
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES


@LAYERS.add("rnn_loss", java="RnnLossLayer")
@dataclass(frozen=True, kw_only=True)
class RnnLoss(FeedForwardLayer, HasLoss):
    """A loss at every time step without weights: its input is the pre-activation.

    Args:
        loss: as in :class:`Output`.
        activation: DL4J's default is identity.
        format: as in :class:`RnnOutput`.

    DL4J: org.deeplearning4j.nn.conf.layers.RnnLossLayer
    """

    loss: Any = field("mcxent", Item(LOSSES), json="lossFn")
    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    n_in: int | None = field(0, Integer(0, bits=63), json="nin")
    n_out: int | None = field(0, Integer(0, bits=63), json="nout")
    format: str | None = field(None, NCW, json="rnnDataFormat")

    positional: ClassVar[tuple[str, ...]] = ("loss",)
    leading: ClassVar[tuple[str, ...]] = ("activation", "loss")
    family: ClassVar[str] = "rnn"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), Recurrent(3, 5)

    def with_input(self, given: InputType) -> Any:
        return in_format(self, given)

    def output(self, given: InputType) -> InputType:
        return as_series(given.features, given)


@LAYERS.add("repeat_vector", java="misc.RepeatVector")
@dataclass(frozen=True, kw_only=True)
class RepeatVector(FeedForwardLayer):
    """Rows as series: the same values at each of ``n`` time steps.

    Args:
        n: the number of steps, >= 1.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``.

    DL4J: org.deeplearning4j.nn.conf.layers.misc.RepeatVector
    """

    n_out: int | None = field(0, Integer(0, bits=63), json="nout")
    n: int = field(1, Integer(1))
    format: str = field("NCW", NCW, json="dataFormat")

    positional: ClassVar[tuple[str, ...]] = ("n",)
    leading: ClassVar[tuple[str, ...]] = ("n",)
    family: ClassVar[str] = "ff"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n=4), FeedForward(3)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n", self.n_in or "features"),)

    def output(self, given: InputType) -> InputType:
        return Recurrent(given.features, self.n, self.format)


@LAYERS.add("mask_layer", java="util.MaskLayer")
@dataclass(frozen=True, kw_only=True)
class MaskLayer(Layer):
    """What comes in, 0 where the mask says so; the mask goes on.

    DL4J: org.deeplearning4j.nn.conf.layers.util.MaskLayer
    """

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), Recurrent(3, 5)


@LAYERS.add("embedding_sequence", java="EmbeddingSequenceLayer")
@dataclass(frozen=True, kw_only=True)
class EmbeddingSequence(FeedForwardLayer):
    """One row of W per class index of a series: act(W[index] + b) at every step.

    The input holds indices, ``[n, time]`` or ``[n, 1, time]``: integers or whole
    floats.

    Args:
        n_in: number of classes; it must be given.
        activation: DL4J's default is identity.
        has_bias: whether there is a b.
        format: of the output: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for
            ``[n, time, size]``.
        input_length, infer_input_length: kept for DL4J's files; the length is that of
            the input.

    DL4J: org.deeplearning4j.nn.conf.layers.EmbeddingSequenceLayer
    """

    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")
    has_bias: bool = field(False, flag)
    format: str = field("NCW", NCW, json="outputFormat")
    input_length: int = field(1, Integer(0))
    infer_input_length: bool = field(True, flag)

    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=4, n_out=2), Recurrent(1, 5)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return ("n", "time"), ("n", 1, "time")

    def takes(self, given: InputType) -> Preprocessor | None:
        wide = isinstance(given, Recurrent) and (
            given.size != 1 or given.format != "NCW"
        )
        if wide or not isinstance(given, (FeedForward, Recurrent)):
            raise ConfigurationError(
                "input: expected one class index per time step, "
                f"InputType.recurrent(1) or feed_forward(time), got {given}"
            )
        return None

    def with_input(self, given: InputType) -> EmbeddingSequence:
        return self

    def output(self, given: InputType) -> InputType:
        assert self.n_out is not None
        length = given.length if isinstance(given, Recurrent) else given.features
        return Recurrent(self.n_out, length, self.format)

    def check(self) -> None:
        super().check()
        if self.n_in is None:
            raise ValueError("n_in: expected the number of classes, got nothing")
