"""What masks, constraints, penalties and normalisation add to a training step.

Ours: ``fit`` on a batch of the network with one of them. "without": the same network
and batch without it. Each may cost a tenth of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from dl4py.config import MaxNorm
from tests.benchmarks.harness import Case, Floor, Table
from tests.benchmarks.training import NETWORKS

SETTINGS: dict[str, dict[str, Any]] = {
    "constraints": {"constrain_weights": MaxNorm(2.0)},
    "l1": {"l1": 1e-5},
    "l2": {"l2": 1e-4},
    "clipping": {"gradient_normalization": "ClipL2PerLayer"},
    "norms of 1": {"gradient_normalization": "RenormalizeL2PerLayer"},
}


def setting(name: str, added: str, batch: int) -> Case:
    make, _, shape, labels = NETWORKS[name]
    x, y = torch.rand(batch, *shape), labels(batch)
    ours, theirs = make("adam", **SETTINGS[added]), make("adam")
    without = {"without": partial(theirs.fit, x, y)}
    return Case(f"{name}, {added}", batch, str(batch), partial(ours.fit, x, y), without)


def masks(batch: int) -> Case:
    """Series of 25 to 50 steps."""
    make, _, shape, labels = NETWORKS["lstm"]
    x, y = torch.rand(batch, *shape), labels(batch)
    time = shape[-1]
    lengths = torch.randint(time // 2, time + 1, (batch, 1))
    mask = (torch.arange(time) < lengths).float()
    ours, theirs = make("adam"), make("adam")
    without = {"without": partial(theirs.fit, x, y)}
    call = partial(ours.fit, x, y, mask, mask)
    return Case("lstm, masks", batch, str(batch), call, without)


def cases(quick: bool) -> Iterator[Case]:
    torch.set_flush_denormal(True)  # what has learned its only batch is full of them
    for added in SETTINGS:
        for name in ("lenet", "mlp"):
            for batch in (64, 512):
                yield setting(name, added, batch)
    yield masks(64)


TABLE = Table(
    "What is added to a training step",
    cases,
    (Floor("without", 1 / 1.1),),
    axis="examples in a batch",
    block=0.05,
    computes=True,
)
