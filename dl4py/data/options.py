"""How files become examples: the words of every reader."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dl4py.registry import Registry

# file name's ending → what reads such files
READERS: Registry[Any] = Registry(
    "reader", "org.datavec.api.records.reader.impl", home="data"
)
ALIGNMENTS = ("equal", "start", "end")
DTYPES = ("float32", "float64")

Column = str | int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What of a file becomes what; every reader looks at what concerns it.

    Args:
        features: columns, by name or number from 0; default: all that are nothing
            else. In an ``.npz`` file the array's name, else ``features`` or ``x``.
        labels: columns, as these; default: none. In an ``.npz`` file the array's name,
            else ``labels`` or ``y``.
        classes: the number of classes, and the label column holds 0 … classes - 1; or
            their names in order. Default: a label column of text is one-hot, its
            classes in alphabetical order; one of numbers is what a regression predicts.
        sequence: the column that tells the sequences of a table apart.
        per_file: whether each file of a folder is a sequence.
        labels_from: the folder with the labels' sequences, or the file's, where they
            are not beside the features.
        align: where shorter sequences lie: at the ``start`` or at the ``end``; or
            ``equal``, and a shorter one is an error.
        header: whether a CSV's first row holds names; default: if no cell of it is a
            number.
        delimiter: between cells of a CSV; default: a tab for ``.tsv``, else a comma.
        skip: lines of a CSV before that row.
        height, width: to which images are resized; default: those of the first one.
        channels: 3 for blue, green, red, in DL4J's order, or 1 for grey.
        dtype: of the arrays, ``float32`` or ``float64``.
    """

    features: list[str | int] | str | int | None = None
    labels: list[str | int] | str | int | None = None
    classes: list[str] | int | None = None
    sequence: str | int | None = None
    per_file: bool = False
    labels_from: str | None = None
    align: str = "start"
    header: bool | None = None
    delimiter: str | None = None
    skip: int = 0
    height: int | None = None
    width: int | None = None
    channels: int = 3
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, fits, expected in (
            ("align", self.align in ALIGNMENTS, f"one of {', '.join(ALIGNMENTS)}"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("channels", self.channels in (1, 3), "1 or 3"),
            ("skip", self.skip >= 0, "a whole number >= 0"),
            ("height", self.height is None or self.height >= 1, "1 or more"),
            ("width", self.width is None or self.width >= 1, "1 or more"),
            ("classes", self._classes_fit(), "a number >= 2, or distinct names"),
            ("delimiter", len(self.delimiter or ",") == 1, "one character"),
            ("sequence", self.sequence is None or not self.per_file, "no per_file"),
        ):
            if not fits:
                raise ValueError(f"{name}: expected {expected}, got {self._got(name)}")

    def _classes_fit(self) -> bool:
        if isinstance(self.classes, int):
            return self.classes >= 2
        names = ["a", "b"] if self.classes is None else self.classes
        if not isinstance(names, (list, tuple)):
            return False
        return len(set(names)) == len(names) >= 2

    def _got(self, name: str) -> str:
        return repr(getattr(self, name))

    @property
    def numpy(self) -> np.dtype[Any]:
        """The arrays' dtype."""
        return np.dtype(self.dtype)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes' names, where they are given."""
        known = isinstance(self.classes, Sequence)
        return tuple(map(str, self.classes)) if known else None  # type: ignore[arg-type]


def words() -> dict[str, tuple[Any, str]]:
    """Each word of :class:`Reading`: what makes a value of a text, and its help.

    >>> kind, what = words()["skip"]
    >>> kind("3"), what
    (3, 'lines of a CSV before that row.')
    >>> words()["classes"][0]("cat, dog"), words()["classes"][0]("3")
    (['cat', 'dog'], 3)
    """
    found = {}
    for field in fields(Reading):
        kind: Any = next((k for k in _OF_TEXT if str(field.type).startswith(k)), "str")
        text = re.search(
            rf"^ +(?:\w+, )*{field.name}(?:, \w+)*: (.*?)(?=^ {{8}}\w|^ *$)",
            Reading.__doc__ or "",
            re.S | re.M,
        )
        told = " ".join(text[1].split()) if text else ""
        found[field.name] = (_OF_TEXT.get(kind, str), told)
    return found


def _listed(text: str) -> list[str] | int:
    """Names or numbers of columns or classes; one number is that number."""
    parts = [part.strip() for part in text.split(",")]
    return int(text) if text.isdigit() else parts


_OF_TEXT: dict[str, Any] = {"bool": bool, "int": int, "list": _listed}


def natural(path: Path) -> list[Any]:
    """A key that sorts ``2.csv`` before ``10.csv``, as DL4J's numbered files.

    >>> [p.name for p in sorted(map(Path, ["10.csv", "2.csv"]), key=natural)]
    ['2.csv', '10.csv']
    """
    parts = re.split(r"(\d+)", str(path))
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]
