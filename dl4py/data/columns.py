"""Columns of a table as numbers: every cell that does not fit is named."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl4py.config.codec import printable
from dl4py.data.options import Column, Reading
from dl4py.extras import need
from dl4py.registry import suggest

Array = np.ndarray[Any, Any]
_WHY = "tables are read"
_TEXT = (
    "; a column of words is named by labels, left out by features, or made numbers "
    "first (one-hot: pandas.get_dummies)"
)


@dataclass(frozen=True)
class Place:
    """Where cells come from, for errors."""

    file: str
    column: str
    row: int  # of the first cell, as the file's user counts

    def refuse(
        self, index: int, expected: str, came: object, way_out: str = ""
    ) -> ValueError:
        """The error that names cell ``index``."""
        got = printable(str(came))
        got = got if len(got) <= 60 else f"{got[:56]} ..."
        return ValueError(
            f"{self.file}: row {self.row + index}, column {self.column!r}: expected "
            f"{expected}, got {got!r}{way_out}"
        )


def find(given: Column, names: Sequence[str], argument: str, file: str) -> int:
    """The number of a column that is named, or numbered from 0 or from the end."""
    text = str(given)
    if text in names:
        if list(names).count(text) > 1:
            at = ", ".join(str(i) for i, name in enumerate(names) if name == text)
            raise ValueError(
                f"{file}: {argument}: {printable(text)!r} is the name of columns {at}; "
                "give the number of one"
            )
        return names.index(text)
    if text.removeprefix("-").isdigit():
        if -len(names) <= int(text) < len(names):
            return int(text) % len(names)
        raise ValueError(
            f"{file}: {argument}: no column {text}, there are {len(names)}"
        )
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    hint = suggest(text, set(names))
    raise ValueError(
        f"{file}: {argument}: no column {printable(text)!r}"
        f"{': ' + hint if hint else ''}; there are {printable(shown)}"
        f"{_other_delimiter(names[0]) if len(names) == 1 else ''}"
    )


def _other_delimiter(text: str) -> str:
    """The way out where a cell looks like a row with another delimiter."""
    found = next((mark for mark in ";\t|" if mark in text), None)
    return f"; is its delimiter {found!r}? Give it with delimiter" if found else ""


def several(given: Any) -> list[Column]:
    """One column or many as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


@dataclass(frozen=True)
class Chosen:
    """The columns of a table by what they are for; numbers of columns."""

    names: tuple[str, ...]
    features: tuple[int, ...]
    labels: tuple[int, ...]
    sequence: int | None

    @classmethod
    def of(cls, names: Sequence[str], options: Reading, file: str) -> Chosen:
        """What ``options`` choose among a file's columns."""

        def chosen(argument: str) -> list[int]:
            given = several(getattr(options, argument))
            found = [find(one, names, argument, file) for one in given]
            if len(set(found)) < len(found):
                raise ValueError(f"{file}: {argument}: a column twice, {given}")
            return found

        labels, apart = chosen("labels"), chosen("sequence")
        taken = {*labels, *apart}
        rest = [i for i in range(len(names)) if i not in taken]
        features = rest if options.features is None else chosen("features")
        if not features and not labels:
            raise ValueError(f"{file}: no columns are left for the features")
        if both := taken & set(features):
            raise ValueError(
                f"{file}: column {names[min(both)]!r} cannot be a feature and a label "
                "or the sequence too"
            )
        if options.classes is not None and len(labels) != 1:
            raise ValueError(
                f"{file}: classes: expected one label column, got {len(labels)}; "
                "name it with labels"
            )
        return cls(
            tuple(names), tuple(features), tuple(labels), apart[0] if apart else None
        )

    @property
    def used(self) -> list[int]:
        """All of them, in this order."""
        last = [] if self.sequence is None else [self.sequence]
        return [*self.features, *self.labels, *last]


