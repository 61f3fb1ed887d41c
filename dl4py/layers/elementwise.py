"""Layers with a weight for each value of their input."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dl4py import activations, config
from dl4py.layers.base import Layer, masked
from dl4py.layers.part import implements
from dl4py.layers.view import View


@implements(config.PReLU)
class PReLU(Layer):
    """
    At 0 the slope is 1, torch's is α.

    Shape:
        ``[n, *input_shape]``, any size along shared axes; the same out.

    Example:
        >>> layer = PReLU((2,), weight_init="ones")
        >>> layer(torch.tensor([[3.0, -2.0]])).detach()
        tensor([[ 3., -2.]])
    """

    leaves = "same"
    weights_noisy = False
    neighbour = ("PReLU", "a slope for every value unless axes share one; at 0 it is 1")

    def build(self) -> None:
        shape = self.conf.input_shape
        if shape is None:
            raise ValueError(
                "input_shape: expected the shape of one example, such as (3, 8, 8), "
                "got nothing; give it, or set input_type(...)"
            )
        self.weight = nn.Parameter(torch.empty(shape))

    def views(self) -> Iterator[View]:
        yield View(self, "W", "weight", order="f")

    def arrange(self, x: Tensor) -> Tensor:
        return x

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        below = x.masked_fill(x >= 0, 0)  # an infinite x must not meet a gradient of 0
        return torch.where(x >= 0, x, self.param("weight") * below)


@implements(config.ElementWiseMultiplication)
class ElementWiseMultiplication(Layer):
    """
    Shape:
        ``[n, n_in]``, the same out.

    Example:
        >>> layer = ElementWiseMultiplication(2, 2, "identity", weight_init="ones")
        >>> layer(torch.tensor([[3.0, -2.0]])).detach()
        tensor([[ 3., -2.]])
    """

    weights_noisy = False
    neighbour = ("—", "one weight and one bias per feature, an activation")

    def build(self) -> None:
        conf = self.conf
        conf.check()
        self.weight = nn.Parameter(torch.empty(conf.n_in))
        self.bias = nn.Parameter(torch.empty(conf.n_in))
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def views(self) -> Iterator[View]:
        fans = (self.conf.n_in, self.conf.n_in)
        yield View(self, "W", "weight", shaped=_row, fans=fans)
        yield View(self, "b", "bias", kind="bias")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return torch.addcmul(self.param("bias"), x, self.param("weight"))

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return masked(y, mask)


def _row(weight: Tensor) -> Tensor:
    """DL4J's ``[1, n]``."""
    return weight.unsqueeze(0)
