"""DL4J's files of examples: what ``DataSet.save`` and ``MultiDataSet.save`` write."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from dl4py.config.codec import DL4JFormatError
from dl4py.io.arrays import read_ndarray, write_ndarray

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]
Masks = tuple[Array | None, ...]

_FEATURES, _LABELS, _SAME, _FEATURES_MASK, _LABELS_MASK = 1, 2, 4, 8, 16
_JAVA_OBJECTS = 32 | 64  # metadata and label names: they come last and are not read
_MOST = 1 << 16  # arrays of one kind
_NO_MASK = np.array([-1.0], np.float32)  # DL4J's stand-in in a MultiDataSet


@dataclass(frozen=True)
class DataSet:
    """The arrays of a file, each once for every input or output.

    Args:
        features, labels: in DL4J's shapes; without labels none.
        features_masks, labels_masks: one for each of these, ``None`` where all counts.
    """

    features: Arrays
    labels: Arrays = ()
    features_masks: Masks = ()
    labels_masks: Masks = ()


def read_dataset(path: str | os.PathLike[str]) -> DataSet:
    """The examples in a file of DL4J's, with one or with several inputs and outputs.

    What Java has serialized behind the arrays (metadata, names of labels) is not read.

    Raises:
        DL4JFormatError: where the file is not what DL4J writes.

    DL4J: org.nd4j.linalg.dataset.DataSet.load,
        org.nd4j.linalg.dataset.MultiDataSet.load
    """
    where = os.fspath(path)
    with open(path, "rb") as file:
        flag = file.read(1)
        if not flag:
            raise DL4JFormatError(f"{where}: empty, no DataSet of DL4J's")
        if flag[0]:
            return _single(file, flag[0], where)
        file.seek(0)
        return _several(file, where)


def _single(file: IO[bytes], flag: int, where: str) -> DataSet:
    known = _FEATURES | _LABELS | _SAME | _FEATURES_MASK | _LABELS_MASK | _JAVA_OBJECTS
    if flag & ~known or not flag & _FEATURES or flag & _LABELS and flag & _SAME:
        raise DL4JFormatError(
            f"{where}: not a DataSet of DL4J's with features: its first byte is {flag}"
        )
    found: dict[int, Array] = {}
    for bit, what in (
        (_FEATURES, "features"),
        (_LABELS, "labels"),
        (_FEATURES_MASK, "features mask"),
        (_LABELS_MASK, "labels mask"),
    ):
        if flag & bit:
            found[bit] = _array(file, where, what)
    if not flag & _JAVA_OBJECTS and file.read(1):
        raise DL4JFormatError(f"{where}: bytes follow the last array")
    labels = found.get(_FEATURES if flag & _SAME else _LABELS)
    return DataSet(
        (found[_FEATURES],),
        () if labels is None else (labels,),
        (found.get(_FEATURES_MASK),),
        () if labels is None else (found.get(_LABELS_MASK),),
    )


def _several(file: IO[bytes], where: str) -> DataSet:
    head = file.read(16)
    if len(head) < 16:
        raise DL4JFormatError(f"{where}: not a DataSet of DL4J's: it ends too early")
    counts = struct.unpack(">4i", head)
    f, y, f_mask, y_mask = counts
    fits = f_mask in (0, f) and y_mask in (0, y)
    if not (0 < f < _MOST and 0 <= y < _MOST and fits):
        raise DL4JFormatError(f"{where}: not a MultiDataSet of DL4J's: counts {counts}")
    parts = [
        tuple(_array(file, where, f"{what} {i}") for i in range(count))
        for what, count in zip(
            ("features", "labels", "features mask", "labels mask"), counts, strict=True
        )
    ]
    masks = [
        tuple(None if _absent(m) else m for m in given) or (None,) * count
        for given, count in zip(parts[2:], (f, y), strict=True)
    ]
    return DataSet(parts[0], parts[1], masks[0], masks[1])


def _absent(mask: Array) -> bool:
    return mask.shape == _NO_MASK.shape and bool(mask[0] == _NO_MASK[0])


def _array(file: IO[bytes], where: str, what: str) -> Array:
    here = file.tell()
    size = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return read_ndarray(file, size=size, where=f"{where}: {what}")


def write_dataset(data: DataSet, file: IO[bytes]) -> None:
    """Write examples as DL4J's ``save``: a DataSet, or a MultiDataSet of several.

    Args:
        data: the arrays.
        file: a binary file.
    """
    masks = (data.features_masks, data.labels_masks)
    if len(data.features) == 1 and len(data.labels) <= 1:
        parts = (data.features, data.labels, *masks)
        bits = (_FEATURES, _LABELS, _FEATURES_MASK, _LABELS_MASK)
        given = [p[0] if p else None for p in parts]
        there = [b for b, p in zip(bits, given, strict=True) if p is not None]
        file.write(bytes([sum(there)]))
        written = [p for p in given if p is not None]
    else:
        several = [
            tuple(_NO_MASK if m is None else m for m in group)
            if any(m is not None for m in group)
            else ()
            for group in masks
        ]
        groups = (data.features, data.labels, *several)
        file.write(struct.pack(">4i", *map(len, groups)))
        written = [array for group in groups for array in group]
    for array in written:
        write_ndarray(array, file)
