"""Networks of the solvers' benchmarks."""

from __future__ import annotations

import torch
from torch import nn


def sparse(sizes: list[int], seed: int) -> nn.Sequential:
    """Logistic layers there and back; 15 incoming weights N(0, 1) a unit, biases 0."""
    random = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    widths = [*sizes, *sizes[-2::-1]]
    for a, b in zip(widths, widths[1:], strict=False):
        layer = nn.Linear(a, b)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for row in layer.weight:
                some = torch.randperm(a, generator=random)[:15]
                row[some] = torch.randn(len(some), generator=random)
        parts += [layer, nn.Sigmoid()]
    return nn.Sequential(*parts[:-1])
