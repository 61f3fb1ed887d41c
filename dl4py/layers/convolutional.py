"""Windows over images: convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations
from dl4py.layers.base import Layer, View
from dl4py.registry import MODULES

Pair = tuple[int, int]


def channels_first(x: Tensor, format: str) -> Tensor:
    """Images in ``format`` as ``[n, channels, height, width]``."""
    return x.permute(0, 3, 1, 2) if format == "NHWC" else x


def channels_first_sizes(shape: torch.Size, format: str) -> tuple[int, int]:
    """Height and width of images in ``format``."""
    return (shape[1], shape[2]) if format == "NHWC" else (shape[2], shape[3])


def channels_as_given(y: Tensor, format: str) -> Tensor:
    """Images ``[n, channels, height, width]`` in ``format``."""
    return y.permute(0, 2, 3, 1) if format == "NHWC" else y


class Sliding(Layer):
    """Base of layers with a window that slides over the image.

    Args:
        kernel_size, stride, padding, dilation: one number, or (height, width).
        convolution_mode: ``"Truncate"``, ``"Strict"`` or ``"Same"``.
        format: ``"NCHW"`` or ``"NHWC"``.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        convolution_mode: str | None,
        format: str | None,
        dropout: Any,
        dl4j_exact: bool,
    ) -> None:
        super().__init__(dropout, dl4j_exact)
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.same = convolution_mode == "Same"
        self.format = format or "NCHW"

    def margins(self, x: Tensor) -> tuple[int, int, int, int]:
        """Padding (left, right, top, bottom) of an image ``[…, height, width]``."""
        if not self.same:
            (top, left) = self.padding
            return left, left, top, top
        result: list[int] = []
        for axis in (1, 0):
            size, s = x.shape[2 + axis], self.stride[axis]
            spread = (self.kernel_size[axis] - 1) * self.dilation[axis] + 1
            total = max(0, (-(-size // s) - 1) * s + spread - size)
            result += [total // 2, total - total // 2]  # the odd one bottom and right
        left, right, top, bottom = result
        return left, right, top, bottom

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        """Masks ``[n, 1, h, w]`` are max-pooled unless the stride is 1; others stay."""
        if mask is None or mask.dim() != 4 or self.stride == (1, 1):
            return mask
        full = mask.float().expand(-1, -1, *channels_first_sizes(shape, self.format))
        return pooled_max(self, full).to(mask.dtype)


def pooled_max(layer: Sliding, x: Tensor) -> Tensor:
    """The maximum in each window of ``layer``; padding is never it."""
    x = F.pad(x, layer.margins(x), value=-math.inf) if any(layer.margins(x)) else x
    return F.max_pool2d(x, layer.kernel_size, layer.stride, dilation=layer.dilation)


def _pair(value: Any) -> Pair:
    a, b = value if isinstance(value, (tuple, list)) else (value, value)
    return int(a), int(b)


@MODULES.add("convolution2d")
class Convolution2D(Sliding):
    """Two-dimensional convolution: act(W ⋆ x + b).

    Args:
        n_in, n_out: channels in and out.
        kernel_size, stride, padding, dilation: one number, or (height, width).
        activation, weight_init, bias_init, has_bias: as in
            :class:`~dl4py.layers.Dense`.
        convolution_mode: ``"Truncate"`` (floor), ``"Strict"`` (the same, checked by the
            builder) or ``"Same"`` (output ⌈size/stride⌉; the odd pixel of padding goes
            to the bottom and right).
        format: ``"NCHW"`` or ``"NHWC"``.

    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_out, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> layer = Convolution2D(1, 4, 5, convolution_mode="Same")
        >>> layer(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])

    DL4J: org.deeplearning4j.nn.conf.layers.ConvolutionLayer
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel_size: Any = 5,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        activation: Any = "sigmoid",
        *,
        convolution_mode: str | None = "Truncate",
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        has_bias: bool = True,
        format: str | None = "NCHW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            kernel_size, stride, padding, dilation, convolution_mode, format, dropout,
            dl4j_exact,
        )  # fmt: skip
        self.n_in, self.n_out = n_in, n_out
        self.weight_init, self.bias_init = weight_init, bias_init
        self.bias = nn.Parameter(torch.empty(n_out)) if has_bias else None
        self.weight = nn.Parameter(torch.empty(n_out, n_in, *self.kernel_size))
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)
        self.reset_parameters()

    def dl4j_views(self) -> Iterator[View]:
        if self.bias is not None:
            yield View("b", "bias", kind="bias")
        area = math.prod(self.kernel_size)
        # DL4J divides the fan out by the stride
        out = self.n_out * area / math.prod(self.stride)
        yield View("W", "weight", fans=(self.n_in * area, out))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        x = channels_first(self.disturb(x), self.format)
        left, right, top, bottom = self.margins(x)
        if (left, top) != (right, bottom):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        else:
            padding = (top, left)
        z = F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation)
        y: Tensor = self.activation(channels_as_given(z, self.format))
        return y

    def extra_repr(self) -> str:
        return f"{self.n_in} → {self.n_out}, kernel {self.kernel_size}"
