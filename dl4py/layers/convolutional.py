"""Layers on images."""

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


def pooled_max(layer: Sliding, x: Tensor) -> Tensor:
    """The maximum in each window of ``layer``; padding is never it."""
    x = F.pad(x, layer.margins(x), value=-math.inf) if any(layer.margins(x)) else x
    return F.max_pool2d(x, layer.kernel_size, layer.stride, dilation=layer.dilation)


@MODULES.add("batch_normalization")
class BatchNormalization(Layer):
    """Batch normalisation: γ·(x - μ)/√(σ² + ε) + β.

    While training μ and σ² are the batch's (population variance), while testing the
    running ones. A training forward only stores what it wants the running statistics to
    become, as DL4J's pseudo-gradient (1 - decay)·(running - batch) in ``pending``; the
    network's optimizer applies it once a step.

    Args:
        n_out: features or channels.
        decay: in [0, 1]; torch's momentum is 1 - decay.
        eps: ε >= 0.
        gamma, beta: first values, or the constants when locked.
        lock_gamma_beta: γ and β are not parameters. DL4J then applies the constants
            only if γ ≠ 1 **and** β ≠ 0; by default they are always applied.
        use_log_std: the running variance is kept as log₁₀σ.
        format: ``"NCHW"`` or ``"NHWC"``.

    Shape:
        ``[n, n_out]`` or ``[n, n_out, h, w]``, the same out.

    Example:
        >>> BatchNormalization(2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).detach()
        tensor([[-1.0000, -1.0000],
                [ 1.0000,  1.0000]])

    Reference: Ioffe and Szegedy, Batch Normalization, 2015.
    DL4J: org.deeplearning4j.nn.conf.layers.BatchNormalization
    """

    def __init__(
        self,
        n_out: int,
        *,
        decay: float = 0.9,
        eps: float = 1e-5,
        gamma: float = 1.0,
        beta: float = 0.0,
        lock_gamma_beta: bool = False,
        use_log_std: bool = True,
        format: str | None = "NCHW",
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(None, dl4j_exact)
        self.n_out, self.decay, self.eps = n_out, decay, eps
        self.format = format or "NCHW"
        self.locked, self.use_log_std = lock_gamma_beta, use_log_std
        self.first = {"gamma": float(gamma), "beta": float(beta)}
        if not lock_gamma_beta:
            self.gamma = nn.Parameter(torch.full((n_out,), float(gamma)))
            self.beta = nn.Parameter(torch.full((n_out,), float(beta)))
        self.register_buffer("mean", torch.zeros(n_out))
        spread = torch.zeros(n_out) if use_log_std else torch.ones(n_out)
        self.spread_name = "log10stdev" if use_log_std else "var"
        self.register_buffer(self.spread_name, spread)

    def dl4j_views(self) -> Iterator[View]:
        if not self.locked:
            for name in ("gamma", "beta"):
                yield View(name, name, kind="scale", first=self.first[name])
        yield View("mean", "mean", kind="statistic", first=0.0)
        name, unit = self.spread_name, 0.0 if self.use_log_std else 1.0
        yield View(name, name, kind="statistic", first=unit)

    def buffer(self, name: str) -> Tensor:
        """A statistic by DL4J's name."""
        statistic: Tensor = getattr(self, name)
        return statistic

    def variance(self) -> Tensor:
        """The running variance."""
        spread = self.buffer(self.spread_name)
        return 10.0 ** (2 * spread) if self.use_log_std else spread

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        image = x.dim() == 4
        x = channels_first(x, self.format) if image else x
        axes = (0, 2, 3) if image else (0,)
        if self.training:
            var, mean = torch.var_mean(x, axes, correction=0)
            self._remember(mean.detach(), var.detach())
        else:
            mean, var = self.buffer("mean"), self.variance()
        if self.locked:
            shape = (1, self.n_out, 1, 1) if image else (1, self.n_out)
            scale = (var + self.eps).rsqrt()
            y = self._constants((x - mean.view(shape)) * scale.view(shape))
        else:
            running_mean, running_var = (None, None) if self.training else (mean, var)
            y = F.batch_norm(
                x,
                running_mean,
                running_var,
                self.gamma,
                self.beta,
                self.training,
                eps=self.eps,
            )
        return channels_as_given(y, self.format) if image else y

    def _constants(self, normal: Tensor) -> Tensor:
        gamma, beta = self.first["gamma"], self.first["beta"]
        if self.dl4j_exact and (gamma == 1 or beta == 0):
            # DL4J leaves the constants out, but sends the gradient back times γ
            return activations.gradient_of(normal * gamma, normal)
        return normal * gamma + beta

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        step = 1 - self.decay
        self.pending["mean"] = step * (self.buffer("mean") - mean)
        if self.use_log_std:
            # DL4J averages the variance and then takes the logarithm
            after = self.decay * self.variance() + step * var
            now = self.buffer(self.spread_name)
            self.pending[self.spread_name] = now - 0.5 * torch.log10(after)
        else:
            self.pending["var"] = step * (self.buffer("var") - var)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        gamma, beta = self.first["gamma"], self.first["beta"]
        if self.locked and (gamma == 1) != (beta == 0):
            rule = "DL4J applies locked γ and β only if γ ≠ 1 and β ≠ 0"
            return [f"BatchNormalization: {rule}"]
        return []

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return self.differs(dtype)

    def extra_repr(self) -> str:
        return f"{self.n_out}, decay={self.decay}, eps={self.eps}"


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
