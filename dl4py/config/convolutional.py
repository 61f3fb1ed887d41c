"""Layers on images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.feedforward import NCW
from dl4py.config.feedforward import in_format as in_time
from dl4py.config.inputs import (
    Convolutional,
    FeedForward,
    InputType,
    Recurrent,
    Shape,
    arrays,
)
from dl4py.config.kinds import Choice, Integer, Many, Real, Sizes, field, flag
from dl4py.config.layer import ConfigurationError, FeedForwardLayer, Layer
from dl4py.config.windows import MODES, Window
from dl4py.registry import LAYERS

NCHW = Choice("NCHW", "NHWC")
POOLING = Choice("MAX", "AVG", "SUM", "PNORM")


class Sliding:
    """What convolution and pooling share: a window that slides over their input."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    convolution_mode: str | None
    format: str | None
    axes: ClassVar[int] = 2  # how many the window slides over

    @property
    def window(self) -> Window:
        """The window, for sizes and margins."""
        return Window(
            self.kernel_size[: self.axes],
            self.stride[: self.axes],
            self.padding[: self.axes],
            self.dilation[: self.axes],
            self.convolution_mode or "Truncate",
        )

    def slide(self, given: InputType, channels: int | None) -> Convolutional:
        """What the window makes of ``given``; ``None`` keeps the number of channels."""
        if not isinstance(given, Convolutional):
            raise ConfigurationError(f"input: expected images, got {given}")
        height, width = self.window.sizes((given.height, given.width))
        count = given.channels if channels is None else channels
        return Convolutional(height, width, count, given.format)


def in_format(layer: Any, given: InputType) -> Any:
    """``layer`` with the data format of its input; an error if it states another."""
    known = given.format if isinstance(given, Convolutional) else "NCHW"
    if layer.format is not None and layer.format != known:
        raise ConfigurationError(
            f"format: the layer before gives {known}, got {layer.format}"
        )
    return replace(layer, format=known)


@LAYERS.add("convolution2d", "convolution", java="ConvolutionLayer")
@dataclass(frozen=True, kw_only=True)
class Convolution2D(FeedForwardLayer, Sliding):
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
    convolution_mode: str | None = field(None, MODES, inherit=True)
    has_bias: bool = field(True, flag)
    format: str | None = field(None, NCHW, json="cnn2dDataFormat")

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
    family: ClassVar[str] = "cnn"
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    def with_input(self, given: InputType) -> Any:
        channels = getattr(given, "channels", given.features)
        return in_format(self.sized(channels), given)

    def output(self, given: InputType) -> InputType:
        return self.slide(given, self.n_out)

    def check(self) -> None:
        super().check()
        self.window.check()


def first_counts(minimum: int = 1) -> Callable[[Any], tuple[int, ...]]:
    """Two whole numbers of which the first counts, as files of 1-D layers hold them."""
    return Sizes(2, minimum)


