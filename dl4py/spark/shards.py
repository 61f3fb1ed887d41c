"""Rows in Parquet files, of which each process reads its own part."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from dl4py.extras import need
from dl4py.spark.columns import incomplete

Rows = tuple[Tensor, Tensor]


def write(rows: Any, processes: int, folder: str) -> None:
    """Write columns ``x`` and ``y`` to Parquet files, mixed, always in the same order.

    Their place follows from a hash of their content. Rows that Spark deals out in turn
    come in the order in which executors hand them over, which differs from run to run,
    and with it would the batches.
    """
    from pyspark.sql import functions

    mixed = functions.xxhash64("x", "y")
    placed = rows.repartition(processes, mixed).sortWithinPartitions(mixed, "x", "y")
    placed.write.mode("overwrite").parquet(folder)


def check(rows: Any, processes: int, classes: int) -> tuple[int, int]:
    """Refuse rows that nothing can be trained on, in one pass of Spark's.

    What a process of its own says of them would not reach who called.

    Args:
        rows: with columns ``x`` and ``y`` of arrays.
        processes, classes: as :class:`Shards` takes them.

    Returns:
        the lengths of all ``x`` and of all ``y``.

    Raises:
        ValueError: where there are too few, nulls, unequal lengths or no such class.
    """
    from pyspark.sql import functions as f

    label = f.get(f.col("y"), f.lit(0))
    odd = (label % 1 != 0) | (label < 0) | (label >= classes)
    asked = [f.count(f.lit(1)), f.max(f.when(odd, label))]
    for name in ("x", "y"):
        column, size = f.col(name), f.size(name)
        asked += [f.max(incomplete(column).cast("int")), f.min(size), f.max(size)]
    count, wrong, *found = rows.agg(*asked).first()
    if count < processes:
        raise ValueError(
            f"fit(dataframe): expected a row for each of {processes} processes, got "
            f"{count} rows"
        )
    for argument, (nulls, low, high) in (
        ("features", found[:3]),
        ("labels", found[3:]),
    ):
        if nulls:
            raise ValueError(f"fit({argument}=...): the column has nulls; drop them")
        if low != high:
            raise ValueError(
                f"fit({argument}=...): rows of unequal length, {low} to {high}"
            )
    if classes and wrong is not None:
        raise ValueError(
            f"fit(labels=...): expected numbers of {classes} classes, 0 to "
            f"{classes - 1}, got {wrong:g}"
        )
    return found[1], found[4]


class Shards(IterableDataset[Rows]):
    """Batches of the part of the rows that belongs to one process.

    The rows of all files, in the order of their names, are cut into as many runs of
    equal length as there are processes; the last rows, fewer than processes, are left
    out, so that all take as many steps.

    Args:
        folder: where the files are, with columns ``x`` and ``y`` of arrays.
        batch: rows of a batch; the last may have fewer.
        rank, world: which process of how many.
        dtype: of the tensors.
        classes: where ``y`` holds numbers of classes, how many there are; 0: it holds
            the labels themselves.
    """

    def __init__(
        self,
        folder: str,
        batch: int,
        rank: int,
        world: int,
        dtype: torch.dtype,
        classes: int = 0,
    ) -> None:
        parquet = need("pyarrow.parquet", "dl4py.spark reads shards")
        self.files = sorted(glob.glob(os.path.join(folder, "*.parquet")))
        if not self.files:
            raise FileNotFoundError(
                f"fit(folder=...): this process sees no Parquet file in {folder}; name "
                "a folder that the driver and all executors share"
            )
        self.counts = [parquet.read_metadata(file).num_rows for file in self.files]
        self.size = int(sum(self.counts) // world)
        self.start = rank * self.size
        self.batch, self.dtype, self.classes = batch, dtype, classes

    def __len__(self) -> int:
        return -(-self.size // self.batch)

    def __iter__(self) -> Iterator[Rows]:
        left: list[Rows] = []
        for x, y in self._parts():
            left.append((x, y))
            while sum(len(part) for part, _ in left) >= self.batch:
                xs, ys = (torch.cat(parts) for parts in zip(*left, strict=True))
                yield xs[: self.batch], ys[: self.batch]
                left = [(xs[self.batch :], ys[self.batch :])]
        if sum(len(part) for part, _ in left):
            xs, ys = (torch.cat(parts) for parts in zip(*left, strict=True))
            yield xs, ys

    def _parts(self) -> Iterator[Rows]:
        """This process's rows, a piece of a file at a time."""
        parquet = need("pyarrow.parquet", "dl4py.spark reads shards")
        at, end = 0, self.start + self.size
        for file, count in zip(self.files, self.counts, strict=True):
            if at + count > self.start and at < end:
                here = at
                for part in parquet.ParquetFile(file).iter_batches(self.batch):
                    low, high = max(self.start - here, 0), min(end - here, len(part))
                    if low < high:
                        yield self._tensors(part.slice(low, high - low))
                    here += len(part)
            at += count

    def _tensors(self, part: Any) -> Rows:
        x, y = (self._tensor(part, name) for name in ("x", "y"))
        if self.classes:
            y = torch.nn.functional.one_hot(y[:, 0].long(), self.classes)
        return x.to(self.dtype), y.to(self.dtype)

    @staticmethod
    def _tensor(part: Any, name: str) -> Tensor:
        column = part.column(name)
        values = torch.tensor(column.flatten().to_numpy(zero_copy_only=False))
        return values.reshape(len(column), -1)
