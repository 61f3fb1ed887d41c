"""A layer's training on inputs alone under a Trainer, for both Lightning packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dl4py.network import Network, NetworkOptimizer
from dl4py.network.pretraining import inputs_of

if TYPE_CHECKING:
    from lightning import LightningModule as _Base
else:
    _Base = object


class PretrainingMixin(_Base):
    """One layer of a network, trained on inputs alone: ``Network.pretrain_layer``.

    ``dl4py.lightning.Pretraining(net, "layer0")``, and in ``dl4py.pytorch_lightning``.
    Batches are those that ``fit`` takes, whose labels are not looked at, or inputs. The
    network is trained in place. Logged is ``pretrain_loss``, penalties included.

    Args:
        network: a network with such a layer.
        layer: its name, or its place in the network.
    """

    def __init__(self, network: Network, layer: int | str) -> None:
        super().__init__()
        network.pretraining_optimizer(layer)  # refuses another layer now
        self.network, self.layer = network, layer

    def configure_optimizers(self) -> NetworkOptimizer:
        """The layer's own optimizer, with the state so far."""
        self.network.train()
        return self.network.pretraining_optimizer(self.layer)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, mask = inputs_of(batch)
        optimizer = self.network.pretraining_optimizer(self.layer)
        loss = self.network.pretraining_score(self.layer, x, mask)
        with torch.no_grad():
            score = loss + self.network.pretraining_penalty(self.layer)
        if not optimizer.is_trial:
            self.log("pretrain_loss", score, prog_bar=True)
        if optimizer.solution is None or self.network.dl4j_exact:
            return loss
        return loss + self.network.pretraining_penalty(self.layer)

    def on_train_epoch_end(self) -> None:
        self.network.end_pretraining_epoch(self.layer)
