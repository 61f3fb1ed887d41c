"""Transposed, depthwise and separable convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.convolutional import Convolution
from dl4py.layers.part import implements
from dl4py.layers.sliding import Spatial, around
from dl4py.layers.view import View, weights_first

_OPEN: dict[int, Callable[..., Tensor]] = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Deconvolution(Convolution):
    """Base of transposed convolutions of any rank: act(Wᵀ ⋆ x + b)."""

    def shape(self) -> tuple[int, ...]:
        return (self.conf.n_in, self.conf.n_out, *self.window.kernel)

    def convolved(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Tensor:
        window = self.window
        cut = [max(0, c) for c in window.cut]
        put = [max(0, -c) for c in window.cut]
        made = [
            s * (n - 1) + k - 2 * c
            for n, s, k, c in zip(
                x.shape[2:], window.stride, window.spread, cut, strict=True
            )
        ]
        sizes = zip(window.opened(x.shape[2:]), made, put, strict=True)
        margins = [(before, size - n - before) for size, n, before in sizes]
        fits = not any(m for pair in margins for m in pair)
        opened = _OPEN[window.rank]

        def slide(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return opened(x, w, b, window.stride, cut, 0, groups, window.dilation)

        y: Tensor = self.product(slide, x, weight, bias if fits else None)
        if fits:
            return y
        y = around(y, margins)  # "Same" leaves out, or puts, one more at the end
        return y if bias is None else y + bias.view(-1, *(1,) * window.rank)

    def passed(self, mask: Tensor) -> Tensor:
        """A place counts if one that counts reaches it."""
        ones = torch.ones(1, 1, *self.window.kernel, device=mask.device)
        return (self.convolved(mask, ones, None) != 0).float()

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return Spatial.feed_mask(self, mask, shape)


@implements(config.Deconvolution2D)
class Deconvolution2D(Deconvolution):
    """
    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_out, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> layer = Deconvolution2D(1, 4, 2, stride=2)
        >>> layer(torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 4, 8, 8])
    """

    neighbour = ("ConvTranspose2d", "an activation; `Same` padding; masks")


@implements(config.Deconvolution3D)
class Deconvolution3D(Deconvolution):
    """
    Shape:
        ``[n, n_in, d, h, w]`` → ``[n, n_out, d', h', w']``; channels last for
        ``"NDHWC"``.

    Example:
        >>> layer = Deconvolution3D(1, 4, 2, stride=2)
        >>> layer(torch.zeros(2, 1, 4, 4, 4)).shape
        torch.Size([2, 4, 8, 8, 8])
    """

    neighbour = ("ConvTranspose3d", "an activation; `Same` padding; masks")

    def shaped(self, weight: Tensor) -> Tensor:
        return weight.permute(2, 3, 4, 1, 0)


class Deep(Convolution):
    """Base of layers with a kernel for every channel by itself."""

    def shape(self) -> tuple[int, ...]:
        conf = self.conf
        return (conf.n_in * conf.depth_multiplier, 1, *self.window.kernel)

    def apart(self, weight: Tensor) -> Tensor:
        """torch's weight as ``[n_in, depth_multiplier, h, w]``."""
        conf, kernel = self.conf, self.window.kernel
        return weight.view(conf.n_in, conf.depth_multiplier, *kernel)

    @property
    def channels(self) -> tuple[int, int]:
        return self.conf.n_in, self.conf.depth_multiplier

    def own_views(self) -> Iterator[View]:
        """The views, each with its own penalties."""
        return super().views()

    def views(self) -> Iterator[View]:
        views = list(self.own_views())
        return weights_first(views) if self.dl4j_exact else iter(views)

    def convolved(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Tensor:
        return super().convolved(x, weight, bias, self.conf.n_in)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found, conf = super().differs(dtype), self.conf
        alike = conf.regularization == conf.regularization_bias
        alike = alike and conf.bias_updater in (None, conf.updater)
        if conf.has_bias and not alike:
            rule = "DL4J's rules for weights act on biases and the first weights"
            found.append(f"{type(self).__name__}: {rule}")
        return found


@implements(config.DepthwiseConvolution2D)
class DepthwiseConvolution2D(Deep):
    """
    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_in·depth_multiplier, h', w']``; channels last for
        ``"NHWC"``.

    Example:
        >>> layer = DepthwiseConvolution2D(3, depth_multiplier=2, kernel_size=3)
        >>> layer(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 6, 6, 6])
    """

    neighbour = (
        "Conv2d(groups=n_in)",
        "an activation; `Same` padding with strides; masks",
    )

    def shaped(self, weight: Tensor) -> Tensor:
        return self.apart(weight).permute(2, 3, 0, 1)


@implements(config.SeparableConvolution2D)
class SeparableConvolution2D(Deep):
    """
    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_out, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> layer = SeparableConvolution2D(3, 4, 3, depth_multiplier=2)
        >>> layer(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 4, 6, 6])
    """

    neighbour = ("two Conv2d", "both in one, an activation; `Same` padding; masks")

    def build(self) -> None:
        super().build()
        conf = self.conf
        between = conf.n_in * conf.depth_multiplier
        self.point = nn.Parameter(torch.empty(conf.n_out, between, 1, 1))

    def shaped(self, weight: Tensor) -> Tensor:
        return self.apart(weight).transpose(0, 1)

    def own_views(self) -> Iterator[View]:
        yield from super().own_views()
        between = self.conf.n_in * self.conf.depth_multiplier
        yield View(self, "pW", "point", fans=(between, between))

    def convolved(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Tensor:
        deep = super().convolved(x, weight, None)
        y: Tensor = self.product(F.conv2d, deep, self.param("point"), bias)
        if not self.forgets:
            return y
        alone = deep if bias is None else deep + bias.view(-1, 1, 1)
        return activations.gradient_of(y, alone)

    @property
    def forgets(self) -> bool:
        """Whether DL4J forgets the point: of a single channel in, where shapes fit."""
        return self.dl4j_exact and self.forgettable

    @property
    def forgettable(self) -> bool:
        conf = self.conf
        return bool(conf.n_in == 1 and conf.depth_multiplier == conf.n_out)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return [*super().differs(dtype), *self.predicts_differently(dtype)]

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        if not self.forgettable:
            return super().predicts_differently(dtype)
        rule = "DL4J forgets pW where n_in is 1 and depth_multiplier is n_out"
        return [f"SeparableConvolution2D: {rule}"]
