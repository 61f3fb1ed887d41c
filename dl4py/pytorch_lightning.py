"""Networks for the ``pytorch_lightning`` package."""

from __future__ import annotations

import pytorch_lightning
from lightning_fabric.plugins import TorchCheckpointIO

from dl4py.data.module import DataMixin
from dl4py.training.checkpoints import CheckpointMixin
from dl4py.training.module import NetworkMixin
from dl4py.training.pretraining import PretrainingMixin
from dl4py.training.stats import StatsMixin
from dl4py.training.stopping import StoppingMixin
from dl4py.training.trials import QuietMixin


# the mixins are typed against the other package
class Network(NetworkMixin, pytorch_lightning.LightningModule):  # type: ignore[misc]
    """A network under ``pytorch_lightning.Trainer``; see its mixin."""


class Pretraining(PretrainingMixin, pytorch_lightning.LightningModule):  # type: ignore[misc]
    """A layer's training on inputs alone under ``pytorch_lightning.Trainer``."""


class QuietTrials(QuietMixin, pytorch_lightning.Callback):  # type: ignore[misc]
    """Keeps a solver's trials quiet under ``pytorch_lightning.Trainer``."""


class DataModule(DataMixin, pytorch_lightning.LightningDataModule):  # type: ignore[misc]
    """Files for ``pytorch_lightning.Trainer``; see its mixin."""


class StatsCallback(StatsMixin, pytorch_lightning.Callback):  # type: ignore[misc]
    """DL4J's training UI under ``pytorch_lightning.Trainer``; see its mixin."""


class EarlyStopping(StoppingMixin, pytorch_lightning.Callback):  # type: ignore[misc]
    """DL4J's early stopping under ``pytorch_lightning.Trainer``; see its mixin."""


class CheckpointIO(CheckpointMixin, TorchCheckpointIO):
    """Checkpoints in one step under ``pytorch_lightning.Trainer``; see its mixin."""
