"""Every part that has a name: DL4J's class, its name here, what it is."""

from __future__ import annotations

import inspect
from typing import Any

from dl4py.commands.migration import concepts
from dl4py.data import READERS
from dl4py.registry import REGISTRIES
from dl4py.table import Table

_INSIDE = {"module"}  # kinds that no user names
_KINDS = {**REGISTRIES, READERS.kind: READERS}


def rows(kind: str | None = None) -> list[dict[str, Any]]:
    """One row a part: kind, name, other names, DL4J's class, first line of its help.

    Args:
        kind: as in ``registry.REGISTRIES``, e.g. ``"layer"``, or one of what has no
            registry, e.g. ``"evaluation"``; default: all.

    >>> [r["java"] for r in rows("activation") if r["name"] == "cube"]
    ['org.nd4j.linalg.activations.impl.ActivationCube']
    """
    beside = concepts()
    named = [k for k in _KINDS if k not in _INSIDE]
    kinds = list(dict.fromkeys([*named, *(row["kind"] for row in beside)]))
    if kind is not None and kind not in kinds:
        raise ValueError(f"kind: expected one of {', '.join(kinds)}, got {kind!r}")
    found = []
    for one in kinds if kind is None else [kind]:
        found += [row for row in beside if row["kind"] == one]
        if one not in _KINDS:
            continue
        registry = _KINDS[one]
        for key in registry:
            entry = registry.entry(key)
            text = inspect.getdoc(entry.item) or ""
            found.append(
                {
                    "kind": one,
                    "name": entry.key,
                    "also": list(entry.names[1:]),
                    "java": entry.java,
                    "what": text.partition("\n")[0].rstrip("."),
                }
            )
    return found


def tables(kind: str | None = None) -> list[Table]:
    """:func:`rows` to read, a table a kind."""
    found = rows(kind)
    return [
        Table(
            [
                (
                    (row["java"] or "").rpartition(".")[2],
                    ", ".join([row["name"], *row["also"]]),
                    row["what"],
                )
                for row in found
                if row["kind"] == one
            ],
            title=one,
        )
        for one in dict.fromkeys(row["kind"] for row in found)
    ]
