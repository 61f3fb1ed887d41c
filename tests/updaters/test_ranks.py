"""Updaters of parameters that are split over two ranks, beside one process."""

from __future__ import annotations

import copy
import datetime
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from dl4py import updaters
from dl4py.schedules import Exponential
from tests.updating import NAMES, hyper

RANKS, STEPS = 2, 4


def batch() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(7)
    x = torch.randn(8, 4, generator=g, dtype=torch.float64)
    return x, x.sum(1, keepdim=True).sin()


def model() -> nn.Sequential:
    """Six rows on two ranks, and a single one, of which the second rank has none."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def split(mesh: DeviceMesh) -> nn.Module:
    net = model()
    fully_shard(net, mesh=mesh)
    return net


def parallel(mesh: DeviceMesh) -> nn.Module:
    net = model()
    plan: dict[str, Any] = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return parallelize_module(net, mesh, plan)


def make(name: str, net: nn.Module) -> Any:
    """All that touches parameters at once: decay, a rate where there is none, both
    directions, and a schedule."""
    cls = updaters.get(name)
    body, head = (list(net.get_submodule(n).parameters()) for n in "02")
    groups = [{"params": body, "weight_decay": 0.3}, {"params": head, "maximize": True}]
    numbers: dict[str, Any] = {"lr": 0.1} | hyper(cls)
    if name == "nesterovs":
        numbers["lr"] = Exponential(0.1, 0.9)
    return cls(groups, **numbers)


def steps(net: nn.Module, updater: Any, x: Tensor, y: Tensor, count: int) -> Tensor:
    """The whole parameters after ``count`` steps, flat."""
    for _ in range(count):
        updater.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        updater.step()
    whole = [p.detach() for p in net.parameters()]
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in whole]
    return torch.cat([p.reshape(-1) for p in whole])


def resumed(name: str, mesh: DeviceMesh, full: bool) -> Tensor:
    """Half of the steps, a checkpoint into a new optimizer, the other half."""
    x, y = (t.chunk(RANKS)[dist.get_rank()] for t in batch())
    net = split(mesh)
    updater = make(name, net)
    steps(net, updater, x, y, STEPS // 2)
    options = StateDictOptions(full_state_dict=full)
    saved = get_optimizer_state_dict(net, updater, options=options)
    updater.zero_grad()  # else torch takes the states of the other for made
    other = make(name, net)
    set_optimizer_state_dict(net, other, copy.deepcopy(saved), options=options)
    return steps(net, other, x, y, STEPS // 2)


def work(rank: int, folder: str, ops: str) -> None:
    torch.set_num_threads(1)
    os.environ["DL4PY_OPS"] = ops
    warnings.filterwarnings("error", message=".* rests")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    mesh, results = init_device_mesh("cpu", (RANKS,)), {}
    half = [t.chunk(RANKS)[rank] for t in batch()]
    for name in NAMES:
        for kind, rows in ((split, half), (parallel, batch())):
            net = kind(mesh)
            results[name, kind.__name__] = steps(net, make(name, net), *rows, STEPS)
        # torch cannot set a whole state without a tensor in it, of its own SGD neither
        stateful = bool(updaters.get(name).state_names)
        for full in (False, True)[: 1 + stateful] if ops == "on" else ():
            results[name, f"resumed {full}"] = resumed(name, mesh, full)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("ops", ["on", "off"])
def test_equal_to_one_process(ops: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path), ops), nprocs=RANKS)
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in range(RANKS))
    for (name, kind), ours in first.items():
        net = model()
        alone = steps(net, make(name, net), *batch(), STEPS)
        assert torch.equal(ours, second[name, kind]), (name, kind)
        torch.testing.assert_close(ours, alone, rtol=1e-11, atol=1e-11), (name, kind)
        assert not torch.allclose(
            alone, nn.utils.parameters_to_vector(model().parameters())
        )
    assert {name for name, _ in first} == set(NAMES)
