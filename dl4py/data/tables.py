"""Tables, block by block: CSV, Parquet, Arrow."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from dl4py.config.codec import brief
from dl4py.data.columns import (
    Array,
    Chosen,
    Place,
    is_text,
    labelled,
    stacked,
    texts,
)
from dl4py.data.examples import Arrays
from dl4py.data.options import READERS, Reading
from dl4py.extras import need

BLOCK = 1 << 20  # bytes of a CSV that are parsed at once
ROWS = 1 << 16  # of the other tables
_WHY = "tables are read"


class Table:
    """Base of the readers of tables, which hold one block of rows at a time.

    Args:
        path: a file.
        options: what of it becomes what.
        classes: names of the classes, where they were seen already.
    """

    table: ClassVar[bool] = True

    def __init__(
        self, path: Path, options: Reading, classes: Sequence[str] | None = None
    ) -> None:
        self.arrow = need("pyarrow", _WHY)
        self.path = path
        self.options = options
        try:
            self.open()
        except self.arrow.ArrowInvalid as error:
            kind = path.suffix.lower().removeprefix(".")
            raise ValueError(f"{path}: not a file of {kind}: {brief(error)}") from error
        self.chosen = Chosen.of(self.names, options, str(path))
        self.classes = options.class_names or (classes and tuple(classes)) or None

    names: tuple[str, ...]
    first = 1  # number of the first row, as the file's user counts

    def open(self) -> None:
        """Find ``names``."""
        raise NotImplementedError

    def blocks(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        """These columns of each block of rows."""
        raise NotImplementedError

    def words(self) -> set[str] | None:
        """The classes that the label column names; ``None`` if it holds numbers."""
        (label,) = self.chosen.labels
        seen: set[str] = set()
        row = self.first
        for (cells,) in self.blocks([label]):
            if row == self.first and not is_text(cells):
                return None
            seen.update(texts(cells, self._place(label, row)))
            row += len(cells)
        return seen

    def parts(self) -> Iterator[tuple[Array, Array | None, list[str] | None]]:
        """(features, labels, sequence of each row) of each block of rows."""
        chosen, row = self.chosen, self.first
        n, m = len(chosen.features), len(chosen.labels)
        for block in self.blocks(chosen.used):
            if not len(block[0]):
                continue
            places = [self._place(i, row) for i in chosen.used]
            size = len(block[0])
            x = stacked(block[:n], places[:n], size, self.options.numpy)
            y = None
            if m:
                columns, at = block[n : n + m], places[n : n + m]
                y = labelled(columns, at, self.options, self.classes)
            keys = None
            if chosen.sequence is not None:
                keys = texts(block[-1], places[-1])
            yield x, y, keys
            row += size

    def pieces(self) -> Iterator[Arrays]:
        """The rows as examples, a block at a time."""
        for x, y, _ in self.parts():
            labels = None if y is None else torch.from_numpy(y)
            yield Arrays.of(torch.from_numpy(x), labels, **self.about())

    def about(self) -> dict[str, Any]:
        """Names of columns and classes."""
        names = self.chosen.names
        return {
            "features": tuple(names[i] for i in self.chosen.features),
            "labels": tuple(names[i] for i in self.chosen.labels),
            "classes": self.classes,
        }

    def _place(self, column: int, row: int) -> Place:
        return Place(str(self.path), self.chosen.names[column], row)


_NOT_TEXT = "expected text in UTF-8; save it as such, or convert it with iconv -t UTF-8"


@READERS.add("csv", "tsv", "txt", java="csv.CSVRecordReader")
class Csv(Table):
    """Rows of text with a delimiter: ``.csv``, ``.tsv``, ``.txt``.

    Rows are numbered as lines, but blank ones among them do not count.
    """

    def open(self) -> None:
        ending = "\t" if self.path.suffix.lower() == ".tsv" else ","
        self.delimiter = self.options.delimiter or ending
        lines = 0
        cells: list[str] = []
        text = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
        with open(self.path, **text) as file:  # type: ignore[call-overload]
            for line in file:
                lines += 1
                if lines > self.options.skip and line.strip():
                    cells = next(csv.reader([line], delimiter=self.delimiter))
                    break
        if not cells:
            raise ValueError(f"{self.path}: no rows")
        if any("\0" in cell or "\ufffd" in cell for cell in cells):
            raise ValueError(f"{self.path}: {_NOT_TEXT}")
        header = self.options.header
        if header is None:
            header = not any(_number(cell) for cell in cells)
        self.skipped = lines if header else lines - 1
        self.first = self.skipped + 1
        self.names = (
            tuple(cell.strip() for cell in cells)
            if header
            else tuple(map(str, range(len(cells))))
        )

    def blocks(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        pa, reader = self.arrow, need("pyarrow.csv", _WHY)

        ragged: list[Any] = []

        def seen(row: Any) -> str:
            ragged.append(row)
            return "error"

        numbered = [str(i) for i in range(len(self.names))]
        wanted = [numbered[i] for i in columns]
        try:
            found = reader.open_csv(
                self.path,
                reader.ReadOptions(
                    use_threads=False,  # or rows have no numbers
                    block_size=BLOCK,
                    skip_rows=self.skipped,
                    column_names=numbered,
                ),
                reader.ParseOptions(delimiter=self.delimiter, invalid_row_handler=seen),
                reader.ConvertOptions(
                    column_types={name: pa.string() for name in wanted},
                    include_columns=wanted,
                    strings_can_be_null=False,
                ),
            )
            for block in found:
                yield block.columns
        except pa.ArrowInvalid as error:
            if not ragged:
                raise ValueError(f"{self.path}: {self._told(error)}") from None
            row = ragged[0]
            raise ValueError(
                f"{self.path}: row {row.number}: expected {row.expected_columns} "
                f"columns, got {row.actual_columns}: {row.text[:60]!r}"
            ) from None

    def _told(self, error: Exception) -> str:
        """What Arrow says, its columns by name."""
        told = str(error).splitlines()[0]
        if place := re.search(r"column #(\d+): Row #(\d+): .*UTF8", told):
            return f"row {place[2]}, column {self.names[int(place[1])]!r}: {_NOT_TEXT}"
        return told


@READERS.add("parquet", "pq")
class Parquet(Table):
    """Parquet files; rows are numbered from 1."""

    def open(self) -> None:
        self.file = need("pyarrow.parquet", _WHY).ParquetFile(self.path)
        self.names = tuple(self.file.schema_arrow.names)

    def blocks(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        names = [self.names[i] for i in columns]
        for block in self.file.iter_batches(ROWS, columns=names):
            yield [block.column(name) for name in names]


@READERS.add("arrow", "feather", "ipc", java="arrow.ArrowRecordReader")
class Arrow(Table):
    """Arrow's own files and streams, Feather too; rows are numbered from 1."""

    def open(self) -> None:
        with self._opened() as file:
            self.names = tuple(file.schema.names)

    def blocks(self, columns: Sequence[int]) -> Iterator[Sequence[Any]]:
        with self._opened() as file:
            stream = hasattr(file, "__iter__")
            count = 0 if stream else file.num_record_batches
            for block in file if stream else map(file.get_batch, range(count)):
                yield [block.column(i) for i in columns]

    def _opened(self) -> Any:
        pa = self.arrow
        source = pa.memory_map(str(self.path))
        try:
            return pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source)


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
