"""Networks for the ``lightning`` package."""

from __future__ import annotations

import lightning

from dl4py.trainer import NetworkMixin


class Network(NetworkMixin, lightning.LightningModule):
    """A network under ``lightning.Trainer``; see its mixin."""
