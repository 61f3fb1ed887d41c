"""The template of a layer: noise, layout, what it computes, mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dl4py.layers.part import Part
from dl4py.ops.precision import precisely

CHANNELS_LAST = ("NHWC", "NWC", "NDHWC")


class Layer(Part):
    """Base of all layer modules.

    ``layer(x, mask=None, state=None)`` takes DL4J's shapes; masks are ``[n]`` or
    ``[n, 1]`` for rows, ``[n, time]`` for series, ``[n, 1, height, width]`` for images.
    The template is input noise → DL4J's layout → :meth:`transform` → layout back →
    :meth:`finish` → :meth:`cover`; a kind of layer states what differs from that.

    Attributes:
        recurrent: whether it returns (activations, state) in place of activations.
        noisy: whether ``dropout`` disturbs its input while training.
    """

    recurrent = False
    noisy = True

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        x = self.arrange(self.disturb(x))
        return self.cover(self.finish(self.as_given(self.transform(x, mask))), mask)

    def disturb(self, x: Tensor) -> Tensor:
        """The input with its training noise."""
        dropout = self.conf.dropout
        if not self.training or dropout is None or not self.noisy:
            return x
        noisy: Tensor = dropout.apply(x, self.noise, self.clock)
        return noisy

    def arrange(self, x: Tensor) -> Tensor:
        """``x`` with its channels on axis 1, a view."""
        return x.movedim(-1, 1) if self.channels_last and x.dim() > 2 else x

    def as_given(self, y: Tensor) -> Tensor:
        """The inverse of :meth:`arrange`."""
        return y.movedim(1, -1) if self.channels_last and y.dim() > 2 else y

    @property
    def channels_last(self) -> bool:
        """Whether the configuration's format says so."""
        return getattr(self.conf, "format", None) in CHANNELS_LAST

    def transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What the layer computes, channels on axis 1."""
        return x

    def finish(self, y: Tensor) -> Tensor:
        """The activation, in the user's layout."""
        return y

    def cover(self, y: Tensor, mask: Tensor | None) -> Tensor:
        """The activations with what is masked out set to 0, where the layer does so."""
        return y

    def product(self, f: Callable[..., Any], *tensors: Any) -> Any:
        """``f(*tensors)``, in exact mode in full precision on every device."""
        return precisely(f, *tensors) if self.dl4j_exact else f(*tensors)

    def param(self, attribute: str) -> Tensor:
        """A parameter as the layer is to use it: with its noise while training."""
        value: Tensor = getattr(self, attribute)
        noise = getattr(self.conf, "weight_noise", None)
        if noise is None or not self.training or value is None:
            return value
        view = next(v for v in self.views() if v.attribute == attribute)
        noisy: Tensor = noise.apply(value, view.kind, self.noise, self.clock)
        return noisy

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        """The mask that goes on when ``mask`` and an input of ``shape`` come in."""
        return mask

    def extra_repr(self) -> str:
        sizes = [getattr(self.conf, name, None) for name in ("n_in", "n_out")]
        words = [f"{sizes[0]} → {sizes[1]}"] if all(sizes) else []
        if self.noisy and self.conf.dropout is not None:
            words.append(f"dropout={self.conf.dropout}")
        return ", ".join(words)


def masked_rows(y: Tensor, mask: Tensor | None) -> Tensor:
    """Rows of ``y`` times their mask, as DL4J does in every layer on rows.

    Args:
        y: ``[n, size]``.
        mask: ``[n]``, ``[n, 1]``, or one number per output.
    """
    if mask is None:
        return y
    if mask.shape == y.shape:
        return y * mask.to(y.dtype)
    return y * mask.reshape(mask.shape[0], *(1,) * (y.dim() - 1)).to(y.dtype)
