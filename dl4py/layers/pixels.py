"""Losses of every pixel or cell of a volume."""

from __future__ import annotations

import torch
from torch import Tensor

from dl4py import activations, config
from dl4py.layers.base import spread
from dl4py.layers.output import Scored
from dl4py.layers.part import implements


class Pixelwise(Scored):
    """Base of losses at every place: places become rows for activation and loss."""

    always_divides = True
    noisy = False  # DL4J has no dropout here

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None

    def last(self, t: Tensor) -> Tensor:
        """``t`` with its channels on the last axis."""
        return t if self.channels_last else t.movedim(1, -1)

    def finish(self, y: Tensor) -> Tensor:
        result: Tensor = self.activation(self.last(y))
        return result if self.channels_last else result.movedim(y.dim() - 1, 1)

    def rows(self, t: Tensor, like: Tensor) -> Tensor:
        """One row a place; where there is one channel for several a number a place."""
        given = self.last(spread(t, like, self.conf.format))
        full = given.expand(*self.last(like).shape[:-1], given.shape[-1])
        alone = full.shape[-1] == 1 and t.shape != like.shape
        return full.reshape(-1) if alone else full.flatten(0, -2)

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        one = z[..., :1] if self.channels_last else z[:, :1]
        if labels.shape not in (z.shape, one.shape):
            raise ValueError(
                f"labels: expected {list(z.shape)}, one row of channels for every "
                f"place, got {list(labels.shape)}"
            )
        return super().score_sum(z, labels, mask)

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return y if self.dl4j_exact else super().cover(y, mask)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        name = type(self).__name__
        found = [f"{name}: DL4J's activations are those of masked places too"]
        return [*super().differs(dtype), *found]


@implements(config.CnnLoss)
class CnnLoss(Pixelwise):
    """
    Shape:
        ``[n, c, h, w]`` in, the same out; with labels → the score, a single number.

    Example:
        >>> CnnLoss("softmax")(torch.zeros(1, 2, 1, 1)).flatten()
        tensor([0.5000, 0.5000])
    """

    neighbour = ("CrossEntropyLoss …", "an activation and any loss, of every pixel")

    def score_sum(
        self, z: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        total = super().score_sum(z, labels, mask)
        if not (self.dl4j_exact and self.channels_last) or mask is not None:
            return total
        # DL4J's score, no gradient, takes heights for channels
        rows, wanted = (t.movedim(1, -1).flatten(0, -2) for t in (z, labels))
        told = self.criterion.score(rows, wanted, average=False)
        return activations.gradient_of(total, told)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        found = super().differs(dtype)
        if self.channels_last:
            found.append("CnnLoss: DL4J's score of NHWC takes heights for channels")
        return found


@implements(config.Cnn3DLoss)
class Cnn3DLoss(Pixelwise):
    """
    Shape:
        ``[n, c, d, h, w]`` in, the same out; with labels → the score, a single number.

    Example:
        >>> Cnn3DLoss("softmax")(torch.zeros(1, 2, 1, 1, 1)).flatten()
        tensor([0.5000, 0.5000])
    """

    neighbour = ("CrossEntropyLoss …", "an activation and any loss, of every cell")
