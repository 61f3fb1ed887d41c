"""Pooling, over windows and over all steps or places."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py.layers.base import Layer
from dl4py.layers.convolutional import (
    Sliding,
    channels_as_given,
    channels_first,
    pooled_max,
)
from dl4py.registry import MODULES


@MODULES.add("subsampling")
class Subsampling(Sliding):
    """Pooling over a sliding window.

    Args:
        pooling_type: ``"MAX"``, ``"AVG"``, ``"SUM"`` or ``"PNORM"``: (Σ|x|ᵖ)^(1/p).
        kernel_size, stride, padding, dilation, convolution_mode, format: as in
            :class:`Convolution2D`.
        pnorm: p, at least 1 where it is used.
        eps: of DL4J's files; it changes nothing.
        avg_pool_include_pad_in_divisor: whether the mean counts padding.

    Shape:
        ``[n, c, h, w]`` → ``[n, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> Subsampling("SUM", 2)(torch.ones(1, 1, 4, 2))
        tensor([[[[4.],
                  [4.]]]])

    DL4J: org.deeplearning4j.nn.conf.layers.SubsamplingLayer
    """

    def __init__(
        self,
        pooling_type: str = "MAX",
        kernel_size: Any = 1,
        stride: Any = 2,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        convolution_mode: str | None = "Truncate",
        pnorm: int = 0,
        eps: float = 1e-8,
        avg_pool_include_pad_in_divisor: bool = False,
        format: str | None = "NCHW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            kernel_size, stride, padding, dilation, convolution_mode, format, None,
            dl4j_exact,
        )  # fmt: skip
        self.pooling_type, self.pnorm, self.eps = pooling_type, pnorm, eps
        self.count_padding = avg_pool_include_pad_in_divisor

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        x = channels_first(x, self.format)
        if self.pooling_type == "MAX":
            y = pooled_max(self, x)
        elif self.pooling_type == "PNORM":
            y = root(self._sums(x.abs() ** self.pnorm), self.pnorm)
        else:
            y = self._sums(x)
            if self.pooling_type == "AVG":
                y = y / self._counts(x)
        return channels_as_given(y, self.format)

    def _counts(self, x: Tensor) -> Tensor | int:
        """How many values each mean is over."""
        padded = any(self.margins(x))
        if self.count_padding or not padded:
            return math.prod(self.kernel_size)
        return self._sums(x.new_ones(1, 1, *x.shape[2:]))

    def _sums(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.margins(x))
        if self.dilation == (1, 1):
            area = math.prod(self.kernel_size)
            return F.avg_pool2d(x, self.kernel_size, self.stride) * area
        n, c = x.shape[:2]
        windows = F.unfold(
            x, self.kernel_size, dilation=self.dilation, stride=self.stride
        )
        size = [
            (x.shape[2 + i] - (self.kernel_size[i] - 1) * self.dilation[i] - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        ]
        return windows.reshape(n, c, -1, windows.shape[-1]).sum(2).reshape(n, c, *size)

    def extra_repr(self) -> str:
        return f"{self.pooling_type}, kernel {self.kernel_size}, stride {self.stride}"


def root(total: Tensor, p: int) -> Tensor:
    """total^(1/p), with derivative 0 at 0, where it has none."""
    zero = total == 0
    return (total.masked_fill(zero, 1.0) ** (1 / p)).masked_fill(zero, 0.0)


@MODULES.add("global_pooling")
class GlobalPooling(Layer):
    """Pooling over all time steps or pixels, masks respected.

    Args:
        pooling_type: ``"MAX"``, ``"AVG"``, ``"SUM"`` or ``"PNORM"``.
        pooling_dimensions: the axes; default: time, or height and width.
        pnorm: p of the p-norm, >= 1.
        collapse_dimensions: whether the pooled axes go away (else they stay as 1).

    Shape:
        ``[n, c, time]`` or ``[n, c, h, w]`` → ``[n, c]``; mask ``[n, time]`` or
        ``[n, 1, h, w]``, where an axis may be 1.

    Example:
        >>> GlobalPooling("AVG")(torch.ones(2, 3, 4)).shape
        torch.Size([2, 3])

    DL4J: org.deeplearning4j.nn.conf.layers.GlobalPoolingLayer
    """

    def __init__(
        self,
        pooling_type: str = "MAX",
        pooling_dimensions: tuple[int, ...] | None = None,
        *,
        pnorm: int = 2,
        collapse_dimensions: bool = True,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(None, dl4j_exact)
        self.pooling_type, self.pnorm = pooling_type, pnorm
        self.pooling_dimensions = pooling_dimensions
        self.collapse = collapse_dimensions

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None

    def axes(self, x: Tensor) -> tuple[int, ...]:
        """The pooled axes of ``x``."""
        return self.pooling_dimensions or tuple(range(2, x.dim()))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        axes = self.axes(x)
        kept = [a for a in range(x.dim()) if a not in axes]
        flat = x.permute(*kept, *axes).flatten(len(kept))
        if mask is not None:
            if mask.dim() == 2:
                mask = mask.unsqueeze(1 if 2 in axes else 2)
            given, mask = mask.to(x.dtype), mask.to(x.dtype).expand(x.shape)
            mask = mask.permute(*kept, *axes).flatten(len(kept))
        y = self._pool(flat, mask)
        if self.dl4j_exact and mask is not None and self.pooling_type == "AVG":
            # DL4J divides by the entries of the mask as given, not as spread out
            y = y * mask.sum(-1) / given.sum(axes)
        if self.collapse:
            return y
        return y.reshape(*(1 if a in axes else x.shape[a] for a in range(x.dim())))

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.pooling_type == "MAX":
            # one index, not amax: among equals DL4J sends the gradient to one
            shown = x if mask is None else x.masked_fill(mask == 0, -math.inf)
            return shown.max(-1)[0]
        x = x if mask is None else x * mask
        if self.pooling_type == "PNORM":
            return root((x.abs() ** self.pnorm).sum(-1), self.pnorm)
        total = x.sum(-1)
        if self.pooling_type == "AVG":
            return total / (x.shape[-1] if mask is None else mask.sum(-1))
        return total

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        if self.pooling_type != "AVG":
            return []
        rule = "DL4J divides a mean under a mask [n, 1, h, 1] by rows, not pixels"
        return [f"GlobalPooling: {rule}"]

    def extra_repr(self) -> str:
        return self.pooling_type
