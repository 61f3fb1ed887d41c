"""Layers without weights that make series, images and volumes larger or smaller."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.inputs import InputType
from dl4py.config.kinds import Integer, Sizes, field
from dl4py.config.layer import ConfigurationError, Layer
from dl4py.config.sliding import NCDHW, NCHW, First, channels_of, in_format, spatial
from dl4py.config.windows import LARGEST
from dl4py.registry import LAYERS

Pair = tuple[int, int]
_LAST = ("NWC", "NHWC", "NDHWC")
_ALL_FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


@dataclass(frozen=True)
class Pairs:
    """Two whole numbers >= 0 for every axis, in DL4J's order: before, after, before …

    One number stands for all, one an axis for both of its sides; pairs may be nested.

    Args:
        axes: their number.
        nested: whether the normal form, and the JSON, is a list of pairs.
    """

    axes: int
    nested: bool = False

    def __call__(self, value: Any) -> tuple[Any, ...]:
        if isinstance(value, Sequence) and not isinstance(value, str):
            flat = [v for part in value for v in (part if _listed(part) else (part,))]
        else:
            flat = [value] * self.axes
        if len(flat) == self.axes:
            flat = [v for v in flat for _ in range(2)]
        if len(flat) != 2 * self.axes:
            raise ValueError(
                f"must be 1, {self.axes} or {2 * self.axes} whole numbers, got "
                f"{value!r}"
            )
        whole = tuple(Integer(0)(v) for v in flat)
        if not self.nested:
            return whole
        return tuple(zip(whole[::2], whole[1::2], strict=True))

    def from_json(self, value: Any) -> tuple[Any, ...]:
        flat = isinstance(value, list) and len(value) == self.axes * (2 - self.nested)
        if not flat or any(_listed(part) != self.nested for part in value):
            raise ValueError(f"must be the {2 * self.axes} numbers, got {value!r}")
        return self(value)


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def refuse_giants(name: str, cells: Iterable[int]) -> None:
    """A few digits too many in a file would take gigabytes for the smallest image."""
    count = math.prod(max(1, n) for n in cells)
    if count > LARGEST:
        raise ConfigurationError(
            f"{name}: at most {LARGEST:,} cells for one are supported, got {count:,}"
        )


@dataclass(frozen=True, kw_only=True)
class Resizing(Layer):
    """Base of layers that only change sizes: one function of a size for every axis."""

    axes: ClassVar[int] = 2

    def resize(self, axis: int, size: int) -> int:
        """What becomes of the axis, counted from 0 behind the channels."""
        raise NotImplementedError

    def with_input(self, given: InputType) -> Any:
        kind = spatial(given, self.axes)
        if hasattr(self, "format"):
            return in_format(self, given)
        if kind.format in _LAST:
            raise ConfigurationError(
                f"input: DL4J's {type(self).__name__} takes channels or features on "
                f"axis 1 ({_ALL_FIRST[self.axes]}), got {given}"
            )
        return self

    def channels(self, count: int) -> int:
        """How many channels leave when ``count`` come in."""
        return count

    def output(self, given: InputType) -> InputType:
        sizes = tuple(
            None if size is None else self.resize(axis, size)
            for axis, size in enumerate(given.spatial)
        )
        return given.resized(sizes, self.channels(channels_of(given)))


class _Series:
    """Over time: ``[n, size, time]`` alone, since DL4J knows no other format here."""

    family: ClassVar[str] = "rnn"
    axes: ClassVar[int] = 1


class _Images:
    family: ClassVar[str] = "cnn"
    axes: ClassVar[int] = 2


class _Volumes:
    family: ClassVar[str] = "cnn3d"
    axes: ClassVar[int] = 3


@dataclass(frozen=True, kw_only=True)
class Upsampling(Resizing):
    """Base of what repeats values."""

    size: tuple[int, ...] = field((1,), Sizes(1))

    positional: ClassVar[tuple[str, ...]] = ("size",)
    leading: ClassVar[tuple[str, ...]] = ("size",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(size=(2,) * max(2, cls.axes)), super().example()[1]

    def resize(self, axis: int, size: int) -> int:
        return size * self.size[axis]

    def check(self) -> None:
        refuse_giants("size", self.size[: self.axes])


@LAYERS.add("upsampling1d", java="Upsampling1D")
@dataclass(frozen=True, kw_only=True)
class Upsampling1D(_Series, Upsampling):
    """Every time step ``size`` times.

    Args:
        size: a whole number >= 1; DL4J's files hold two, of which the first counts.

    DL4J: org.deeplearning4j.nn.conf.layers.Upsampling1D
    """

    size: tuple[int, ...] = field((2, 2), First())


@LAYERS.add("upsampling2d", java="Upsampling2D")
@dataclass(frozen=True, kw_only=True)
class Upsampling2D(_Images, Upsampling):
    """Every pixel ``size`` times along both axes.

    Args:
        size: one number >= 1, or (height, width).
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.Upsampling2D
    """

    size: tuple[int, ...] = field((2, 2), Sizes(2))
    format: str | None = field(None, NCHW)


@LAYERS.add("upsampling3d", java="Upsampling3D")
@dataclass(frozen=True, kw_only=True)
class Upsampling3D(_Volumes, Upsampling):
    """Every value of a volume ``size`` times along all axes.

    Args:
        size: one number >= 1, or (depth, height, width).
        format: as in :class:`Convolution3D`.

    DL4J: org.deeplearning4j.nn.conf.layers.Upsampling3D
    """

    size: tuple[int, ...] = field((2, 2, 2), Sizes(3))
    format: str | None = field(None, NCDHW, json="dataFormat")


@dataclass(frozen=True, kw_only=True)
class Cropping(Resizing):
    """Base of what leaves out values at the borders."""

    cropping: tuple[int, ...] = field((0,), Pairs(1))

    positional: ClassVar[tuple[str, ...]] = ("cropping",)
    leading: ClassVar[tuple[str, ...]] = ("cropping",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(cropping=(1, 0) * cls.axes), super().example()[1]

    @property
    def margins(self) -> tuple[Pair, ...]:
        """(before, after) of every axis, negative: what is added."""
        pairs = zip(self.cropping[::2], self.cropping[1::2], strict=True)
        return tuple((-a, -b) for a, b in pairs)

    def resize(self, axis: int, size: int) -> int:
        a, b = self.margins[axis]
        if size + a + b < 1:
            raise ConfigurationError(
                f"cropping: {-a} before and {-b} after leave nothing of an axis of "
                f"{size}"
            )
        return size + a + b


@LAYERS.add("cropping1d", java="convolutional.Cropping1D")
@dataclass(frozen=True, kw_only=True)
class Cropping1D(_Series, Cropping):
    """A series without its first and last time steps.

    Args:
        cropping: how many, >= 0: (first, last), or one number for both.

    DL4J: org.deeplearning4j.nn.conf.layers.convolutional.Cropping1D
    """

    cropping: tuple[int, ...] = field((0, 0), Pairs(1))


@LAYERS.add("cropping2d", java="convolutional.Cropping2D")
@dataclass(frozen=True, kw_only=True)
class Cropping2D(_Images, Cropping):
    """Images without their borders.

    Args:
        cropping: pixels >= 0: (top, bottom, left, right), (height, width) for both
            sides, or one number.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.convolutional.Cropping2D
    """

    cropping: tuple[int, ...] = field((0, 0, 0, 0), Pairs(2))
    format: str | None = field(None, NCHW, json="dataFormat")


@LAYERS.add("cropping3d", java="convolutional.Cropping3D")
@dataclass(frozen=True, kw_only=True)
class Cropping3D(_Volumes, Cropping):
    """Volumes without their borders.

    Args:
        cropping: cells >= 0: two for each of depth, height and width, one for each, or
            one number.

    DL4J: org.deeplearning4j.nn.conf.layers.convolutional.Cropping3D
    """

    cropping: tuple[int, ...] = field((0,) * 6, Pairs(3))


@dataclass(frozen=True, kw_only=True)
class ZeroPadding(Resizing):
    """Base of what puts zeros around."""

    padding: tuple[int, ...] = field((0,), Pairs(1))

    positional: ClassVar[tuple[str, ...]] = ("padding",)
    leading: ClassVar[tuple[str, ...]] = ("padding",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(padding=(1, 0) * cls.axes), super().example()[1]

    @property
    def margins(self) -> tuple[Pair, ...]:
        """(before, after) of every axis."""
        return tuple(zip(self.padding[::2], self.padding[1::2], strict=True))

    def resize(self, axis: int, size: int) -> int:
        return size + sum(self.margins[axis])

    def check(self) -> None:
        refuse_giants("padding", map(sum, self.margins))


@LAYERS.add("zero_padding1d", java="ZeroPadding1DLayer")
@dataclass(frozen=True, kw_only=True)
class ZeroPadding1D(_Series, ZeroPadding):
    """Time steps of zeros before and after a series.

    The mask of what is added is that of the first or last step.

    Args:
        padding: how many, >= 0: (before, after), or one number for both.

    DL4J: org.deeplearning4j.nn.conf.layers.ZeroPadding1DLayer
    """

    padding: tuple[int, ...] = field((0, 0), Pairs(1))


@LAYERS.add("zero_padding2d", "zero_padding", java="ZeroPaddingLayer")
@dataclass(frozen=True, kw_only=True)
class ZeroPadding2D(_Images, ZeroPadding):
    """Zeros around images; the mask of what is added is that of the border.

    Args:
        padding: pixels >= 0: (top, bottom, left, right), (height, width) for both
            sides, or one number.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.ZeroPaddingLayer
    """

    padding: tuple[int, ...] = field((0, 0, 0, 0), Pairs(2))
    format: str | None = field(None, NCHW, json="dataFormat")


@LAYERS.add("zero_padding3d", java="ZeroPadding3DLayer")
@dataclass(frozen=True, kw_only=True)
class ZeroPadding3D(_Volumes, ZeroPadding):
    """Zeros around volumes; the mask of what is added is that of the border.

    Args:
        padding: cells >= 0: two for each of depth, height and width, one for each, or
            one number.

    DL4J: org.deeplearning4j.nn.conf.layers.ZeroPadding3DLayer
    """

    padding: tuple[int, ...] = field((0,) * 6, Pairs(3))


@LAYERS.add("space_to_depth", java="SpaceToDepthLayer")
@dataclass(frozen=True, kw_only=True)
class SpaceToDepth(_Images, Resizing):
    """Blocks of pixels as channels: c·b² channels of images b times smaller.

    Pixel (y, x) of a block of channel c goes to channel (y·b + x)·channels + c.

    Args:
        block_size: b >= 1; it divides height and width.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.SpaceToDepthLayer
    """

    block_size: int = field(2, Integer(1))
    format: str | None = field(None, NCHW, json="dataFormat")

    positional: ClassVar[tuple[str, ...]] = ("block_size", "format")
    leading: ClassVar[tuple[str, ...]] = ("block_size",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), InputType.convolutional(6, 4, 3)

    def channels(self, count: int) -> int:
        return count * self.block_size**2

    def resize(self, axis: int, size: int) -> int:
        return _divided("block_size", size, self.block_size)


@LAYERS.add("space_to_batch", java="SpaceToBatchLayer")
@dataclass(frozen=True, kw_only=True)
class SpaceToBatch(_Images, Resizing):
    """Blocks of pixels as examples: n·b_h·b_w examples of smaller images.

    Pixel (y, x) of a block of example i goes to example (y·b_w + x)·n + i.

    Args:
        blocks: height and width of a block, >= 1, or one number.
        padding: zeros put around before, ((top, bottom), (left, right)).
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.SpaceToBatchLayer
    """

    blocks: tuple[int, ...] = field((2, 2), Sizes(2))
    padding: tuple[Pair, ...] = field(((0, 0), (0, 0)), Pairs(2, nested=True))
    format: str | None = field(None, NCHW)

    positional: ClassVar[tuple[str, ...]] = ("blocks", "padding")
    leading: ClassVar[tuple[str, ...]] = ("blocks", "padding")

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(padding=((0, 0), (1, 0))), super().example()[1]

    @property
    def margins(self) -> tuple[Pair, ...]:
        """(before, after) of every axis."""
        return self.padding

    def resize(self, axis: int, size: int) -> int:
        return _divided("blocks", size + sum(self.padding[axis]), self.blocks[axis])

    def check(self) -> None:
        refuse_giants("padding", map(sum, self.padding))


def _divided(name: str, size: int, by: int) -> int:
    if size % by:
        raise ConfigurationError(
            f"{name}: must divide height and width, got {by} for an axis of {size}; "
            "pad or crop it before"
        )
    return size // by
