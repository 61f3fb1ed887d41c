"""Convolutions over series, images and volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.feedforward import NCW
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Sizes, field, flag
from dl4py.config.layer import FeedForwardLayer
from dl4py.config.sliding import NCDHW, NCHW, First, Sliding, channels_of, in_format
from dl4py.config.windows import MODES
from dl4py.registry import LAYERS


@dataclass(frozen=True, kw_only=True)
class Convolving(FeedForwardLayer, Sliding):
    """Base of what has a window with weights.

    Args:
        n_in, n_out: channels in and out.
        has_bias: whether there is a b.
    """

    convolution_mode: str | None = field(None, MODES, inherit=True)
    has_bias: bool = field(True, flag)

    positional: ClassVar[tuple[str, ...]] = ("kernel_size",)
    leading: ClassVar[tuple[str, ...]] = (
        "n_in",
        "n_out",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "activation",
    )
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    def with_input(self, given: InputType) -> Any:
        return in_format(self.sized(channels_of(given)), given)

    def output(self, given: InputType) -> InputType:
        return self.slide(given, self.n_out)

    def check(self) -> None:
        super().check()
        self.window.check()


@LAYERS.add("convolution2d", "convolution", java="ConvolutionLayer")
@dataclass(frozen=True, kw_only=True)
class Convolution2D(Convolving):
    """Two-dimensional convolution: act(W ⋆ x + b).

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride, dilation: one number >= 1, or (height, width).
        padding: one number >= 0, or (height, width).
        convolution_mode: ``"Truncate"`` (floor), ``"Strict"`` (must divide) or
            ``"Same"`` (output ⌈size/stride⌉; the odd pixel of padding goes to the
            bottom and right, ``padding`` is not used); default: the network's.
        has_bias: whether there is a b.
        format: ``"NCHW"``, or ``"NHWC"`` for channels last; parameters are the same.
            Default: that of the input.

    DL4J: org.deeplearning4j.nn.conf.layers.ConvolutionLayer
    """

    kernel_size: tuple[int, ...] = field((5, 5), Sizes(2))
    stride: tuple[int, ...] = field((1, 1), Sizes(2))
    padding: tuple[int, ...] = field((0, 0), Sizes(2, 0))
    dilation: tuple[int, ...] = field((1, 1), Sizes(2))
    format: str | None = field(None, NCHW, json="cnn2dDataFormat")

    family: ClassVar[str] = "cnn"


@LAYERS.add("convolution1d", java="Convolution1DLayer")
@dataclass(frozen=True, kw_only=True)
class Convolution1D(Convolving):
    """One-dimensional convolution over time: act(W ⋆ x + b).

    Args:
        n_in, n_out: features in and out.
        kernel_size, stride, dilation: whole numbers >= 1; DL4J's files hold two, of
            which the first counts.
        padding: a whole number >= 0.
        convolution_mode: ``"Truncate"``, ``"Strict"``, ``"Same"`` or ``"Causal"``:
            a step sees none that follow; default: the network's.
        has_bias: whether there is a b.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``;
            default: that of the input.

    DL4J: org.deeplearning4j.nn.conf.layers.Convolution1DLayer
    """

    kernel_size: tuple[int, ...] = field((2, 2), First())
    stride: tuple[int, ...] = field((1, 1), First())
    padding: tuple[int, ...] = field((0, 0), First(0))
    dilation: tuple[int, ...] = field((1, 1), First())
    format: str | None = field(None, NCW, json="rnnDataFormat")

    family: ClassVar[str] = "rnn"
    axes: ClassVar[int] = 1

    def json_extra(self) -> dict[str, Any]:
        """What DL4J writes of the two-dimensional layer that this one extends there."""
        return {"cnn2dDataFormat": "NCHW"}


@LAYERS.add("convolution3d", java="Convolution3D")
@dataclass(frozen=True, kw_only=True)
class Convolution3D(Convolving):
    """Three-dimensional convolution: act(W ⋆ x + b).

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride, dilation: one number >= 1, or (depth, height, width).
        padding: one number >= 0, or (depth, height, width).
        convolution_mode, has_bias: as in :class:`Convolution2D`.
        format: ``"NCDHW"``, or ``"NDHWC"`` for channels last; parameters are the same.
            Default: that of the input.

    DL4J: org.deeplearning4j.nn.conf.layers.Convolution3D
    """

    kernel_size: tuple[int, ...] = field((2, 2, 2), Sizes(3))
    stride: tuple[int, ...] = field((1, 1, 1), Sizes(3))
    padding: tuple[int, ...] = field((0, 0, 0), Sizes(3, 0))
    dilation: tuple[int, ...] = field((1, 1, 1), Sizes(3))
    format: str | None = field(None, NCDHW, json="dataFormat")

    family: ClassVar[str] = "cnn3d"

    def json_extra(self) -> dict[str, Any]:
        """What DL4J writes of the two-dimensional layer that this one extends there."""
        return {"cnn2dDataFormat": "NCHW"}

    axes: ClassVar[int] = 3
