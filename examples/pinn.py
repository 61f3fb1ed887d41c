"""A physics-informed network for Poisson's equation: Adam, torch's and dl4py's L-BFGS.

-u'' = π²·sin(πx) on [0, 1] with u = 0 at both ends, whose solution is sin(πx). The loss
differentiates the network twice, and needs the last digits: here L-BFGS is what people
use. All three get the same number of evaluations of the loss.

    python examples/pinn.py
    python examples/pinn.py --epochs 10
"""

import argparse
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dl4py.solvers import LBFGS

SEED = 7
EVALUATIONS = 25  # of the loss in an epoch


class Poisson(nn.Module):
    """u(x), and the loss of the equation at 64 points."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Sequential(
            nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)
        ).double()
        self.x = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None].requires_grad_()
        self.ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        self.evaluations = 0

    def loss(self) -> Tensor:
        self.evaluations += 1
        u = self.u(self.x)
        (slope,) = torch.autograd.grad(u.sum(), self.x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), self.x, create_graph=True)
        force = math.pi**2 * torch.sin(math.pi * self.x.detach())
        return (bend + force).square().mean() + 100 * self.u(self.ends).square().mean()

    def error(self) -> float:
        """The largest distance from the solution."""
        with torch.no_grad():
            return (self.u(self.x) - torch.sin(math.pi * self.x)).abs().max().item()


def train(optimizer: torch.optim.Optimizer, model: Poisson, evaluations: int) -> None:
    """The same loop for every optimizer."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    while model.evaluations < evaluations:
        optimizer.step(closure)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train with each optimizer; returns the largest errors of u."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    optimizers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "Adam": lambda p: torch.optim.Adam(p, lr=3e-3),
        "torch L-BFGS": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
        "dl4py L-BFGS": lambda p: LBFGS(p, max_iter=20),
    }
    errors = {}
    for name, make in optimizers.items():
        torch.manual_seed(SEED)
        model = Poisson()
        train(make(list(model.parameters())), model, options.epochs * EVALUATIONS)
        errors[name] = model.error()
        print(f"{name}: error {errors[name]:.1e} after {model.evaluations} evaluations")
    return errors


if __name__ == "__main__":
    main()
