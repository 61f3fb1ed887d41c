"""What the terms of losses are made of: factors, logarithms, quotients."""

from __future__ import annotations

import torch
from torch import Tensor

from dl4py.activations.base import gradient_of


def column(m: Tensor | None) -> Tensor | None:
    """A mask of examples as kernels take it, ``[n]``."""
    return None if m is None else m.squeeze(1)


def times(t: Tensor, *factors: Tensor | None) -> Tensor:
    """The product of what is there."""
    for factor in factors:
        t = t if factor is None else t * factor
    return t


def times_log(y: Tensor, a: Tensor) -> Tensor:
    """y·ln a, 0 with gradient 0 where y = 0 whatever a is."""
    return y * a.masked_fill(y == 0, 1.0).log()


def ratio(y: Tensor, a: Tensor) -> Tensor:
    """y/a, finite for every a: DL4J's infinities and 0/0 are not imitated."""
    limits = torch.finfo(a.dtype)
    return (y / a).masked_fill(y == 0, 0.0).clamp(limits.min, limits.max)


def per_output(m: Tensor | None, y: Tensor) -> bool:
    """DL4J's test; a ``[n, 1]`` mask of ``[n, 1]`` labels counts as one per output."""
    return m is not None and m.shape == y.shape


def whole(gone: Tensor) -> Tensor:
    """The rows, ``[n, 1]``, of which nothing is left."""
    return gone.all(1, keepdim=True) if gone.shape[1] > 1 else gone


def scale_gradient(z: Tensor, *factors: Tensor | None) -> Tensor:
    """``z``, whose gradient is multiplied by the factors."""
    return (
        gradient_of(times(z, *factors), z) if any(f is not None for f in factors) else z
    )
