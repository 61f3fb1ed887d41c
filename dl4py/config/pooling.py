"""Pooling, over windows and over all steps or places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import FeedForward, InputType, Recurrent, Shape, arrays
from dl4py.config.kinds import Choice, Integer, Many, Real, Sizes, field, flag
from dl4py.config.layer import ConfigurationError, Layer
from dl4py.config.sliding import (
    NCDHW,
    NCHW,
    First,
    Sliding,
    channels_of,
    in_format,
    spatial,
)
from dl4py.config.windows import MODES
from dl4py.registry import LAYERS

POOLING = Choice("MAX", "AVG", "SUM", "PNORM")


def _as_image(value: Any) -> str:
    """DL4J's word in 1-D pooling for a series' format: that of an image."""
    word = {"NCW": "NCHW", "NWC": "NHWC"}.get(value, value)
    return NCHW(word)


@dataclass(frozen=True, kw_only=True)
class Pooling(Layer, Sliding):
    """Base of pooling over a sliding window."""

    pooling_type: str = field("MAX", POOLING)
    convolution_mode: str | None = field(None, MODES, inherit=True)

    positional: ClassVar[tuple[str, ...]] = (
        "pooling_type",
        "kernel_size",
        "stride",
        "padding",
    )
    leading: ClassVar[tuple[str, ...]] = (*positional, "dilation")

    def with_input(self, given: InputType) -> Any:
        return in_format(self, given)

    def output(self, given: InputType) -> InputType:
        return self.slide(given, None)

    def check(self) -> None:
        self.window.check()


@LAYERS.add("subsampling", "pooling2d", java="SubsamplingLayer")
@dataclass(frozen=True, kw_only=True)
class Subsampling(Pooling):
    """Pooling over a sliding window.

    Args:
        pooling_type: ``"MAX"``, ``"AVG"``, ``"SUM"`` or ``"PNORM"``: (Σ|x|ᵖ)^(1/p).
        kernel_size, stride, padding, dilation, convolution_mode, format: as in
            :class:`Convolution2D`.
        pnorm: p, at least 1 where it is used.
        eps: >= 0, kept for DL4J's files; it changes nothing.
        avg_pool_include_pad_in_divisor: whether the mean counts padding.

    DL4J: org.deeplearning4j.nn.conf.layers.SubsamplingLayer
    """

    kernel_size: tuple[int, ...] = field((1, 1), Sizes(2))
    stride: tuple[int, ...] = field((2, 2), Sizes(2))
    padding: tuple[int, ...] = field((0, 0), Sizes(2, 0))
    dilation: tuple[int, ...] = field((1, 1), Sizes(2))
    pnorm: int = field(0, Integer(0))
    eps: float = field(1e-8, Real(0.0))
    avg_pool_include_pad_in_divisor: bool = field(False, flag)
    format: str | None = field(None, NCHW, json="cnn2dDataFormat")

    family: ClassVar[str] = "cnn"

    def check(self) -> None:
        super().check()
        if self.pooling_type == "PNORM" and self.pnorm < 1:
            raise ValueError(f"pnorm: expected a whole number >= 1, got {self.pnorm}")


@LAYERS.add("subsampling1d", "pooling1d", java="Subsampling1DLayer")
@dataclass(frozen=True, kw_only=True)
class Subsampling1D(Subsampling):
    """Pooling over a window that slides over time.

    Args:
        pooling_type, pnorm, eps, avg_pool_include_pad_in_divisor: as in
            :class:`Subsampling`.
        kernel_size, stride, padding, dilation, convolution_mode: as in
            :class:`Convolution1D`.
        format: ``"NCW"`` for ``[n, size, time]``, ``"NWC"`` for ``[n, time, size]``;
            default: that of the input. DL4J's files say ``"NCHW"`` and ``"NHWC"``.

    DL4J: org.deeplearning4j.nn.conf.layers.Subsampling1DLayer
    """

    kernel_size: tuple[int, ...] = field((2, 1), First(second=1))
    stride: tuple[int, ...] = field((1, 1), First())
    padding: tuple[int, ...] = field((0, 0), First(0, second=0))
    dilation: tuple[int, ...] = field((1, 1), First())
    format: str | None = field(None, _as_image, json="cnn2dDataFormat")

    family: ClassVar[str] = "rnn"
    axes: ClassVar[int] = 1

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return arrays("rnn", None, "NWC" if self.format == "NHWC" else "NCW")

    def with_input(self, given: InputType) -> Any:
        return in_format(self, _as_image(spatial(given, 1).format))


@LAYERS.add("subsampling3d", java="Subsampling3DLayer")
@dataclass(frozen=True, kw_only=True)
class Subsampling3D(Pooling):
    """Pooling over a window that slides over volumes.

    Args:
        pooling_type: ``"MAX"`` or ``"AVG"``.
        kernel_size, stride, padding, dilation, format: as in :class:`Convolution3D`.
        convolution_mode: as there, but DL4J's default is ``"Same"`` here.

    DL4J: org.deeplearning4j.nn.conf.layers.Subsampling3DLayer
    """

    pooling_type: str = field("MAX", Choice("MAX", "AVG"))
    kernel_size: tuple[int, ...] = field((1, 1, 1), Sizes(3))
    stride: tuple[int, ...] = field((2, 2, 2), Sizes(3))
    padding: tuple[int, ...] = field((0, 0, 0), Sizes(3, 0))
    dilation: tuple[int, ...] = field((1, 1, 1), Sizes(3))
    convolution_mode: str | None = field("Same", MODES)
    format: str | None = field(None, NCDHW, json="dataFormat")

    family: ClassVar[str] = "cnn3d"
    axes: ClassVar[int] = 3
    avg_pool_include_pad_in_divisor: ClassVar[bool] = False


@LAYERS.add("global_pooling", java="GlobalPoolingLayer")
@dataclass(frozen=True, kw_only=True)
class GlobalPooling(Layer):
    """Pooling over all time steps or pixels, masks respected.

    Args:
        pooling_type: ``"MAX"``, ``"AVG"``, ``"SUM"`` or ``"PNORM"``.
        pooling_dimensions: the axes; default: time, or height and width.
        pnorm: p of the p-norm, >= 1.
        collapse_dimensions: whether the pooled axes go away (else they stay as 1).

    DL4J: org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer
    """

    pooling_type: str = field("MAX", POOLING)
    pooling_dimensions: tuple[int, ...] | None = field(None, Many(Integer(1), least=1))
    pnorm: int = field(2, Integer(1))
    collapse_dimensions: bool = field(True, flag)

    positional: ClassVar[tuple[str, ...]] = ("pooling_type",)
    leading: ClassVar[tuple[str, ...]] = ("pooling_type", "pooling_dimensions")
    pieces: ClassVar[str] = "steps"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), Recurrent(3, 5)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        axes = self.pooling_dimensions
        if axes is None:
            first = (("rnn", "NCW"), ("cnn", "NCHW"), ("cnn3d", "NCDHW"))
            return tuple(a for kind, f in first for a in arrays(kind, None, f))
        last = {(1,): "NWC", (1, 2): "NHWC", (1, 2, 3): "NDHWC"}
        families = {(1,): "rnn", (1, 2): "cnn", (1, 2, 3): "cnn3d"}
        return arrays(families.get(axes, "any"), None, last.get(axes))

    def with_input(self, given: InputType) -> Any:
        last = getattr(given, "format", None) in ("NWC", "NHWC", "NDHWC")
        if not last or self.pooling_dimensions is not None:
            return self
        axes = tuple(range(1, 1 + len(given.spatial)))
        return replace(self, pooling_dimensions=axes)

    def output(self, given: InputType) -> InputType:
        if not given.spatial:
            raise ConfigurationError(
                f"input: expected time series, images or volumes, got {given}"
            )
        if self.collapse_dimensions:
            return FeedForward(channels_of(given))
        return given.resized((1,) * len(given.spatial))
