"""Convolutions with weights of their own at every place."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.part import implements
from dl4py.layers.sliding import Sliding, padded
from dl4py.layers.view import View


class LocallyConnected(Sliding):
    """Base of layers whose window has weights of its own at every place."""

    noisy = False  # DL4J leaves it out in what it computes by SameDiff
    scores_penalties = False

    def build(self) -> None:
        conf = self.conf
        if None in conf.input_sizes:
            raise ValueError(
                f"{type(conf).__name__}(input_size=...): expected the size of the "
                "input, since every place has its own weights, got nothing"
            )
        (shape,) = conf.weight_shapes().values()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(conf.n_out)) if conf.has_bias else None
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def views(self) -> Iterator[View]:
        conf, window = self.conf, self.window
        area = math.prod(window.kernel)
        fans = (conf.n_in * area, conf.n_out * area / math.prod(window.stride))
        yield View(self, "W", "weight", fans=fans)
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")

    def rows(self, weight: Tensor) -> Tensor:
        """The weights ``[places, window, n_out]`` in the order of the places."""
        return weight

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        sizes = self.conf.input_sizes
        if x.shape[2:] != sizes:
            raise ValueError(
                f"x: expected {list(sizes)} behind the features, since every place has "
                f"its own weights, got {list(x.shape)}"
            )
        shown = self.shown(x, mask)
        x = padded(x if shown is None else x.masked_fill(~shown, 0), self.window)
        kernel, stride = self.window.kernel, self.window.stride
        if self.dl4j_exact and math.prod(kernel) * x.shape[0] * x.shape[1] == 1:
            # DL4J: the errors of windows of a single number all go to the first one
            first = x[..., :1] if len(sizes) == 1 else x[..., :1, :1]
            x = activations.gradient_of(first.expand_as(x), x)
        if len(sizes) == 1:
            x, kernel, stride = x.unsqueeze(2), (1, *kernel), (1, *stride)
        cells = F.unfold(x, kernel, stride=stride).permute(2, 0, 1)
        y: Tensor = self.product(torch.bmm, cells, self.rows(self.param("weight")))
        if self.bias is not None:
            y = y + self.param("bias")
        return self.placed(y.permute(1, 2, 0))

    def placed(self, y: Tensor) -> Tensor:
        """``[n, n_out, places]`` with the axes of the output."""
        return y

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        twice = self.dl4j_exact
        return activations.gradient_of(2 * result, result) if twice else result

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = ["DL4J's gradient is twice the derivative"]
        if math.prod(self.window.kernel) * self.conf.n_in == 1:
            lines.append("DL4J sends the errors of a single example to its first place")
        if any(view.penalties for view in self.views()):
            lines.append("DL4J's score leaves out its penalties")
        name = type(self).__name__
        return [*super().differs(dtype), *(f"{name}: {line}" for line in lines)]


@implements(config.LocallyConnected1D)
class LocallyConnected1D(LocallyConnected):
    """
    Shape:
        ``[n, n_in, input_size]`` → ``[n, n_out, time']``.

    Example:
        >>> layer = LocallyConnected1D(1, 4, 3, input_size=8)
        >>> layer(torch.zeros(2, 1, 8)).shape
        torch.Size([2, 4, 8])
    """

    neighbour = ("—", "a kernel for every time step, an activation; masks")


@implements(config.LocallyConnected2D)
class LocallyConnected2D(LocallyConnected):
    """
    Shape:
        ``[n, n_in, *input_size]`` → ``[n, n_out, h', w']``; channels last for
        ``"NHWC"``.

    Example:
        >>> layer = LocallyConnected2D(1, 4, 3, input_size=(8, 6))
        >>> layer(torch.zeros(2, 1, 8, 6)).shape
        torch.Size([2, 4, 8, 6])
    """

    neighbour = ("—", "a kernel for every place, an activation; masks")

    def rows(self, weight: Tensor) -> Tensor:
        h, w = self.conf.output_sizes
        return weight.view(w, h, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)

    def placed(self, y: Tensor) -> Tensor:
        h, w = self.conf.output_sizes
        images = y.reshape(*y.shape[:2], h, w)
        if not self.dl4j_exact:
            return images
        return images.transpose(2, 3).reshape(*y.shape[:2], h, w)  # DL4J's order

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        return [*super().differs(dtype), *self.predicts_differently(dtype)]

    def predicts_differently(self, dtype: torch.dtype = torch.float64) -> list[str]:
        if 1 in self.conf.output_sizes:
            return super().predicts_differently(dtype)
        rule = "DL4J puts the results of columns where those of rows belong"
        return [*super().predicts_differently(dtype), f"LocallyConnected2D: {rule}"]
