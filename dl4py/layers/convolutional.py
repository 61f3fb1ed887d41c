"""Windows over series, images and volumes: convolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.config.regularization import Scaling
from dl4py.layers.part import implements
from dl4py.layers.sliding import Sliding, padded
from dl4py.layers.view import View


def as_it_is(weight: Tensor) -> Tensor:
    """DL4J's array of a kernel of images or volumes is torch's."""
    return weight


def time_first(weight: Tensor) -> Tensor:
    """DL4J's ``[kernel, n_in, n_out]`` of torch's ``[n_out, n_in, kernel]``."""
    return weight.permute(2, 1, 0)


def with_width(weight: Tensor) -> Tensor:
    """``[n_out, n_in, kernel, 1]``, whose axes DL4J's constraints count."""
    return weight.unsqueeze(-1)


CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_SHAPED = {1: time_first, 2: as_it_is, 3: as_it_is}  # from torch's weight to DL4J's


class Convolution(Sliding):
    """Base of convolutions of any rank: act(W ⋆ x + b)."""

    named: Callable[[Tensor], Tensor] | None = None  # as a View's

    def build(self) -> None:
        conf = self.conf
        self.bias = nn.Parameter(torch.empty(conf.n_out)) if conf.has_bias else None
        self.weight = nn.Parameter(torch.empty(self.shape()))
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def shape(self) -> tuple[int, ...]:
        """That of torch's weight."""
        return (self.conf.n_out, self.conf.n_in, *self.window.kernel)

    def shaped(self, weight: Tensor) -> Tensor:
        """DL4J's array of torch's weight."""
        return _SHAPED[self.window.rank](weight)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels in and out, as the weight initialisation counts them."""
        return self.conf.n_in, self.conf.n_out

    def views(self) -> Iterator[View]:
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")
        (n_in, n_out), (area, stride) = self.channels, self.counted
        # DL4J divides the fan out by the stride
        fans = (n_in * area, n_out * area / stride)
        named = self.named
        yield View(self, "W", "weight", fans=fans, shaped=self.shaped, named=named)

    @property
    def counted(self) -> tuple[int, int]:
        """The kernel's and the stride's products, for the weight initialisation."""
        return math.prod(self.window.kernel), math.prod(self.window.stride)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        shown = self.shown(x, mask)
        x = x if shown is None else x.masked_fill(~shown, 0)
        return self.convolved(x, self.param("weight"), self.param("bias"))

    def convolved(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
    ) -> Tensor:
        """weight ⋆ x + bias, the window's way."""
        window = self.window
        margins = window.margins(x.shape[2:])
        padding = tuple(before for before, _ in margins)
        if any(before != after for before, after in margins):
            x, padding = padded(x, window), (0,) * window.rank
        convolve = CONVOLVE[window.rank]

        def slide(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return convolve(x, w, b, window.stride, padding, window.dilation, groups)

        y: Tensor = self.product(slide, x, weight, bias)
        return y

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result


@implements(config.Convolution1D)
class Convolution1D(Convolution):
    """
    Shape:
        ``[n, n_in, time]`` → ``[n, n_out, time']``; features last for ``"NWC"``.

    Example:
        >>> layer = Convolution1D(1, 4, 3, convolution_mode="Causal")
        >>> layer(torch.zeros(2, 1, 8)).shape
        torch.Size([2, 4, 8])
    """

    neighbour = ("Conv1d", "an activation; `Same` and `Causal` padding; masks")
    back_through_noise = False
    weights_noisy = False
    named = staticmethod(with_width)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found = super().differs(dtype)
        if any(isinstance(c, Scaling) for c in self.conf.constraints or ()):
            name = type(self).__name__
            found.append(f"{name}: DL4J's constraints mix inputs, outputs and taps")
        return found

    @property
    def counted(self) -> tuple[int, int]:
        # of both numbers that DL4J holds: [k, k] today, [k, 1] up to beta6
        return math.prod(self.conf.kernel_size), math.prod(self.conf.stride)


@implements(config.Convolution2D)
class Convolution2D(Convolution):
    """
    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_out, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> layer = Convolution2D(1, 4, 5, convolution_mode="Same")
        >>> layer(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    neighbour = ("Conv2d", "an activation; `Same` padding with strides; masks")


@implements(config.Convolution3D)
class Convolution3D(Convolution):
    """
    Shape:
        ``[n, n_in, d, h, w]`` → ``[n, n_out, d', h', w']``; channels last for
        ``"NDHWC"``.

    Example:
        >>> layer = Convolution3D(1, 4, 2, stride=2)
        >>> layer(torch.zeros(2, 1, 8, 8, 8)).shape
        torch.Size([2, 4, 4, 4, 4])
    """

    neighbour = ("Conv3d", "an activation; `Same` padding with strides; masks")
