"""Whether a model zip predicts what it should, and how two of them differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dl4py.config.codec import DL4JFormatError, brief, parse, printable
from dl4py.config.eras import recognise
from dl4py.io.archive import COEFFICIENTS, CONFIGURATION, UPDATER_STATE, ModelReader
from dl4py.layers import Embedding
from dl4py.network import Network
from dl4py.network.summary import normalizer_of
from dl4py.normalizers import write_normalizer
from dl4py.serializer import restore

# how far outputs may be off, as a share of the largest entry
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
LOOSE = 2e-3  # half types


def _numbers(argument: str, file: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{argument}: {os.fspath(file)} must hold one array of real numbers (.npy)"
        )
    return array.astype(array.dtype.newbyteorder("="))


def verify(
    path: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    outputs: Sequence[str | os.PathLike[str]],
) -> tuple[float, float]:
    """(largest error, largest one allowed) of a model's outputs against recorded ones.

    Args:
        path: a model zip.
        inputs, outputs: ``.npy`` files of a batch and of what DL4J predicted for it,
            one for each input and output of a graph, in order.

    The output with the worst ratio of the two counts.
    """
    net = restore(path)
    for word, files, names in (
        ("inputs", inputs, net.plan.inputs),
        ("outputs", outputs, net.plan.outputs),
    ):
        if len(files) != len(names):
            raise ValueError(
                f"{word}: expected {len(names)} files ({', '.join(names)}), got "
                f"{len(files)}; give --{word} once for each, in this order"
            )
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    looked_up = {
        name
        for node in net.nodes
        if isinstance(node.layer, Embedding)
        for name in node.step.inputs
    }
    arrays = [_numbers("inputs", file) for file in inputs]
    batch = []
    for name, array in zip(net.plan.inputs, arrays, strict=True):
        x = torch.from_numpy(array)
        indices = name in looked_up and not x.is_floating_point()
        batch.append(x if indices else x.to(dtype))
    try:
        found = net.output(tuple(batch))
    except (ValueError, RuntimeError) as error:
        shapes = ", ".join(
            f"{os.fspath(file)} of shape {array.shape}"
            for file, array in zip(inputs, arrays, strict=True)
        )
        raise ValueError(
            f"inputs: {shapes} does not fit the network: {brief(error)}"
        ) from error
    ours = found if isinstance(found, tuple) else (found,)
    share = TOLERANCES.get(dtype, LOOSE)
    pairs = [
        _compared(t.double().numpy(), file, share)
        for t, file in zip(ours, outputs, strict=True)
    ]
    return max(pairs, key=lambda pair: pair[0] / pair[1])


def _compared(
    ours: np.ndarray[Any, Any], file: str | os.PathLike[str], share: float
) -> tuple[float, float]:
    """(error, allowed) of one output."""
    y = _numbers("outputs", file)
    if ours.shape != y.shape:
        raise ValueError(
            f"outputs: the network gives {ours.shape} for this batch, "
            f"{os.fspath(file)} holds {y.shape}"
        )
    allowed = share * max(float(np.abs(y).max(initial=0.0)), 1e-30)
    return float(np.abs(ours - y).max(initial=0.0)), allowed


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
