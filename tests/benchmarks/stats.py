"""Training with a ``StatsCallback`` beside training without one, 100 iterations a call.

The callback's hooks are called as a Trainer calls them, at its default interval, with
TensorBoard's writer and the run's file: ten reports, one with histograms, in a call.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dl4py.lightning import StatsCallback
from tests.benchmarks.harness import Call, Case, Floor, Table
from tests.benchmarks.training import NETWORKS, torch_lenet

STEPS = 100


class TensorBoardLogger:
    """What the callback reads of Lightning's."""

    def __init__(self, folder: str) -> None:
        self.experiment = SummaryWriter(folder)


def training(
    module: Any,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer,
    batch: Any,
    stats: StatsCallback | None,
) -> Call:
    """A call that trains for ``STEPS`` iterations."""
    folder = tempfile.mkdtemp(prefix="dl4py-stats-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    trainer: Any = SimpleNamespace(
        loggers=[TensorBoardLogger(folder)],
        log_dir=folder,
        is_global_zero=True,
        optimizers=[optimizer],
        global_step=0,
        current_epoch=0,
    )
    if stats is not None:
        stats.setup(trainer, module, "fit")
        stats.on_train_start(trainer, module)

    def call() -> None:
        for i in range(STEPS):
            if stats is not None:
                stats.on_train_batch_start(trainer, module, batch, i)
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            if stats is not None:
                stats.on_before_optimizer_step(trainer, module, optimizer)
            optimizer.step()
            trainer.global_step += 1
            if stats is not None:
                outputs: Any = {"loss": value.detach()}
                stats.on_train_batch_end(trainer, module, outputs, batch, i)

    return call


def cases(quick: bool) -> Iterator[Case]:
    for name in ("lenet",) if quick else ("lenet", "mlp", "lstm", "resnet"):
        make, _, shape, labels = NETWORKS[name]
        x, y = torch.rand(64, *shape), labels(64)

        def with_stats(stats: StatsCallback | None, make: Any = make) -> Call:
            net = make("adam")
            return training(net, lambda: net.loss(x, y), net.optimizer, (x, y), stats)  # noqa: B023

        ours = with_stats(StatsCallback())
        yield Case(f"{name}, adam", 64, "64", ours, {"without": with_stats(None)})
    x, y = torch.rand(64, 1, 28, 28), torch.randint(10, (64,))

    def of_torch(stats: StatsCallback | None) -> Call:
        net = torch_lenet()
        optimizer = torch.optim.Adam(net.parameters())
        return training(
            net,
            lambda: torch.nn.functional.cross_entropy(net(x), y),
            optimizer,
            (x, y),
            stats,
        )

    ours = of_torch(StatsCallback())
    yield Case("torch's lenet", 64, "64", ours, {"without": of_torch(None)})


TABLE = Table(
    "Statistics of training",
    cases,
    (Floor("without", 1 / 1.03),),
    axis="examples in a batch",
    computes=True,
)
