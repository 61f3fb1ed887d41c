"""What one update works on, and what is the same for all updaters beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from dl4py.ops.steps import state_dtype

Hyper = Mapping[str, float]
Rate = float | Tensor | Callable[..., float]
Count = int | Tensor
Number = float | Tensor
N = TypeVar("N", float, Tensor, Number)


@dataclass(frozen=True)
class Batch:
    """What one update works on: lists of tensors of one dtype and device.

    Attributes:
        params: the parameters p, changed in place.
        grads: their gradients g, never changed.
        state: state name → one tensor for every parameter, changed in place.
        hyper: hyper-parameters as numbers, of the precision of p in exact mode; ``lr``
            of a capturable updater, given as a tensor, is one: 0-d, float64.
        t: updates done before; of a capturable updater a tensor on the device of p.
        dl4j_exact: DL4J's own numbers.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    hyper: Hyper
    t: Count
    dl4j_exact: bool

    def correction(self, beta: float) -> Number:
        """1 - β^(t+1); DL4J computes the power in the precision of p."""
        power: Number = beta ** (self.t + 1)
        if self.dl4j_exact:
            power = rounded(power, self.params[0].dtype)
        return 1 - power


def rounded(x: N, dtype: torch.dtype) -> N:
    """``x`` as a number of ``dtype``: DL4J casts its doubles before it computes."""
    if isinstance(x, Tensor):
        return x.to(dtype).double()
    return x if dtype == torch.float64 else torch.tensor(x, dtype=dtype).item()


def move(update: Callable[[Batch], None], batch: Batch, scaled: bool) -> None:
    """p ← p - η·λ·p - u; with ``scaled`` - η·u, where u holds no rate of its own."""
    rate, decay = batch.hyper.get("lr", 1.0), batch.hyper.get("weight_decay", 0.0)
    scaled = scaled and (isinstance(rate, Tensor) or rate != 1)
    if not (decay or scaled):
        update(batch)
        return
    p, dtype = batch.params, state_dtype(batch.params[0])
    wide = [x.to(dtype) for x in p]  # half types are rounded once
    moved = [torch.zeros_like(x) for x in wide] if scaled else wide
    if decay:
        _multiply(wide, 1 - rate * decay)
    update(replace(batch, params=moved, grads=[g.to(dtype) for g in batch.grads]))
    if scaled:
        _multiply(moved, rate)
        torch._foreach_add_(wide, moved)
    if dtype != p[0].dtype:
        torch._foreach_copy_(p, wide)


def _multiply(tensors: list[Tensor], by: Number) -> None:
    torch._foreach_mul_(
        tensors, by.to(tensors[0].dtype) if isinstance(by, Tensor) else by
    )
