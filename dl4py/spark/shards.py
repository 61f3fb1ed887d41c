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
        if not self.size:
            raise ValueError(
                f"fit(dataframe): expected a row for each of {world} processes, got "
                f"{sum(self.counts)} rows"
            )
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
            y = self._one_hot(y)
        return x, y.to(self.dtype)

    def _tensor(self, part: Any, name: str) -> Tensor:
        column = part.column(name)
        argument = "features" if name == "x" else "labels"
        values = column.flatten()
        if column.null_count or values.null_count:
            raise ValueError(f"fit({argument}=...): the column has nulls")
        lengths = column.value_lengths().unique().to_pylist()
        if len(lengths) != 1:
            raise ValueError(f"fit({argument}=...): rows of unequal length: {lengths}")
        found = torch.tensor(values.to_numpy(zero_copy_only=False))
        found = found.reshape(len(column), lengths[0])
        return found.to(self.dtype) if name == "x" else found

    def _one_hot(self, y: Tensor) -> Tensor:
        odd = (y != y.trunc()) | (y < 0) | (y >= self.classes)
        if y.shape[1] != 1 or bool(odd.any()):
            raise ValueError(
                f"fit(labels=...): expected numbers of {self.classes} classes, 0 to "
                f"{self.classes - 1}, got {y[odd.any(1)][:1].tolist() or list(y.shape)}"
            )
        return torch.nn.functional.one_hot(y[:, 0].long(), self.classes)
