"""Networks fitted by processes that Spark starts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist

from dl4py.config.settings import NetworkConfiguration
from dl4py.network import Network
from dl4py.serializer import restore, save
from dl4py.spark.columns import Names, array
from dl4py.spark.executors import check_executors, same_python
from dl4py.spark.shards import Shards, write

_EMPTY = ("ChildFailedError", "TorchDistributor", "PythonException", "Command [")


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
    checkpoint: str | None = None,
) -> Network:
    """Fit a network on a Spark DataFrame.

    By default every step takes the mean gradient of all processes: p processes with
    batches of n rows do what one does with p · n. With ``averaging_frequency=k`` each
    process i fits k batches of its own, and then, as DL4J's parameter averaging,

    w ← 1/p Σᵢ wᵢ,  s ← 1/p Σᵢ sᵢ

    for parameters w (running statistics among them) and updater state s; once more at
    the end of each epoch.

    Rows are written to Parquet files, mixed, in an order that depends on nothing but
    what is in them, and read from there by the processes; the driver sees none of them.
    Each epoch has the same batches. The last rows, fewer than processes, are left out
    of all epochs.

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
        checkpoint: a zip, shared too, that holds the network after each epoch. Where it
            is there at the start, an earlier run ended early: this one goes on from it.
            It is gone when all epochs are done.

    Returns:
        a network as it is after training, with its updater's state and counters.

    Raises:
        ValueError, TypeError: where a column is missing or has other content, or the
            checkpoint is of another network or has more epochs behind it.
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
    goal = net.clock.epoch + epochs
    net = _start(net, checkpoint, goal)
    if net.clock.epoch == goal:  # the last call ended between its epochs and its end
        return _done(net, checkpoint)
    same_python(dataframe.sparkSession)
    check_executors(dataframe.sparkSession, processes)
    with _folder(folder) as place:
        rows = dataframe.select(x.alias("x"), y.alias("y"))
        write(rows, processes, place)
        from pyspark.ml.torch.distributor import TorchDistributor

        run = TorchDistributor(processes, local_mode=False, use_gpu=False).run
        classes = width if numbers and width > 1 else 0
        every = averaging_frequency or 0
        given = (net, place, batch_size, goal, classes, every, checkpoint)
        try:
            found = run(_rank, *given)
        except Exception as error:  # Py4J's, PySpark's
            kept = checkpoint and os.path.exists(checkpoint)
            raise RuntimeError(
                f"fit(...): one of {processes} processes ended before the last epoch "
                f"({_reason(error)}); "
                + (
                    f"call it again to go on from {checkpoint}"
                    if kept
                    else "with checkpoint=FILE it could go on from its last epoch"
                )
            ) from error
    if not isinstance(found, Network):
        raise RuntimeError("fit(...): the processes ended without a network")
    return _done(found, checkpoint)


def _done(net: Network, checkpoint: str | None) -> Network:
    if checkpoint:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(checkpoint)
    return net


def _rank(
    net: Network,
    folder: str,
    batch: int,
    goal: int,
    classes: int,
    every: int,
    checkpoint: str | None = None,
) -> Network:
    """What each process does until the epoch ``goal``; that of rank 0 is taken."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    first = next(net.parameters(), torch.zeros(0))
    rows = Shards(folder, batch, rank, world, first.dtype, classes)
    epochs = goal - net.clock.epoch

    def keep() -> None:
        if checkpoint and rank == 0:
            save(net, checkpoint, allow_difference=True)  # in one step

    if every:
        dist.init_process_group("gloo")
        try:
            averaged(net, rows, epochs, every, keep)
        finally:
            dist.destroy_process_group()
    else:
        _reduced(net, rows, epochs, world, keep)
    return net


def _start(net: Network, checkpoint: str | None, goal: int) -> Network:
    """The network of a checkpoint, where there is one that belongs to ``net``.

    The driver reads it, so that all processes start from the same one.
    """
    if not checkpoint or not os.path.exists(checkpoint):
        return net
    found = restore(checkpoint, dl4j_exact=net.dl4j_exact)
    counts = ("iterationCount", "epochCount")
    ours, theirs = (
        re.sub(rf'"({"|".join(counts)})"\s*:\s*\d+', "", each.conf.to_json())
        for each in (net, found)
    )
    if ours != theirs:
        raise ValueError(
            f"fit(checkpoint={checkpoint!r}): it holds another network; remove it to "
            "start anew, or give another file"
        )
    if found.clock.epoch > goal:
        raise ValueError(
            f"fit(epochs=..., checkpoint={checkpoint!r}): it has {found.clock.epoch} "
            f"epochs behind it, this call would end at {goal}; remove it to start "
            "anew, or give more epochs"
        )
    return found.train()


def _reason(error: BaseException) -> str:
    """The line of Spark's long report that says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if re.match(r"(\w+\.)*\w*(Error|Exception): ", line)
        and not any(word in line for word in _EMPTY)
    ]
    lost = [line for line in lines if "ExecutorLostFailure" in line]
    return (lost or named or lines or [type(error).__name__])[0][:300]


def averaged(
    net: Network,
    rows: Iterable[tuple[torch.Tensor, torch.Tensor]],
    epochs: int,
    every: int,
    keep: Callable[[], None] = lambda: None,
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
        keep()


def average(net: Network) -> None:
    """The mean over all ranks in place of parameters and updater state."""
    optimizer = net.optimizer
    tensors = [view.tensor.detach() for view in net.views()]
    tensors += [optimizer.state[t.tensor][name] for name, t in optimizer.segments()]
    for tensor in tensors:
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()


def _reduced(
    net: Network, rows: Shards, epochs: int, world: int, keep: Callable[[], None]
) -> None:
    import lightning
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.strategies import DDPStrategy
    from torch.utils.data import DataLoader

    class Keep(Checkpoint):  # which comes after the network's own end of an epoch
        def on_train_epoch_end(self, *_: Any) -> None:
            keep()

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        num_nodes=world,
        strategy=DDPStrategy(process_group_backend="gloo"),
        max_epochs=epochs,
        logger=False,
        callbacks=[Keep()],
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
