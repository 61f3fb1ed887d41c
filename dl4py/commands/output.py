"""What a command writes: a new file, whole or not at all."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dl4py.io.replacing import replacing


def new_file(path: Path, force: bool) -> None:
    """Refuse a place where no file can be written, or where one is already."""
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, this is a folder")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; --force replaces it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    if not writable(path.resolve().parent):
        raise ValueError(f"{path}: no file can be written into {path.resolve().parent}")


def writable(folder: Path) -> bool:
    """Tried, as permissions say nothing to root and of file systems."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def rows(path: Path, force: bool) -> Iterator[Any]:
    """A CSV that grows by ``writerow`` and is there once all of it is."""
    new_file(path, force)
    with replacing(path, "--out") as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield csv.writer(text, lineterminator="\n")
        text.flush()
        text.detach()


def shortest(values: Any) -> Sequence[str]:
    """Numbers as the fewest digits that give them back."""
    found: Sequence[str] = values.astype(str).tolist()
    return found
