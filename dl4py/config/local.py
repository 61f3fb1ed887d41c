"""Convolutions with weights of their own at every place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Integer, Sizes, field, flag
from dl4py.config.layer import ConfigurationError
from dl4py.config.samediff import ACTIVATIONS, SameDiff
from dl4py.config.sliding import NCHW, Sliding, channels_of, in_format, spatial
from dl4py.config.windows import MODES, Window
from dl4py.registry import LAYERS


@dataclass(frozen=True, kw_only=True)
class LocallyConnected(SameDiff, Sliding):
    """Base of layers whose window has weights of its own at every place."""

    n_in: int | None = field(None, Integer(1, bits=63), json="nin")
    n_out: int | None = field(None, Integer(1, bits=63), json="nout")
    activation: str = field("TANH", ACTIVATIONS)
    convolution_mode: str | None = field("Same", MODES, json="cm")
    has_bias: bool = field(True, flag)

    positional: ClassVar[tuple[str, ...]] = ("kernel_size",)
    leading: ClassVar[tuple[str, ...]] = (
        "n_in",
        "n_out",
        "kernel_size",
        "stride",
        "padding",
    )
    after: ClassVar[str] = ""  # DL4J's key of the margins behind the axes

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """The sizes of the axes that the window slides over."""
        raise NotImplementedError

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """How many places the window has along each of them."""
        return self.window.sizes(self.input_sizes)

    @property
    def feature_dim(self) -> int:
        """How many values a window covers."""
        return math.prod(self.window.kernel) * (self.n_in or 0)

    def resized(self, sizes: tuple[int, ...], before: tuple[int, ...]) -> Any:
        """This layer for an input of ``sizes``, and with margins ``before`` it."""
        raise NotImplementedError

    def with_input(self, given: InputType) -> Any:
        kind, count = spatial(given, self.axes), channels_of(given)
        sizes = kind.spatial
        if self.n_in not in (None, count):
            raise ConfigurationError(
                f"n_in: the layer before gives {count}, got {self.n_in}; leave n_in "
                "out to have it inferred"
            )
        if None in sizes and None in self.input_sizes:
            raise ConfigurationError(
                "input_size: expected the number of time steps, since every one has "
                "its own weights; use InputType.recurrent(size, length)"
            )
        sizes = self.input_sizes if None in sizes else sizes
        if self.input_sizes not in (sizes, (None,) * self.axes):
            raise ConfigurationError(
                f"input_size: the layer before gives {sizes}, got {self.input_sizes}; "
                "leave it out to have it inferred"
            )
        sized = replace(self, n_in=count)
        before = tuple(a for a, _ in self.window.margins(sizes))
        made = sized.resized(sizes, before)
        if hasattr(self, "format"):
            return in_format(made, given)
        if kind.format == "NWC":
            raise ConfigurationError(
                f"input: DL4J's {type(self).__name__} takes features on axis 1 (NCW), "
                f"got {given}"
            )
        return made

    def output(self, given: InputType) -> InputType:
        resized: InputType = given.resized(self.output_sizes, self.n_out)
        return resized

    def check(self) -> None:
        if self.n_out is None:
            raise ValueError("n_out: expected a whole number >= 1, got nothing")
        if any(d != 1 for d in self.window.dilation):
            raise ValueError(
                "dilation: expected 1, since DL4J leaves no gaps in these windows, got "
                f"{self.window.dilation}"
            )
        self.window.check()
        if None not in self.input_sizes:
            self.output_sizes  # refuses a window that does not fit  # noqa: B018

    def weight_shapes(self) -> dict[str, list[Any]]:
        if None in self.input_sizes:
            return {"W": []}
        return {"W": [math.prod(self.output_sizes), self.feature_dim, self.n_out]}

    def bias_shapes(self) -> dict[str, list[Any]]:
        return {"b": [self.n_out]} if self.has_bias else {}

    def margins_after(self) -> Any:
        """What DL4J writes of them: only where the mode makes them."""
        if self.window.mode != "Same":
            return None
        return [b for _, b in self.window.margins(self.input_sizes)]


@LAYERS.add("locally_connected1d", java="LocallyConnected1D")
@dataclass(frozen=True, kw_only=True)
class LocallyConnected1D(LocallyConnected):
    """A convolution over time with weights of its own at every step: act(Wₜ ⋆ x + b).

    Args:
        n_in, n_out: features in and out.
        kernel_size, stride: whole numbers >= 1.
        padding: a whole number >= 0.
        dilation: 1.
        convolution_mode: as in :class:`Convolution1D`; DL4J's default is ``"Same"``.
        has_bias: whether there is a b.
        activation: DL4J's word for it.
        input_size: the number of time steps; default: the input type's.

    DL4J: org.deeplearning4j.nn.conf.layers.LocallyConnected1D
    """

    kernel_size: int = field(2, Integer(1), json="kernel")  # type: ignore[assignment]
    stride: int = field(1, Integer(1))  # type: ignore[assignment]
    padding: int = field(0, Integer(0))  # type: ignore[assignment]
    dilation: int = field(1, Integer(1))  # type: ignore[assignment]
    input_size: int | None = field(None, Integer(1))

    family: ClassVar[str] = "rnn"
    axes: ClassVar[int] = 1
    json_derived: ClassVar[tuple[str, ...]] = (
        *SameDiff.json_derived,
        "featureDim",
        "outputSize",
        "paddingR",
    )

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, n_out=2, input_size=5), InputType.recurrent(3, 5)

    @property
    def window(self) -> Window:
        return Window(
            (self.kernel_size,),
            (self.stride,),
            (self.padding,),
            (self.dilation,),
            self.convolution_mode or "Same",
        )

    @property
    def input_sizes(self) -> Any:
        return (self.input_size,)

    def resized(self, sizes: tuple[int, ...], before: tuple[int, ...]) -> Any:
        return replace(self, input_size=sizes[0], padding=before[0])

    def json_extra(self) -> dict[str, Any]:
        return {
            **super().json_extra(),
            "featureDim": self.feature_dim,
            "outputSize": self.output_sizes[0],
            "paddingR": (self.margins_after() or [0])[0],
        }


@LAYERS.add("locally_connected2d", java="LocallyConnected2D")
@dataclass(frozen=True, kw_only=True)
class LocallyConnected2D(LocallyConnected):
    """A convolution with weights of its own at every place of an image.

    act(W_q ⋆ x + b) at row y and column x with q = x·rows + y, the order in which DL4J
    counts the weights.

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride: one number >= 1, or (height, width).
        padding: one number >= 0, or (height, width).
        dilation: 1.
        convolution_mode: as in :class:`Convolution2D`; DL4J's default is ``"Same"``.
        has_bias: whether there is a b.
        activation: DL4J's word for it.
        input_size: (height, width); default: the input type's.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.LocallyConnected2D
    """

    kernel_size: tuple[int, ...] = field((2, 2), Sizes(2), json="kernel")
    stride: tuple[int, ...] = field((1, 1), Sizes(2))
    padding: tuple[int, ...] = field((0, 0), Sizes(2, 0))
    dilation: tuple[int, ...] = field((1, 1), Sizes(2))
    input_size: tuple[int, ...] | None = field(None, Sizes(2))
    format: str | None = field(None, NCHW)

    family: ClassVar[str] = "cnn"
    json_derived: ClassVar[tuple[str, ...]] = (
        *SameDiff.json_derived,
        "featureDim",
        "outputSize",
        "paddingBr",
    )

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        given = InputType.convolutional(4, 3, 2)
        return cls(n_in=2, n_out=3, input_size=(4, 3)), given

    @property
    def input_sizes(self) -> Any:
        return self.input_size or (None, None)

    def resized(self, sizes: tuple[int, ...], before: tuple[int, ...]) -> Any:
        return replace(self, input_size=sizes, padding=before)

    def json_extra(self) -> dict[str, Any]:
        return {
            **super().json_extra(),
            "featureDim": self.feature_dim,
            "outputSize": list(self.output_sizes),
            "paddingBr": self.margins_after(),
        }
