"""Files that releases of ten years wrote, with what they recorded beside them.

``tests/data/eras.zip`` holds compact copies of the small ones, so that a clone tests
itself. ``python -m tests.resources`` makes it anew from the folder ``DL4PY_SHARED``
points at.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import sys
import zipfile
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

import dl4py
from dl4py import activations
from dl4py.config import FeedForwardLayer, field
from dl4py.config.kinds import Item
from dl4py.io.arrays import read_ndarray
from dl4py.layers.feedforward import Affine
from dl4py.layers.part import implements
from dl4py.registry import ACTIVATIONS, LAYERS
from tests.golden import HERE, SHARED

RESOURCES = SHARED / "dl4j-test-resources"
COPY = HERE / "data" / "eras.zip"
LARGEST = 20_000  # bytes of a file that is copied
FOLDERS = {  # of files → the releases that the era's hints leave
    "050": "0.5.0",
    "071": "0.7.0 to 0.7.2",
    "080": "0.8.0",
    "100a": "0.9.2 to 1.0.0-alpha",
    "100b3": "1.0.0-beta3",
    "100b4": "1.0.0-beta4 to beta6",
    "dl4j-integration-tests": "1.0.0-beta4 to beta6",
}
START = "Model_RANDOM_INIT_UNTRAINED.zip"


def releases(name: str) -> str:
    """The releases that wrote a file."""
    return next(r for folder, r in FOLDERS.items() if f"/{folder}/" in f"/{name}")


def _is_model(path: pathlib.Path) -> bool:
    return path.is_file() and path.read_bytes()[:2] == b"PK"


def models() -> list[str]:
    """The model files that are at hand."""
    if not RESOURCES.is_dir():
        return [name for name in copied() if data(name).read(2) == b"PK"]
    folders = ("regression_testing", "dl4j-integration-tests/*")
    paths = [p for f in folders for p in sorted(RESOURCES.glob(f"{f}/**/*"))]
    return [str(p.relative_to(RESOURCES)) for p in dict.fromkeys(paths) if _is_model(p)]


def copied() -> list[str]:
    """What the compact copy holds."""
    with zipfile.ZipFile(COPY) as archive:
        return archive.namelist()


def missing(name: str) -> NoReturn:
    """Skip the test that needs it; in CI it must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{name} must be at hand in CI: set DL4PY_SHARED")
    pytest.skip(f"{name} is not at hand")


def data(name: str) -> io.BytesIO:
    """The bytes of a file; a test that needs one that is not at hand is skipped."""
    if RESOURCES.is_dir():
        return io.BytesIO((RESOURCES / name).read_bytes())
    if name not in copied():
        missing(name)
    with zipfile.ZipFile(COPY) as archive:
        return io.BytesIO(archive.read(name))


MLP = "regression_testing/080/080_ModelSerializer_Regression_MLP_2.zip"


def changed(name, change=None, **entries):
    """A model file with another configuration, or other entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(data(name)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.namelist():
            content = entries.pop(entry, None) or old.read(entry)
            if entry == "configuration.json" and change is not None:
                tree = json.loads(content)
                change(tree)
                content = json.dumps(tree)
            new.writestr(entry, content)
        for entry, content in entries.items():
            new.writestr(entry, content)
    return out


def array(name: str) -> Tensor:
    """An ND4J array in a file."""
    return torch.from_numpy(read_ndarray(data(name).read()).copy())


def folder() -> pathlib.Path:
    """All of the files, or a skipped test."""
    if not RESOURCES.is_dir():
        missing("the collection of old files")
    return RESOURCES


def recovered(name: str) -> Any:
    """Inputs of recorded cases whose originals are lost."""
    path = SHARED / "reference" / "recovered" / name
    if not path.is_file():
        missing(name)
    return np.load(path) if name.endswith(".npy") else path.read_text()


def restored(name, **options):
    return dl4py.restore(data(name), **options)


def error(ours, theirs):
    """The largest error as a share of the largest entry."""
    theirs = theirs.double().reshape(ours.shape)
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3}


def assert_predicts(net, x, expected):
    found = net.output(x)
    assert error(found, expected) < TOLERANCES[found.dtype]


CUSTOM = "org.deeplearning4j.regressiontest.customlayer100a.CustomLayer"


def register_custom() -> type[Any]:
    """The twin of a layer that somebody wrote in Java: its files need it."""

    @LAYERS.add("half_and_half", java=CUSTOM)
    @dataclass(frozen=True, kw_only=True)
    class HalfAndHalf(FeedForwardLayer):
        """Dense, where the second half of the outputs has an activation of its own."""

        second: Any = field(
            "sigmoid", Item(ACTIVATIONS), json="secondActivationFunction"
        )

        family = "ff"
        weights = ("W",)
        biases = ("b",)

    @implements(HalfAndHalf)
    class HalfAndHalfModule(Affine):
        def build(self) -> None:
            super().build()
            second = self.conf.second
            self.second = activations.get(second, dl4j_exact=self.dl4j_exact)

        def finish(self, y: Tensor) -> Tensor:
            half = self.conf.n_out // 2
            parts = self.activation(y[:, :half]), self.second(y[:, half:])
            return torch.cat(parts, 1)

    return HalfAndHalf


def make() -> None:
    """Write the compact copy anew."""
    wanted = []
    for path in sorted(RESOURCES.rglob("*")):
        name = str(path.relative_to(RESOURCES))
        small = path.is_file() and path.stat().st_size <= LARGEST
        place = name.startswith("regression_testing/") or name.endswith(START)
        lost = any(w in name for w in ("GravesLSTM", "Vae", "House", "upsampling"))
        if small and place and path.suffix in (".bin", ".zip") and not lost:
            wanted.append((name, path.read_bytes()))
    with zipfile.ZipFile(COPY, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in wanted:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    sys.exit(make())
