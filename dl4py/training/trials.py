"""Keeps a solver's trial evaluations out of what a Trainer shows and saves."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import Metric

if TYPE_CHECKING:
    from lightning import Callback as _Base
    from lightning import LightningModule, Trainer
else:
    _Base = LightningModule = Trainer = object


class QuietMixin(_Base):
    """A callback for Trainers whose optimizer is one of ``dl4py.solvers``.

    A solver evaluates ``training_step`` several times a step. With this callback only
    the first evaluation logs, counts in metrics of torchmetrics, and changes buffers
    of the module, those inside a ``torch.compile`` included. Learning-rate schedules
    and ``global_step`` count steps without it.

    Example:
        >>> import lightning, dl4py.lightning
        >>> quiet = dl4py.lightning.QuietTrials()
        >>> trainer = lightning.Trainer(callbacks=[quiet], logger=False)

    Hooks such as ``on_before_optimizer_step`` still run at every evaluation.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        @contextlib.contextmanager
        def quiet() -> Iterator[None]:
            with muted(pl_module):
                yield

        self._entered = [o for o in trainer.optimizers if hasattr(o, "trials")]
        self._context = quiet
        for optimizer in self._entered:
            optimizer.trials.append(quiet)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._leave()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        for optimizer in self.__dict__.pop("_entered", []):
            optimizer.trials.remove(self._context)


@contextlib.contextmanager
def muted(module: Any) -> Iterator[None]:
    """Inside, ``module.log`` does nothing; metrics and buffers are put back afterwards.

    Args:
        module: a LightningModule.
    """
    metrics = [m for m in module.modules() if isinstance(m, Metric)]
    states = [copy.deepcopy(_state(m)) for m in metrics]
    buffers = [(b, b.clone()) for b in module.buffers()]
    module.__dict__["log"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del module.__dict__["log"]
        for metric, state in zip(metrics, states, strict=True):
            vars(metric).update(state)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _state(metric: Metric) -> dict[str, Any]:
    names = [*metric._defaults, "_update_count", "_computed", "_forward_cache"]
    return {name: vars(metric)[name] for name in names if name in vars(metric)}
