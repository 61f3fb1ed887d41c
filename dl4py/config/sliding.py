"""What layers on series, images and volumes share: their axes, formats and windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    InputType,
    Recurrent,
    whole,
)
from dl4py.config.kinds import Choice, Sizes
from dl4py.config.layer import ConfigurationError
from dl4py.config.windows import Window

NCHW = Choice("NCHW", "NHWC")
NCDHW = Choice("NCDHW", "NDHWC")

_KINDS: dict[int, tuple[type[InputType], str]] = {
    1: (Recurrent, "a time series"),
    2: (Convolutional, "images"),
    3: (Convolutional3D, "volumes"),
}


def spatial(given: InputType, axes: int) -> Any:
    """``given``, if it is what a layer over so many axes takes."""
    kind, word = _KINDS[axes]
    if not isinstance(given, kind):
        raise ConfigurationError(f"input: expected {word}, got {given}")
    return given


def in_format(layer: Any, given: InputType | str | None) -> Any:
    """``layer`` with the data format of its input; an error if it states another.

    Args:
        given: the input, or its format in the layer's words.
    """
    known = given if isinstance(given, str) else getattr(given, "format", None)
    if known is None or layer.format == known:
        return layer
    if layer.format is not None:
        raise ConfigurationError(
            f"format: the layer before gives {known}, got {layer.format}; leave format "
            "out to follow it"
        )
    return replace(layer, format=known)


def channels_of(given: InputType) -> int:
    """Features of a step, channels of a pixel."""
    return int(getattr(given, "channels", given.features))


@dataclass(frozen=True)
class First:
    """Two whole numbers of which the first counts, as files of 1-D layers hold them.

    Args:
        minimum: the smallest first number.
        second: what stands beside a single number; ``None``: the same.
    """

    minimum: int = 1
    second: int | None = None

    def __call__(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, (list, tuple)) and len(value) == 1:
            (value,) = value
        if self.second is not None and not isinstance(value, (list, tuple)):
            value = (value, self.second)
        return Sizes(2, self.minimum)(value)

    def from_json(self, value: Any) -> tuple[int, ...]:
        return Sizes(2, self.minimum).from_json(value)


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

    def sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """What the layer makes of axes of ``sizes``."""
        return self.window.sizes(sizes)

    def slide(self, given: InputType, channels: int | None) -> InputType:
        """What the window makes of ``given``; ``None`` keeps the number of channels."""
        kind = spatial(given, self.axes)
        sizes = kind.spatial
        if None not in sizes:
            sizes = self.sizes(whole(sizes))
        resized: InputType = kind.resized(sizes, channels)
        return resized
