"""What stands between layers of different input type: DL4J's input preprocessors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    ConvolutionalFlat,
    FeedForward,
    InputType,
    Recurrent,
    Shape,
    arrays,
)
from dl4py.config.kinds import Checked, Choice, Integer, field, flag
from dl4py.registry import PREPROCESSORS

if TYPE_CHECKING:
    from torch import Tensor

_RNN = Choice("NCW", "NWC")
_CNN = Choice("NCHW", "NHWC")


@dataclass(frozen=True, kw_only=True)
class Preprocessor(Checked):
    """Base of all preprocessors."""

    def apply(self, x: Tensor, n: int) -> Tensor:
        """``x`` in the shape the next layer wants; ``n`` is the number of examples."""
        raise NotImplementedError

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        """The mask for what :meth:`apply` returns."""
        return mask

    def memory(self, order: str, x: Tensor) -> str:
        """The order of ND4J's array of :meth:`apply` where ``x`` has one of ``order``.

        ``"c"`` is row by row and ``"f"`` column by column; random numbers follow it.
        """
        return "c"

    def output(self, given: InputType) -> InputType:
        """What comes out when ``given`` goes in."""
        raise NotImplementedError

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The arrays that :meth:`apply` takes, any one of them; none: all."""
        return ()


@dataclass(frozen=True, kw_only=True)
class _Image(Preprocessor):
    height: int = field(kind=Integer(0, bits=63), json="inputHeight")
    width: int = field(kind=Integer(0, bits=63), json="inputWidth")
    channels: int = field(kind=Integer(0, bits=63), json="numChannels")

    @property
    def _shape(self) -> tuple[int, ...]:
        return self.channels, self.height, self.width

    @property
    def _size(self) -> int | str:
        return math.prod(self._shape) or "features"

    @property
    def _images(self) -> Shape:
        c, h, w = self.channels, self.height, self.width
        names: Shape = (c or "channels", h or "height", w or "width")
        if getattr(self, "format", None) == "NHWC":
            names = (*names[1:], names[0])
        return ("n", *names)

    @property
    def image(self) -> InputType:
        return Convolutional(self.height, self.width, self.channels)


def _of_images(mask: Tensor, after: str) -> Tensor:
    """A mask of whole images as ``[n, 1]``; as in DL4J one of pixels goes no further.

    Of images of one pixel, and in DL4J's form, that is ``[n, 1, 1, 1]``.
    """
    if mask.dim() > 2 and any(size != 1 for size in mask.shape[1:]):
        raise ValueError(
            f"features_mask: a mask of pixels {list(mask.shape)} ends where images "
            f"become {after}"
        )
    return mask.flatten(1) if mask.dim() > 2 else mask


@PREPROCESSORS.add("cnn_to_feed_forward", java="CnnToFeedForwardPreProcessor")
@dataclass(frozen=True, kw_only=True)
class CnnToFeedForward(_Image):
    """``[n, c, h, w]`` → ``[n, c·h·w]``, in C order.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.CnnToFeedForwardPreProcessor
    """

    format: str = field("NCHW", _CNN)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self._images, ("n", self._size)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return _of_images(
            mask, "rows; mask whole examples with [n], or pool with GlobalPooling"
        )

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x.flatten(1)

    def output(self, given: InputType) -> InputType:
        return FeedForward(self.image.features)


@PREPROCESSORS.add("feed_forward_to_cnn", java="FeedForwardToCnnPreProcessor")
@dataclass(frozen=True, kw_only=True)
class FeedForwardToCnn(_Image):
    """``[n, c·h·w]`` → ``[n, c, h, w]``, in C order; images pass through.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.FeedForwardToCnnPreProcessor
    """

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return ("n", self._size), self._images

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x if x.dim() == 4 else x.reshape(n, *self._shape)

    def output(self, given: InputType) -> InputType:
        return self.image


@dataclass(frozen=True, kw_only=True)
class _Volume(_Image):
    depth: int = field(kind=Integer(0, bits=63), json="inputDepth")
    ncdhw: bool = field(True, flag)

    json_last: ClassVar[tuple[str, ...]] = ("ncdhw",)

    @property
    def _shape(self) -> tuple[int, ...]:
        space = (self.depth, self.height, self.width)
        return (self.channels, *space) if self.ncdhw else (*space, self.channels)

    @property
    def _images(self) -> Shape:
        return ("n", *(size or "any" for size in self._shape))

    @property
    def image(self) -> InputType:
        space = (self.depth, self.height, self.width)
        format = "NCDHW" if self.ncdhw else "NDHWC"
        return Convolutional3D(*space, self.channels, format)


