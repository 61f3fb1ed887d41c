"""A graph of layers and vertices and its JSON: DL4J's ComputationGraphConfiguration."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dl4py.config.codec import DL4JFormatError, at, decode, encode, mapping, shown
from dl4py.config.kinds import field
from dl4py.config.layer import DEFAULTS, ConfigurationError, Layer
from dl4py.config.plan import Plan, Step
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.settings import (
    NetworkConfiguration,
    check_given,
    check_names,
    layer_of,
    preprocessor_of,
)
from dl4py.config.vertex import Vertex
from dl4py.registry import suggest

LAYER_VERTEX = "org.deeplearning4j.nn.conf.graph.LayerVertex"


@dataclass(frozen=True, kw_only=True)
class ComputationGraphConfiguration(NetworkConfiguration):
    """A graph of layers and vertices, final: everything is filled in and checked.

    ``NeuralNetConfiguration.builder().graph_builder()`` makes one, and so does
    ``NeuralNetConfiguration.from_json``.

    Args:
        vertices: name → layer or vertex, in the order in which they were added.
        vertex_inputs: name → what it reads.
        network_inputs, network_outputs: names, in order.
        preprocessors: name → what stands before that layer.
        order: names of inputs and vertices in DL4J's topological order, which is that
            of parameters in flat vectors.

    The others are those of :class:`NetworkConfiguration`.

    DL4J: org.deeplearning4j.nn.conf.ComputationGraphConfiguration
    """

    vertices: Mapping[str, Any]
    vertex_inputs: Mapping[str, tuple[str, ...]]
    network_inputs: tuple[str, ...]
    network_outputs: tuple[str, ...]
    preprocessors: Mapping[str, Preprocessor] = field(dict)
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if not self.order:
            reads = {name: self.vertex_inputs[name] for name in self.vertices}
            found = topological_order(self.network_inputs, reads)
            object.__setattr__(self, "order", found)

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers in topological order."""
        steps = self.plan().steps
        return tuple(step.conf for step in steps if isinstance(step.conf, Layer))

    def plan(self) -> Plan:
        steps = [
            Step(
                name,
                self.vertices[name],
                self.vertex_inputs[name],
                self.preprocessors.get(name),
            )
            for name in self.order
            if name in self.vertices
        ]
        return Plan(tuple(steps), self.network_inputs, self.network_outputs)

    def _places(self) -> list[int]:
        """The order as DL4J's numbers of inputs and vertices."""
        places = {n: i for i, n in enumerate([*self.network_inputs, *self.vertices])}
        return [places[name] for name in self.order]

    def to_dict(self) -> dict[str, Any]:
        around = self.extra.get("confs", {})
        beside = self.extra.get("vertices", {})
        vertices = {}
        for name, item in self.vertices.items():
            path = f"$.vertices.{name}"
            if isinstance(item, Layer):
                layer = self._beside_layer(
                    item,
                    list(item.variables),
                    around.get(name, {}),
                    f"{path}.layerConf.layer",
                )
                preprocessor = self.preprocessors.get(name)
                rest = {"outputVertex": False, **beside.get(name, {})}
                content = {
                    "layerConf": layer,
                    "preProcessor": encode(preprocessor),
                    **rest,
                }
                keys = {k: content[k] for k in sorted(content)}
                vertices[name] = {"@class": LAYER_VERTEX, **keys}
            else:
                vertices[name] = item.to_dict(name, self.data_type, path)
        names = _variables(self.vertices)
        default = self._beside_layer(None, names, around.get("", {}), "$")
        content = {
            **self._written_once(),
            **{k: v for k, v in self.extra.items() if k not in ("confs", "vertices")},
            "defaultConfiguration": default,
            "networkInputs": list(self.network_inputs),
            "networkOutputs": list(self.network_outputs),
            "topologicalOrder": self._places(),
            "topologicalOrderStr": list(self.order),
            "vertexInputs": {k: list(v) for k, v in self.vertex_inputs.items()},
            "vertices": vertices,
        }
        return {k: content[k] for k in sorted(content)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ComputationGraphConfiguration:
        """The configuration that :meth:`to_dict` writes as ``content``.

        Raises:
            DL4JFormatError: naming the place in ``content``, if it is not that.
        """
        default = mapping(
            content.get("defaultConfiguration") or {}, "$.defaultConfiguration"
        )
        raw = mapping(content.get("vertices"), "$.vertices")
        counting = cls._settings(("$.defaultConfiguration", default))
        values = cls._network(counting, content, "$.defaultConfiguration")
        apart = {
            "defaultConfiguration",
            "layer",
            "networkInputs",
            "networkOutputs",
            "topologicalOrder",
            "topologicalOrderStr",
            "variables",
            "vertexInputs",
            "vertices",
        }
        known = {*cls._declared(), *apart}
        extra = {k: v for k, v in content.items() if k not in known}
        confs: dict[str, Any] = {}
        beside: dict[str, Any] = {}
        vertices: dict[str, Any] = {}
        preprocessors: dict[str, Preprocessor] = {}
        for name, part in raw.items():
            path = f"$.vertices.{name}"
            part = mapping(part, path)
            if str(part.get("@class", "")).rpartition(".")[2] != "LayerVertex":
                vertex = decode(part, path)
                if not isinstance(vertex, Vertex):
                    what = shown(part.get("@class"))
                    raise DL4JFormatError(f"{path}: unknown vertex {what}")
                with at(path):
                    check_given(vertex, part)
                    vertices[name] = vertex.resolved(DEFAULTS)
                    _check_derived(vertices[name], part, name)
                continue
            conf = mapping(part.get("layerConf"), f"{path}.layerConf")
            vertices[name] = layer_of(conf, f"{path}.layerConf")
            if part.get("preProcessor") is not None:
                preprocessors[name] = preprocessor_of(
                    part["preProcessor"], f"{path}.preProcessor"
                )
            around = cls._settings((f"{path}.layerConf", conf))
            cls._check_agreement(
                f"{path}.layerConf", around, counting, "$.defaultConfiguration", True
            )
            if kept := cls._kept(conf, around, vertices[name].variables, values):
                confs[name] = kept
            if not isinstance(part.get("outputVertex", False), bool):
                raise DL4JFormatError(
                    f"{path}.outputVertex: must be True or False, got "
                    f"{shown(part['outputVertex'])}"
                )
            own = {"@class", "layerConf", "preProcessor"}
            if part.get("outputVertex") is False:
                own.add("outputVertex")
            _keep(beside, name, part, own)
        check_names(default.get("variables", []), "$.defaultConfiguration.variables")
        if kept := cls._kept(default, counting, _variables(vertices), values):
            confs[""] = kept
        if confs:
            extra["confs"] = confs
        if beside:
            extra["vertices"] = beside
        inputs = mapping(content.get("vertexInputs"), "$.vertexInputs")
        with at("$"):
            graph = cls(
                vertices=vertices,
                vertex_inputs={
                    k: _names(v, f"$.vertexInputs.{k}") for k, v in inputs.items()
                },
                network_inputs=_names(content.get("networkInputs"), "$.networkInputs"),
                network_outputs=_names(
                    content.get("networkOutputs"), "$.networkOutputs"
                ),
                preprocessors=preprocessors,
                order=_names(
                    content.get("topologicalOrderStr") or [], "$.topologicalOrderStr"
                ),
                extra=extra,
                **values,
            )
        places = content.get("topologicalOrder")
        if places is not None and not _equal(places, graph._places()):
            raise DL4JFormatError(
                f"$.topologicalOrder: must be {shown(graph._places())}, which follows "
                f"from the names, got {shown(places)}"
            )
        return graph


def _equal(numbers: Any, expected: list[int]) -> bool:
    """Whether these are the whole numbers ``expected``; True is not 1."""
    return bool(numbers == expected) and all(type(n) is int for n in numbers)


def _variables(vertices: Mapping[str, Any]) -> list[str]:
    """DL4J's names of all parameters."""
    return [f"{name}_{v}" for name, item in vertices.items() for v in item.parameters]


def _keep(
    kept: dict[str, Any], name: str, source: Mapping[str, Any], known: set[str]
) -> None:
    rest = {k: v for k, v in source.items() if k not in known}
    if rest:
        kept[name] = rest


def _check_derived(vertex: Any, raw: Mapping[str, Any], name: str) -> None:
    """Refuse another ``vertexParams`` than the one that follows from the sizes."""
    if "vertexParams" in raw:
        written = vertex.to_dict(name, "FLOAT", "$").get("vertexParams")
        if raw["vertexParams"] != written:
            raise ValueError(
                f"vertexParams: must be {shown(written)}, which follows from the "
                f"sizes, got {shown(raw['vertexParams'])}"
            )


def _names(value: Any, path: str) -> tuple[str, ...]:
    return tuple(check_names(value, path))


def check(conf: ComputationGraphConfiguration) -> None:
    """Refuse a graph whose parts do not fit together.

    Raises:
        ConfigurationError: naming the vertex, what was expected and what came.
    """
    inputs, vertices = conf.network_inputs, conf.vertices
    if not inputs:
        raise ConfigurationError("a graph needs an input: add_inputs('in')")
    if not conf.network_outputs:
        raise ConfigurationError("a graph needs an output: set_outputs('out')")
    twice = [n for n, times in Counter([*inputs, *vertices]).items() if times > 1]
    if twice:
        raise ConfigurationError(f"the name {twice[0]!r} was given twice")
    known = {*inputs, *vertices}
    if conf.vertex_inputs.keys() != vertices.keys():
        odd = sorted(conf.vertex_inputs.keys() ^ vertices.keys())[0]
        raise ConfigurationError(f"vertex {odd!r}: expected a vertex and its inputs")
    for name, vertex in vertices.items():
        given = conf.vertex_inputs[name]
        for other in given:
            if other not in known:
                raise ConfigurationError(
                    f"vertex {name!r} reads {other!r}, which does not exist: "
                    f"{_hint(other, [*inputs, *vertices])}"
                )
        least = getattr(vertex, "least", 1)
        most = getattr(vertex, "most", 1)
        if len(given) < least or (most is not None and len(given) > most):
            count = str(least) if least == most else f"{least} or more"
            names = f": {', '.join(given[:5])}" if given else ""
            raise ConfigurationError(
                f"vertex {name!r} ({type(vertex).__name__}) takes {count} inputs, got "
                f"{len(given)}{names}"
            )
        for other in getattr(vertex, "named_inputs", ()):
            if other not in inputs:
                raise ConfigurationError(
                    f"vertex {name!r} ({type(vertex).__name__}) names the network "
                    f"input {other!r}, expected one of {', '.join(inputs)}"
                )
    for name in conf.network_outputs:
        if name not in vertices:
            raise ConfigurationError(
                f"output {name!r} does not exist: {_hint(name, list(vertices))}"
            )
    twice = [n for n, times in Counter(conf.network_outputs).items() if times > 1]
    if twice:
        raise ConfigurationError(f"output {twice[0]!r} was given twice")
    if conf.order:
        _check_order(conf)  # which refuses cycles


def _hint(name: str, known: Sequence[str]) -> str:
    rest = " ..." if len(known) > 10 else ""
    return suggest(name, set(known)) or f"known: {', '.join(known[:10])}{rest}"


def check_connected(conf: ComputationGraphConfiguration) -> None:
    """Refuse inputs and vertices that lead nowhere, as DL4J's builder does.

    Raises:
        ConfigurationError: naming the first of them.
    """
    read = {*conf.network_outputs}
    for name, given in conf.vertex_inputs.items():
        read.update(given, getattr(conf.vertices[name], "named_inputs", ()))
    for name in conf.network_inputs:
        if name not in read:
            raise ConfigurationError(
                f"input {name!r} is read by nothing; leave it out of add_inputs(...)"
            )
    for name, vertex in conf.vertices.items():
        if name not in read:
            raise ConfigurationError(
                f"vertex {name!r} ({type(vertex).__name__}) is read by nothing and no "
                "output; name it in set_outputs(...), leave it out, or use "
                "allow_disconnected(True)"
            )


def _check_order(conf: ComputationGraphConfiguration) -> None:
    if sorted(conf.order) != sorted([*conf.network_inputs, *conf.vertices]):
        raise ConfigurationError(
            "topologicalOrderStr: expected every input and vertex once"
        )
    places = {name: i for i, name in enumerate(conf.order)}
    for name, given in conf.vertex_inputs.items():
        for other in given:
            if places[other] >= places[name]:
                raise ConfigurationError(
                    f"topologicalOrderStr: {name!r} stands before {other!r}, which it "
                    "reads"
                )


def topological_order(
    inputs: Sequence[str], vertex_inputs: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Inputs and vertices in the order in which DL4J evaluates them.

    Kahn's algorithm with a first-in first-out queue; what reads a vertex follows in the
    order of a Java ``HashSet`` of numbers, inputs and vertices being numbered in the
    order in which they were added.

    >>> topological_order(["in"], {"a": ["in"], "c": ["b"], "b": ["a", "in"]})
    ('in', 'a', 'b', 'c')

    Raises:
        ConfigurationError: where the graph has a cycle.
    """
    names = [*inputs, *vertex_inputs]
    places = {name: i for i, name in enumerate(names)}
    readers: list[list[int]] = [[] for _ in names]
    waits = [0] * len(names)
    for name, given in vertex_inputs.items():
        for other in dict.fromkeys(given):
            readers[places[other]].append(places[name])
            waits[places[name]] += 1
    queue = deque(i for i, count in enumerate(waits) if not count)
    order = []
    while queue:
        i = queue.popleft()
        order.append(names[i])
        for reader in _hash_set(readers[i]):
            waits[reader] -= 1
            if not waits[reader]:
                queue.append(reader)
    if len(order) < len(names):
        left = {name for name, count in zip(names, waits, strict=True) if count}
        raise ConfigurationError(
            f"the graph has a cycle: {_cycle(left, vertex_inputs)}"
        )
    return tuple(order)


def _cycle(left: set[str], reads: Mapping[str, Sequence[str]]) -> str:
    """A cycle among vertices each of which reads another one of them."""
    name = min(left)
    path = [name]
    while path.count(name) < 2:
        name = next(other for other in reads[name] if other in left)
        path.append(name)
    path = path[path.index(name) :]
    shown = path if len(path) < 8 else [*path[:6], "...", path[-1]]
    return " reads ".join(map(repr, shown))


def _hash_set(numbers: list[int]) -> Iterator[int]:
    """Numbers in the order in which a Java ``HashSet`` of them is walked."""
    capacity = 16
    while len(numbers) > 0.75 * capacity:
        capacity *= 2
    return iter(sorted(numbers, key=lambda h: (h ^ (h >> 16)) & (capacity - 1)))
