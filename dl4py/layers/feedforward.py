"""Layers on rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl4py import activations
from dl4py.layers.base import Layer, View, masked_rows
from dl4py.registry import MODULES


class Affine(Layer):
    """Base of layers with a weight ``[n_out, n_in]``, torch's layout of DL4J's W.

    Args:
        n_in, n_out: features in and out.
        activation: a name, a module or a function.
        weight_init: a name or a function ``init(tensor, fan_in, fan_out)``.
        bias_init: first value of b.
        has_bias: whether there is a b.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "sigmoid",
        *,
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        has_bias: bool = True,
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(dropout, dl4j_exact)
        self.n_in, self.n_out = n_in, n_out
        self.weight_init, self.bias_init = weight_init, bias_init
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out)) if has_bias else None
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)
        self.reset_parameters()

    def dl4j_views(self) -> Iterator[View]:
        yield View(
            "W", "weight", order="f", shaped=Tensor.t, fans=(self.n_in, self.n_out)
        )
        if self.bias is not None:
            yield View("b", "bias", kind="bias")

    def extra_repr(self) -> str:
        return f"{self.n_in} → {self.n_out}"


@MODULES.add("dense")
class Dense(Affine):
    """Fully connected: act(x·W + b), or act(LN(x·W)·g + b) with layer normalisation.

    LN subtracts the mean over the outputs and divides by their population standard
    deviation, without an ε; a row of equal values becomes 0.

    Args:
        n_in, n_out: features in and out.
        activation: a name, a module or a function.
        weight_init: a name or a function ``init(tensor, fan_in, fan_out)``.
        bias_init, gain_init: first values of b and g.
        has_bias: whether there is a b.
        has_layer_norm: whether x·W is normalised.

    Shape:
        ``[n, n_in]`` → ``[n, n_out]``

    Example:
        >>> Dense(4, 3, "tanh")(torch.zeros(2, 4))
        tensor([[0., 0., 0.],
                [0., 0., 0.]], grad_fn=<TanhBackward0>)

    DL4J: org.deeplearning4j.nn.conf.layers.DenseLayer
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "sigmoid",
        *,
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        gain_init: float = 1.0,
        has_bias: bool = True,
        has_layer_norm: bool = False,
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            n_in, n_out, activation, weight_init=weight_init, bias_init=bias_init,
            has_bias=has_bias, dropout=dropout, dl4j_exact=dl4j_exact,
        )  # fmt: skip
        self.has_layer_norm, self.gain_init = has_layer_norm, gain_init
        if has_layer_norm:
            self.gain = nn.Parameter(torch.full((n_out,), float(gain_init)))

    def dl4j_views(self) -> Iterator[View]:
        yield from super().dl4j_views()
        if hasattr(self, "gain"):
            yield View("g", "gain", kind="gain")

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        x = self.disturb(x)
        if not self.has_layer_norm:
            z = F.linear(x, self.weight, self.bias)
        else:
            z = layer_norm(F.linear(x, self.weight)) * self.gain
            z = z if self.bias is None else z + self.bias
        y: Tensor = self.activation(z)
        return masked_rows(y, mask)


def layer_norm(z: Tensor) -> Tensor:
    """(z - mean) / std over the last axis, population std, 0 where it is 0."""
    centred = z - z.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred * variance.masked_fill(variance == 0, 1.0).rsqrt()


@MODULES.add("activation_layer")
class ActivationLayer(Layer):
    """An activation as a layer of its own.

    Args:
        activation: a name, a module or a function.
        dropout: ignored, as DL4J does in this layer.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> ActivationLayer("cube")(torch.tensor([-1.0, 2.0]))
        tensor([-1.,  8.])

    DL4J: org.deeplearning4j.nn.conf.layers.ActivationLayer
    """

    def __init__(
        self, activation: Any, *, dropout: Any = None, dl4j_exact: bool = False
    ) -> None:
        super().__init__(None, dl4j_exact)
        self.activation = activations.get(activation, dl4j_exact=dl4j_exact)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        y: Tensor = self.activation(x)
        return y


@MODULES.add("dropout_layer")
class DropoutLayer(Layer):
    """Noise as a layer of its own; identity when testing.

    Shape:
        Any shape in, the same shape out.

    Example:
        >>> DropoutLayer(dropout=0.8).eval()(torch.ones(2))
        tensor([1., 1.])

    DL4J: org.deeplearning4j.nn.conf.layers.DropoutLayer
    """

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        return self.disturb(x)


@MODULES.add("embedding")
class Embedding(Affine):
    """One row of W per class index: act(W[index] + b).

    Args:
        n_in: number of classes.
        n_out: length of a row.
        activation, weight_init, bias_init, has_bias: as in :class:`Dense`.

    Shape:
        ``[n, 1]`` or ``[n]``, integers or whole floats → ``[n, n_out]``. In exact mode
        fractions are truncated, as DL4J does; otherwise they are an error.

    Example:
        >>> Embedding(7, 3)(torch.tensor([[0], [6]])).shape
        torch.Size([2, 3])

    DL4J: org.deeplearning4j.nn.conf.layers.EmbeddingLayer
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation: Any = "identity",
        *,
        weight_init: Any = "xavier",
        bias_init: float = 0.0,
        has_bias: bool = False,
        dropout: Any = None,
        dl4j_exact: bool = False,
    ) -> None:
        super().__init__(
            n_in, n_out, activation, weight_init=weight_init, bias_init=bias_init,
            has_bias=has_bias, dropout=dropout, dl4j_exact=dl4j_exact,
        )  # fmt: skip

    def dl4j_views(self) -> Iterator[View]:
        # DL4J: fan_in is 1, since one class at a time comes in
        yield View("W", "weight", order="f", shaped=Tensor.t, fans=(1, self.n_out))
        if self.bias is not None:
            yield View("b", "bias", kind="bias")

    def forward(
        self, x: Tensor, mask: Tensor | None = None, state: Any = None
    ) -> Tensor:
        rows = F.embedding(indices(x, self.n_in, self.dl4j_exact), self.weight.t())
        y: Tensor = self.activation(rows if self.bias is None else rows + self.bias)
        return masked_rows(y, mask)


def indices(x: Tensor, count: int, dl4j_exact: bool) -> Tensor:
    """Class indices ``[n]`` from ``[n, 1]`` or ``[n]``, integers or whole floats."""
    if x.dim() == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.dim() != 1:
        raise ValueError(
            "Embedding: input must be class indices [n] or [n, 1], got shape "
            f"{tuple(x.shape)}; use argmax(1) on one-hot rows"
        )
    whole = x.long()
    if not torch.compiler.is_compiling():
        if x.is_floating_point() and not dl4j_exact and bool((whole != x).any()):
            raise ValueError("Embedding: input must hold whole numbers, got fractions")
        if x.numel() and not 0 <= int(whole.min()) <= int(whole.max()) < count:
            raise ValueError(
                f"Embedding: class indices must be in 0 to {count - 1}, got "
                f"{int(whole.min())} to {int(whole.max())}"
            )
    return whole
