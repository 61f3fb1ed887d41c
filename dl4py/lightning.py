"""Networks for the ``lightning`` package."""

from __future__ import annotations

import lightning
from lightning.fabric.plugins import TorchCheckpointIO

from dl4py.data.module import DataMixin
from dl4py.training.checkpoints import CheckpointMixin
from dl4py.training.module import NetworkMixin
from dl4py.training.pretraining import PretrainingMixin
from dl4py.training.stats import StatsMixin
from dl4py.training.stopping import StoppingMixin
from dl4py.training.trials import QuietMixin


class Network(NetworkMixin, lightning.LightningModule):
    """A network under ``lightning.Trainer``; see its mixin."""


class Pretraining(PretrainingMixin, lightning.LightningModule):
    """A layer's training on inputs alone under ``lightning.Trainer``; see its mixin."""


class QuietTrials(QuietMixin, lightning.Callback):
    """Keeps a solver's trials quiet under ``lightning.Trainer``; see its mixin."""


class DataModule(DataMixin, lightning.LightningDataModule):
    """Files for ``lightning.Trainer``; see its mixin."""


class StatsCallback(StatsMixin, lightning.Callback):
    """DL4J's training UI under ``lightning.Trainer``; see its mixin."""


class EarlyStopping(StoppingMixin, lightning.Callback):
    """DL4J's early stopping under ``lightning.Trainer``; see its mixin."""


class CheckpointIO(CheckpointMixin, TorchCheckpointIO):
    """Checkpoints in one step under ``lightning.Trainer``; see its mixin."""
