"""Layers with a weight for each value of their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.inputs import FeedForward, InputType, Shape
from dl4py.config.kinds import Integer, Many, field
from dl4py.config.layer import (
    WEIGHT_INIT,
    BaseLayer,
    ConfigurationError,
    FeedForwardLayer,
)
from dl4py.registry import LAYERS


@LAYERS.add("prelu", java="PReLULayer")
@dataclass(frozen=True, kw_only=True)
class PReLU(BaseLayer):
    """Rectifier with trained slopes: x where x >= 0, else α ⊙ x.

    The layer's activation is not applied.

    Args:
        input_shape: the shape of α without the batch, axes that share a slope 1;
            default: that of the input.
        shared_axes: the axes along which there is one slope, counted with the batch as
            axis 0: ``(2, 3)`` gives one slope per channel of ``[n, c, h, w]``.
        weight_init: of α; DL4J's default is 0 whatever the network's is.
        n_in, n_out: kept for DL4J's files; they change nothing.

    Reference: He et al., Delving Deep into Rectifiers, 2015.
    DL4J: org.deeplearning4j.nn.conf.layers.PReLULayer
    """

    input_shape: tuple[int, ...] | None = field(None, Many(Integer(1, bits=63), 1))
    shared_axes: tuple[int, ...] | None = field(None, Many(Integer(1, bits=63)))
    weight_init: Any = field("zero", WEIGHT_INIT, json="weightInitFn")
    n_in: int = field(0, Integer(0, bits=63), json="nin")
    n_out: int = field(0, Integer(0, bits=63), json="nout")

    leading: ClassVar[tuple[str, ...]] = ("input_shape", "shared_axes")
    weights: ClassVar[tuple[str, ...]] = ("W",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(input_shape=(3,)), FeedForward(3)

    def resolved(self, settings: Any) -> Any:
        layer = super().resolved(settings)
        return replace(layer, input_shape=layer.shared(layer.input_shape))

    def shared(self, shape: tuple[int | None, ...] | None) -> tuple[int, ...] | None:
        """``shape`` with 1 at the shared axes."""
        if shape is None:
            return None
        axes = self.shared_axes or ()
        for axis in axes:
            if axis > len(shape):
                raise ConfigurationError(
                    f"shared_axes: expected axes 1 to {len(shape)} of [n, "
                    f"{', '.join(map(str, shape))}], got {axis}"
                )
        sizes = [1 if i in axes else size for i, size in enumerate(shape, 1)]
        for i, size in enumerate(sizes, 1):
            if size is None:
                raise ConfigurationError(
                    f"shared_axes: axis {i} of the input varies; share it, or give the "
                    "input type its length"
                )
        return tuple(size for size in sizes if size is not None)

    def with_input(self, given: InputType) -> Any:
        shape = self.shared(given.shape)
        if self.input_shape not in (None, shape):
            assert self.input_shape is not None
            raise ConfigurationError(
                f"input_shape: expected {list(shape or ())}, the input's with 1 at "
                f"shared axes, got {list(self.input_shape)}; leave it out to have it "
                "inferred"
            )
        return replace(self, input_shape=shape)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        if self.input_shape is None:
            return ()
        axes = self.shared_axes or ()
        sizes = enumerate(self.input_shape, 1)
        return (
            (
                "n",
                *(f"axis {i}" if i in axes or s == 1 else s for i, s in sizes),
            ),
        )


@LAYERS.add("element_wise_multiplication", java="misc.ElementWiseMultiplicationLayer")
@dataclass(frozen=True, kw_only=True)
class ElementWiseMultiplication(FeedForwardLayer):
    """One weight per feature: act(w ⊙ x + b).

    Args:
        n_in, n_out: the number of features, the same; one follows from the other.

    DL4J: org.deeplearning4j.nn.conf.layers.misc.ElementWiseMultiplicationLayer
    """

    family: ClassVar[str] = "ff"
    weights: ClassVar[tuple[str, ...]] = ("W",)
    biases: ClassVar[tuple[str, ...]] = ("b",)

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        return cls(n_in=3, n_out=3), FeedForward(3)

    def with_input(self, given: InputType) -> Any:
        layer = super().with_input(given)
        layer = replace(layer, n_out=layer.n_out or layer.n_in)
        layer.check()
        return layer

    def check(self) -> None:
        if None not in (self.n_in, self.n_out) and self.n_in != self.n_out:
            raise ConfigurationError(
                f"n_out: expected n_in = {self.n_in}, since it weighs each feature by "
                f"itself, got {self.n_out}"
            )
