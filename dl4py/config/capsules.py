"""Layers of capsules: vectors whose length says how probable what they stand for is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import Convolutional, FeedForward, InputType, Recurrent, Shape
from dl4py.config.kinds import Integer, Real, Sizes, field, flag
from dl4py.config.layer import ConfigurationError
from dl4py.config.samediff import INITS, SameDiff
from dl4py.config.sliding import Sliding
from dl4py.config.windows import MODES
from dl4py.registry import LAYERS


@LAYERS.add("primary_capsules", java="PrimaryCapsules")
@dataclass(frozen=True, kw_only=True)
class PrimaryCapsules(SameDiff, Sliding):
    """The first capsules of an image: squash of a convolution's values.

    The convolution has ``channels · capsule_dimensions`` channels; their values, in
    DL4J's order, are cut into capsules of ``capsule_dimensions``, and each becomes
    squash(s) = s·‖s‖²/((1 + ‖s‖²)·√(‖s‖² + 1e-5)).

    Args:
        capsule_dimensions: the size of a capsule, >= 1.
        channels: capsules at each place, >= 1.
        kernel_size, stride, padding, dilation, convolution_mode, has_bias: as in
            :class:`Convolution2D`.
        use_relu: whether a rectifier comes before squash.
        leak: its slope below 0.
        input_channels, capsules: channels of the image and capsules in all; they follow
            from the input type.

    Reference: Sabour, Frosst and Hinton, Dynamic Routing Between Capsules, 2017.
    DL4J: org.deeplearning4j.nn.conf.layers.PrimaryCapsules
    """

    capsule_dimensions: int | None = field(None, Integer(1))
    channels: int = field(32, Integer(1))
    kernel_size: tuple[int, ...] = field((9, 9), Sizes(2))
    stride: tuple[int, ...] = field((2, 2), Sizes(2))
    padding: tuple[int, ...] = field((0, 0), Sizes(2, 0))
    dilation: tuple[int, ...] = field((1, 1), Sizes(2))
    convolution_mode: str | None = field("Truncate", MODES)
    has_bias: bool = field(True, flag)
    use_relu: bool = field(False, flag)
    leak: float = field(0.0, Real())
    input_channels: int = field(0, Integer(0))
    capsules: int = field(0, Integer(0))

    positional: ClassVar[tuple[str, ...]] = (
        "capsule_dimensions",
        "channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "convolution_mode",
    )
    leading: ClassVar[tuple[str, ...]] = (
        "input_channels",
        "capsule_dimensions",
        "channels",
        "kernel_size",
        "stride",
    )
    family: ClassVar[str] = "cnn"

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        conf = cls(input_channels=2, capsule_dimensions=3, channels=2)
        return replace(conf, kernel_size=(3, 3)), Convolutional(6, 5, 2)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n", self.input_channels or "channels", "height", "width"),)

    def weight_shapes(self) -> dict[str, list[Any]]:
        count = self.channels * (self.capsule_dimensions or 0)
        return {"weight": [*self.kernel_size, self.input_channels, count]}

    def bias_shapes(self) -> dict[str, list[Any]]:
        count = self.channels * (self.capsule_dimensions or 0)
        return {"bias": [count]} if self.has_bias else {}

    def with_input(self, given: InputType) -> Any:
        if not isinstance(given, Convolutional) or given.format != "NCHW":
            raise ConfigurationError(f"input: expected images, NCHW, got {given}")
        if self.input_channels not in (0, given.channels):
            raise ConfigurationError(
                f"input_channels: the layer before gives {given.channels}, got "
                f"{self.input_channels}; leave it out to have it inferred"
            )
        places = self.slide(given, self.channels).features
        if self.capsules not in (0, places):
            raise ConfigurationError(
                f"capsules: expected {places}, {self.channels} at each place, got "
                f"{self.capsules}; leave it out to have it inferred"
            )
        return replace(self, input_channels=given.channels, capsules=places)

    def output(self, given: InputType) -> InputType:
        assert self.capsule_dimensions is not None
        return Recurrent(self.capsules, self.capsule_dimensions)

    def check(self) -> None:
        if self.capsule_dimensions is None:
            raise ValueError(
                "capsule_dimensions: expected a whole number >= 1, got nothing"
            )
        self.window.check()


@dataclass(frozen=True, kw_only=True)
class OnCapsules(SameDiff):
    """Base of layers whose input is ``[n, capsules, dimensions]``."""

    family: ClassVar[str] = "capsules"

    def sizes(self, given: InputType) -> tuple[int, int]:
        """How many capsules come in, and their size."""
        if not isinstance(given, Recurrent) or given.length is None:
            raise ConfigurationError(
                "input: expected capsules, which PrimaryCapsules and Capsule give, or "
                f"InputType.recurrent(capsules, dimensions), got {given}"
            )
        return given.size, given.length


@LAYERS.add("capsule", java="CapsuleLayer")
@dataclass(frozen=True, kw_only=True)
class Capsule(OnCapsules):
    """Capsules that agree on what they see: dynamic routing.

    û_ij = W_ij·u_i for each capsule i that comes in and each j that goes out; then,
    from b = 0, ``routings`` times: c_i = softmax_j(b_ij), s_j = Σ_i (c_ij·û_ij) + bias,
    v_j = squash(s_j), b_ij += û_ij·v_j. The last v goes out.

    Args:
        capsules: how many go out, >= 1.
        capsule_dimensions: their size, >= 1.
        routings: >= 1.
        has_bias: whether there is one.
        input_capsules, input_capsule_dimensions: they follow from the input type.

    Reference: Sabour, Frosst and Hinton, Dynamic Routing Between Capsules, 2017.
    DL4J: org.deeplearning4j.nn.conf.layers.CapsuleLayer
    """

    capsules: int | None = field(None, Integer(1))
    capsule_dimensions: int | None = field(None, Integer(1))
    routings: int = field(3, Integer(1))
    has_bias: bool = field(False, flag)
    input_capsules: int = field(0, Integer(0, bits=63))
    input_capsule_dimensions: int = field(0, Integer(0, bits=63))

    positional: ClassVar[tuple[str, ...]] = (
        "capsules",
        "capsule_dimensions",
        "routings",
    )
    leading: ClassVar[tuple[str, ...]] = (
        "input_capsules",
        "input_capsule_dimensions",
        "capsules",
        "capsule_dimensions",
        "routings",
    )

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        conf = cls(capsules=3, capsule_dimensions=4, has_bias=True)
        return replace(conf, input_capsules=5, input_capsule_dimensions=2), Recurrent(
            5, 2
        )

    @property
    def shapes(self) -> tuple[Shape, ...]:
        count, size = self.input_capsules, self.input_capsule_dimensions
        return (("n", count or "capsules", size or "dimensions"),)

    def weight_shapes(self) -> dict[str, list[Any]]:
        count = (self.capsules or 0) * (self.capsule_dimensions or 0)
        size = self.input_capsule_dimensions
        return {"weight": [1, self.input_capsules, count, size, 1]}

    def bias_shapes(self) -> dict[str, list[Any]]:
        shape = [1, 1, self.capsules, self.capsule_dimensions, 1]
        return {"bias": shape} if self.has_bias else {}

    def with_input(self, given: InputType) -> Any:
        sizes = self.sizes(given)
        names = ("input_capsules", "input_capsule_dimensions")
        for name, size in zip(names, sizes, strict=True):
            own = getattr(self, name)
            if own not in (0, size):
                raise ConfigurationError(
                    f"{name}: the layer before gives {size}, got {own}; leave it out "
                    "to have it inferred"
                )
        return replace(self, **dict(zip(names, sizes, strict=True)))

    def output(self, given: InputType) -> InputType:
        assert self.capsules is not None and self.capsule_dimensions is not None
        return Recurrent(self.capsules, self.capsule_dimensions)

    def check(self) -> None:
        for name in ("capsules", "capsule_dimensions"):
            if getattr(self, name) is None:
                raise ValueError(f"{name}: expected a whole number >= 1, got nothing")


@LAYERS.add("capsule_strength", java="CapsuleStrengthLayer")
@dataclass(frozen=True, kw_only=True)
class CapsuleStrength(OnCapsules):
    """The length of each capsule, √Σx².

    DL4J: org.deeplearning4j.nn.conf.layers.CapsuleStrengthLayer
    """

    weight_init: str | None = field(None, INITS)  # type: ignore[assignment]

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(), Recurrent(3, 4)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return (("n", "capsules", "dimensions"),)

    def with_input(self, given: InputType) -> Any:
        self.sizes(given)
        return self

    def output(self, given: InputType) -> InputType:
        return FeedForward(self.sizes(given)[0])
