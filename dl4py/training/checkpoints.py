"""Checkpoints that a full disk cannot break, for both Lightning packages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dl4py.io.replacing import replacing

if TYPE_CHECKING:
    from lightning.fabric.plugins import TorchCheckpointIO as _Base
else:
    _Base = object


class CheckpointMixin(_Base):
    """Checkpoints that take an older one's place in one step, or leave it as it is.

    ``Trainer(plugins=[dl4py.lightning.CheckpointIO()])``, and in
    ``dl4py.pytorch_lightning``; ``dl4py fit`` has it by itself.

    Lightning's own grow in the folder for temporary files, and are copied where that
    is on another disk: a full disk then leaves half a file in the place of a whole one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write it beside ``path``, and move it there; addresses go Lightning's way."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        with replacing(path) as file:
            file.write(whole.getbuffer())