@PREPROCESSORS.add("cnn3d_to_feed_forward", java="Cnn3DToFeedForwardPreProcessor")
@dataclass(frozen=True, kw_only=True)
class Cnn3DToFeedForward(_Volume):
    """Volumes → ``[n, features]``, in C order of the axes as they stand.

    Args:
        depth, height, width, channels: of the volumes.
        ncdhw: whether channels stand before depth, height and width, or last.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.Cnn3DToFeedForwardPreProcessor
    """

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self._images, ("n", self._size)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return of_examples(mask, "become rows")

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x.flatten(1)

    def output(self, given: InputType) -> InputType:
        return FeedForward(self.image.features)


@PREPROCESSORS.add("feed_forward_to_cnn3d", java="FeedForwardToCnn3DPreProcessor")
@dataclass(frozen=True, kw_only=True)
class FeedForwardToCnn3D(_Volume):
    """``[n, features]`` → volumes, in C order; volumes pass through.

    Args:
        depth, height, width, channels, ncdhw: as in :class:`Cnn3DToFeedForward`.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.FeedForwardToCnn3DPreProcessor
    """

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return ("n", self._size), self._images

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x if x.dim() == 5 else x.reshape(n, *self._shape)

    def output(self, given: InputType) -> InputType:
        return self.image


def of_examples(mask: Tensor, what: str) -> Tensor:
    """``mask``, if it is one of whole examples."""
    if mask.dim() > 2 or (mask.dim() == 2 and mask.shape[1] != 1):
        raise ValueError(
            f"features_mask: a mask of places {list(mask.shape)} ends where they "
            f"{what}; mask whole examples with [n]"
        )
    return mask


def order_of_rows(order: str, x: Tensor, format: str | None) -> str:
    """The order of ND4J's ``[time·n, size]`` of a series that it holds in ``order``."""
    n, time = x.shape[0], x.shape[1 if format == "NWC" else 2]
    if n == 1:
        return "f" if order == "c" else "c"
    return order if time == 1 else "f"


@PREPROCESSORS.add("rnn_to_feed_forward", java="RnnToFeedForwardPreProcessor")
@dataclass(frozen=True, kw_only=True)
class RnnToFeedForward(Preprocessor):
    """``[n, size, time]`` → ``[time·n, size]``; rows pass through.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.RnnToFeedForwardPreProcessor
    """

    format: str = field("NCW", _RNN, json="rnnDataFormat")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return arrays("rnn", None, self.format) + arrays("ff", None, None)

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x if x.dim() == 2 else rows(x, self.format)

    def memory(self, order: str, x: Tensor) -> str:
        return order if x.dim() == 2 else order_of_rows(order, x, self.format)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return mask.t().reshape(-1)

    def output(self, given: InputType) -> InputType:
        return FeedForward(given.features)


@PREPROCESSORS.add("feed_forward_to_rnn", java="FeedForwardToRnnPreProcessor")
@dataclass(frozen=True, kw_only=True)
class FeedForwardToRnn(Preprocessor):
    """``[time·n, size]`` → ``[n, size, time]``; series pass through.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.FeedForwardToRnnPreProcessor
    """

    format: str = field("NCW", _RNN, json="rnnDataFormat")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return arrays("ff", None, None) + arrays("rnn", None, self.format)

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x if x.dim() == 3 else series(x, n, self.format)

    def memory(self, order: str, x: Tensor) -> str:
        return order if x.dim() == 3 else "c"

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        series = mask.dim() == 2 and mask.shape[1] > 1  # as what passes through
        return mask if series else mask.reshape(-1, n).t()

    def output(self, given: InputType) -> InputType:
        return Recurrent(given.features, None, self.format)


