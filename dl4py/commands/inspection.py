"""What wrote a model zip, and how two of them differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from dl4py.config.codec import DL4JFormatError, parse, printable
from dl4py.config.eras import recognise
from dl4py.io.archive import COEFFICIENTS, CONFIGURATION, UPDATER_STATE, ModelReader
from dl4py.network import Network
from dl4py.network.summary import normalizer_of
from dl4py.normalizers import write_normalizer
from dl4py.serializer import restore


def origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Which releases wrote a model zip and what told, as plain types.

    ``notes``: what is made of it here that DL4J 1.0.0-M2.1's own reader drops;
    ``left_out``: entries that are Java objects → what is lost without them.
    """
    with ModelReader(path) as reader:
        try:
            era = recognise(parse(reader.text()))
        except DL4JFormatError as error:
            place = f"{reader.name}:{CONFIGURATION}"
            raise DL4JFormatError(f"{place}: {error}") from error
        arrays = {}
        for entry in (COEFFICIENTS, UPDATER_STATE):
            if reader.size(entry):
                header = reader.header(entry)
                arrays[entry] = f"{header.mode} {header.type} {list(header.shape)}"
        return {
            "releases": era.releases,
            "because": era.because,
            "notes": list(era.notes),
            "arrays": arrays,
            "left_out": reader.skipped(),
        }


def origin_lines(found: Mapping[str, Any]) -> str:
    """:func:`origin` as lines."""
    lines = [
        f"written by DL4J {found['releases']}: {found['because']}",
        *(f"{entry}: {array}" for entry, array in found["arrays"].items()),
        *found["notes"],
        *(f"{entry}: left out, {lost}" for entry, lost in found["left_out"].items()),
    ]
    return "\n".join(map(printable, lines))


def differences(
    first: str | os.PathLike[str], second: str | os.PathLike[str]
) -> dict[str, Any]:
    """Where two model zips differ, as plain types.

    ``configuration``: JSON path → the two values, what is missing as ``None``;
    ``parameters`` and ``updater_state``: name → the largest difference, or the two
    shapes; ``normalizer``: the two, if they differ.
    """
    a, b = restore(first), restore(second)
    fields = [dict(_leaves(net.conf.to_dict(), "$")) for net in (a, b)]
    paths = dict.fromkeys([*fields[0], *fields[1]])
    pairs = {path: [f.get(path) for f in fields] for path in paths}
    found: dict[str, Any] = {
        "configuration": {p: v for p, v in pairs.items() if repr(v[0]) != repr(v[1])},
        "parameters": _apart(*(_arrays(net) for net in (a, b))),
        "updater_state": _apart(
            {"updater state": a.updater_state()}, {"updater state": b.updater_state()}
        ),
        "normalizer": {},
    }
    said = [normalizer_of(net) for net in (a, b)]
    if _bytes(a) != _bytes(b):
        found["normalizer"] = {"normalizer": said}
    if a.classes != b.classes:
        known = [net.classes and ", ".join(net.classes) for net in (a, b)]
        found["classes"] = {"classes": known}
    return found


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """:func:`differences` as lines."""
    lines = []
    for part, entries in found.items():
        for name, value in entries.items():
            what = (
                " against ".join(map(printable, map(str, value)))
                if (isinstance(value, list))
                else f"up to {value:.3g} apart"
            )
            lines.append(f"{part}: {printable(name)}: {what}")
    return "\n".join(lines) or "no difference"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON tree that holds no others, with its path."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}]")
    else:
        yield path, value


def _arrays(net: Network) -> dict[str, torch.Tensor]:
    return {f"{v.node}.{v.name}": v.array.detach() for v in net.views()}


def _apart(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys([*a, *b]):
        one, other = a.get(name), b.get(name)
        if one is None or other is None or one.shape != other.shape:
            found[name] = [None if t is None else list(t.shape) for t in (one, other)]
        elif not torch.equal(one.double(), other.double()):
            found[name] = float((one.double() - other.double()).abs().max())
    return found


def _bytes(net: Network) -> bytes | None:
    given = net.normalizer
    return (
        given if given is None or isinstance(given, bytes) else write_normalizer(given)
    )
