"""What slides over series, images and volumes shares in its modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py.config.windows import Window
from dl4py.layers.base import Layer, places_shown

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class Spatial(Layer):
    """Base of layers that change the sizes of the axes behind the channels."""

    def spatial(self, shape: torch.Size) -> torch.Size:
        """The sizes of these axes."""
        return shape[1:-1] if self.channels_last else shape[2:]

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        """A mask of steps or places goes the way of what it masks."""
        full = places(mask, self.spatial(shape))
        if full is None or mask is None:
            return mask
        if mask.dim() > 2 and all(size == 1 for size in mask.shape[2:]):
            return mask  # of whole examples
        passed = self.passed(full.float()).to(mask.dtype)
        return passed.squeeze(1) if mask.dim() == 2 else passed

    def passed(self, mask: Tensor) -> Tensor:
        """What becomes of a mask ``[n, 1, …]``."""
        raise NotImplementedError


class Sliding(Spatial):
    """Base of layers with a window; ``self.conf.window`` says how it moves."""

    @property
    def window(self) -> Window:
        """The configuration's window."""
        window: Window = self.conf.window
        return window

    def forward(self, x: Tensor, mask: Tensor | None = None, state: Any = None) -> Any:
        if torch.compiler.is_compiling():
            return super().forward(x, mask, state)
        try:
            return super().forward(x, mask, state)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            if x.dim() == self.window.rank + 2:  # then ATen's words are on windows
                self._check_sizes(tuple(self.spatial(x.shape)))
            raise

    def _check_sizes(self, sizes: tuple[int, ...]) -> None:
        try:
            self.conf.sizes(sizes)
        except ValueError as error:
            raise ValueError(str(error)) from error  # which networks put a name before

    def feed_mask(self, mask: Tensor | None, shape: torch.Size) -> Tensor | None:
        window = self.window
        stays = window.moves_by_one and window.mode in ("Same", "Causal")
        return mask if stays else super().feed_mask(mask, shape)

    def passed(self, mask: Tensor) -> Tensor:
        return pooled_max(mask, self.window)

    def shown(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Which places of ``x``, channels first, count, ``[n, 1, …]``; none: all."""
        if mask is None or self.dl4j_exact:
            return None
        return places_shown(mask, x)

    def differs(self, dtype: torch.dtype = torch.float64) -> list[str]:
        line = "DL4J reads masked pixels too; by default they are as padding"
        return [*super().differs(dtype), f"{type(self).__name__}: {line}"]


def places(mask: Tensor | None, sizes: torch.Size) -> Tensor | None:
    """A mask of steps or places as ``[n, 1, *sizes]``; none if it is of examples."""
    if mask is None:
        return None
    if len(sizes) == 1 and mask.dim() == 2:
        mask = mask.unsqueeze(1)
    return mask.expand(-1, -1, *sizes) if mask.dim() == len(sizes) + 2 else None


def around(
    x: Tensor,
    margins: Sequence[tuple[int, int]],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """``x`` with cells (before, after) its last axes; negative ones are cut."""
    return F.pad(x, [m for pair in reversed(margins) for m in pair], mode, value)


def padded(x: Tensor, window: Window, value: float = 0.0) -> Tensor:
    """``x`` ``[n, channels, …]`` with the margins of the window filled."""
    margins = window.margins(x.shape[2:])
    filled = any(m for pair in margins for m in pair)
    return around(x, margins, value=value) if filled else x


def pooled_max(x: Tensor, window: Window, empty: float = -math.inf) -> Tensor:
    """The maximum in each window; ``empty`` where there is nothing but padding."""
    return _MAX_POOL[window.rank](
        padded(x, window, empty),
        window.kernel,
        window.stride,
        dilation=window.dilation,
    )
