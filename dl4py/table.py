"""Rows of text as a table: plain for a file, with colours and lines on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """What stands in a table.

    Args:
        rows: the cells.
        head: names of the columns; none, and the table has no head.
        title: a line above it.
        notes: lines below it.

    Example:
        >>> print(Table([["a", "1"], ["long", "2"]], ["name", "n"], notes=["2 rows"]))
        name  n
        -------
        a     1
        long  2
        2 rows
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    title: str = ""
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        cells = [row for row in (self.head, *self.rows) if row]
        count = max(map(len, cells), default=0)
        widths = [max(len(row[i]) for row in cells) for i in range(count)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        if self.head:
            lines.insert(1, "-" * max(map(len, lines)))
        if self.title:
            lines = [self.title, "-" * len(self.title), *lines]
        return "\n".join([*lines, *self.notes])

    def rich(self, rich: Any) -> Any:
        """The same for the terminal, by the package ``rich``."""
        title = rich.text.Text(self.title) if self.title else None
        table = rich.table.Table(
            title=title, title_justify="left", show_header=bool(self.head)
        )
        for i in range(len(self.head or next(iter(self.rows), ()))):
            table.add_column(rich.text.Text(self.head[i] if self.head else ""))
        for row in self.rows:
            table.add_row(*map(rich.text.Text, row))  # as text: no markup is read
        return rich.console.Group(table, *map(rich.text.Text, self.notes))
