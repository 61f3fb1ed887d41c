"""Networks for the ``pytorch_lightning`` package."""

from __future__ import annotations

import pytorch_lightning

from dl4py.trainer import NetworkMixin


# the mixin is typed against the other package
class Network(NetworkMixin, pytorch_lightning.LightningModule):  # type: ignore[misc]
    """A network under ``pytorch_lightning.Trainer``; see its mixin."""
