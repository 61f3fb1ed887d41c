"""What is in a model zip, and whether it predicts what it should."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dl4py.config import ComputationGraphConfiguration
from dl4py.config.codec import brief, printable
from dl4py.layers import Embedding
from dl4py.network import Network
from dl4py.network.build import build
from dl4py.registry import Named
from dl4py.serializer import restore

# how far outputs may be off, as a share of the largest entry
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
LOOSE = 2e-3  # half types
WIDEST = 80  # characters of a cell in the table


def describe(net: Network) -> dict[str, Any]:
    """A network as plain types: its layers with shapes, parameters and updater."""
    layers = []
    for i, node in enumerate(net.nodes):
        views = list(node.layer.views())
        shapes = {view.name: list(view.array.shape) for view in views}
        layers.append(
            {
                "index": i,
                "name": node.name,
                "type": type(node.conf).__name__,
                "reads": list(node.step.inputs),
                "preprocessor": type(node.step.preprocessor).__name__
                if node.step.preprocessor
                else None,
                "n_in": getattr(node.conf, "n_in", None),
                "n_out": getattr(node.conf, "n_out", None),
                "activation": _name(getattr(node.conf, "activation", None)),
                "loss": _name(getattr(node.conf, "loss", None)),
                "parameters": shapes,
                "count": sum(view.tensor.numel() for view in views),
                "updater": _name(getattr(node.conf, "updater", None))
                if views
                else None,
            }
        )
    return {
        "data_type": net.conf.data_type,
        "parameters": net.num_params(),
        "updater_state": int(net.updater_state().numel()),
        "iteration": net.clock.iteration,
        "epoch": net.clock.epoch,
        "inputs": list(net.plan.inputs),
        "outputs": list(net.plan.outputs),
        "normalizer": _normalizer(net),
        "layers": layers,
        # where dl4j_exact=False would compute something else
        "differences": build(net.conf, draw=False).differs(),
    }


def _normalizer(net: Network) -> str | None:
    found = net.normalizer
    if found is None:
        return None
    custom = "a Java class of somebody's own"
    return custom if isinstance(found, bytes) else str(found.describe())


def _name(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Named):
        return str(getattr(value, "__name__", value))
    args = ", ".join(f"{k}={v}" for k, v in value.args if v is not None)
    return f"{value.name}({args})" if args else value.name


def table(net: Network) -> str:
    """The network as a text table."""
    found = describe(net)
    head = ["", "name", "type", "in → out", "parameters", "count", "updater"]
    graph = isinstance(net.conf, ComputationGraphConfiguration)
    rows = [head + ["reads"] * graph]
    for layer in found["layers"]:
        sizes = (layer["n_in"], layer["n_out"])
        shapes = (
            f"{k} {'×'.join(map(str, v))}" for k, v in layer["parameters"].items()
        )
        row = [
            str(layer["index"]),
            layer["name"],
            layer["type"],
            "" if sizes == (None, None) else f"{sizes[0]} → {sizes[1]}",
            ", ".join(shapes),
            f"{layer['count']:,}",
            layer["updater"] or "",
        ]
        read = layer["reads"]
        reads = ", ".join(read[:3]) + (f" and {len(read) - 3} more" * (len(read) > 3))
        rows.append(row + [reads] * graph)
    rows = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append(
        f"{found['parameters']:,} parameters ({found['data_type']}), "
        f"{found['updater_state']:,} numbers of updater state, "
        f"iteration {found['iteration']}, epoch {found['epoch']}"
    )
    if found["normalizer"]:
        lines.append(f"normalizer: {found['normalizer']}")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A cell of the table; every row is padded to the longest, which is bounded."""
    text = printable(text)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 4]} ..."


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
