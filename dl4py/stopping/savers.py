"""Where the best network goes."""

from __future__ import annotations

import copy
from pathlib import Path

from dl4py.network import Network
from dl4py.serializer import restore, save


class MemorySaver:
    """Keeps copies of the best and of the latest network in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, Network] = {}

    def save(self, which: str, network: Network) -> None:
        """Keep ``network`` as ``"best"`` or ``"latest"``."""
        self._kept[which] = copy.deepcopy(network)

    def load(self, which: str) -> Network | None:
        """What was kept, or ``None``."""
        return self._kept.get(which)


class FileSaver:
    """Writes ``bestModel.bin`` and ``latestModel.bin``, DL4J's files, into a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"FileSaver(folder): expected a folder, got {folder!r}")

    def _path(self, which: str) -> Path:
        return self.folder / f"{which}Model.bin"

    def save(self, which: str, network: Network) -> None:
        """Write ``network`` as ``"best"`` or ``"latest"``."""
        save(network, self._path(which), allow_difference=True)

    def load(self, which: str) -> Network | None:
        """What was written, or ``None``."""
        path = self._path(which)
        return restore(path) if path.exists() else None
