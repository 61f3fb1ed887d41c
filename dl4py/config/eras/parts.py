"""Objects inside a network's JSON: what they are, and how all of them are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dl4py.config.codec import at

Part = dict[str, Any]


def kind(part: Mapping[str, Any]) -> str:
    """The class of a JSON object, without its package: packages have moved."""
    return str(part.get("@class", "")).rpartition(".")[2]


def everywhere(value: Any, change: Callable[[Part], None], path: str = "$") -> Any:
    """A copy of a JSON value with every object in it changed, inner ones first."""
    if isinstance(value, Mapping):
        part = {
            key: everywhere(inside, change, f"{path}.{key}")
            for key, inside in value.items()
        }
        with at(path):
            change(part)
        return part
    if isinstance(value, list):
        return [everywhere(v, change, f"{path}[{i}]") for i, v in enumerate(value)]
    return value


def confs(content: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
    """(path, object) of what stands around each layer, in a chain and in a graph."""
    chain = content.get("confs")
    for i, conf in enumerate(chain if isinstance(chain, list) else ()):
        if isinstance(conf, dict):
            yield f"$.confs[{i}]", conf
    vertices = content.get("vertices")
    for name, vertex in (vertices if isinstance(vertices, dict) else {}).items():
        path = f"$.vertices.{name}"
        if isinstance(vertex, dict) and isinstance(vertex.get("LayerVertex"), dict):
            path, vertex = f"{path}.LayerVertex", vertex["LayerVertex"]
        conf = vertex.get("layerConf") if isinstance(vertex, dict) else None
        if isinstance(conf, dict):
            yield f"{path}.layerConf", conf


def nested(layer: object, path: str) -> Iterator[tuple[str, Part]]:
    """(path, layer) of a layer and of those inside it."""
    if isinstance(layer, dict):
        yield path, layer
        for key in HOLDERS & layer.keys():
            yield from nested(layer[key], f"{path}.{key}")


HOLDERS = {"layer", "fwd", "bwd", "underlying"}  # keys of layers inside a layer


def wrapped(value: object) -> bool:
    """Whether this is an object inside one whose only key is its name."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    ((name, inside),) = value.items()
    named = isinstance(name, str) and not name.startswith("@")
    return named and isinstance(inside, Mapping)


def layers(content: Mapping[str, Any]) -> Iterator[tuple[str, Part, Part]]:
    """(path, layer, what stands around it) of each layer, wrapped ones unwrapped."""
    for path, conf in confs(content):
        layer = conf.get("layer")
        if wrapped(layer):
            ((name, layer),) = layer.items()  # type: ignore[union-attr]
            yield f"{path}.layer.{name}", layer, conf
        elif isinstance(layer, dict):
            yield f"{path}.layer", layer, conf
