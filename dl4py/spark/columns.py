"""Columns of a DataFrame as the arrays that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Names = str | Sequence[str]


def array(dataframe: Any, argument: str, names: Names) -> Any:
    """One column of arrays of doubles.

    Args:
        argument: who names them, for errors.
        names: of a column of numbers, arrays or vectors, or of several of numbers.

    Raises:
        ValueError: where there is no such column; TypeError: where it has no numbers.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions, types

    given = [names] if isinstance(names, str) else list(names)
    fields = {field.name: field.dataType for field in dataframe.schema.fields}
    if missing := [name for name in given if name not in fields]:
        raise ValueError(
            f"{argument}: there is no column {missing[0]!r}; the DataFrame has "
            f"{', '.join(fields)}"
        )
    kinds = [fields[name] for name in given]
    if given and all(isinstance(kind, types.NumericType) for kind in kinds):
        columns = [functions.col(_quoted(name)).cast("double") for name in given]
        return functions.array(*columns)
    if len(given) == 1:
        (kind,), column = kinds, functions.col(_quoted(given[0]))
        if kind.typeName() == "vectorudt" or "Vector" in type(kind).__name__:
            return vector_to_array(column)
        if isinstance(kind, types.ArrayType) and isinstance(
            kind.elementType, types.NumericType
        ):
            return column.cast("array<double>")
    told = ", ".join(
        f"{name} {kind.simpleString()}" for name, kind in zip(given, kinds, strict=True)
    )
    raise TypeError(
        f"{argument}: expected one column of numbers, arrays or vectors, or several of "
        f"numbers, got {told or 'none'}"
    )


def incomplete(column: Any) -> Any:
    """Whether an array of a column is null, or an entry of it."""
    from pyspark.sql import functions

    return column.isNull() | functions.exists(column, lambda entry: entry.isNull())


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
