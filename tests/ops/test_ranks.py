"""Activations and losses of tensors that are split over ranks, beside one process."""

from __future__ import annotations

import datetime
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.activations import test_activations as activations
from tests.losses import test_losses as losses

RANKS = 2
# torch splits these itself, but not their gradients
TORCHS = ("aten.hardtanh_backward.default", "aten.log_sigmoid_backward.default")
Call = Callable[..., Tensor]


def cases() -> dict[str, tuple[nn.Module, list[Tensor]]]:
    """Modules with what they are called with; the first tensor is differentiated."""
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(4, 6, dtype=torch.float64, generator=g)
    mask = torch.tensor([1, 0, 1, 0.5, 1, 1], dtype=torch.float64)
    made: dict[str, tuple[nn.Module, list[Tensor]]] = {}
    for exact in (False, True):
        for case in activations.CASES:
            made[f"{case} {exact}"] = activations.make(case, dl4j_exact=exact), [x]
        for case in losses.CASES:
            # a sixth row: torch's own nll_loss takes halves only
            pair = [torch.cat([t, t[:1]]) for t in losses.data(case)]
            for rest in ([], [mask]):
                loss = losses.make(case, dl4j_exact=exact)
                made[f"loss {case} {exact} {len(rest)}"] = loss, pair + rest
    return made


def result(f: Call, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The value and the gradient of the sum of its squares, whole."""
    x = inputs[0].detach().requires_grad_()
    torch.manual_seed(0)  # of rrelu's seed
    y = f(x, *inputs[1:])
    (g,) = torch.autograd.grad(y.square().sum(), x)
    y, g = (t.full_tensor() if hasattr(t, "full_tensor") else t for t in (y, g))
    return y.detach(), g


def work(rank: int, folder: str, ops: str) -> None:
    torch.set_num_threads(1)
    os.environ["DL4PY_OPS"] = ops
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    # after dl4py, which tells torch of its ops when the first DTensor turns up
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_module
    from torch.distributed.tensor import distribute_tensor as distributed

    mesh, found = init_device_mesh("cpu", (RANKS,)), {}
    for name, (f, inputs) in cases().items():
        if next(f.parameters(), None) is not None:
            distribute_module(f, mesh)
        for axis in (0, 1):
            first = distributed(inputs[0], mesh, [Shard(axis)])
            rows = [Shard(0) if axis == 0 else Replicate()]
            rest = [distributed(t, mesh, rows) for t in inputs[1:]]
            try:
                answer: Any = result(f, [first, *rest])
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            found[name, axis] = answer
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ops", ["on", "off"])
def test_equal_to_one_process(ops: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path), ops), nprocs=RANKS)
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(RANKS))
    alone = {name: result(f, inputs) for name, (f, inputs) in cases().items()}
    wrong, torchs = {}, 0
    for (name, axis), ours in first.items():
        if isinstance(ours, str):
            if re.search("|".join(map(re.escape, TORCHS)), ours):
                torchs += 1
            else:
                wrong[name, axis] = ours
            continue
        for one, two, expected in zip(
            ours, second[name, axis], alone[name], strict=True
        ):
            if not torch.equal(one, two):
                wrong[name, axis] = "the ranks differ"
            elif not torch.allclose(one, expected, rtol=1e-11, atol=1e-13):
                wrong[name, axis] = f"off by {(one - expected).abs().max():.1e}"
    assert not wrong
    assert len(first) == 2 * len(alone) and torchs < len(first) / 10
