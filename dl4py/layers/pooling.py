"""Pooling, over windows and over all steps or places."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py import config
from dl4py.layers.base import Layer, spread
from dl4py.layers.convolutional import CONVOLVE
from dl4py.layers.part import implements
from dl4py.layers.sliding import Sliding, padded, pooled_max

_MEAN: dict[int, Callable[..., Tensor]] = {
    1: F.avg_pool1d,
    2: F.avg_pool2d,
    3: F.avg_pool3d,
}


class Pooling(Sliding):
    """Base of pooling over windows of any rank."""

    neighbour = (
        "MaxPool2d, AvgPool2d, LPPool2d",
        "four kinds in one; `Same` padding; masks",
    )

    noisy = False  # DL4J: dropout before pooling is not what users expect

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        kind = self.conf.pooling_type
        shown = self.shown(x, mask)
        if shown is not None:
            x = x.masked_fill(~shown, -math.inf if kind == "MAX" else 0)
        if kind == "MAX" and shown is None:
            # DL4J: of nothing it is the lowest number that is finite
            lowest = torch.finfo(x.dtype).min if self.dl4j_exact else -math.inf
            return pooled_max(x, self.window, lowest)
        if kind == "MAX":
            y = pooled_max(x, self.window)
            return y.masked_fill(y.isneginf(), 0)
        if kind == "PNORM":
            p = self.conf.pnorm
            return root(self._sums(x.abs() ** p), p)
        sums = self._sums(x)
        return sums / self._counts(x, shown) if kind == "AVG" else sums

    def _counts(self, x: Tensor, shown: Tensor | None) -> Tensor | int:
        """How many values each mean is over."""
        window = self.window
        margins = [m for pair in window.margins(x.shape[2:]) for m in pair]
        whole = shown is None and not any(margins)
        if self.conf.avg_pool_include_pad_in_divisor or whole:
            return math.prod(window.kernel)
        if shown is not None:
            return self._sums(shown.to(x.dtype)).clamp(min=1)
        return self._sums(x.new_ones(1, 1, *x.shape[2:]))

    def _sums(self, x: Tensor) -> Tensor:
        window = self.window
        x = padded(x, window)
        if all(d == 1 for d in window.dilation):
            area = math.prod(window.kernel)
            mean: Tensor = _MEAN[window.rank](x, window.kernel, window.stride)
            return mean * area
        one = x.new_ones(1, 1, *window.kernel)
        alone = x.flatten(0, 1).unsqueeze(1)
        sums = CONVOLVE[window.rank](
            alone, one, stride=window.stride, dilation=window.dilation
        )
        return sums.reshape(*x.shape[:2], *sums.shape[2:])

    def extra_repr(self) -> str:
        conf = self.conf
        return f"{conf.pooling_type}, kernel {conf.kernel_size}, stride {conf.stride}"


@implements(config.Subsampling)
class Subsampling(Pooling):
    """
    Shape:
        ``[n, c, h, w]`` → ``[n, c, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> Subsampling("SUM", 2)(torch.ones(1, 1, 4, 2))
        tensor([[[[4.],
                  [4.]]]])
    """


@implements(config.Subsampling1D)
class Subsampling1D(Pooling):
    """
    Shape:
        ``[n, c, time]`` → ``[n, c, time']``; features last for ``"NHWC"``.

    Example:
        >>> Subsampling1D("AVG", 2)(torch.tensor([[[1.0, 3, 5]]]))
        tensor([[[2., 4.]]])
    """

    neighbour = (
        "MaxPool1d, AvgPool1d, LPPool1d",
        "four kinds in one; `Same` padding; masks",
    )


@implements(config.Subsampling3D)
class Subsampling3D(Pooling):
    """
    Shape:
        ``[n, c, d, h, w]`` → ``[n, c, d', h', w']``; channels last for ``"NDHWC"``.

    Example:
        >>> Subsampling3D("MAX", 2)(torch.zeros(1, 3, 4, 4, 4)).shape
        torch.Size([1, 3, 2, 2, 2])
    """

    neighbour = ("MaxPool3d, AvgPool3d", "two kinds in one; `Same` padding; masks")

    noisy = True  # other than those before, in DL4J


def root(total: Tensor, p: int) -> Tensor:
    """total^(1/p), with derivative 0 at 0, where it has none."""
    zero = total == 0
    return (total.masked_fill(zero, 1.0) ** (1 / p)).masked_fill(zero, 0.0)


def some(count: Tensor) -> Tensor:
    """``count``, 1 where it is 0: a mean over nothing is 0."""
    return count.masked_fill(count == 0, 1)


@implements(config.GlobalPooling)
class GlobalPooling(Layer):
    """
    Shape:
        ``[n, c, time]``, ``[n, c, h, w]`` or ``[n, c, d, h, w]`` → ``[n, c]``; mask
        ``[n, time]``, ``[n, 1, h, w]`` or ``[n, 1, d, h, w]``, where an axis may be 1.
        Where all is masked the result is 0.

    Example:
        >>> GlobalPooling("AVG")(torch.ones(2, 3, 4)).shape
        torch.Size([2, 3])
    """

    neighbour = ("AdaptiveAvgPool2d …", "over time or pixels, under masks")

    noisy = False  # DL4J has no dropout here

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None

    def axes(self, x: Tensor) -> tuple[int, ...]:
        """The pooled axes of ``x``."""
        return self.conf.pooling_dimensions or tuple(range(2, x.dim()))

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        axes = self.axes(x)
        kept = [a for a in range(x.dim()) if a not in axes]
        flat = x.permute(*kept, *axes).flatten(len(kept))
        if mask is not None:
            last = axes == tuple(range(1, x.dim() - 1))
            format = {3: "NWC", 4: "NHWC", 5: "NDHWC"}[x.dim()] if last else None
            given = spread(mask, x, format).to(x.dtype)
            mask = given.expand(x.shape).permute(*kept, *axes).flatten(len(kept))
        y = self._pool(flat, mask)
        if self.dl4j_exact and mask is not None and self.conf.pooling_type == "AVG":
            # DL4J divides by the entries of the mask as given, not as spread out
            y = y * mask.sum(-1) / some(given.sum(axes))
        if self.conf.collapse_dimensions:
            return y
        return y.reshape(*(1 if a in axes else x.shape[a] for a in range(x.dim())))

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        kind = self.conf.pooling_type
        if kind == "MAX":
            # one index, not amax: among equals DL4J sends the gradient to one
            if mask is None:
                return x.max(-1)[0]
            top = x.masked_fill(mask == 0, -math.inf).max(-1)[0]
            return top.masked_fill((mask == 0).all(-1), 0)
        x = x if mask is None else (x * mask).masked_fill(mask == 0, 0)
        if kind == "PNORM":
            return root((x.abs() ** self.conf.pnorm).sum(-1), self.conf.pnorm)
        total = x.sum(-1)
        if kind == "AVG":
            return total / (x.shape[-1] if mask is None else some(mask.sum(-1)))
        return total

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        if self.conf.pooling_type != "AVG":
            return []
        rule = "DL4J divides a mean under a mask [n, 1, h, 1] by rows, not pixels"
        return [f"GlobalPooling: {rule}"]

    def extra_repr(self) -> str:
        return str(self.conf.pooling_type)
