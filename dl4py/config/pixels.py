"""Layers that end in a loss of every pixel or cell of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.feedforward import HasLoss
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Integer, Item, field
from dl4py.config.layer import FeedForwardLayer
from dl4py.config.sliding import NCDHW, NCHW, in_format, spatial
from dl4py.registry import ACTIVATIONS, LAYERS, LOSSES


@dataclass(frozen=True, kw_only=True)
class Pixelwise(FeedForwardLayer, HasLoss):
    """Base of losses at every place, without weights.

    Args:
        loss: a name, a torch loss module or a function ``fn(output, labels)``.
        activation: over the channels; DL4J's default is identity.
    """

    n_in: int | None = field(0, Integer(0, bits=63), json="nin")
    n_out: int | None = field(0, Integer(0, bits=63), json="nout")
    loss: Any = field("mcxent", Item(LOSSES), json="lossFn")
    activation: Any = field("identity", Item(ACTIVATIONS), json="activationFn")

    positional: ClassVar[tuple[str, ...]] = ("loss",)
    leading: ClassVar[tuple[str, ...]] = ("activation", "loss")
    axes: ClassVar[int] = 2

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        _, given = super().example()
        return cls(loss="mse", activation="softmax"), given

    def with_input(self, given: InputType) -> Any:
        return in_format(self, spatial(given, self.axes))

    def output(self, given: InputType) -> InputType:
        return given

    def check(self) -> None:
        return None  # the input says how many channels there are


@LAYERS.add("cnn_loss", java="CnnLossLayer")
@dataclass(frozen=True, kw_only=True)
class CnnLoss(Pixelwise):
    """Activation and loss of every pixel; the score is summed over pixels.

    Labels have the shape of the input, masks ``[n]`` or ``[n, 1, h, w]``, where an axis
    may be 1, or the shape of the input.

    Args:
        loss: a name, a torch loss module or a function ``fn(output, labels)``.
        activation: over the channels; DL4J's default is identity.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.CnnLossLayer
    """

    format: str | None = field(None, NCHW)

    family: ClassVar[str] = "cnn"


@LAYERS.add("cnn3d_loss", java="Cnn3DLossLayer")
@dataclass(frozen=True, kw_only=True)
class Cnn3DLoss(Pixelwise):
    """Activation and loss of every cell of a volume; the score is summed over cells.

    Labels have the shape of the input, masks ``[n]`` or ``[n, 1, d, h, w]``, where an
    axis may be 1, or the shape of the input.

    Args:
        loss: a name, a torch loss module or a function ``fn(output, labels)``.
        activation: over the channels; DL4J's default is identity.
        format: as in :class:`Convolution3D`.

    DL4J: org.deeplearning4j.nn.conf.layers.Cnn3DLossLayer
    """

    format: str | None = field(None, NCDHW, json="dataFormat")

    family: ClassVar[str] = "cnn3d"
    axes: ClassVar[int] = 3
