"""What flows between layers, without the batch: DL4J's ``InputType``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dl4py.config.kinds import Checked, Choice, Integer, field

Shape = tuple[int | str, ...]
"""Axes of an array: a number is that size, a word any size."""

Sizes = tuple[int | None, ...]
"""Sizes of axes, ``None`` where a length varies."""


def whole(sizes: Sizes) -> tuple[int, ...]:
    """``sizes``, none of which varies."""
    found = tuple(size for size in sizes if size is not None)
    assert len(found) == len(sizes)
    return found


def arrays(family: str, size: int | None, format: str | None) -> tuple[Shape, ...]:
    """The arrays that a layer of ``family`` with ``size`` features takes; none: any.

    >>> arrays("rnn", 3, "NCW"), arrays("cnn", None, "NHWC")
    ((('n', 3, 'time'),), (('n', 'height', 'width', 'channels'),))
    """
    if family == "ff":
        return (("n", size or "features"),)
    if family == "rnn":
        features = size or "features"
        last = format == "NWC"
        return (("n", "time", features) if last else ("n", features, "time"),)
    if family == "cnn":
        channels, area = size or "channels", ("height", "width")
        last = format == "NHWC"
        return (("n", *area, channels) if last else ("n", channels, *area),)
    if family == "cnn3d":
        channels, space = size or "channels", ("depth", "height", "width")
        last = format == "NDHWC"
        return (("n", *space, channels) if last else ("n", channels, *space),)
    return ()


@dataclass(frozen=True)
class InputType(Checked):
    """The shape of one example.

    Example:
        >>> InputType.feed_forward(4)
        FeedForward(size=4)
        >>> InputType.convolutional(28, 28, 1).features
        784

    DL4J: org.deeplearning4j.nn.conf.inputs.InputType
    """

    @property
    def features(self) -> int:
        """Number of values in one example (or one time step)."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The axes of one example in its format; ``None`` where a length varies."""
        return (self.features,)

    @property
    def spatial(self) -> tuple[int | None, ...]:
        """The axes that windows slide over; ``None`` where a length varies."""
        return ()

    def resized(self, sizes: Sizes, channels: int | None = None) -> InputType:
        """The same kind and format with other ``spatial`` sizes.

        Args:
            channels: channels or features; ``None`` keeps them.
        """
        raise NotImplementedError

    @staticmethod
    def feed_forward(size: int) -> FeedForward:
        """Rows of ``size`` numbers: arrays ``[n, size]``."""
        return FeedForward(size)

    @staticmethod
    def recurrent(
        size: int, length: int | None = None, format: str = "NCW"
    ) -> Recurrent:
        """Time series: ``[n, size, time]``, or ``[n, time, size]`` for ``"NWC"``."""
        return Recurrent(size, length, format)

    @staticmethod
    def convolutional(
        height: int, width: int, channels: int, format: str = "NCHW"
    ) -> Convolutional:
        """Images: ``[n, channels, height, width]``, or channels last for ``"NHWC"``."""
        return Convolutional(height, width, channels, format)

    @staticmethod
    def convolutional3d(
        depth: int, height: int, width: int, channels: int, format: str = "NCDHW"
    ) -> Convolutional3D:
        """Volumes: ``[n, channels, depth, height, width]``, or last for ``"NDHWC"``.

        DL4J's own default is ``"NDHWC"`` here, but ``"NCDHW"`` in its layers, which do
        not look.
        """
        return Convolutional3D(depth, height, width, channels, format)

    @staticmethod
    def convolutional_flat(height: int, width: int, channels: int) -> ConvolutionalFlat:
        """Images as rows ``[n, channels · height · width]``."""
        return ConvolutionalFlat(height, width, channels)

    feedForward = feed_forward
    convolutional3D = convolutional3d
    convolutionalFlat = convolutional_flat


@dataclass(frozen=True)
class FeedForward(InputType):
    """Rows of ``size`` numbers, ``[n, size]``."""

    size: int = field(kind=Integer(1, bits=63))

    @property
    def features(self) -> int:
        return self.size


@dataclass(frozen=True)
class Recurrent(InputType):
    """Time series ``[n, size, length]``; ``length`` is ``None`` where it varies."""

    size: int = field(kind=Integer(1, bits=63))
    length: int | None = field(None, Integer(1, bits=63))
    format: str = field("NCW", Choice("NCW", "NWC"))

    @property
    def features(self) -> int:
        return self.size

    @property
    def spatial(self) -> tuple[int | None, ...]:
        return (self.length,)

    def resized(self, sizes: Sizes, channels: int | None = None) -> Recurrent:
        (length,) = sizes
        return Recurrent(channels or self.size, length, self.format)

    @property
    def shape(self) -> tuple[int | None, ...]:
        axes = (self.size, self.length)
        return axes[::-1] if self.format == "NWC" else axes


@dataclass(frozen=True)
class Convolutional(InputType):
    """Images ``[n, channels, height, width]``, or channels last for ``"NHWC"``."""

    height: int = field(kind=Integer(1, bits=63))
    width: int = field(kind=Integer(1, bits=63))
    channels: int = field(kind=Integer(1, bits=63))
    format: str = field("NCHW", Choice("NCHW", "NHWC"))

    @property
    def features(self) -> int:
        return self.height * self.width * self.channels

    @property
    def shape(self) -> tuple[int | None, ...]:
        area, channels = self.spatial, (self.channels,)
        return area + channels if self.format == "NHWC" else channels + area

    @property
    def spatial(self) -> tuple[int | None, ...]:
        return (self.height, self.width)

    def resized(self, sizes: Sizes, channels: int | None = None) -> Convolutional:
        height, width = whole(sizes)
        return Convolutional(height, width, channels or self.channels, self.format)


@dataclass(frozen=True)
class Convolutional3D(InputType):
    """Volumes ``[n, channels, depth, height, width]``, or last for ``"NDHWC"``."""

    depth: int = field(kind=Integer(1, bits=63))
    height: int = field(kind=Integer(1, bits=63))
    width: int = field(kind=Integer(1, bits=63))
    channels: int = field(kind=Integer(1, bits=63))
    format: str = field("NCDHW", Choice("NCDHW", "NDHWC"))

    @property
    def features(self) -> int:
        return math.prod(whole(self.spatial)) * self.channels

    @property
    def shape(self) -> tuple[int | None, ...]:
        space, channels = self.spatial, (self.channels,)
        return space + channels if self.format == "NDHWC" else channels + space

    @property
    def spatial(self) -> tuple[int | None, ...]:
        return (self.depth, self.height, self.width)

    def resized(self, sizes: Sizes, channels: int | None = None) -> Convolutional3D:
        depth, height, width = whole(sizes)
        count = channels or self.channels
        return Convolutional3D(depth, height, width, count, self.format)


@dataclass(frozen=True)
class ConvolutionalFlat(InputType):
    """Images as rows ``[n, channels · height · width]``."""

    height: int = field(kind=Integer(1, bits=63))
    width: int = field(kind=Integer(1, bits=63))
    channels: int = field(kind=Integer(1, bits=63))

    @property
    def features(self) -> int:
        return self.height * self.width * self.channels
