"""Layers of capsules."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import config
from dl4py.activations import gradient_of
from dl4py.layers.base import Layer
from dl4py.layers.part import implements
from dl4py.layers.sliding import Sliding, padded
from dl4py.layers.view import View

_EPS = 1e-5  # DL4J's


def squash(s: Tensor) -> Tensor:
    """s·‖s‖²/((1 + ‖s‖²)·√(‖s‖² + 1e-5)) over the last axis: its length is below 1.

    >>> round(squash(torch.tensor([3.0, 4.0])).norm().item(), 4)
    0.9615
    """
    wide = s.float() if s.itemsize < 4 else s  # 1e-5^-1.5 is infinite in half
    square = wide.square().sum(-1, keepdim=True)
    return (wide * (square / (1 + square) * (square + _EPS).rsqrt())).to(s.dtype)


class Capsules(Layer):
    """Base of layers of capsules."""

    noisy = False  # DL4J leaves it out in what it computes by SameDiff
    scores_penalties = False

    def finish(self, y: Tensor) -> Tensor:
        return gradient_of(2 * y, y) if self.dl4j_exact else y

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        lines = ["DL4J's gradient is twice the derivative"]
        if any(view.penalties for view in self.views()):
            lines.append("DL4J's score leaves out its penalties")
        name = type(self).__name__
        return [*super().differs(dtype), *(f"{name}: {line}" for line in lines)]


@implements(config.PrimaryCapsules)
class PrimaryCapsules(Capsules, Sliding):
    """
    Shape:
        ``[n, input_channels, h, w]`` → ``[n, capsules, capsule_dimensions]``.

    Example:
        >>> layer = PrimaryCapsules(1, 4, 2, kernel_size=3)
        >>> layer(torch.zeros(2, 1, 7, 7)).shape
        torch.Size([2, 18, 4])
    """

    neighbour = ("Conv2d", "its values cut into capsules, and squashed")

    def build(self) -> None:
        conf = self.conf
        if not conf.input_channels:
            raise ValueError(
                "input_channels: expected a whole number >= 1, got nothing; give it, "
                "or set input_type(...)"
            )
        count = conf.channels * conf.capsule_dimensions
        shape = (count, conf.input_channels, *conf.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(count)) if conf.has_bias else None

    def views(self) -> Iterator[View]:
        conf = self.conf
        area = math.prod(conf.kernel_size)
        out = conf.channels * conf.capsule_dimensions * area / math.prod(conf.stride)
        fans = (conf.input_channels * area, out)
        yield View(self, "weight", "weight", shaped=_channels_last, fans=fans)
        if self.bias is not None:
            yield View(self, "bias", "bias", kind="bias")

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None if mask is not None and mask.dim() == 4 else mask

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        conf, window, shown = self.conf, self.window, self.shown(x, mask)
        x = padded(x if shown is None else x.masked_fill(~shown, 0), window)

        def slide(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            return F.conv2d(x, w, b, window.stride, 0, window.dilation)

        y: Tensor = self.product(slide, x, self.param("weight"), self.param("bias"))
        if conf.use_relu:
            y = F.leaky_relu(y, conf.leak) if conf.leak else y.relu()
        return squash(y.reshape(y.shape[0], -1, conf.capsule_dimensions))


def _channels_last(weight: Tensor) -> Tensor:
    """DL4J's ``[kh, kw, in, out]`` of torch's ``[out, in, kh, kw]``."""
    return weight.permute(2, 3, 1, 0)


@implements(config.Capsule)
class Capsule(Capsules):
    """
    Shape:
        ``[n, input_capsules, input_capsule_dimensions]`` →
        ``[n, capsules, capsule_dimensions]``.

    Example:
        >>> Capsule(18, 4, 3, 8)(torch.zeros(2, 18, 4)).shape
        torch.Size([2, 3, 8])
    """

    neighbour = ("—", "dynamic routing between capsules")

    def build(self) -> None:
        conf = self.conf
        if not conf.input_capsules or not conf.input_capsule_dimensions:
            raise ValueError(
                "input_capsules, input_capsule_dimensions: expected whole numbers >= "
                "1, got nothing; give them, or set input_type(...)"
            )
        (shape,) = conf.weight_shapes().values()
        self.weight = nn.Parameter(torch.empty(shape[1:4]))
        size = (conf.capsules, conf.capsule_dimensions)
        self.bias = nn.Parameter(torch.empty(size)) if conf.has_bias else None

    def views(self) -> Iterator[View]:
        conf = self.conf
        fans = (
            conf.input_capsules * conf.input_capsule_dimensions,
            conf.capsules * conf.capsule_dimensions,
        )
        yield View(self, "weight", "weight", shaped=_widened, fans=fans)
        if self.bias is not None:
            yield View(self, "bias", "bias", kind="bias", shaped=_wide)

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        conf, bias = self.conf, self.param("bias")

        def votes(x: Tensor, w: Tensor) -> Tensor:
            return torch.einsum("nid,ijd->nij", x, w)

        u: Tensor = self.product(votes, x, self.param("weight"))
        u = u.reshape(*u.shape[:2], conf.capsules, conf.capsule_dimensions)
        b = torch.zeros_like(u[..., 0])
        for routing in range(conf.routings):
            s = (b.softmax(2).unsqueeze(3) * u).sum(1)
            v = squash(s if bias is None else s + bias)
            if routing < conf.routings - 1:
                b = b + (u * v.unsqueeze(1)).sum(3)
        return v


def _widened(weight: Tensor) -> Tensor:
    """DL4J's ``[1, in, out, size, 1]``."""
    return weight[None, ..., None]


def _wide(bias: Tensor) -> Tensor:
    """DL4J's ``[1, 1, capsules, size, 1]``."""
    return bias[None, None, ..., None]


@implements(config.CapsuleStrength)
class CapsuleStrength(Capsules):
    """
    Shape:
        ``[n, capsules, dimensions]`` → ``[n, capsules]``.

    Example:
        >>> CapsuleStrength()(torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]))
        tensor([[5., 0.]])
    """

    neighbour = ("linalg.vector_norm", "a layer of it, over the last axis")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(x, dim=2)
        return length
