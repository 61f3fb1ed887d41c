"""Lightning's checkpoints of dl4py's modules."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import IO, Any

import torch
from torch import Tensor

from dl4py.config.codec import DL4JFormatError, brief
from dl4py.formats.parts import Parts
from dl4py.network import Network

PREFIX = "network."  # the network's name in its LightningModule


def read(path: str, where: str) -> Parts:
    """What a checkpoint holds; torch's safe loader reads it, and nothing is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is damaged fails in many ways
        raise DL4JFormatError(
            f"{where}: not a checkpoint that torch's safe loader reads: {brief(error)}"
        ) from error
    hyper = _mapping(_mapping(content, where).get("hyper_parameters"), where)
    if "conf" not in hyper:
        raise DL4JFormatError(f"{where}: {_FOREIGN}")
    if hyper["conf"] is None:
        raise DL4JFormatError(
            f"{where}: its configuration holds functions or classes without a "
            "registered name; load_from_checkpoint(path, config=...) reads it"
        )
    state = _mapping(content.get("state_dict"), where)
    odd = [k for k, t in state.items() if not isinstance(t, Tensor)]
    if odd:
        raise DL4JFormatError(f"{where}: state_dict: {odd[0]!r} is no tensor")
    normalizer = content.get("normalizer")
    if normalizer is not None and (
        not isinstance(normalizer, Tensor) or normalizer.dtype != torch.uint8
    ):
        raise DL4JFormatError(f"{where}: normalizer: expected bytes")
    optimizers = content.get("optimizer_states") or [None]
    if not isinstance(optimizers, list) or len(optimizers) != 1:
        raise DL4JFormatError(f"{where}: optimizer_states: expected one")
    return Parts(
        _mapping(hyper["conf"], where),
        bool(hyper.get("dl4j_exact", False)),
        {k.removeprefix(PREFIX): t for k, t in state.items()},
        optimizers[0],
        None if normalizer is None else bytes(normalizer.numpy()),
        None if content.get("classes") is None else str(content["classes"]),
    )


def write(net: Network, file: IO[bytes]) -> None:
    """A checkpoint from which ``Trainer.fit(ckpt_path=...)`` goes on.

    It has the network's parameters, normalizer, optimizer and counters; a Trainer
    counts its epochs and steps on from these.
    """
    import lightning  # takes seconds, and only this needs it

    Parts.of(net)  # refuses what a checkpoint could not describe
    with _quiet():
        trainer: Any = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    trainer.strategy.connect(net.lightning("lightning"))
    trainer.strategy.optimizers = [net.optimizer]
    done = trainer.fit_loop.epoch_progress
    for count in (done.total, done.current):
        count.ready = count.started = net.clock.epoch
        count.processed = count.completed = net.clock.epoch
    steps = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress
    steps.optimizer.step.total.ready = net.clock.iteration
    steps.optimizer.step.total.completed = net.clock.iteration
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.ckpt")
        trainer.save_checkpoint(path, weights_only=False)
        with open(path, "rb") as written:
            shutil.copyfileobj(written, file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing said about accelerators, which write no file."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


_FOREIGN = (
    "a checkpoint of another module: expected one of dl4py's, with the configuration "
    "among its hyper-parameters"
)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DL4JFormatError(f"{where}: {_FOREIGN}")
    return value
