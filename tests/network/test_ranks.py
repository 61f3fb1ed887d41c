"""A built network whose parameters are split over two ranks, beside one process."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dl4py import NeuralNetConfiguration
from dl4py.config import Dense, MaxNorm, Output
from dl4py.network.network import Network

RANKS, STEPS = 2, 4
KINDS = ("root", "layers", "ddp")


def network() -> Network:
    """Odd sizes, so that ranks hold unequal parts; all that looks at parameters."""
    chain = NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain = chain.updater("adam", lr=0.02).l2(0.01).weight_decay(0.02)
    chain = chain.gradient_normalization("ClipL2PerLayer")
    chain = chain.gradient_normalization_threshold(0.5)
    layers = (
        Dense(n_in=4, n_out=7, activation="elu"),
        Dense(n_out=5, activation="rationaltanh", constraints=(MaxNorm(0.9),)),
        Output(n_out=3),
    )
    for layer in layers:
        chain = chain.layer(layer)
    return chain.build().module()


def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=g, dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3]


def trained(kind: str, x: Tensor, y: Tensor) -> dict[str, Any]:
    net = network()
    if kind == "layers":
        for layer in net.layers.values():
            fully_shard(layer, mesh=init_device_mesh("cpu", (RANKS,)))
    if kind in ("layers", "root"):
        fully_shard(net, mesh=init_device_mesh("cpu", (RANKS,)))
    scores = []
    for _ in range(STEPS):
        if kind == "ddp":
            wrapped = DistributedDataParallel(net)
            net.optimizer.zero_grad()
            wrapped(x, labels=y).backward()
            net.optimizer.step()
        else:
            net.fit(x, y)
        score = torch.tensor(net.score(x, y), dtype=torch.float64)
        if kind != "alone":
            dist.all_reduce(score)
            score /= RANKS
        scores.append(score.item())
    params = net.params()
    net.set_params(params / 2)
    return {"scores": scores, "params": params, "half": net.params()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    half = [t.chunk(RANKS)[rank] for t in data()]
    torch.save({k: trained(k, *half) for k in KINDS}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{r}.pt") for r in range(RANKS)]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_one_process(kind: str, found: list[dict[str, Any]]) -> None:
    alone = trained("alone", *data())
    start = network().params()
    assert (alone["params"] - start).abs().max() > 0.05
    for ours in (rank[kind] for rank in found):
        torch.testing.assert_close(ours, alone, rtol=1e-10, atol=1e-12)
        assert torch.equal(ours["half"], ours["params"] / 2)