@PREPROCESSORS.add("cnn_to_rnn", java="CnnToRnnPreProcessor")
@dataclass(frozen=True, kw_only=True)
class CnnToRnn(_Image):
    """``[time·n, c, h, w]`` → ``[n, c·h·w, time]``.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.CnnToRnnPreProcessor
    """

    format: str = field("NCW", _RNN, json="rnnDataFormat")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n·time", *(size or "any" for size in self._shape)),)

    def apply(self, x: Tensor, n: int) -> Tensor:
        return series(x.flatten(1), n, self.format)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return (
            _of_images(mask, "a series; mask whole images with [n, 1]")
            .reshape(-1, n)
            .t()
        )

    def output(self, given: InputType) -> InputType:
        return Recurrent(self.image.features, None, self.format)


@PREPROCESSORS.add("rnn_to_cnn", java="RnnToCnnPreProcessor")
@dataclass(frozen=True, kw_only=True)
class RnnToCnn(_Image):
    """``[n, c·h·w, time]`` → ``[time·n, c, h, w]``.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.RnnToCnnPreProcessor
    """

    format: str = field("NCW", _RNN, json="rnnDataFormat")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        size = math.prod(self._shape) or None
        return arrays("rnn", size, self.format)

    def apply(self, x: Tensor, n: int) -> Tensor:
        return rows(x, self.format).reshape(-1, *self._shape)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return mask.t().reshape(-1, 1)

    def output(self, given: InputType) -> InputType:
        return self.image


def rows(x: Tensor, format: str) -> Tensor:
    """A series as rows; row = time step · n + example, DL4J's order."""
    steps = x.permute(1, 0, 2) if format == "NWC" else x.permute(2, 0, 1)
    return steps.flatten(0, 1)


def series(x: Tensor, n: int, format: str) -> Tensor:
    """Rows as the series of ``n`` examples: the inverse of :func:`rows`."""
    steps = x.reshape(-1, n, x.shape[1])
    return steps.permute(1, 0, 2) if format == "NWC" else steps.permute(1, 2, 0)


def between(given: InputType, family: str) -> Preprocessor | None:
    """The preprocessor that makes ``given`` fit a layer of ``family``, or ``None``.

    Args:
        given: what comes in.
        family: ``"ff"``, ``"rnn"``, ``"cnn"``, ``"cnn3d"``, or ``"any"`` for whatever
            comes.

    Example:
        >>> between(Recurrent(5), "ff")
        RnnToFeedForward(format='NCW')
    """
    if family == "any":
        return None
    if isinstance(given, Convolutional3D) or family == "cnn3d":
        return _of_volumes(given, family)
    if isinstance(given, (Convolutional, ConvolutionalFlat)):
        sizes: dict[str, Any] = {
            "height": given.height,
            "width": given.width,
            "channels": given.channels,
        }
        if isinstance(given, ConvolutionalFlat):
            return FeedForwardToCnn(**sizes) if family == "cnn" else None
        if family == "ff":
            return CnnToFeedForward(**sizes, format=given.format)
        return CnnToRnn(**sizes) if family == "rnn" else None
    if isinstance(given, Recurrent):
        if family == "ff":
            return RnnToFeedForward(format=given.format)
        if family == "cnn":
            raise ValueError(
                "a convolution after a time series needs the image sizes: set an "
                "RnnToCnn(height=..., width=..., channels=...) preprocessor"
            )
        return None
    if family == "rnn":
        return FeedForwardToRnn()
    if family == "cnn":
        raise ValueError(
            "a convolution after rows of numbers needs the image sizes: use "
            "InputType.convolutional_flat(height, width, channels)"
        )
    return None


def _of_volumes(given: InputType, family: str) -> Preprocessor | None:
    """As :func:`between`, where one of the two is a volume."""
    if not isinstance(given, Convolutional3D):
        raise ValueError(
            f"a layer on volumes cannot take {given}: use InputType.convolutional3d"
            "(depth, height, width, channels), or set a FeedForwardToCnn3D(...) "
            "preprocessor"
        )
    if family == "cnn3d":
        return None
    if family == "ff":
        return Cnn3DToFeedForward(
            depth=given.depth,
            height=given.height,
            width=given.width,
            channels=given.channels,
            ncdhw=given.format == "NCDHW",
        )
    word = "time series" if family == "rnn" else "images"
    raise ValueError(f"a layer on {word} cannot take {given}; put a Dense between them")
