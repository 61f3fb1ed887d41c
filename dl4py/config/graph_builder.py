"""DL4J's builder of graphs."""

from __future__ import annotations

from typing import Any

from dl4py.config.codec import replace
from dl4py.config.graph import ComputationGraphConfiguration, check_connected
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Data, flag
from dl4py.config.layer import (
    ConfigurationError,
    Layer,
    LayerBuilder,
)
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.vertex import Vertex
from dl4py.config.vertices import MergeVertex
from dl4py.config.words import (
    Words,
    an_input_type,
    built,
    check_output,
    fitted,
    implied,
)
from dl4py.registry import PREPROCESSORS


class GraphBuilder(Words):
    """A graph of layers and vertices: ``builder().graph_builder()`` makes one.

    Settings are words of :class:`Words`, given before or after.

    Example:
        >>> from dl4py.config import Dense, MergeVertex, NeuralNetConfiguration, Output
        >>> conf = (
        ...     NeuralNetConfiguration.builder()
        ...     .seed(1)
        ...     .graph_builder()
        ...     .add_inputs("text", "image")
        ...     .add_layer("a", Dense(n_out=4), "text")
        ...     .add_layer("b", Dense(n_out=3), "image")
        ...     .add_vertex("both", MergeVertex(), "a", "b")
        ...     .add_layer("out", Output(n_out=2), "both")
        ...     .set_outputs("out")
        ...     .set_input_types(InputType.feed_forward(5), InputType.feed_forward(6))
        ...     .build()
        ... )
        >>> conf.vertices["out"].n_in
        7

    DL4J: org.deeplearning4j.nn.conf.ComputationGraphConfiguration.GraphBuilder
    """

    _own = {
        "add_inputs",
        "add_layer",
        "add_vertex",
        "allow_disconnected",
        "append_layer",
        "append_vertex",
        "build",
        "input_pre_processor",
        "set_input_types",
        "set_outputs",
    }

    def __init__(self, words: Words | None = None) -> None:
        super().__init__(words)
        self._inputs: dict[str, None] = {}  # in order
        self._vertices: dict[str, Any] = {}
        self._reads: dict[str, tuple[str, ...]] = {}
        self._preprocessors: dict[str, Any] = {}
        self._outputs: tuple[str, ...] = ()
        self._types: tuple[InputType, ...] = ()
        self._connected = True
        self._latest = ""

    def add_inputs(self, *names: Any) -> GraphBuilder:
        """Name the network's inputs, in the order in which calls take them."""
        for name in _flat(names):
            self._new(name)
            self._inputs[name] = None
            self._latest = name
        return self

    def add_layer(self, name: str, layer: Any, *inputs: Any) -> GraphBuilder:
        """Add a layer that reads ``inputs``; several are merged before it.

        Args:
            name: of the layer, unique in the graph.
            layer: its configuration.
            inputs: names of inputs, layers and vertices; a preprocessor may stand
                before them.
        """
        if inputs and isinstance(inputs[0], Preprocessor):
            self._preprocessors[name] = inputs[0]
            inputs = inputs[1:]
        return self._add(name, built(layer, "add_layer"), inputs, 1)

    def add_vertex(self, name: str, vertex: Any, *inputs: str) -> GraphBuilder:
        """Add a vertex, or a layer, that reads ``inputs``."""
        if isinstance(vertex, (Layer, LayerBuilder)):
            return self.add_layer(name, vertex, *inputs)
        if not isinstance(vertex, Vertex):
            raise ConfigurationError(
                f"add_vertex({name!r}, …): expected a vertex such as "
                f"dl4py.config.MergeVertex(), got {vertex!r}"
            )
        return self._add(name, vertex, inputs, vertex.most)

    def append_layer(self, name: str, layer: Any) -> GraphBuilder:
        """Add a layer that reads what was added last."""
        return self.add_layer(name, layer, self._last("append_layer"))

    def append_vertex(self, name: str, vertex: Any) -> GraphBuilder:
        """Add a vertex that reads what was added last."""
        return self.add_vertex(name, vertex, self._last("append_vertex"))

    def _last(self, word: str) -> str:
        if not self._latest:
            raise ConfigurationError(f"{word}(...): nothing was added before it")
        return self._latest

    def input_pre_processor(self, name: str, value: Any) -> GraphBuilder:
        """Put a preprocessor of one's own before layer ``name``."""
        self._preprocessors[name] = Data(PREPROCESSORS)(value)
        return self

    def allow_disconnected(self, value: bool) -> GraphBuilder:
        """Whether vertices may lead nowhere; by default that is an error."""
        self._connected = not flag(value)
        return self

    def _add(
        self, name: str, item: Any, inputs: tuple[Any, ...], most: int | None
    ) -> GraphBuilder:
        if not all(isinstance(i, str) for i in inputs):
            raise ConfigurationError(
                f"vertex {name!r}: inputs must be names, got {inputs!r}"
            )
        self._new(name)
        self._vertices[name] = item  # DL4J: before what merges its inputs
        if most == 1 and len(inputs) > 1:
            self._add(f"{name}-merge", MergeVertex(), inputs, None)
            inputs = (f"{name}-merge",)
        self._reads[name], self._latest = inputs, name
        return self

    def _new(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a name must be a string, got {name!r}")
        if name in self._vertices or name in self._inputs:
            raise ConfigurationError(f"the name {name!r} was given twice")

    def set_outputs(self, *names: Any) -> GraphBuilder:
        """Name the layers whose activations are the network's, in order."""
        self._outputs = _flat(names)
        return self

    def set_input_types(self, *types: Any) -> GraphBuilder:
        """What goes in at each input; sizes and preprocessors follow from it."""
        self._types = tuple(an_input_type(given) for given in _flat(types))
        return self

    addInputs, addLayer, addVertex = add_inputs, add_layer, add_vertex
    appendLayer, appendVertex = append_layer, append_vertex
    inputPreProcessor, allowDisconnected = input_pre_processor, allow_disconnected
    setOutputs, setInputTypes = set_outputs, set_input_types
    outputs, layer, input_types = set_outputs, add_layer, set_input_types

    def build(self) -> ComputationGraphConfiguration:
        """The final configuration; every fault is reported here, with its vertex."""
        network, settings = self._for_network(), self._for_layers()
        if self._types and len(self._types) != len(self._inputs):
            raise ConfigurationError(
                f"set_input_types(...): expected {len(self._inputs)} types, for "
                f"{', '.join(self._inputs)}, got {len(self._types)}"
            )
        # checked before sizes follow from names that may not exist
        graph = ComputationGraphConfiguration(
            vertices=self._vertices,
            vertex_inputs=self._reads,
            network_inputs=tuple(self._inputs),
            network_outputs=self._outputs,
            **network,
        )
        if self._connected:
            check_connected(graph)
        odd = [
            n
            for n in self._preprocessors
            if not isinstance(graph.vertices.get(n), Layer)
        ]
        if odd:
            raise ConfigurationError(
                f"preprocessor for {odd[0]!r}: expected the name of a layer"
            )
        found: dict[str, Any] = {}
        preprocessors = dict(self._preprocessors)
        types: dict[str, InputType | None] = dict.fromkeys(self._inputs)
        types.update(zip(self._inputs, self._types, strict=False))
        for step in graph.plan().steps:
            item, name = step.conf, step.name
            given = tuple(types[other] for other in step.inputs)
            try:
                if isinstance(item, Layer):
                    item = item.resolved(settings)
                    item = item.named(name)
                    first = given[0]
                    if first is None and step.inputs[0] in self._inputs:
                        first = implied(item)
                    item, before, types[name] = fitted(
                        item, first, preprocessors.get(name)
                    )
                    if before is not None:
                        preprocessors[name] = before
                else:
                    known = tuple(g for g in given if g is not None)
                    whole = len(known) == len(given)
                    item = item.resolved(settings)
                    item = item.with_inputs(known) if whole else item
                    item.check()
                    types[name] = item.output(known) if whole else None
            except ValueError as error:
                kind = type(item).__name__
                raise ConfigurationError(
                    f"vertex {name!r} ({kind}): {error}"
                ) from error
            found[name] = item
        conf = replace(
            graph,
            vertices={name: found[name] for name in self._vertices},
            preprocessors=preprocessors,
        )
        if conf.validate_output_layer_config:
            for name in conf.network_outputs:
                check_output(f"vertex {name!r}", conf.vertices[name])
        self._check_truncation(conf)
        return conf  # type: ignore[no-any-return]


def _flat(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of ``f(a, b)``, or of ``f([a, b])``."""
    single = len(given) == 1 and isinstance(given[0], (list, tuple))
    return tuple(given[0]) if single else given
