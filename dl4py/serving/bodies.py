"""What is in a request's body, and what goes into the answer's: JSON, npy, Arrow."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl4py.extras import need
from dl4py.serving.spec import Array, Arrays, Refused

JSON = "application/json"
NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Kind:
    """A kind of body.

    Args:
        name: its media type.
        read: (body, names of the model's inputs, limit in bytes) → arrays by name.
        write: outputs by name → body.
    """

    name: str
    read: Callable[[bytes, Sequence[str], int], Arrays]
    write: Callable[[Arrays], bytes]


def kind_of(given: str) -> Kind:
    """The kind of body that a header names; JSON where it names none.

    Raises:
        Refused: 415, for any other.

    >>> kind_of("application/json; charset=utf-8").name, kind_of("").name
    ('application/json', 'application/json')
    """
    word = given.partition(";")[0].strip().lower()
    # what curl -d says of any text
    if word in ("", "*/*", "application/x-www-form-urlencoded", "text/json"):
        word = JSON
    for kind in KINDS:
        if kind.name == word:
            return kind
    known = ", ".join(kind.name for kind in KINDS)
    raise Refused(415, f"content-type: expected {known}, got {word!r}")


def _read_json(body: bytes, names: Sequence[str], limit: int) -> Arrays:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict) or set(found) != {"inputs"}:
        came = list(found)[:6] if isinstance(found, dict) else type(found).__name__
        raise Refused(400, f'the body: expected {{"inputs": [[...], ...]}}, got {came}')
    given = found["inputs"]
    if not isinstance(given, Mapping):
        return {_only(names): _array(given, "inputs")}
    return {name: _array(rows, f"inputs[{name!r}]") for name, rows in given.items()}


def _array(given: Any, word: str) -> Array:
    try:
        array = np.array(given)
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise Refused(400, f"{word}: expected numbers, in rows of equal length")
    return array


def _write_json(outputs: Arrays) -> bytes:
    found: Any = {name: array.tolist() for name, array in outputs.items()}
    if len(found) == 1:
        (found,) = found.values()
    try:
        return json.dumps(
            {"outputs": found}, allow_nan=False, separators=(",", ":")
        ).encode()
    except ValueError:
        raise Refused(
            422,
            "the outputs for these inputs are not all finite, which JSON has no word "
            f"for: send accept: {NPY}",
        ) from None


def _only(names: Sequence[str]) -> str:
    if len(names) > 1:
        raise Refused(
            400, f"inputs: expected one array for each of {', '.join(names)}, by name"
        )
    return names[0]


def _read_npy(body: bytes, names: Sequence[str], limit: int) -> Arrays:
    if body[:2] == b"PK":
        return _read_npz(body, limit)
    return {_only(names): _npy(body, "the body")}


def _read_npz(body: bytes, limit: int) -> Arrays:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > limit:
                raise Refused(413, f"the body: more than {limit} bytes unpacked")
            return {
                entry.filename.removesuffix(".npy"): _npy(
                    archive.read(entry), f"the body: {entry.filename}"
                )
                for entry in entries
            }
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise Refused(400, f"the body is no npz: {error}") from None


def _npy(data: bytes, word: str) -> Array:
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = header(file)
    except (ValueError, KeyError) as error:
        raise Refused(400, f"{word} is no npy: {error}") from None
    if dtype.kind not in "biuf":
        raise Refused(400, f"{word}: expected numbers, got {dtype}")
    content = data[file.tell() :]
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise Refused(
            400,
            f"{word}: its header tells {list(shape)} of {dtype}, it has "
            f"{len(content)} bytes",
        )
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _write_npy(outputs: Arrays) -> bytes:
    file = io.BytesIO()
    if len(outputs) == 1:
        (array,) = outputs.values()
        np.save(file, array)
    else:
        named: dict[str, Any] = dict(outputs)
        np.savez(file, **named)
    return file.getvalue()


def _read_arrow(body: bytes, names: Sequence[str], limit: int) -> Arrays:
    arrow = _arrow()
    try:
        with arrow.ipc.open_stream(body) as reader:
            table = reader.read_all()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise Refused(400, f"the body is no Arrow stream: {error}") from None
    if table.nbytes > limit:
        raise Refused(413, f"the body: more than {limit} bytes unpacked")
    columns = {
        name: _column(arrow, name, table.column(i).combine_chunks())
        for i, name in enumerate(table.column_names)
    }
    if len(columns) < len(table.column_names):
        raise Refused(400, "the body: columns have the same name")
    if set(columns) == set(names):
        # one column of plain numbers is one feature
        return {n: a[:, None] if a.ndim == 1 else a for n, a in columns.items()}
    flat = all(array.ndim == 1 for array in columns.values())
    if len(names) > 1 or not flat or not columns:
        raise Refused(
            400,
            f"the body: expected columns {', '.join(names)} of lists, or of one input "
            f"a column of numbers for each feature, got {', '.join(columns) or 'none'}",
        )
    return {names[0]: np.stack(list(columns.values()), axis=1)}


def _column(arrow: Any, name: str, column: Any) -> Array:
    """A column of numbers, or of lists of one length, as an array."""
    shape = [len(column)]
    while True:
        if column.null_count:
            raise Refused(400, f"the body: column {name!r} has nulls")
        if isinstance(column, arrow.FixedShapeTensorArray):
            shape += column.type.shape[:-1]  # the last by the lists that store it
            column = column.storage
            column = arrow.FixedSizeListArray.from_arrays(
                column.flatten(), int(column.type.list_size / math.prod(shape[1:]))
            )
        if isinstance(column, arrow.FixedSizeListArray):
            shape.append(column.type.list_size)
        elif isinstance(column, (arrow.ListArray, arrow.LargeListArray)):
            lengths = column.value_lengths().unique().to_pylist()
            if len(lengths) > 1:
                raise Refused(
                    400, f"the body: column {name!r} has rows of unequal length"
                )
            shape += lengths or [0]
        else:
            break
        column = column.flatten()
    found: Array = column.to_numpy(zero_copy_only=False)
    if found.dtype.kind not in "biuf":
        raise Refused(400, f"the body: column {name!r} has {column.type}, not numbers")
    return found.reshape(shape)


def _write_arrow(outputs: Arrays) -> bytes:
    arrow = _arrow()
    columns = {}
    for name, array in outputs.items():
        column = arrow.array(array.reshape(-1))
        for size in reversed(array.shape[1:]):
            column = arrow.FixedSizeListArray.from_arrays(column, size)
        columns[name] = column
    table = arrow.table(columns)
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _arrow() -> Any:
    try:
        need("pyarrow.ipc", "serve reads Arrow bodies")
        return need("pyarrow", "serve reads Arrow bodies")
    except ImportError as error:
        raise Refused(415, str(error)) from None


KINDS = (
    Kind(JSON, _read_json, _write_json),
    Kind(NPY, _read_npy, _write_npy),
    Kind(ARROW, _read_arrow, _write_arrow),
)
