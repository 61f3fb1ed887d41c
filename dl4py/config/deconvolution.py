"""Transposed, depthwise and separable convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from dl4py.config.codec import replace
from dl4py.config.convolutional import Convolution2D, Convolution3D
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Integer, field
from dl4py.config.layer import ConfigurationError
from dl4py.config.resizing import refuse_giants
from dl4py.config.sliding import channels_of
from dl4py.registry import LAYERS


class Opening:
    """What transposed convolutions share: each cell becomes a whole window."""

    window: Any

    def sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """What the layer makes of axes of ``sizes``."""
        found: tuple[int, ...] = self.window.opened(sizes)
        return found

    def check(self) -> None:
        super().check()  # type: ignore[misc]
        refuse_giants("stride", self.window.stride)


@LAYERS.add("deconvolution2d", java="Deconvolution2D")
@dataclass(frozen=True, kw_only=True)
class Deconvolution2D(Opening, Convolution2D):
    """Two-dimensional transposed convolution: act(Wᵀ ⋆ x + b).

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride, dilation: one number >= 1, or (height, width).
        padding: one number >= 0, or (height, width): cells left out at each border.
        convolution_mode: ``"Truncate"`` and ``"Strict"`` give stride·(size - 1) + k -
            2·padding, ``"Same"`` stride·size; default: the network's.
        has_bias: whether there is a b.
        format: as in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.Deconvolution2D
    """


@LAYERS.add("deconvolution3d", java="Deconvolution3D")
@dataclass(frozen=True, kw_only=True)
class Deconvolution3D(Opening, Convolution3D):
    """Three-dimensional transposed convolution: act(Wᵀ ⋆ x + b).

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride, dilation, format: as in :class:`Convolution3D`.
        padding, convolution_mode: as in :class:`Deconvolution2D`.
        has_bias: whether there is a b.

    DL4J: org.deeplearning4j.nn.conf.layers.Deconvolution3D
    """


@LAYERS.add("depthwise_convolution2d", java="DepthwiseConvolution2D")
@dataclass(frozen=True, kw_only=True)
class DepthwiseConvolution2D(Convolution2D):
    """Convolution of every channel by itself: n_in·depth_multiplier channels out.

    Channel c gives channels c·depth_multiplier … (c + 1)·depth_multiplier - 1.

    Args:
        n_in: channels in.
        n_out: n_in·depth_multiplier, from which it follows.
        depth_multiplier: channels that each of them gives, >= 1.
        kernel_size, stride, padding, dilation, convolution_mode, has_bias, format: as
            in :class:`Convolution2D`.

    DL4J: org.deeplearning4j.nn.conf.layers.DepthwiseConvolution2D
    """

    depth_multiplier: int = field(1, Integer(1))

    leading: ClassVar[tuple[str, ...]] = ("n_in", "depth_multiplier", "kernel_size")

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        conf, given = super().example()
        return replace(conf, n_out=None, depth_multiplier=2), given

    def sized(self, features: int) -> Any:
        sized = super().sized(features)
        return replace(sized, n_out=features * self.depth_multiplier)

    def with_input(self, given: InputType) -> Any:
        made = channels_of(given) * self.depth_multiplier
        if self.n_out not in (None, made):
            raise ConfigurationError(
                f"n_out: follows from {channels_of(given)} channels and "
                f"depth_multiplier={self.depth_multiplier}: {made}, got {self.n_out}; "
                "leave it out"
            )
        return super().with_input(given)

    def check(self) -> None:
        self.window.check()

    def resolved(self, settings: Any) -> Any:
        layer = super().resolved(settings)
        if layer.n_in is None or layer.n_out is not None:
            return layer
        return replace(layer, n_out=layer.n_in * layer.depth_multiplier)


@LAYERS.add("separable_convolution2d", java="SeparableConvolution2D")
@dataclass(frozen=True, kw_only=True)
class SeparableConvolution2D(Convolution2D):
    """A depthwise convolution and one of 1×1 after it: act(P·(W ⋆ x) + b).

    Args:
        n_in, n_out: channels in and out.
        depth_multiplier: channels between the two for every one that comes in, >= 1.
        kernel_size, stride, padding, dilation, convolution_mode, has_bias, format: as
            in :class:`Convolution2D`.

    Reference: Chollet, Xception, 2017.
    DL4J: org.deeplearning4j.nn.conf.layers.SeparableConvolution2D
    """

    depth_multiplier: int = field(1, Integer(1))

    weights: ClassVar[tuple[str, ...]] = ("W", "pW")

    @classmethod
    def example(cls) -> tuple[Any, InputType]:
        conf, given = super().example()
        return replace(conf, depth_multiplier=2), given