def numbers(cells: Any, place: Place) -> Array:
    """A column of Arrow's as float64."""
    pa, compute = need("pyarrow", _WHY), need("pyarrow.compute", _WHY)

    cells = _plain(cells)
    kind = cells.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if cells.null_count:
        first = compute.index(cells.is_null(), True).as_py()
        raise place.refuse(first, "a number", "nothing")
    if text:
        cells = compute.utf8_trim_whitespace(cells)
        try:
            cells = cells.cast(pa.float64())
        except pa.ArrowInvalid:
            wrong = (i for i, c in enumerate(cells) if not _is_number(c.as_py()))
            at = next(wrong, 0)
            way_out = "" if at or not str(cells[at]) else _TEXT  # else a slip
            way_out = _other_delimiter(str(cells[at])) or way_out
            raise place.refuse(at, "a number", cells[at], way_out) from None
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        raise place.refuse(0, "a number", f"{cells[0]} of type {kind}", _TEXT)
    found: Array = np.asarray(cells.cast(pa.float64(), safe=False))
    return found


def texts(cells: Any, place: Place) -> list[str]:
    """A column of Arrow's as words, without spaces around them."""
    values = _plain(cells).to_pylist()
    for i, value in enumerate(values):
        if value is None or not str(value).strip():
            raise place.refuse(i, "a class's name", value or "nothing")
    return [str(value).strip() for value in values]


def one_hot(indices: Array, count: int, place: Place, dtype: Any) -> Array:
    """Class numbers ``[n]`` as ``[n, count]``."""
    whole = (indices == np.floor(indices)) & (indices >= 0) & (indices < count)
    if not whole.all():
        wrong = int(np.argmin(whole))
        value = float(indices[wrong])
        came = int(value) if value.is_integer() else value
        raise place.refuse(wrong, f"a class in 0 ... {count - 1}", came)
    found: Array = np.eye(count, dtype=dtype)[indices.astype(np.int64)]
    return found


def named(words: Sequence[str], classes: Sequence[str], place: Place) -> Array:
    """The numbers of classes that are given by name."""
    known = {name: i for i, name in enumerate(classes)}
    found = np.empty(len(words))
    for i, word in enumerate(words):
        if word not in known:
            shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise place.refuse(i, f"one of the classes {shown}", word)
        found[i] = known[word]
    return found


def is_text(cells: Any) -> bool:
    """Whether a column's first cell is a word and no number."""
    first = next((c.as_py() for c in _plain(cells[:1])), None)
    return isinstance(first, str) and not _is_number(first)


def labelled(
    columns: Sequence[Any],
    places: Sequence[Place],
    options: Reading,
    classes: Sequence[str] | None,
) -> Array:
    """Label columns as ``[n, outputs]``: one-hot, or the numbers as they are."""
    dtype = options.numpy
    if isinstance(options.classes, int):
        if is_text(columns[0]):
            found = str(columns[0][0])
            way_out = "; give the classes' names in place of their number"
            raise places[0].refuse(0, "the number of a class", found, way_out)
        return one_hot(
            numbers(columns[0], places[0]), options.classes, places[0], dtype
        )
    if classes is not None:
        words = texts(columns[0], places[0])
        return one_hot(named(words, classes, places[0]), len(classes), places[0], dtype)
    return stacked(columns, places, len(columns[0]), dtype)


def stacked(
    columns: Sequence[Any], places: Sequence[Place], n: int, dtype: Any
) -> Array:
    """Columns as ``[n, columns]``."""
    found = np.empty((n, len(columns)), dtype)
    for i, (cells, place) in enumerate(zip(columns, places, strict=True)):
        values = numbers(cells, place)
        with np.errstate(over="ignore"):
            found[:, i] = values
        lost = np.isinf(found[:, i]) & ~np.isinf(values)
        if lost.any():
            at = int(np.argmax(lost))
            raise place.refuse(at, f"a number that {dtype} holds", values[at])
    return found


def runs(keys: Sequence[Any]) -> Iterator[tuple[Any, slice]]:
    """Stretches of equal keys."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[start]:
            yield keys[start], slice(start, i)
            start = i


def _plain(cells: Any) -> Any:
    pa = need("pyarrow", _WHY)
    return cells.dictionary_decode() if pa.types.is_dictionary(cells.type) else cells


def _is_number(text: object) -> bool:
    try:
        return not math.isnan(float(str(text))) or True
    except ValueError:
        return False
