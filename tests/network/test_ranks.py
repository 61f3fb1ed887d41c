"""A built network on two ranks, whole or split, beside one process.

Every updater, gradient normalisation, constraint and penalty, in both precisions: the
ranks' halves of a batch give what the whole batch gives one process.
"""

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
from dl4py.config.layer import GRADIENT_NORMALIZATION
from dl4py.network.network import Network
from dl4py.registry import CONSTRAINTS, REGULARIZATIONS
from tests.updating import NAMES

RANKS, STEPS = 2, 4
KINDS = ("root", "layers", "ddp")
Words = dict[str, Any]
MAXIMUM = {"max_norm": "max_norm", "min_max_norm": "max"}


def constraint(name: str) -> Any:
    return CONSTRAINTS[name](**({MAXIMUM[name]: 0.9} if name in MAXIMUM else {}))


CASES: dict[str, Words] = {
    "all at once": {
        "l2": (0.01,),
        "weight_decay": (0.02,),
        "gradient_normalization": ("ClipL2PerLayer",),
        "constrain_weights": (MaxNorm(0.9),),
    },
    "large": {"n_out": 2**14 + 1, "l1": (0.01,), "l2": (0.01,)},  # cut into pieces
    "float": {"data_type": ("float",), "l2": (0.01,)},
    **{f"updater {name}": {"updater": (name,)} for name in NAMES},
    **{n: {"gradient_normalization": (n,)} for n in GRADIENT_NORMALIZATION.words},
    **{n: {"constrain_all_parameters": (constraint(n),)} for n in CONSTRAINTS},
    **{n: {n: (0.05,), f"{n}_bias": (0.05,)} for n in REGULARIZATIONS},
}


def network(words: Words) -> Network:
    """Odd sizes, so that ranks hold unequal parts."""
    chain = NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain = chain.updater("adam", lr=0.02).gradient_normalization_threshold(0.5)
    width = words.get("n_out", 7)
    for word, values in words.items():
        chain = chain if word == "n_out" else getattr(chain, word)(*values)
    layers = (
        Dense(n_in=4, n_out=width, activation="elu"),
        Dense(n_out=5, activation="rationaltanh"),
        Output(n_out=3),
    )
    for layer in layers:
        chain = chain.layer(layer)
    return chain.build().module()


def data(words: Words) -> tuple[Tensor, Tensor]:
    dtype = getattr(torch, words.get("data_type", ("double",))[0])
    g = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, generator=g, dtype=torch.float64)
    return x.to(dtype), torch.eye(3, dtype=dtype)[torch.arange(8) % 3]


def trained(words: Words, kind: str, x: Tensor, y: Tensor) -> dict[str, Any]:
    net = network(words)
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
    found = {}
    for name, words in CASES.items():
        half = [t.chunk(RANKS)[rank] for t in data(words)]
        for kind in KINDS if name == "all at once" else KINDS[1:]:
            found[name, kind] = trained(words, kind, *half)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{r}.pt") for r in range(RANKS)]


@pytest.mark.parametrize("name", CASES)
def test_equal_to_one_process(name: str, found: list[dict[Any, Any]]) -> None:
    words = CASES[name]
    alone = trained(words, "alone", *data(words))
    moved = (alone["params"] - network(words).params()).abs().max()
    assert moved > 1e-4 or name in ("updater noop", "updater adadelta")
    rtol, atol = (1e-5, 1e-6) if name == "float" else (1e-11, 1e-12)
    for rank in found:
        kinds = [kind for case, kind in rank if case == name]
        assert len(kinds) >= 2
        for ours in (rank[name, kind] for kind in kinds):
            torch.testing.assert_close(ours, alone, rtol=rtol, atol=atol)
            assert torch.equal(ours["half"], ours["params"] / 2)
