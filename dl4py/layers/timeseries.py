"""Layers that make and mask time series and carry no state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py import config
from dl4py.layers.base import Layer, masked
from dl4py.layers.feedforward import Embedding, whole_indices
from dl4py.layers.part import implements
from dl4py.layers.recurrent import check_mask


@implements(config.RepeatVector)
class RepeatVector(Layer):
    """
    Shape:
        ``[n, size]`` → ``[n, size, time]``, or ``[n, time, size]`` for ``"NWC"``

    Example:
        >>> RepeatVector(3)(torch.tensor([[1.0, 2.0]]))
        tensor([[[1., 1., 1.],
                 [2., 2., 2.]]])
    """

    back_through_noise = False
    neighbour = ("Tensor.expand", "a row at every time step")

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x.unsqueeze(2).expand(-1, -1, self.conf.n)

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        return None if mask is None else mask.reshape(-1, 1).expand(-1, self.conf.n)


@implements(config.MaskLayer)
class MaskLayer(Layer):
    """
    ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        rows with a mask ``[n]`` or ``[n, 1]``, series ``[n, size, time]`` with
        ``[n, time]``, images with ``[n, 1, height, width]``; the same out. Series
        ``[n, time, size]`` are known as such by their mask where size and time differ.

    Example:
        >>> MaskLayer()(torch.ones(1, 1, 3), torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([[[1., 1., 0.]]])
    """

    leaves = "same"

    neighbour = ("—", "sets what is masked to 0")

    noisy = False

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        known = mask is not None and mask.dim() == 2 and y.dim() == 3
        last = known and mask is not None and mask.shape[1] != y.shape[2]
        return masked(y, mask, "NWC" if last else None)


@implements(config.EmbeddingSequence)
class EmbeddingSequence(Embedding):
    """
    Outputs of masked steps are 0. ``dropout`` is ignored, as DL4J does in this layer.

    Shape:
        ``[n, time]`` or ``[n, 1, time]``, integers or whole floats →
        ``[n, n_out, time]``, or ``[n, time, n_out]`` for ``"NWC"``. In exact mode
        fractions are truncated, as DL4J does; otherwise they are an error.

    Example:
        >>> EmbeddingSequence(7, 3)(torch.tensor([[0, 6]])).shape
        torch.Size([1, 3, 2])
    """

    neighbour = (
        "Embedding",
        "of `[n, time]` the `[n, size, time]`; an activation; masks",
    )

    noisy = False

    def arrange(self, x: Tensor) -> Tensor:
        return x  # indices have no channels

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.flatten(1) if x.dim() == 3 else x
        check_mask(mask, x.unsqueeze(1))
        index = whole_indices(self, x)
        y = F.embedding(index, self.param("weight").t())
        y = y if self.bias is None else y + self.param("bias")
        return y.transpose(1, 2)

    def finish(self, y: Tensor) -> Tensor:
        features_last = y if self.channels_last else y.transpose(1, 2)
        y = self.activation(features_last)
        return y if self.channels_last else y.transpose(1, 2)

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        return masked(y, mask, self.conf.format)
