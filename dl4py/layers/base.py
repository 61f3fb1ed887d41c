"""The template of a layer: noise, layout, what it computes, mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dl4py.activations import gradient_of
from dl4py.layers.given import check_numbers, fits, misfit
from dl4py.layers.part import Part
from dl4py.losses.misfit import MaskMisfit
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
        takes_indices: whether integers may come in.
        noisy: whether ``dropout`` disturbs its input while training.
        order: of ND4J's array of the input, ``"c"`` or ``"f"``: of its random numbers.
        back_through_noise: whether DL4J multiplies the gradient by the input's noise.
        weights_noisy: whether DL4J knows weight noise here.
    """

    recurrent = False
    takes_indices = False
    noisy = True
    order = "c"
    back_through_noise = True
    weights_noisy = True

    def _setup(self, conf: Any, dl4j_exact: bool) -> None:
        super()._setup(conf, dl4j_exact)
        self._shapes = conf.shapes  # which cost more to make than to compare

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        self.check(x)
        self.check_mask(mask, x)
        x = self.arrange(self.disturb(x))
        return self.cover(self.finish(self.as_given(self.transform(x, mask))), mask)

    def check(self, x: Tensor) -> None:
        """Refuse an input that is not what the layer takes.

        Raises:
            TypeError: where it is no tensor.
            ValueError: where its shape is another, or its numbers are integers and no
                indices.
        """
        known = isinstance(x, Tensor)
        if not known or not (self.takes_indices or x.is_floating_point()):
            check_numbers(type(self).__name__, x)
        elif not fits(x.shape, self._shapes):
            raise misfit(type(self).__name__, x, self._shapes)

    def check_mask(self, mask: Tensor | None, x: Tensor) -> None:
        """Refuse a mask that does not fit the input, even where it changes nothing."""
        if mask is None:
            return
        last = getattr(self.conf, "format", {3: "NWC", 4: "NHWC"}.get(x.dim(), "NDHWC"))
        try:  # a layer without a format takes both
            spread(mask, x, last)
        except ValueError:
            if hasattr(self.conf, "format"):
                raise
            spread(mask, x)

    def disturb(self, x: Tensor) -> Tensor:
        """The input with its training noise."""
        dropout = self.conf.dropout
        if not self.training or dropout is None or not self.noisy:
            return x
        noisy: Tensor = dropout.apply(x, self.noise.ordered(self.order), self.clock)
        by = self.dl4j_exact and not self.back_through_noise
        return gradient_of(x, noisy) if by else noisy

    def follow(self, order: str) -> str:
        self.order = order
        return super().follow(order)

    def arrange(self, x: Tensor) -> Tensor:
        """``x`` with its channels on axis 1, a view."""
        # torch.onnx does not know axis -1 here
        return x.movedim(x.dim() - 1, 1) if self.channels_last and x.dim() > 2 else x

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
        if noise is None or value is None:
            return value
        if self.dl4j_exact and not self.weights_noisy:
            return value
        view = next(v for v in self.views() if v.attribute == attribute)
        tests = self.dl4j_exact and view.kind == "bias"  # DL4J: in testing too
        if not noise.hits(view.kind) or not (self.training or tests):
            return value
        with torch.no_grad():
            like, source = view.shaped(value), self.noise.ordered(view.order)
            drawn = torch.empty_like(value)
            view.shaped(drawn).copy_(noise.draw(like, source, self.clock))
        noisy: Tensor = noise.apply(value, drawn)
        return gradient_of(value, noisy) if self.dl4j_exact else noisy

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        name, found = type(self).__name__, super().differs(dtype)
        if not self.back_through_noise and self.conf.dropout is not None:
            found.append(f"{name}: DL4J's gradient passes dropout by")
        if not self.weights_noisy and getattr(self.conf, "weight_noise", None):
            found.append(f"{name}: DL4J ignores weight noise here")
        return found

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        """The mask that goes on when ``mask`` and an input of ``shape`` come in."""
        return mask

    def count(self, n: int) -> int:
        """How many examples leave when ``n`` come in."""
        return n

    def extra_repr(self) -> str:
        sizes = [getattr(self.conf, name, None) for name in ("n_in", "n_out")]
        words = [f"{sizes[0]} → {sizes[1]}"] if all(sizes) else []
        if self.noisy and self.conf.dropout is not None:
            words.append(f"dropout={self.conf.dropout}")
        return ", ".join(words)


def spread(mask: Tensor, x: Tensor, format: str | None = None) -> Tensor:
    """``mask`` with as many axes as ``x``, so that they go together.

    Args:
        mask: ``[n]`` or ``[n, 1]`` for rows, ``[n, time]`` for series, ``[n, 1, h, w]``
            for images, ``[n, 1, d, h, w]`` for volumes, where an axis may be 1, or one
            number for each of ``x``.
        format: of ``x``: ``"NWC"``, ``"NHWC"`` or ``"NDHWC"`` where channels come last.

    >>> spread(torch.ones(2, 5), torch.ones(2, 3, 5)).shape
    torch.Size([2, 1, 5])
    """
    shape = mask.shape
    if shape == x.shape:
        return mask
    if mask.dim() == 2 and x.dim() == 3:
        mask = mask.unsqueeze(2 if format == "NWC" else 1)
    elif mask.dim() == x.dim() and x.dim() > 3:
        mask = mask.movedim(1, -1) if format in CHANNELS_LAST else mask
    elif mask.dim() == 1 or (mask.dim() == 2 and shape[1] == 1):
        mask = mask.reshape(shape[0], *(1,) * (x.dim() - 1))
    if mask.dim() != x.dim() or any(
        a not in (1, b) or (not axis and a != b)
        for axis, (a, b) in enumerate(zip(mask.shape, x.shape, strict=True))
    ):
        raise _misfit(shape, x, _fitting(x, format))
    return mask


def _fitting(x: Tensor, format: str | None) -> str:
    """The shapes of masks that go with ``x``."""
    n, *places = x.shape[:1] + (
        x.shape[1:-1] if format in CHANNELS_LAST else x.shape[2:]
    )
    whole = [n, *places] if x.dim() == 3 else [n, 1, *places]
    return f"expected {[n]}, {[n, 1]} or {whole if places else list(x.shape)}"


def _misfit(shape: torch.Size, x: Tensor, expected: str) -> MaskMisfit:
    return MaskMisfit(
        f"mask: a mask {list(shape)} does not fit an array {list(x.shape)}: {expected}"
    )


def places_shown(mask: Tensor, x: Tensor) -> Tensor:
    """Which rows, steps or places of ``x``, channels first, count, ``[n, 1, …]``."""
    m = spread(mask, x)
    if m.shape[1] != 1:
        raise _misfit(mask.shape, x, "expected one entry for all features")
    return (m != 0).expand(-1, 1, *x.shape[2:])


def masked(y: Tensor, mask: Tensor | None, format: str | None = None) -> Tensor:
    """``y`` times its mask; whatever stands where that is 0, 0 comes out and goes back.

    Args:
        mask, format: as in :func:`spread`.
    """
    if mask is None:
        return y
    m = spread(mask, y, format).to(y.dtype)
    return (y * m).masked_fill(m == 0, 0)
