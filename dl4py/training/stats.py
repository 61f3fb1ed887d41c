"""DL4J's training UI as a callback: statistics of a run for TensorBoard and reports."""

from __future__ import annotations

import logging
import math
import os
import statistics as numbers
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from dl4py.network.batch import unpacked
from dl4py.training import statistics
from dl4py.training.evaluated import Judge
from dl4py.training.journal import Board, Journal
from dl4py.training.watch import Watch

if TYPE_CHECKING:
    from lightning import Callback as _Base
    from lightning import LightningModule, Trainer
else:
    _Base = LightningModule = Trainer = object

LOW, HIGH = -4.0, -2.0  # where DL4J wants log10 of update over parameter
RUN = 10  # reports whose median leaves that before anything is said
log = logging.getLogger("dl4py")


class StatsMixin(_Base):
    """DL4J's training UI in TensorBoard, of any LightningModule.

    Every ``every`` iterations, beginning with the first, it writes

    - ``score``: what ``training_step`` returned; of a network of dl4py DL4J's score,
      penalties included
    - ``update_ratio/0_W``: log10 of mean |update| / mean |parameter|; DL4J's advice is
      to keep it at -4 … -2, and where the median of ten reports is outside, a line in
      the log ``dl4py`` says so, once a parameter
    - ``std/activations``, ``std/gradients``, ``std/updates``: standard deviations, and
      ``mean/activations``
    - ``mean_magnitude/parameters``, ``mean_magnitude/updates``
    - ``learning_rate``, ``throughput`` (examples and batches per second), ``memory``
    - now and then histograms of parameters, gradients, updates, activations

    and lays them out in TensorBoard's Custom Scalars tab like DL4J's Overview and Model
    pages. Parameters and layers of a network of dl4py have DL4J's names, those of other
    modules torch's. An update is what an optimizer's step changed, gradients are those
    of the mean loss before any clipping.

    Of several processes the first one counts: its examples, scores, activations and
    speed, and of sharded tensors its part. The report says so.

    The same numbers, and the score of every iteration, go into ``stats.jsonl`` beside
    TensorBoard's files, from which ``dl4py report`` makes a page.

    Args:
        every: iterations between two reports; DL4J's 10.
        folder: where ``stats.jsonl`` is written; default: the logger's folder. With it
            no TensorBoard is needed.
        histograms: reports between two with histograms; 0 for none.
        bins: of a histogram; DL4J's 20.
        sample: of a tensor with more than twice that many numbers every so many-th
            counts: then means and deviations are off by about 1 %, a ratio's log10 by
            0.005, and a report takes no longer for larger layers. ``None``: all count,
            and copies of all activations are kept during an iteration that is reported.
        evaluation: whether validation batches are evaluated for the report, or the
            metrics to do it with, by name. Predictions and labels are those that
            ``validation_step`` returns in a dict under ``"predictions"`` and
            ``"labels"`` (and ``"mask"``); a network of dl4py needs no such dict.

    Attributes:
        advice: what was said about ratios, by parameter.

    Raises:
        ValueError: at the start of ``fit``, if there is nothing to write to.
        OSError: at the start of ``fit``, if the folder cannot be written.

    Example:
        >>> import lightning, tempfile, dl4py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stats = dl4py.StatsCallback(folder=folder)
        ...     trainer = lightning.Trainer(callbacks=[stats], logger=False)

    DL4J: org.deeplearning4j.ui.model.stats.StatsListener
    """

    def __init__(
        self,
        every: int = 10,
        *,
        folder: str | os.PathLike[str] | None = None,
        histograms: int = 10,
        bins: int = 20,
        sample: int | None = 2**13,
        evaluation: bool | Mapping[str, Metric] = True,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("every", every, 1),
            ("histograms", histograms, 0),
            ("bins", bins, 1),
            ("sample", 1 if sample is None else sample, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"StatsCallback({name}=...) must be a whole number >= {least}, got "
                    f"{value!r}"
                )
        self.every = every
        self.folder = None if folder is None else Path(folder)
        self.histograms = histograms
        self.bins = bins
        self.sample = sample
        self.evaluation = evaluation
        self.advice: dict[str, str] = {}
        self._journal: Journal | None = None
        self._boards: list[Board] = []
        self._judge: Judge | None = None
        self._clear()

    def _clear(self) -> None:
        self._scores: list[tuple[int, Tensor]] = []
        self._recent: dict[str, deque[float]] = {}
        self._watch: Watch | None = None
        self._next = self._reports = self._step = 0
        self._examples = self._batches = 0
        self._since: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        beside = trainer.log_dir if trainer.loggers else None  # asks all ranks
        found = [w for one in trainer.loggers if (w := _writer(one)) is not None]
        folder = self.folder or beside
        if not trainer.is_global_zero:
            return
        if self.folder is None and not found:
            kinds = ", ".join(type(one).__name__ for one in trainer.loggers)
            came = f"its loggers are {kinds}" if kinds else "it has no logger"
            raise ValueError(
                "StatsCallback writes to the Trainer's TensorBoardLogger, and "
                f"{came}: use Trainer(logger=TensorBoardLogger('runs')), or "
                "StatsCallback(folder='run') for dl4py report alone"
            )
        assert folder is not None
        self._clear()
        self._journal = Journal(Path(folder))
        self._boards = [Board(writer) for writer in found]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._journal is None:
            return
        self._next = trainer.global_step
        watched = list(statistics.parameters(pl_module))
        self._journal.write(
            {
                "kind": "model",
                "model": type(statistics.network_of(pl_module) or pl_module).__name__,
                "ranks": trainer.world_size,
                "parameters": sum(p.numel() for p in pl_module.parameters()),
                "iteration": trainer.global_step,
                "time": time.time(),
                "weights": [one.name for one in watched if one.weight],
                "layers": statistics.table(pl_module),
            }
        )
        layers: dict[str, list[str]] = {
            name: [] for name, _ in statistics.layers_of(pl_module)
        }
        for one in watched:
            layers.setdefault(one.layer, []).append(one.name)
        for board in self._boards:
            board.layout(layers, [one.name for one in watched if one.weight])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._journal is None:
            return
        if self._since is None:  # not before: loading the first batch takes long
            self._since = time.perf_counter()
        self._batches += 1
        self._examples += _examples(batch)
        self._step = trainer.global_step
        if self._step >= self._next:
            whole = self.histograms and self._reports % self.histograms == 0
            self._watch = Watch(pl_module, bool(whole), self.sample)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        if self._watch is not None:
            self._watch.look_at_gradients()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._journal is None:
            return
        score = getattr(pl_module, "last_score", None)
        if score is None:
            score = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(score, Tensor):
            self._scores.append((self._step, score.detach()))
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.end()
        if trainer.global_step > self._step:  # else gradients are being accumulated
            self._report(trainer, watch)
            self._next = self._step - self._step % self.every + self.every

    def _report(self, trainer: Trainer, watch: Watch) -> None:
        assert self._journal is not None and self._since is not None
        steps = [step for step, _ in self._scores]
        found, shapes = watch.found(self.bins, [score for _, score in self._scores])
        scores = list(zip(steps, found.pop("score"), strict=True))
        names = watch.names
        of: dict[str, dict[str, float]] = {
            family: dict(
                zip(
                    watch.activations if "activations" in family else names,
                    values,
                    strict=False,  # no gradients, where no hook was called
                )
            )
            for family, values in found.items()
        }
        ratios = {
            name: _ratio(of["mean_magnitude/updates"][name], size)
            for name, size in of["mean_magnitude/parameters"].items()
        }
        of["update_ratio"] = {k: v for k, v in ratios.items() if math.isfinite(v)}
        of["learning_rate"] = _rates(trainer)
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        of["throughput"] = {
            "examples_per_second": self._examples / seconds,
            "batches_per_second": self._batches / seconds,
        }
        of["memory"] = _memory()
        record: dict[str, Any] = {
            "kind": "report",
            "iteration": self._step,
            "epoch": trainer.current_epoch,
            "time": time.time(),
            "scores": scores,
            **of,
        }
        if shapes:
            record["histograms"] = shapes
        if said := self._advise(watch, of["update_ratio"]):
            record["advice"] = said
        self._journal.write(record)
        flat = {
            f"{k}/{name}": v for k, values in of.items() for name, v in values.items()
        }
        if scores:
            flat["score"] = scores[-1][1]
        for board in self._boards:
            board.scalars(flat, self._step)
            for kind, each in shapes.items():
                for name, one in each.items():
                    board.histogram(f"{kind}/{name}", one, self._step)
        self._scores, self._reports = [], self._reports + 1
        self._since, self._examples, self._batches = time.perf_counter(), 0, 0

    def _advise(self, watch: Watch, ratios: Mapping[str, float]) -> dict[str, str]:
        """DL4J's advice about ratios that stay outside of -4 … -2, once each."""
        said = {}
        for name, ratio in ratios.items():
            recent = self._recent.setdefault(name, deque(maxlen=RUN))
            recent.append(ratio)
            if len(recent) < RUN or name in self.advice or name not in watch.weights:
                continue
            middle = numbers.median(recent)
            if LOW <= middle <= HIGH:
                continue
            high = middle > HIGH
            self.advice[name] = said[name] = (
                f"{name}: log10 of update over parameter is {middle:.2f}, "
                f"{'above -2' if high else 'below -4'}: "
                + (
                    "updates are large for it; try a lower learning rate, another "
                    "weight init, or gradient normalization"
                    if high
                    else "it hardly learns; try a higher learning rate, and look for "
                    "vanishing gradients (activation, weight init, scaled data)"
                )
            )
            log.warning("%s", said[name])
        return said

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        wanted = self.evaluation is not False and not trainer.sanity_checking
        given = self.evaluation if isinstance(self.evaluation, Mapping) else None
        self._judge = Judge(given) if wanted and trainer.state.fn == "fit" else None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._judge is None or dataloader_idx:
            return
        if found := _predictions(pl_module, outputs, batch):
            self._judge.update(*found)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        judge, self._judge = self._judge, None
        if judge is None or not (found := judge.result()) or self._journal is None:
            return
        self._journal.write(
            {
                "kind": "evaluation",
                "iteration": trainer.global_step,
                "epoch": trainer.current_epoch,
                **found,
            }
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._journal is None:
            return
        scores = [(step, float(score)) for step, score in self._scores]
        record: dict[str, Any] = {
            "kind": "end",
            "iteration": trainer.global_step,
            "time": time.time(),
            "scores": scores,
        }
        if self.histograms:
            samples = {
                one.name: statistics.chosen(one.tensor, self.sample)
                for one in statistics.parameters(pl_module)
            }
            shapes = statistics.histograms(samples, self.bins)
            record["histograms"] = {"parameters": shapes}
        self._journal.write(record)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.end()
        if self._journal is not None:
            self._journal.close()
        self._clear()
        self._journal, self._boards = None, []


def _examples(batch: Any) -> int:
    """How many examples a batch has, by its first tensor."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else 1
    if isinstance(batch, (tuple, list)):
        return next((n for part in batch if (n := _examples(part))), 0)
    return _examples(list(batch.values())) if isinstance(batch, Mapping) else 0


def _predictions(module: Any, outputs: Any, batch: Any) -> tuple[Any, ...] | None:
    """(predictions, labels, mask) of a validation batch, where they are known."""
    if isinstance(outputs, Mapping) and {"predictions", "labels"} <= set(outputs):
        return outputs["predictions"], outputs["labels"], outputs.get("mask")
    net = statistics.network_of(module)
    if net is None:
        return None
    x, labels, *masks = unpacked(batch)
    if not isinstance(labels, Tensor):
        return None  # of several outputs
    return net.output(x, *masks), labels, (*masks, None, None)[1]


def _ratio(update: float, parameter: float) -> float:
    """log10 of their quotient; of a parameter that is 0 there is none."""
    share = update / parameter if parameter else math.nan
    return math.log10(share) if share > 0 else math.nan


def _rates(trainer: Any) -> dict[str, float]:
    """The learning rate of every parameter group, by its name or number."""
    found = {}
    for i, optimizer in enumerate(trainer.optimizers):
        for j, group in enumerate(optimizer.param_groups):
            if "lr" in group:
                found[str(group.get("name", f"optimizer{i}/group{j}"))] = float(
                    group["lr"]
                )
    return found


def _memory() -> dict[str, float]:
    """MB of the process, and of the GPU, where they can be known."""
    found = {}
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[1])
        found["process"] = pages * os.sysconf("SC_PAGESIZE") / 1e6
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.memory_allocated() / 1e6
    return found


def _writer(logger: Any) -> Any:
    """The summary writer of a TensorBoard logger."""
    kinds = [kind.__name__ for kind in type(logger).__mro__]
    return logger.experiment if "TensorBoardLogger" in kinds else None
