"""Every op with values for its parameters, and what tests of ops share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dl4py.ops import OPS
from tests.references import ops as references

# a value for each parameter's name, whatever op it belongs to
VALUES: dict[str, Any] = {
    "a": 1.7159,
    "c": 1.41645,
    "alpha": 0.3,
    "slope": 0.2,
    "max": 2.5,
    "threshold": 0.5,
    "seed": 0x123456789ABCDEF,
    "lower": 0.125,
    "upper": 0.375,
}
# off the kinks of all ops
SMOOTH = torch.tensor([[-3.1, -1.7, -0.43], [0.29, 0.83, 3.3]], dtype=torch.float64)


class Case:
    """One op with values for its parameters."""

    def __init__(self, name: str, **values: Any) -> None:
        self.made = OPS[name]
        self.numbers = [(VALUES | values)[p] for p in self.made.params]
        self.params = [
            torch.tensor(v) if p == "seed" else v
            for p, v in zip(self.made.params, self.numbers, strict=True)
        ]

    def on(self, device: str) -> Case:
        """The same with its tensors on another device."""
        moved = copy.copy(self)
        moved.params = [
            p.to(device) if isinstance(p, Tensor) else p for p in self.params
        ]
        return moved

    def __call__(self, x: Tensor) -> Tensor:
        return self.made.entry(x, *self.params)

    def op(self, x: Tensor, scale: Tensor | None = None, order: int = 0) -> Tensor:
        y: Tensor = self.made.op(x, scale, order, *self.params)
        return y

    def formula(self, x: Tensor, scale: Tensor | None = None, order: int = 0) -> Tensor:
        return self.made.formula(x, scale, order, *self.params)

    def reference(self, x: Tensor) -> list[Tensor]:
        f = getattr(references, self.made.name)
        return [torch.from_numpy(y) for y in f(x.double().numpy(), *self.numbers)]


class Module(torch.nn.Module):
    def __init__(self, f: Case) -> None:
        super().__init__()
        self.f, self.params = f.made.entry, f.params

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.f(x, *self.params)
        return y


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def derivative(
    f: Callable[[Tensor], Tensor], x: Tensor, g: Tensor | None = None
) -> Tensor:
    x = x.detach().requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.ones_like(y) if g is None else g)[0]


def close(a: Tensor, b: Tensor, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)


def every(**values: Any) -> pytest.MarkDecorator:
    """Run a test or a class of tests for every op; ``values`` override ``VALUES``."""
    cases = [Case(name, **values) for name in OPS]
    return pytest.mark.parametrize("f", cases, ids=list(OPS))


every_op = every()
