"""What is in a model zip, and whether it predicts what it should."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from dl4py.config.codec import brief
from dl4py.layers import Embedding
from dl4py.network import Network
from dl4py.network.build import build
from dl4py.registry import Named
from dl4py.serializer import restore

# how far outputs may be off, as a share of the largest entry
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
LOOSE = 2e-3  # half types


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
        "layers": layers,
        # where dl4j_exact=False would compute something else
        "differences": build(net.conf, draw=False).differs(),
    }


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
    head = ("", "name", "type", "in → out", "parameters", "count", "updater")
    rows = [head]
    for layer in found["layers"]:
        sizes = (layer["n_in"], layer["n_out"])
        shapes = (
            f"{k} {'×'.join(map(str, v))}" for k, v in layer["parameters"].items()
        )
        rows.append(
            (
                str(layer["index"]),
                layer["name"],
                layer["type"],
                "" if sizes == (None, None) else f"{sizes[0]} → {sizes[1]}",
                ", ".join(shapes),
                f"{layer['count']:,}",
                layer["updater"] or "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
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
    return "\n".join(lines)


def _numbers(argument: str, file: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{argument}: {os.fspath(file)} must hold one array of real numbers (.npy)"
        )
    return array.astype(array.dtype.newbyteorder("="))


def verify(
    path: str | os.PathLike[str],
    inputs: str | os.PathLike[str],
    outputs: str | os.PathLike[str],
) -> tuple[float, float]:
    """(largest error, largest one allowed) of a model's outputs against recorded ones.

    Args:
        path: a model zip.
        inputs, outputs: ``.npy`` files of a batch and of what DL4J predicted for it.
    """
    net = restore(path)
    x, y = _numbers("inputs", inputs), _numbers("outputs", outputs)
    first = next(net.parameters(), None)
    dtype = torch.float32 if first is None else first.dtype
    batch = torch.from_numpy(x)
    if not isinstance(net.nodes[0].layer, Embedding) or batch.is_floating_point():
        batch = batch.to(dtype)
    try:
        ours = net.output(batch).double().numpy()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"inputs: {os.fspath(inputs)} of shape {x.shape} does not fit the network: "
            f"{brief(error)}"
        ) from error
    if ours.shape != y.shape:
        raise ValueError(
            f"outputs: the network gives {ours.shape} for this batch, "
            f"{os.fspath(outputs)} holds {y.shape}"
        )
    largest = float(np.abs(y).max(initial=0.0))
    allowed = TOLERANCES.get(dtype, LOOSE) * max(largest, 1e-30)
    return float(np.abs(ours - y).max(initial=0.0)), allowed
