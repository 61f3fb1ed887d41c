"""``dl4py fit``: a network in DL4J's words, files of data and a Trainer, by YAML."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

import dl4py
from dl4py.commands import models
from dl4py.commands.found import Found
from dl4py.commands.output import new_file, writable
from dl4py.config import NeuralNetConfiguration
from dl4py.config.codec import brief
from dl4py.extras import need
from dl4py.lightning import CheckpointIO, DataModule, Network
from dl4py.table import Table

_KNOWN = (  # of Lightning's warnings, what nobody can act upon
    ".*does not have many workers",
    ".*LeafSpec",
    "You defined a .validation_step. but have no .val_dataloader",
    "The number of training batches",
    ".*exists and is not empty",
    "LightningCLI's args parameter is intended",
)


_OTHERS = (".ckpt", ".safetensors", ".pt2", ".onnx", ".py")  # convert's, not fit's
_PEER = re.compile(r"closed by peer|reset by peer|remote process|Broken pipe", re.I)


def network(network: dict[str, Any] | str, dl4j_exact: bool | None = None) -> Network:
    """The network to train.

    Args:
        network: a builder's words or DL4J's own keys; or a file with these, as YAML or
            JSON; or a model file to go on from.
        dl4j_exact: whether DL4J's faults are reproduced too; default: as the model file
            says, else no.
    """
    if isinstance(network, dict):
        conf = NeuralNetConfiguration.from_words(network)
    elif Path(network).suffix.lower() in models.TEXTS:
        conf = models.configured(network)
    else:
        return Network(config=models.opened(network, dl4j_exact))
    return Network(config=conf, dl4j_exact=bool(dl4j_exact))


def run(
    arguments: Sequence[str], out: Path, force: bool, ckpt_path: str | None = None
) -> Found:
    """Train, and write the network as a model zip.

    Args:
        arguments: for LightningCLI: ``--config``, ``--model.…``, ``--data.…``,
            ``--trainer.…``.
        out: the zip; nothing is written where training fails.
        force: whether a file that is there may be replaced.
        ckpt_path: a checkpoint to go on from; ``"last"``: the newest one below the
            trainer's ``default_root_dir`` or where its callbacks keep theirs.
    """
    need("jsonargparse", "dl4py fit reads its configuration")
    _check_words(arguments)
    from lightning.pytorch.cli import LightningCLI

    with _quiet():
        cli = LightningCLI(
            network,
            DataModule,
            args=list(arguments),
            run=False,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "prog": "dl4py fit"},
            trainer_defaults={
                "enable_progress_bar": sys.stderr.isatty(),
                "enable_model_summary": False,
            },
        )
        new_file(out, force)  # not before, or nobody could ask for --help
        if out.suffix.lower() in _OTHERS:
            raise ValueError(
                f"{out}: fit writes a model zip of DL4J's; give it a name in .zip, "
                f"then dl4py convert {out.with_suffix('.zip')} {out}"
            )
        with warnings.catch_warnings():  # they come again when it is written
            warnings.simplefilter("ignore")
            dl4py.save(cli.model, io.BytesIO())  # what cannot be written, now
        _check_loggers(cli.trainer)
        path = _checkpoint(cli.trainer, ckpt_path)
        cli.datamodule.read()  # what cannot be read leaves no folder of logs
        if type(cli.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            cli.trainer.strategy.checkpoint_io = CheckpointIO()
        try:
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=path)
        except RuntimeError as error:
            if cli.trainer.world_size == 1 or not _PEER.search(str(error)):
                raise
            raise RuntimeError(
                f"one of the {cli.trainer.world_size} processes of this run ended "
                "before training did; its own last lines say why, and --ckpt-path last "
                "goes on from the last checkpoint"
            ) from error
        if not cli.trainer.is_global_zero:
            return Found(None, ())  # the first process writes and tells
        dl4py.save(cli.model, out)
    return _told(cli, out)


def _check_words(arguments: Sequence[str]) -> None:
    """Refuse files of words that hold none; what reads them repeats them whole."""
    import yaml  # type: ignore[import-untyped]  # with jsonargparse

    words = [part for word in arguments for part in word.split("=", 1)]
    for word, name in zip(words, words[1:], strict=False):
        file = Path(name)
        if word not in ("-c", "--config") or not file.is_file():
            continue
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            told = brief(ValueError(" ".join(str(error).split())))
            raise ValueError(f"{name}: expected YAML: {told}") from None
        if not isinstance(found, dict):
            raise ValueError(
                f"{name}: expected YAML with model, data and trainer, as "
                "examples/iris.yaml has them"
            )


def _checkpoint(trainer: Any, given: str | None) -> str | None:
    """The file to go on from; Lightning's own "last" sees no earlier run's folder."""
    if given is None:
        return None
    if given != "last":
        if not Path(given).is_file():
            raise FileNotFoundError(f"--ckpt-path {given}: there is no such file")
        return given
    kept = [getattr(each, "dirpath", None) for each in trainer.checkpoint_callbacks]
    folders = {Path(folder or trainer.default_root_dir) for folder in kept}
    found = [file for folder in folders for file in folder.rglob("*.ckpt")]
    if not found:
        raise FileNotFoundError(
            f"--ckpt-path last: there is no checkpoint below "
            f"{', '.join(map(str, sorted(folders))) or trainer.default_root_dir}"
        )
    return str(max(found, key=lambda file: file.stat().st_mtime_ns))


def _told(cli: Any, out: Path) -> Found:
    scores = {k: float(v) for k, v in cli.trainer.callback_metrics.items()}
    net, data = cli.model.network, cli.datamodule
    classes = data.parts["train"].classes
    checkpoint = getattr(cli.trainer.checkpoint_callback, "best_model_path", "") or None
    found = {
        "out": str(out),
        "checkpoint": checkpoint,
        "epochs": net.clock.epoch,
        "iterations": net.clock.iteration,
        "examples": {name: len(part) for name, part in data.parts.items()},
        "classes": list(classes) if classes else None,
        "scores": scores,
    }
    rows = [[name, f"{value:.6g}"] for name, value in scores.items()]
    notes = [
        f"{net.clock.iteration} iterations, {net.clock.epoch} epochs",
        *([f"classes: {', '.join(classes)}"] if classes else []),
        *([f"checkpoint {checkpoint}"] if checkpoint else []),
        f"model {out}",
    ]
    return Found(found, [Table(rows, ["score", "value"], notes=notes)])


def _check_loggers(trainer: Any) -> None:
    """A logger that cannot write is found before training, not after an epoch."""
    for logger in trainer.loggers:
        folder = logger.log_dir or logger.save_dir
        if folder is None:
            continue
        place = Path(folder).absolute()
        while not os.path.lexists(place):
            place = place.parent
        if not writable(place):
            what = "no folder to write to" if place.is_dir() else "no folder"
            raise ValueError(
                f"{type(logger).__name__} cannot write to {folder}: {place} is {what}; "
                "choose another with --trainer.default_root_dir, or --trainer.logger "
                "false"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hints, and without its warnings that lead nowhere."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # inside Lightning
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logging.disable(before)
