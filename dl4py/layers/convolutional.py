"""Windows over images: convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.part import View, implements
from dl4py.layers.sliding import Sliding, padded


def as_it_is(weight: Tensor) -> Tensor:
    """DL4J's array of an image kernel is torch's."""
    return weight


def time_first(weight: Tensor) -> Tensor:
    """DL4J's ``[kernel, n_in, n_out]`` of torch's ``[n_out, n_in, kernel]``."""
    return weight.permute(2, 1, 0)


_CONVOLVE = {1: F.conv1d, 2: F.conv2d}
_SHAPED = {1: time_first, 2: as_it_is}  # from torch's weight to DL4J's


class Convolution(Sliding):
    """Base of convolutions of any rank: act(W ⋆ x + b)."""

    def build(self) -> None:
        conf = self.conf
        self.bias = nn.Parameter(torch.empty(conf.n_out)) if conf.has_bias else None
        self.weight = nn.Parameter(
            torch.empty(conf.n_out, conf.n_in, *self.window.kernel)
        )
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def views(self) -> Iterator[View]:
        conf = self.conf
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")
        window = self.window
        area = math.prod(window.kernel)
        # DL4J divides the fan out by the stride
        fans = (conf.n_in * area, conf.n_out * area / math.prod(window.stride))
        yield View(self, "W", "weight", fans=fans, shaped=_SHAPED[window.rank])

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        window, shown = self.window, self.shown(x, mask)
        x = x if shown is None else x.masked_fill(~shown, 0)
        margins = window.margins(x.shape[2:])
        padding = tuple(before for before, _ in margins)
        if any(before != after for before, after in margins):
            x, padding = padded(x, window), (0,) * window.rank
        convolve = _CONVOLVE[window.rank]

        def slide(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return convolve(x, w, b, window.stride, padding, window.dilation)

        y: Tensor = self.product(slide, x, self.param("weight"), self.param("bias"))
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
