"""Preprocessors that only someone's own configuration, or Keras', sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dl4py.config.inputs import (
    Convolutional,
    Convolutional3D,
    FeedForward,
    InputType,
    Recurrent,
    Shape,
    Sizes,
    whole,
)
from dl4py.config.kinds import Choice, Data, Integer, Many, field, flag
from dl4py.config.layer import ConfigurationError
from dl4py.config.preprocessors import Preprocessor, of_examples
from dl4py.registry import PREPROCESSORS

if TYPE_CHECKING:
    from torch import Tensor

FIRST, LAST = ("NCW", "NCHW", "NCDHW"), ("NWC", "NHWC", "NDHWC")
_ELSEWHERE = "org.deeplearning4j.preprocessors"


@PREPROCESSORS.add("composable", java="ComposableInputPreProcessor")
@dataclass(frozen=True, kw_only=True)
class ComposableInput(Preprocessor):
    """Preprocessors one after the other.

    Args:
        preprocessors: at least one.

    DL4J: org.deeplearning4j.nn.conf.preprocessor.ComposableInputPreProcessor
    """

    preprocessors: tuple[Preprocessor, ...] = field(
        kind=Many(Data(PREPROCESSORS), least=1), json="inputPreProcessors"
    )

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self.preprocessors[0].shapes

    def apply(self, x: Tensor, n: int) -> Tensor:
        for part in self.preprocessors:
            x = part.apply(x, n)
        return x

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        for part in self.preprocessors:
            mask = part.feed_mask(mask, n)
        return mask

    def output(self, given: InputType) -> InputType:
        for part in self.preprocessors:
            given = part.output(given)
        return given


@PREPROCESSORS.add("permute", java=f"{_ELSEWHERE}.PermutePreprocessor")
@dataclass(frozen=True, kw_only=True)
class Permute(Preprocessor):
    """The axes behind that of the examples in another order.

    What comes out counts as channels first: ``[n, features, time]`` or
    ``[n, channels, height, width]``.

    Args:
        order: which axis stands at 1, 2 …: a permutation of 1 to their number. DL4J
            itself puts a 0 in front when it has been used.

    DL4J: org.deeplearning4j.preprocessors.PermutePreprocessor
    """

    order: tuple[int, ...] = field(
        kind=Many(Integer(0), least=1), json="permutationIndices"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.axes) != list(range(1, 1 + len(self.axes))):
            raise ValueError(
                f"Permute(order=...) must be a permutation of 1 to {len(self.axes)}, "
                f"got {self.order}"
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """``order`` without the axis of the examples."""
        return self.order[1:] if self.order[0] == 0 else self.order

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n", *("any" for _ in self.axes)),)

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x.permute(0, *self.axes)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return of_examples(mask, "are permuted")

    def output(self, given: InputType) -> InputType:
        shape = given.shape
        if len(shape) != len(self.axes):
            raise ConfigurationError(
                f"order: expected {len(shape)} axes for {given}, got {self.order}"
            )
        return _channels_first(tuple(shape[axis - 1] for axis in self.axes))


def _channels_first(shape: Sizes) -> InputType:
    first, *rest = shape
    if first is None:
        raise ConfigurationError(
            "order: features of a time series whose length varies cannot be its steps; "
            "give the length, InputType.recurrent(size, length)"
        )
    return _of(first, tuple(rest), FIRST)


def _of(channels: int, sizes: Sizes, formats: tuple[str, ...]) -> InputType:
    """The type of arrays with so many channels and axes of ``sizes``."""
    if not sizes:
        return FeedForward(channels)
    format = formats[len(sizes) - 1]
    if len(sizes) == 1:
        return Recurrent(channels, sizes[0], format)
    if len(sizes) == 2:
        height, width = whole(sizes)
        return Convolutional(height, width, channels, format)
    depth, height, width = whole(sizes)
    return Convolutional3D(depth, height, width, channels, format)


@PREPROCESSORS.add("reshape", java=f"{_ELSEWHERE}.ReshapePreprocessor")
@dataclass(frozen=True, kw_only=True)
class Reshape(Preprocessor):
    """Another shape for the same numbers, in C order.

    Args:
        input_shape: what comes in; it only decides, in DL4J's way, what an image is.
        target_shape: what goes out.
        has_mini_batch_dimension: whether both begin with the number of examples, which
            stands for as many as come in.
        format: where channels stand in the target, ``"NCW"`` … ``"NDHWC"``. By default
            they are last in series, and in images and volumes that were rows or series.

    DL4J: org.deeplearning4j.preprocessors.ReshapePreprocessor
    """

    input_shape: tuple[int, ...] = field(kind=Many(Integer(-1, bits=63), least=1))
    target_shape: tuple[int, ...] = field(kind=Many(Integer(-1, bits=63), least=1))
    has_mini_batch_dimension: bool = field(False, flag)
    format: str | None = field(None, Choice(*FIRST, *LAST))

    json_last: ClassVar[tuple[str, ...]] = ("format",)

    @property
    def target(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.target_shape[1 if self.has_mini_batch_dimension else 0 :]

    def apply(self, x: Tensor, n: int) -> Tensor:
        if x.numel() != n * math.prod(self.target):
            raise ValueError(
                f"x: {list(x.shape)} does not go into [{n}, "
                f"{', '.join(map(str, self.target))}], which Reshape(target_shape="
                f"{self.target_shape}) makes of it"
            )
        return x.reshape(n, *self.target)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return of_examples(mask, "are reshaped")

    def output(self, given: InputType) -> InputType:
        shape = self.target
        length = getattr(given, "length", 1)
        held = given.features * (length or 0)  # 0: it varies
        if held and math.prod(shape) != held:
            raise ConfigurationError(
                f"target_shape: {self.target_shape} does not hold the {held} numbers "
                "of an example"
            )
        if not 1 <= len(shape) < 5:
            raise ConfigurationError(
                "target_shape: expected 1 to 4 axes behind that of the examples, got "
                f"{self.target_shape}"
            )
        rows = len(self.input_shape) == 1 or isinstance(given, Recurrent)
        last = self.format in LAST if self.format else rows or len(shape) == 2
        return _of(shape[-1], shape[:-1], LAST) if last else _channels_first(shape)


@PREPROCESSORS.add(
    "keras_flatten_rnn", java=f"{_ELSEWHERE}.KerasFlattenRnnPreprocessor"
)
@dataclass(frozen=True, kw_only=True)
class KerasFlattenRnn(Preprocessor):
    """A series ``[n, depth, time]`` → ``[n, depth·time]``, in C order.

    Args:
        depth, length: of the series.

    DL4J: org.deeplearning4j.preprocessors.KerasFlattenRnnPreprocessor
    """

    depth: int = field(kind=Integer(1, bits=63))
    length: int = field(kind=Integer(1, bits=63), json="tsLength")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n", self.depth, self.length), ("n", self.length, self.depth))

    def apply(self, x: Tensor, n: int) -> Tensor:
        return x.flatten(1)

    def feed_mask(self, mask: Tensor, n: int) -> Tensor:
        return of_examples(mask, "become rows")

    def output(self, given: InputType) -> InputType:
        return FeedForward(self.depth * self.length)
