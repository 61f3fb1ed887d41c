"""Layers on rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations, config
from dl4py.layers.base import Layer, masked
from dl4py.layers.part import implements
from dl4py.layers.view import View


class Affine(Layer):
    """Base of layers with a weight ``[n_out, n_in]``, torch's layout of DL4J's W."""

    def build(self) -> None:
        conf = self.conf
        self.weight = nn.Parameter(torch.empty(conf.n_out, conf.n_in))
        has_bias = getattr(conf, "has_bias", True)
        self.bias = nn.Parameter(torch.empty(conf.n_out)) if has_bias else None
        self.activation = activations.get(conf.activation, dl4j_exact=self.dl4j_exact)

    def views(self) -> Iterator[View]:
        fans = (self.conf.n_in, self.conf.n_out)
        yield View(self, "W", "weight", order="f", shaped=Tensor.t, fans=fans)
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")

    def linear(self, x: Tensor) -> Tensor:
        """x·W + b over the last axis."""
        w, b = self.param("weight"), self.param("bias")
        y: Tensor = self.product(F.linear, x, w, b)
        return y

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.linear(x)

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return masked(y, mask)


@implements(config.Dense)
class Dense(Affine):
    """
    LN subtracts the mean over the outputs and divides by their population standard
    deviation, without an ε; a row of equal values becomes 0.

    Shape:
        ``[n, n_in]`` → ``[n, n_out]``

    Example:
        >>> Dense(4, 3, "tanh")(torch.zeros(2, 4)).detach()
        tensor([[0., 0., 0.],
                [0., 0., 0.]])
    """

    neighbour = ("Linear", "an activation; layer normalisation")

    def build(self) -> None:
        super().build()
        if self.conf.has_layer_norm:
            self.gain = nn.Parameter(torch.empty(self.conf.n_out))

    def views(self) -> Iterator[View]:
        yield from super().views()
        if self.conf.has_layer_norm:
            yield View(self, "g", "gain", kind="gain")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if not self.conf.has_layer_norm:
            return self.linear(x)
        z = layer_norm(self.product(F.linear, x, self.param("weight")))
        z = z * self.param("gain")
        return z if self.bias is None else z + self.param("bias")


def layer_norm(z: Tensor) -> Tensor:
    """(z - mean) / std over the last axis, population std.

    Where that is 0 it is 0 and has no slope, as in DL4J.
    """
    centred = z - z.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * variance.masked_fill(variance == 0, math.inf).rsqrt()


@implements(config.ActivationLayer)
class ActivationLayer(Layer):
    """
    ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ActivationLayer("cube")(torch.tensor([-1.0, 2.0]))
        tensor([-1.,  8.])
    """

    leaves = "same"

    neighbour = ("Tanh, ReLU …", "any activation, by name")

    noisy = False

    def build(self) -> None:
        self.activation = activations.get(
            self.conf.activation, dl4j_exact=self.dl4j_exact
        )

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(y)
        return result


@implements(config.DropoutLayer)
class DropoutLayer(Layer):
    """
    Shape:
        Any shape in, the same shape out.

    Example:
        >>> DropoutLayer(dropout=0.8).eval()(torch.ones(2))
        tensor([1., 1.])
    """

    leaves = "same"

    neighbour = (
        "Dropout",
        "a number is the probability of keeping; other noise by name",
    )


@implements(config.Embedding)
class Embedding(Affine):
    """
    Shape:
        ``[n, 1]`` or ``[n]``, integers or whole floats → ``[n, n_out]``. In exact mode
        fractions are truncated, as DL4J does; otherwise they are an error.

    Example:
        >>> Embedding(7, 3)(torch.tensor([[0], [6]])).shape
        torch.Size([2, 3])
    """

    neighbour = ("Embedding", "a bias and an activation; whole floats do as indices")

    takes_indices = True

    def views(self) -> Iterator[View]:
        # DL4J: fan_in is 1, since one class at a time comes in
        fans = (1, self.conf.n_out)
        yield View(self, "W", "weight", order="f", shaped=Tensor.t, fans=fans)
        if self.bias is not None:
            yield View(self, "b", "bias", kind="bias")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if x.dim() == 2 and x.shape[1] == 1:
            x = x[:, 0]
        index = whole_indices(self, x)
        rows = F.embedding(index, self.param("weight").t())
        return rows if self.bias is None else rows + self.param("bias")


def whole_indices(layer: Layer, x: Tensor) -> Tensor:
    """Class indices from integers or whole floats."""
    name, count = type(layer).__name__, layer.conf.n_in
    if x.is_complex():
        raise TypeError(f"{name}: input must be class indices, got {x.dtype}")
    whole = x.long()
    if not torch.compiler.is_compiling():
        floats = x.is_floating_point()
        fault = (~x.isfinite() if layer.dl4j_exact else whole != x) if floats else None
        if fault is not None and bool(fault.any()):
            got = "fractions" if bool(x.isfinite().all()) else "NaN or an infinity"
            raise ValueError(f"{name}: input must hold whole numbers, got {got}")
        if x.numel() and not 0 <= int(whole.min()) <= int(whole.max()) < count:
            raise ValueError(
                f"{name}: class indices must be in 0 to {count - 1}, got "
                f"{int(whole.min())} to {int(whole.max())}"
            )
    return whole
