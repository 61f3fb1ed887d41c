"""How one array is scaled, column by column: by its deviations, or by its range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-5  # DL4J: Nd4j.EPS_THRESHOLD


class Scale(nn.Module):
    """Base: statistics of the columns of one array.

    Columns are axis 1: features ``[n, columns]``, series ``[n, columns, time]``, images
    ``[n, channels, height, width]``. Masked steps count for nothing and become 0.
    """

    names: tuple[str, str]  # its two statistics, vectors of one number a column

    def __init__(self) -> None:
        super().__init__()
        for name in self.names:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    @property
    def fitted(self) -> bool:
        """Whether there are statistics."""
        return self.statistics()[0].numel() > 0

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Both, in the order of ``names``."""
        first, second = (getattr(self, name) for name in self.names)
        return first, second

    def put(self, first: Tensor, second: Tensor) -> None:
        """Replace the statistics."""
        for name, value in zip(self.names, (first, second), strict=True):
            setattr(self, name, value)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The array scaled."""
        return _covered(self.scaled(x, *self._for(x)), mask)

    def revert(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The inverse of :meth:`forward`; masked steps stay 0."""
        return _covered(self.unscaled(x, *self._for(x)), mask)

    def scaled(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        raise NotImplementedError

    def unscaled(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        raise NotImplementedError

    def learn(self, seen: Seen) -> None:
        """Set the statistics from all rows that were seen."""
        raise NotImplementedError

    def _for(self, x: Tensor) -> tuple[Tensor, ...]:
        """The statistics as they go with an array."""
        columns = self.statistics()[0].numel()
        if not columns:
            raise RuntimeError(
                f"{type(self).__name__}: no statistics yet; call fit(data) first"
            )
        if x.dim() < 2 or x.shape[1] != columns:
            raise ValueError(
                f"{type(self).__name__}: expected an array [n, {columns}, ...] as it "
                f"was fitted to, got {list(x.shape)}"
            )
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return tuple(s.to(x.device, x.dtype).reshape(shape) for s in self.statistics())

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        for name in self.names:  # of another width, or of none yet
            found = state_dict.get(prefix + name)
            if isinstance(found, Tensor):
                now = getattr(self, name)
                setattr(self, name, torch.empty_like(found, device=now.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        n = self.statistics()[0].numel()
        return f"{n} columns" if n else "not fitted"


class Standard(Scale):
    """(x - μ) / σ with the mean and population deviation of each column.

    A σ below 1e-5 is stored as 1e-5 and divides as 1, as DL4J's does: what does not
    vary becomes 0.
    """

    names = ("mean", "std")

    def scaled(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return (x - mean) / _divisor(std)

    def unscaled(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return x * _divisor(std) + mean

    def learn(self, seen: Seen) -> None:
        std = (seen.squares / seen.count).sqrt().clamp(min=EPSILON)
        self.put(seen.mean.to(seen.dtype), std.to(seen.dtype))


def _divisor(std: Tensor) -> Tensor:
    least = torch.tensor(EPSILON, dtype=std.dtype, device=std.device)
    return torch.where(std <= least, 1.0, std)


class Range(Scale):
    """(x - min) / (max - min), from there into a range of one's own.

    A range below 1e-5 is stored as 1e-5: what does not vary becomes ``low``.

    Args:
        low, high: the range of the result, low < high.
    """

    names = ("min", "max")

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(
                f"Range(low, high): expected low < high, got {low}, {high}"
            )
        super().__init__()
        self.low, self.high = float(low), float(high)

    def scaled(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return (x - low) / (high - low) * (self.high - self.low) + self.low

    def unscaled(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return (x - self.low) / (self.high - self.low) * (high - low) + low

    def learn(self, seen: Seen) -> None:
        low, high = seen.low.to(seen.dtype), seen.high.to(seen.dtype)
        self.put(low, torch.where(high - low < EPSILON, low + EPSILON, high))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, to [{self.low:g}, {self.high:g}]"


class Seen:
    """Running statistics of columns in float64: one pass, any batches (Welford, 1962;
    merged as Chan, Golub and LeVeque, 1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.dtype = torch.float64
        self.mean = self.squares = torch.zeros(0, dtype=torch.float64)
        self.low = self.high = self.mean

    def add(self, x: Tensor, mask: Tensor | None) -> None:
        """Take the rows of a batch, without those that are masked out."""
        rows = x.detach().movedim(1, -1)
        if mask is not None:
            rows = rows[_steps(mask, x)]
        rows = rows.reshape(-1, x.shape[1]).double().cpu()
        if self.count and rows.shape[1] != len(self.mean):
            raise ValueError(
                f"fit: batches of {len(self.mean)} columns, then one of {rows.shape[1]}"
            )
        if not len(rows):
            return
        if not rows.isfinite().all():
            raise ValueError("fit: numbers must be finite where the mask is not 0")
        mean = rows.mean(0)
        squares = ((rows - mean) ** 2).sum(0)
        low, high = rows.aminmax(dim=0)
        if not self.count:
            self.dtype = x.dtype
            self.count, self.mean, self.squares = len(rows), mean, squares
            self.low, self.high = low, high
            return
        n = self.count + len(rows)
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.count * len(rows) / n)
        self.mean = self.mean + delta * (len(rows) / n)
        self.low, self.high = self.low.minimum(low), self.high.maximum(high)
        self.count = n


def _steps(mask: Tensor, x: Tensor) -> Tensor:
    """A mask as booleans over the rows of ``x``."""
    rest = (x.shape[0], *x.shape[2:])
    if mask.shape == rest:
        return mask != 0
    if mask.shape == (x.shape[0], 1, *x.shape[2:]):
        return mask[:, 0] != 0
    if mask.shape in ((x.shape[0],), (x.shape[0], 1)):
        rows = mask.reshape(-1, *(1,) * (x.dim() - 2)) != 0
        return rows.expand(rest)
    raise ValueError(f"a mask {list(mask.shape)} does not fit an array {list(x.shape)}")


def _covered(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x
    return x.masked_fill(~_steps(mask, x).unsqueeze(1), 0)
