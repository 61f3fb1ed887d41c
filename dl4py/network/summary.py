"""A network as a table: layers, sizes, parameters, updaters."""

from __future__ import annotations

from typing import Any

from dl4py.config import ComputationGraphConfiguration
from dl4py.config.codec import printable
from dl4py.network.build import build
from dl4py.network.network import Network
from dl4py.registry import Named
from dl4py.table import Table

WIDEST = 80  # characters of a cell in the table


def describe(net: Network) -> dict[str, Any]:
    """A network as plain types: its layers with shapes, parameters and updater."""
    return {
        "data_type": net.conf.data_type,
        "parameters": net.num_params(),
        "updater_state": int(net.updater_state().numel()),
        "iteration": net.clock.iteration,
        "epoch": net.clock.epoch,
        "inputs": list(net.plan.inputs),
        "outputs": list(net.plan.outputs),
        "normalizer": normalizer_of(net),
        "classes": list(net.classes) if net.classes else None,
        "layers": layers(net),
        # where dl4j_exact=False would compute something else
        "differences": build(net.conf, draw=False).differs(),
    }


def layers(net: Network) -> list[dict[str, Any]]:
    """The layers of a network as plain types, a row each."""
    rows = []
    for i, node in enumerate(net.nodes):
        views = list(node.layer.views())
        shapes = {view.name: list(view.array.shape) for view in views}
        rows.append(
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
    return rows


def normalizer_of(net: Network) -> str | None:
    """One line of what scales the network's raw features, if anything does."""
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


def table(net: Network) -> Table:
    """The network as a table, a row a layer."""
    found = describe(net)
    head = ["", "name", "type", "in → out", "parameters", "count", "updater"]
    graph = isinstance(net.conf, ComputationGraphConfiguration)
    body = []
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
        body.append([_cell(cell) for cell in row + [reads] * graph])
    notes = [
        f"{found['parameters']:,} parameters ({found['data_type']}), "
        f"{found['updater_state']:,} numbers of updater state, "
        f"iteration {found['iteration']}, epoch {found['epoch']}"
    ]
    if found["normalizer"]:
        notes.append(f"normalizer: {found['normalizer']}")
    if found["classes"]:
        notes.append(f"classes: {', '.join(map(printable, found['classes']))}")
    return Table(body, head + ["reads"] * graph, notes=notes)


def _cell(text: str) -> str:
    """A cell of the table; every row is padded to the longest, which is bounded."""
    text = printable(text)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 4]} ..."
