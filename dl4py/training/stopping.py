"""DL4J's early stopping under a Trainer, for both Lightning packages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dl4py import stopping

if TYPE_CHECKING:
    from lightning import Callback as _Base
    from lightning import LightningModule, Trainer
else:
    _Base = LightningModule = Trainer = object


class StoppingMixin(_Base):
    """Ends a ``Trainer``'s fit where :class:`dl4py.stopping.EarlyStopping` does.

    ``dl4py.lightning.EarlyStopping(stopping)``, and in ``dl4py.pytorch_lightning``;
    afterwards ``callback.result`` tells how it ended. The module is one of
    ``net.lightning()``. Give the Trainer ``max_epochs=-1`` where a condition bounds
    them.

    Args:
        stopping: score, conditions and saver.
    """

    judges = True  # of scores, those that are no number too

    def __init__(self, stopping: stopping.EarlyStopping) -> None:
        super().__init__()
        self.stopping = stopping
        self._resumed = False

    @property
    def result(self) -> stopping.Result:
        """How the training ended."""
        return self.stopping.result

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not hasattr(pl_module, "network"):
            raise TypeError(
                "EarlyStopping: expected a module of net.lightning(), got "
                f"{type(pl_module).__name__}"
            )
        if not self._resumed:
            self.stopping.begin()
        self._resumed = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        score = float(trainer.callback_metrics["train_loss"])
        if self.stopping.after_iteration(score, pl_module.network):
            trainer.should_stop = True
        elif not math.isfinite(score):
            self.stopping.reason = "Error"
            self.stopping.details = f"the score is {score}"
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not self.stopping.reason and self.stopping.after_epoch(pl_module.network):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return self.stopping.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stopping.load_state_dict(state_dict)
        self._resumed = True