@LAYERS.add("convolution1d", java="Convolution1DLayer")
@dataclass(frozen=True, kw_only=True)
class Convolution1D(FeedForwardLayer, Sliding):
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

    kernel_size: tuple[int, ...] = field((2, 2), first_counts())
    stride: tuple[int, ...] = field((1, 1), first_counts())
    padding: tuple[int, ...] = field((0, 0), first_counts(0))
    dilation: tuple[int, ...] = field((1, 1), first_counts())
    convolution_mode: str | None = field(None, MODES, inherit=True)
    has_bias: bool = field(True, flag)
    format: str | None = field(None, NCW, json="rnnDataFormat")

    positional: ClassVar[tuple[str, ...]] = ("kernel_size",)
    leading: ClassVar[tuple[str, ...]] = Convolution2D.leading
    family: ClassVar[str] = "rnn"
    weights: ClassVar[tuple[str, ...]] = ("W",)
    axes: ClassVar[int] = 1

    @property
    def biases(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("b",) * self.has_bias

    def with_input(self, given: InputType) -> Any:
        return in_time(self.sized(given.features), given)

    def output(self, given: InputType) -> InputType:
        if not isinstance(given, Recurrent):
            raise ConfigurationError(f"input: expected a time series, got {given}")
        assert self.n_out is not None
        length = given.length and self.window.sizes((given.length,))[0]
        return Recurrent(self.n_out, length, given.format)


@LAYERS.add("subsampling", "pooling2d", java="SubsamplingLayer")
@dataclass(frozen=True, kw_only=True)
class Subsampling(Layer, Sliding):
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

    pooling_type: str = field("MAX", POOLING)
    kernel_size: tuple[int, ...] = field((1, 1), Sizes(2))
    stride: tuple[int, ...] = field((2, 2), Sizes(2))
    padding: tuple[int, ...] = field((0, 0), Sizes(2, 0))
    dilation: tuple[int, ...] = field((1, 1), Sizes(2))
    convolution_mode: str | None = field(None, MODES, inherit=True)
    pnorm: int = field(0, Integer(0))
    eps: float = field(1e-8, Real(0.0))
    avg_pool_include_pad_in_divisor: bool = field(False, flag)
    format: str | None = field(None, NCHW, json="cnn2dDataFormat")

    positional: ClassVar[tuple[str, ...]] = (
        "pooling_type",
        "kernel_size",
        "stride",
        "padding",
    )
    leading: ClassVar[tuple[str, ...]] = (*positional, "dilation")
    family: ClassVar[str] = "cnn"

    def with_input(self, given: InputType) -> Any:
        return in_format(self, given)

    def output(self, given: InputType) -> InputType:
        return self.slide(given, None)

    def check(self) -> None:
        self.window.check()
        if self.pooling_type == "PNORM" and self.pnorm < 1:
            raise ValueError(f"pnorm: expected a whole number >= 1, got {self.pnorm}")


@LAYERS.add("batch_normalization", java="BatchNormalization")
@dataclass(frozen=True, kw_only=True)
class BatchNormalization(FeedForwardLayer):
    """Batch normalisation: γ·(x - μ)/√(σ² + ε) + β; the activation is not applied.

    Statistics are the batch's while training (population variance) and running means
    while testing: running ← decay·running + (1 - decay)·batch.

    Args:
        decay: in [0, 1]; torch's momentum is 1 - decay.
        eps: ε >= 0.
        gamma, beta: first values of γ and β, or their constant values when locked.
        lock_gamma_beta: γ and β are not parameters. DL4J then applies the constants
            only if γ ≠ 1 **and** β ≠ 0.
        use_log_std: the running variance is kept as log₁₀σ, as DL4J's new networks do.
        minibatch, cudnn_allow_fallback: kept for DL4J's files; they change nothing.
        format: as in :class:`Convolution2D`.

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    DL4J: org.deeplearning4j.nn.conf.layers.BatchNormalization
    """

    decay: float = field(0.9, Real(0.0, 1.0))
    eps: float = field(1e-5, Real(0.0))
    gamma: float = field(1.0, Real())
    beta: float = field(0.0, Real())
    lock_gamma_beta: bool = field(False, flag)
    use_log_std: bool = field(True, flag)
    minibatch: bool = field(True, flag)
    cudnn_allow_fallback: bool = field(True, flag)
    format: str | None = field(None, NCHW, json="cnn2DFormat")

    leading: ClassVar[tuple[str, ...]] = ("n_out",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_out=3), Convolutional(6, 5, 3)

    @property
    def variables(self) -> tuple[str, ...]:
        free = () if self.lock_gamma_beta else ("gamma", "beta")
        return (*free, "mean", "log10stdev" if self.use_log_std else "var")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        images = arrays("cnn", self.n_in, self.format)
        return arrays("ff", self.n_in, None) + images

    def with_input(self, given: InputType) -> Any:
        if isinstance(given, Recurrent):
            raise ConfigurationError(
                "input: DL4J's batch normalisation takes rows or images, "
                "got a time series"
            )
        channels = getattr(given, "channels", given.features)
        sized = replace(self.sized(channels), n_out=channels)
        return in_format(sized, given) if isinstance(given, Convolutional) else sized

    def output(self, given: InputType) -> InputType:
        return given

    def check(self) -> None:
        return None  # n_out follows from the input


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

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), Recurrent(3, 5)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        axes = self.pooling_dimensions
        if axes is None:
            return arrays("rnn", None, "NCW") + arrays("cnn", None, "NCHW")
        if axes == (1,):
            return arrays("rnn", None, "NWC")
        return arrays("cnn", None, "NHWC") if axes == (1, 2) else ()

    def with_input(self, given: InputType) -> Any:
        last = getattr(given, "format", None) in ("NWC", "NHWC")
        if not last or self.pooling_dimensions is not None:
            return self
        axes = (1, 2) if isinstance(given, Convolutional) else (1,)
        return replace(self, pooling_dimensions=axes)

    def output(self, given: InputType) -> InputType:
        if isinstance(given, Convolutional):
            if self.collapse_dimensions:
                return FeedForward(given.channels)
            return Convolutional(1, 1, given.channels, given.format)
        if isinstance(given, Recurrent):
            if self.collapse_dimensions:
                return FeedForward(given.size)
            return Recurrent(given.size, 1, given.format)
        raise ConfigurationError(f"input: expected time series or images, got {given}")
