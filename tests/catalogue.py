"""The catalogue: small networks with everything the real DL4J computed for them.

``tests/data/catalogue.zip`` holds the cases that can be read;
``python -m tests.catalogue`` makes it anew. Where the whole catalogue is at hand
(``DL4PY_SHARED``), the tests go through all of it.
"""

from __future__ import annotations

import functools
import io
import json
import sys
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.golden import HERE, SHARED

COPY = HERE / "data" / "catalogue.zip"
WHOLE = SHARED / "models"


@dataclass(frozen=True)
class Case:
    """One network: its configuration, facts about it, and DL4J's numbers."""

    name: str
    json: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def file(self, entry: str) -> io.BytesIO | None:
        """``model.zip`` (before training) or ``trained.zip`` (``None``: no fits)."""
        data = _read(self.name, entry)
        return None if data is None else io.BytesIO(data)


ENTRIES = ("model.zip", "trained.zip", "meta.json", "case.npz")


def _read(name: str, entry: str) -> bytes | None:
    if WHOLE.is_dir():
        path = WHOLE / name / entry
        return path.read_bytes() if path.exists() else None
    with zipfile.ZipFile(COPY) as archive:
        place = f"{name}/{entry}"
        return archive.read(place) if place in archive.namelist() else None


def _need(name: str, entry: str) -> bytes:
    data = _read(name, entry)
    assert data is not None, f"{name}/{entry} is missing"
    return data


def names() -> list[str]:
    """All cases at hand."""
    if WHOLE.is_dir():
        return sorted(p.parent.name for p in WHOLE.glob("*/meta.json"))
    return copied()


def copied() -> list[str]:
    """The cases in the copy."""
    with zipfile.ZipFile(COPY) as archive:
        return sorted({name.split("/")[0] for name in archive.namelist()})


def model(name: str) -> tuple[str, bytes]:
    """The configuration and the coefficients of a case before training."""
    with zipfile.ZipFile(io.BytesIO(_need(name, "model.zip"))) as archive:
        entries = ("configuration.json", "coefficients.bin")
        text, numbers = map(archive.read, entries)
    return text.decode(), numbers


@functools.lru_cache(maxsize=4)
def load(name: str) -> Case:
    """A case by name."""
    conf, _ = model(name)
    content = dict(np.load(io.BytesIO(_need(name, "case.npz"))))
    return Case(name, conf, json.loads(_need(name, "meta.json")), content)


def make() -> None:
    """Write the copy anew from the whole catalogue."""
    from tests.models.test_catalogue import MISSING, configuration

    with zipfile.ZipFile(COPY, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names():
            if configuration(load(name)) is MISSING:
                continue
            for entry in ENTRIES:
                data = _read(name, entry)
                if data is None:
                    continue
                info = zipfile.ZipInfo(f"{name}/{entry}", (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data)


if __name__ == "__main__":
    sys.exit(make())
