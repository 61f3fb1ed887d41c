"""Networks fitted by processes that Spark starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from dl4py.config.settings import NetworkConfiguration
from dl4py.network import Network
from dl4py.spark.columns import Names, array
from dl4py.spark.shards import Shards


def fit(
    network: Network | NetworkConfiguration,
    dataframe: Any,
    *,
    features: Names = "features",
    labels: Names = "label",
    batch_size: int = 32,
    epochs: int = 1,
    processes: int = 2,
    averaging_frequency: int | None = None,
    folder: str | None = None,
) -> Network:
    """Fit a network on a Spark DataFrame.

    By default every step takes the mean gradient of all processes: p processes with
    batches of n rows do what one does with p · n. With ``averaging_frequency=k`` each
    process i fits k batches of its own, and then, as DL4J's parameter averaging,

    w ← 1/p Σᵢ wᵢ,  s ← 1/p Σᵢ sᵢ

    for parameters w (running statistics among them) and updater state s; once more at
    the end of each epoch.

    Rows are written to Parquet files and read from there by the processes; the driver
    sees none of them. The last rows, fewer than processes, are left out of all epochs.

    Args:
        network: a network, which stays as it is, or a configuration.
        dataframe: of PySpark's.
        features: a column of numbers, arrays or vectors, or several of numbers.
        labels: a column of arrays or vectors, or of numbers: those of classes if the
            network has more than one output.
        batch_size: rows of a batch of one process.
        epochs: passes over the rows.
        processes: how many fit together; each is a task of Spark's and needs a core.
        averaging_frequency: batches between two averages; ``None``: gradients.
        folder: where the files go meanwhile; the driver and all executors share it.
            Default: a temporary one, which is enough for ``local[n]``.

    Returns:
        a network as it is after training, with its updater's state and counters.

    Raises:
        ValueError, TypeError: where a column is missing or has other content.
        RuntimeError: where an executor lacks dl4py, or a process failed.

    DL4J: org.deeplearning4j.spark.impl.paramavg.ParameterAveragingTrainingMaster,
        org.deeplearning4j.spark.parameterserver.training.SharedTrainingMaster
    """
    for word, value in (
        ("batch_size", batch_size),
        ("epochs", epochs),
        ("processes", processes),
        ("averaging_frequency", averaging_frequency or 1),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"fit({word}=...): must be a whole number >= 1, got {value}"
            )
    net = network if isinstance(network, Network) else network.module()
    if len(net.plan.inputs) > 1 or len(net.plan.outputs) > 1:
        raise ValueError(
            "fit(network, ...): expected one input and one output, got "
            f"{', '.join(net.plan.inputs)} and {', '.join(net.plan.outputs)}"
        )
    x = array(dataframe, "fit(features=...)", features)
    y = array(dataframe, "fit(labels=...)", labels)
    width = getattr(net.nodes[-1].conf, "n_out", None) or 1
    single = [labels] if isinstance(labels, str) else list(labels)
    kinds = dict(dataframe.dtypes)
    numbers = len(single) == 1 and not kinds[single[0]].startswith(("array", "vector"))
    _check_executors(dataframe.sparkSession, processes)
    with _folder(folder) as place:
        rows = dataframe.select(x.alias("x"), y.alias("y"))
        rows.repartition(processes).write.mode("overwrite").parquet(place)
        from pyspark.ml.torch.distributor import TorchDistributor

        run = TorchDistributor(processes, local_mode=False, use_gpu=False).run
        classes = width if numbers and width > 1 else 0
        found = run(
            _rank, net, place, batch_size, epochs, classes, averaging_frequency or 0
        )
    if not isinstance(found, Network):
        raise RuntimeError("fit(...): the processes ended without a network")
    return found


def _rank(
    net: Network, folder: str, batch: int, epochs: int, classes: int, every: int
) -> Network:
    """What each process does; that of rank 0 is taken."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    first = next(net.parameters(), torch.zeros(0))
    rows = Shards(folder, batch, rank, world, first.dtype, classes)
    if every:
        dist.init_process_group("gloo")
        try:
            averaged(net, rows, epochs, every)
        finally:
            dist.destroy_process_group()
    else:
        _reduced(net, rows, epochs, world)
    return net


def averaged(
    net: Network,
    rows: Iterable[tuple[torch.Tensor, torch.Tensor]],
    epochs: int,
    every: int,
) -> None:
    """DL4J's parameter averaging, as one of the ranks of the default group."""
    for _ in range(epochs):
        i = 0
        for x, y in rows:
            net.fit(x, y)
            i += 1
            if i % every == 0:
                average(net)
        if i % every:
            average(net)
        net.end_epoch()


def average(net: Network) -> None:
    """The mean over all ranks in place of parameters and updater state."""
    optimizer = net.optimizer
    tensors = [view.tensor.detach() for view in net.views()]
    tensors += [optimizer.state[t.tensor][name] for name, t in optimizer.segments()]
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def _reduced(net: Network, rows: Shards, epochs: int, world: int) -> None:
    import lightning
    from lightning.pytorch.strategies import DDPStrategy
    from torch.utils.data import DataLoader

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=world,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(net.lightning("lightning"), DataLoader(rows, batch_size=None))


@contextlib.contextmanager
def _folder(given: str | None) -> Iterator[str]:
    """A new folder in the one that is given, gone afterwards."""
    place = tempfile.mkdtemp(prefix="dl4py-spark-", dir=given)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _check_executors(spark: Any, processes: int) -> None:
    """Refuse executors without dl4py, which would say so less clearly later."""

    def without(_: int) -> str:  # goes to the executors by value
        import importlib.util

        there = all(importlib.util.find_spec(n) for n in ("dl4py", "torch", "pyarrow"))
        return "" if there else f"{socket.gethostname()} ({sys.executable})"

    tasks = spark.sparkContext.parallelize(range(processes), processes)
    lacking = sorted(set(filter(None, tasks.map(without).collect())))
    if lacking:
        raise RuntimeError(
            f"fit(...): no dl4py in the Python of {', '.join(lacking)}: pip install "
            "'dl4py[spark]' there, or set PYSPARK_PYTHON to a Python that has it"
        )
