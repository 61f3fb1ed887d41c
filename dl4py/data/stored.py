"""Files that hold whole arrays: NumPy's and DL4J's."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dl4py.data.columns import Array, Place, named, one_hot, several
from dl4py.data.examples import Arrays
from dl4py.data.options import READERS, Reading
from dl4py.io.datasets import read_dataset


class Stored:
    """Base of the readers of whole arrays."""

    table: ClassVar[bool] = False

    def __init__(
        self, path: Path, options: Reading, classes: Sequence[str] | None = None
    ) -> None:
        self.path = path
        self.options = options

    def pieces(self) -> Iterator[Arrays]:
        """The file's examples."""
        raise NotImplementedError

    def tensor(self, array: Array | None, what: str) -> Tensor | None:
        """An array of numbers in the wanted type."""
        if array is None:
            return None
        if array.dtype.kind not in "biuf" or not array.ndim:
            raise ValueError(
                f"{self.path}: {what}: expected an array of real numbers [n, ...], got "
                f"{array.dtype} {list(array.shape)}"
            )
        return torch.from_numpy(np.ascontiguousarray(array, self.options.numpy))


@READERS.add("npz")
class Npz(Stored):
    """Arrays of DL4J's shapes in an ``.npz`` file.

    ``features`` or ``x``, ``labels`` or ``y``, and the masks ``features_mask`` and
    ``labels_mask``, which may be missing as the labels may. Labels ``[n]`` are class
    numbers if ``classes`` is given, or names; else one output.
    """

    def pieces(self) -> Iterator[Arrays]:
        if not zipfile.is_zipfile(self.path):
            raise ValueError(f"{self.path}: not an .npz file, as NumPy's savez writes")
        try:
            with open(self.path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (zipfile.BadZipFile, ValueError, AttributeError) as error:
            raise ValueError(f"{self.path}: not an .npz of numbers: {error}") from error
        x = self._named(arrays, self.options.features, ("features", "x"), "features")
        if x is None:
            raise ValueError(
                f"{self.path}: features: expected an array 'features' or 'x', there "
                f"are {', '.join(arrays) or 'none'}; name it with features"
            )
        y = self._named(arrays, self.options.labels, ("labels", "y"), "labels")
        masks = [
            self.tensor(arrays.get(name), name)
            for name in ("features_mask", "labels_mask")
        ]
        labels = None if y is None else self._labels(y)
        for name, t in (("labels", labels), ("a mask", masks[0]), ("a mask", masks[1])):
            if t is not None and len(t) != len(x):
                raise ValueError(
                    f"{self.path}: {name}: expected {len(x)} examples as the features "
                    f"have, got {len(t)}"
                )
        features = self.tensor(x[:, None] if x.ndim == 1 else x, "features")
        assert features is not None
        yield Arrays.of(
            features,
            labels,
            features_mask=masks[0],
            labels_mask=masks[1],
            classes=self.options.class_names,
        )

    def _labels(self, y: Array) -> Tensor | None:
        options, place = self.options, Place(str(self.path), "labels", 0)
        names = options.class_names
        if y.ndim == 1 and y.dtype.kind == "U":
            if names is None:
                raise ValueError(f"{self.path}: labels are names; give classes")
            y = named(y.tolist(), names, place)
        count = len(names) if names else options.classes
        if y.ndim == 1 and y.dtype.kind in "biuf":
            if isinstance(count, int):
                return torch.from_numpy(one_hot(y, count, place, options.numpy))
            y = y[:, None]
        return self.tensor(y, "labels")

    def _named(
        self, arrays: dict[str, Array], given: Any, usual: Sequence[str], argument: str
    ) -> Array | None:
        if given is None:
            return next((arrays[name] for name in usual if name in arrays), None)
        chosen = [str(name) for name in several(given)]
        if len(chosen) != 1 or chosen[0] not in arrays:
            raise ValueError(
                f"{self.path}: {argument}: expected the name of one array, of "
                f"{', '.join(arrays) or 'none'}, got {', '.join(chosen) or 'none'}"
            )
        return arrays[chosen[0]]


@READERS.add("bin", "dataset", java="org.nd4j.linalg.dataset.DataSet")
class DL4JDataSet(Stored):
    """Files of DL4J's ``DataSet.save`` and ``MultiDataSet.save``, masks included."""

    def pieces(self) -> Iterator[Arrays]:
        found = read_dataset(self.path)
        parts: list[Any] = [
            tuple(self.tensor(array, what) for array in arrays)
            for what, arrays in (
                ("features", found.features),
                ("labels", found.labels),
                ("features mask", found.features_masks),
                ("labels mask", found.labels_masks),
            )
        ]
        x, y, x_masks, y_masks = parts
        yield Arrays(x, y, x_masks, y_masks, classes=self.options.class_names)
