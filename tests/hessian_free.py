"""What tests of HessianFree share: a small net, its closure, going on from a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(12) % 3


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    middle = middle or (nn.Tanh(),)
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Linear(5, 3)).double()


def flat(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def closure_of(
    solver: Any, net: nn.Module, slices: int = 1, seen: list[Any] | None = None
) -> Callable[..., Tensor]:
    """Cross-entropy of all rows or of a slice; ``seen`` gets losses and parameters."""

    def closure(i: int | None = None) -> Tensor:
        rows = slice(None) if i is None else torch.arange(12).chunk(slices)[i]
        solver.zero_grad()
        loss = F.cross_entropy(net(X[rows]), Y[rows])
        loss.backward()
        if seen is not None:
            seen.append((loss.item(), [p.detach().clone() for p in net.parameters()]))
        return loss

    return closure


def resumes(make: Callable[[], tuple[nn.Module, Any, Callable[[], Any]]]) -> bool:
    """Whether two steps and, from their file, two more are the same as four.

    Args:
        make: net, solver and closure.
    """

    def run(steps: int, state: Any = None) -> Any:
        net, solver, closure = make()
        if state is not None:
            net.load_state_dict(state["net"])
            solver.load_state_dict(state["solver"])
        for _ in range(steps):
            solver.step(closure)
        file = io.BytesIO()
        torch.save({"net": net.state_dict(), "solver": solver.state_dict()}, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    whole, parts = run(4)["net"], run(2, run(2))["net"]
    return all(torch.equal(value, parts[name]) for name, value in whole.items())
