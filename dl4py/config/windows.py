"""Windows that slide over series, images and volumes: sizes and margins of any rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dl4py.config.kinds import Choice
from dl4py.config.layer import ConfigurationError

MODES = Choice("Truncate", "Strict", "Same", "Causal")
LARGEST = 1 << 24  # cells that a window, or the padding around a point, may cover


@dataclass(frozen=True)
class Window:
    """A window over the last axes of an array, one number an axis in every field.

    Its spread along an axis is k = (kernel - 1)·dilation + 1.

    Args:
        kernel, stride, dilation: >= 1.
        padding: >= 0 on both sides; ``"Same"`` and ``"Causal"`` do not use it.
        mode: ``"Truncate"`` leaves out what does not fill a window, ``"Strict"``
            refuses it, ``"Same"`` gives ⌈size/stride⌉ windows with the odd cell of
            padding at the end, ``"Causal"`` as many with all padding, k - 1 cells,
            before the first cell: one axis only.

    Example:
        >>> w = Window((5,), (2,), (0,), (1,), "Same")
        >>> w.sizes((28,)), w.margins((28,))
        ((14,), ((1, 2),))

    DL4J: org.deeplearning4j.util.ConvolutionUtils
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    mode: str = "Truncate"

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.kernel)

    @property
    def spread(self) -> tuple[int, ...]:
        """How many cells the window spans along each axis."""
        pairs = zip(self.kernel, self.dilation, strict=True)
        return tuple((k - 1) * d + 1 for k, d in pairs)

    @property
    def moves_by_one(self) -> bool:
        """Whether every stride is 1."""
        return all(s == 1 for s in self.stride)

    def sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How many windows there are along axes of ``sizes``."""
        return tuple(self._size(axis, size) for axis, size in enumerate(sizes))

    def _size(self, axis: int, size: int) -> int:
        stride, padding, spread = (
            values[axis] for values in (self.stride, self.padding, self.spread)
        )
        if self.mode in ("Same", "Causal"):
            return -(-size // stride)
        steps, rest = divmod(size + 2 * padding - spread, stride)
        if steps < 0:
            raise ConfigurationError(
                f"kernel_size: a window of {spread} does not fit an input of {size} "
                f"with padding {padding}; use a smaller kernel, more padding or mode "
                "'Same'"
            )
        if self.mode == "Strict" and rest:
            raise ConfigurationError(
                "convolution_mode: Strict needs (size + 2·padding - window) divisible "
                f"by the stride, got ({size} + 2·{padding} - {spread}) / {stride}; "
                "use 'Truncate'"
            )
        return steps + 1

    def margins(self, sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Cells of padding (before, after) each axis of ``sizes``."""
        return tuple(self._margin(axis, size) for axis, size in enumerate(sizes))

    def _margin(self, axis: int, size: int) -> tuple[int, int]:
        if self.mode == "Causal":
            return self.spread[axis] - 1, 0
        if self.mode != "Same":
            return self.padding[axis], self.padding[axis]
        stride = self.stride[axis]
        total = max(0, (-(-size // stride) - 1) * stride + self.spread[axis] - size)
        return total // 2, total - total // 2

    def opened(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The sizes from which the window would slide to ``sizes``: a transposed one.

        stride·(size - 1) + k - 2·padding, for ``"Same"`` stride·size.

        >>> Window((3,), (2,), (1,), (1,)).opened((4,))
        (7,)
        """
        found = []
        for size, stride, padding, spread in zip(
            sizes, self.stride, self.padding, self.spread, strict=True
        ):
            if self.mode == "Same":
                found.append(stride * size)
                continue
            found.append(stride * (size - 1) + spread - 2 * padding)
            if found[-1] < 1:
                raise ConfigurationError(
                    f"padding: {padding} on both sides leaves nothing of the "
                    f"{stride * (size - 1) + spread} cells that a window of {spread} "
                    f"with stride {stride} makes of {size}; use less"
                )
        return tuple(found)

    @property
    def cut(self) -> tuple[int, ...]:
        """Cells that a transposed window leaves out before each axis.

        Negative: that it puts there, where the window is smaller than its stride.
        """
        if self.mode != "Same":
            return self.padding
        pairs = zip(self.spread, self.stride, strict=True)
        return tuple(int((spread - stride) / 2) for spread, stride in pairs)

    def check(self) -> None:
        """Refuse the mode that images and volumes do not have, and giant margins.

        A few digits too many in ``padding`` or ``dilation`` of a file would take
        gigabytes for the smallest image.
        """
        sides = zip(self.spread, self.padding, strict=True)
        if math.prod(max(spread, 2 * p) for spread, p in sides) > LARGEST:
            raise ConfigurationError(
                f"padding: windows and margins of at most {LARGEST:,} cells are "
                f"supported, got windows that span {self.spread} with padding "
                f"{self.padding}"
            )
        if self.mode == "Causal" and self.rank > 1:
            raise ConfigurationError(
                "convolution_mode: Causal is for one-dimensional convolutions, "
                "expected Truncate, Strict or Same"
            )
