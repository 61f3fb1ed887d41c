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


@implements(config.Convolution2D)
class Convolution2D(Sliding):
    """
    Shape:
        ``[n, n_in, h, w]`` → ``[n, n_out, h', w']``; channels last for ``"NHWC"``.

    Example:
        >>> layer = Convolution2D(1, 4, 5, convolution_mode="Same")
        >>> layer(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def build(self) -> None:
        conf = self.conf
        self.bias = nn.Parameter(torch.empty(conf.n_out)) if conf.has_bias else None
        self.weight = nn.Parameter(
            torch.empty(conf.n_out, conf.n_in, *conf.kernel_size)
        )
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def views(self) -> Iterator[View]:
        conf = self.conf
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")
        area = math.prod(conf.kernel_size)
        # DL4J divides the fan out by the stride
        fans = (conf.n_in * area, conf.n_out * area / math.prod(conf.stride))
        yield View(self, "W", "weight", fans=fans)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        window, shown = self.window, self.shown(x, mask)
        x = x if shown is None else x.masked_fill(~shown, 0)
        margins = window.margins(x.shape[2:])
        padding = tuple(before for before, _ in margins)
        if any(before != after for before, after in margins):
            x, padding = padded(x, window), (0,) * window.rank

        def slide(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.conv2d(x, w, b, window.stride, padding, window.dilation)

        y: Tensor = self.product(slide, x, self.param("weight"), self.param("bias"))
        return y

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result
