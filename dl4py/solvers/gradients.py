"""What a closure leaves of its gradients: zeros are kept, clipping has no effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

Fail = Callable[[str], NoReturn]


class Gradients:
    """The gradients of a closure, after ``backward()`` and at its end.

    Args:
        params: whose.
        flat: tensors of their shapes → one vector.
        fail: raises with a message.
        searches: whether the solver compares losses along its way. If so, its gradient
            is that of the loss, but 0 where the closure has set it to 0; if not, it is
            what the closure leaves.

    Attributes:
        changes: (gradient after ``backward()``, at the end) of each call in which the
            closure laid hands on it.
        notes: whether ``changes`` are noted.
    """

    def __init__(
        self,
        params: list[Tensor],
        flat: Callable[[list[Tensor]], Tensor],
        fail: Fail,
        searches: bool,
    ) -> None:
        self.params = params
        self.flat = flat
        self.fail = fail
        self.searches = searches
        self.changes: list[tuple[Tensor, Tensor]] = []
        self.notes = True
        self._raw: Tensor | None = None
        self._seen: list[tuple[Tensor | None, int]] = []

    def collect(self) -> None:
        """To be called after every ``backward()``."""
        grads = [p.grad for p in self.params]
        self._seen = [(g, 0 if g is None else g._version) for g in grads]
        self._raw = self._now()

    def take(self, touched: bool) -> Tensor:
        """The gradient, at the end of the closure.

        Args:
            touched: whether any ``.grad`` was read or set since ``backward()``.
        """
        raw, seen = self._raw, self._seen
        self._raw, self._seen = None, []  # the closure may let go of them
        if raw is None:
            return self.flat([torch.zeros_like(p) for p in self.params])
        if not touched and all(
            p.grad is g and (g is None or g._version == version)
            for p, (g, version) in zip(self.params, seen, strict=True)
        ):
            return raw
        left = self._now()
        if self.notes:
            self.changes.append((raw, left))
        return raw.masked_fill(left == 0, 0.0) if self.searches else left

    def _now(self) -> Tensor:
        grads = []
        for p in self.params:
            grad = p.grad
            if grad is not None and grad.layout != torch.strided:
                self.fail(
                    f" needs dense gradients, got {grad.layout} for a parameter of "
                    f"shape {tuple(p.shape)}; use sparse=False"
                )
            grads.append(torch.zeros_like(p) if grad is None else grad.detach())
        with torch.no_grad():
            return self.flat(grads)

    def facts(self, like: Tensor) -> Tensor:
        """Of ``changes``: whether any is there, zeroes some, zeroes all, is odd."""
        facts = like.new_zeros(4)
        for raw, left in self.changes:
            some = self._zeroed(raw, left).any()
            odd = ~self.clipped(raw, left) if self.searches else torch.zeros_like(some)
            found = [torch.ones_like(some), some, some & (left == 0).all(), odd]
            facts = facts.maximum(torch.stack(found).to(facts))
        return facts

    def zeroed(self, like: Tensor) -> Tensor:
        """Of every number, whether the closure has set it to 0."""
        found = torch.zeros_like(like, dtype=torch.bool)
        for raw, left in self.changes:
            found |= self._zeroed(raw, left)
        return found

    def _zeroed(self, raw: Tensor, left: Tensor) -> Tensor:
        # below the least normal number clipping makes zeros too
        tiny = max((torch.finfo(p.dtype).tiny for p in self.params), default=0.0)
        return (left == 0) & (raw.abs() >= tiny)

    def clipped(self, raw: Tensor, left: Tensor) -> Tensor:
        """Whether ``left``, where it is not 0, is ``raw``, by norm or value clipped.

        By norm: all numbers times one factor > 0. By value: what was larger is as
        large as the largest that is left.
        """
        eps = max((torch.finfo(p.dtype).eps for p in self.params), default=0.0)
        raw = raw.masked_fill(left == 0, 0.0)
        if not raw.numel():
            return torch.ones((), dtype=torch.bool, device=raw.device)
        largest = raw.abs().argmax()
        factor = torch.where(raw[largest] == 0, 1.0, left[largest] / raw[largest])
        scaled = (left - factor * raw).abs() <= 4 * eps * left.abs()
        by_norm = scaled.all() & (factor > 0)
        top = left.abs().max()
        cut = (left.abs() == top) & (raw.abs() >= top) & (raw * left > 0)
        return by_norm | ((left == raw) | cut).all()
