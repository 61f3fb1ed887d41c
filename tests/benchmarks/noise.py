"""ND4J's random numbers beside torch's own: uniforms, normals, masks, dropout."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py import NativeRandom
from dl4py.clock import Clock
from dl4py.config import Dropout
from tests.benchmarks.harness import Case, Floor, Table

P = 0.8  # of keeping


def cases(quick: bool) -> Iterator[Case]:
    random, clock, dropout = NativeRandom(42), Clock(), Dropout(P)
    for n in (10**6,) if quick else (1000, 10**5, 10**6, 10**7):
        label, t = f"{n:.0e}", torch.empty(n)

        for name, *given in (("uniform", 0.0, 1.0), ("normal", 0.0, 1.0), ("keep", P)):
            draw = getattr(random, f"{name}_")
            torchs = getattr(t, f"{name.replace('keep', 'bernoulli')}_")
            yield Case(
                name,
                n,
                label,
                functools.partial(draw, t, *given),
                {"torch": functools.partial(torchs, *given)},
            )
        x = torch.randn(n, requires_grad=True)
        g = torch.ones(n)

        def ours(x: Tensor = x, g: Tensor = g) -> None:
            dropout.apply(x, random, clock).backward(g)
            x.grad = None

        def theirs(x: Tensor = x, g: Tensor = g) -> None:
            F.dropout(x, 1 - P).backward(g)
            x.grad = None

        yield Case("dropout", n, label, ours, {"torch": theirs})


# per second on one core: 1e8 uniforms, 1e7 normals; dropout in 1.5 times torch's time
FLOORS = (Floor("torch", 1 / 1.5, lambda row: row.name == "dropout"),)
TABLE = Table("ND4J's random numbers", cases, FLOORS)
