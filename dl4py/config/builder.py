"""DL4J's builders: words in, the configuration of a chain or a graph out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from dl4py.config.chain import MultiLayerConfiguration
from dl4py.config.codec import parse, replace
from dl4py.config.eras import current
from dl4py.config.feedforward import HasLoss
from dl4py.config.graph import ComputationGraphConfiguration, check_connected
from dl4py.config.inputs import FeedForward, InputType, Recurrent
from dl4py.config.kinds import Data, field, flag
from dl4py.config.layer import (
    DEFAULTS,
    BaseLayer,
    ConfigurationError,
    FeedForwardLayer,
    Layer,
    LayerBuilder,
    setter_of,
)
from dl4py.config.preprocessors import Preprocessor
from dl4py.config.settings import NetworkConfiguration
from dl4py.config.vertices import MergeVertex, Vertex
from dl4py.config.windows import MODES
from dl4py.registry import PREPROCESSORS, Named, canonical, suggest


class NeuralNetConfiguration:
    """Entry points in DL4J's words.

    Example:
        >>> from dl4py.config import Dense, Output
        >>> conf = (
        ...     NeuralNetConfiguration.builder()
        ...     .seed(42)
        ...     .updater("nesterovs", lr=0.1, momentum=0.9)
        ...     .list()
        ...     .layer(0, Dense.builder().n_in(4).n_out(3).activation("tanh").build())
        ...     .layer(1, Output.builder("MCXENT").n_out(2).build())
        ...     .build()
        ... )
        >>> [layer.n_in for layer in conf.layers]
        [4, 3]

    DL4J: org.deeplearning4j.nn.conf.NeuralNetConfiguration
    """

    @staticmethod
    def builder() -> NetworkBuilder:
        """A new chain of settings and layers."""
        return NetworkBuilder()

    @staticmethod
    def from_json(text: str) -> Any:
        """The configuration, of a chain or a graph, in DL4J's JSON ``text``.

        Raises:
            DL4JFormatError: naming the place in ``text``, if it is not that.
        """
        return NeuralNetConfiguration.from_dict(parse(text))

    @staticmethod
    def from_yaml(text: str) -> Any:
        """The configuration in YAML, as DL4J's ``fromYaml``; aliases are refused.

        Raises:
            DL4JFormatError: naming the place in ``text``, if it is not that.
        """
        from dl4py.config.yaml import load  # takes time to import

        return NeuralNetConfiguration.from_dict(load(text))

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Any:
        """As :meth:`from_json`, from plain Python types."""
        content = current(content)
        if "vertices" in content and "confs" not in content:
            return ComputationGraphConfiguration.from_dict(content)
        return MultiLayerConfiguration.from_dict(content)

    Builder = builder
    fromJson = from_json
    fromYaml = from_yaml


@dataclass(frozen=True, kw_only=True)
class Settings(BaseLayer):
    """What a network sets for all its layers."""

    convolution_mode: str | None = field(None, MODES, inherit=True)


_OLD_SWITCHES = {"backprop": True, "pretrain": False, "iterations": 1}


W = TypeVar("W", bound="Words")


class Words:
    """What both builders share: settings of the network and of all its layers.

    Every setting of a layer can be given for all layers (``activation``,
    ``weight_init``, ``updater``, ``bias_updater``, ``dropout``, ``l1``, ``l2``,
    ``weight_decay``, ``gradient_normalization``, ``constrain_weights`` …), every
    setting of the network for itself (``seed``, ``data_type``, ``mini_batch``,
    ``optimization_algo`` …), in snake_case or DL4J's camelCase. A layer's own value
    wins.
    """

    _own: ClassVar[set[str]] = {"build"}  # methods, for suggestions

    def __init__(self, words: Words | None = None) -> None:
        self._settings: dict[str, Any] = {} if words is None else words._settings
        self._network: dict[str, Any] = {} if words is None else words._network

    def __getattr__(self: W, name: str) -> Callable[..., W]:
        if name.startswith("__"):
            raise AttributeError(name)
        word = canonical(name)

        def call(*args: Any, **kwargs: Any) -> W:
            setter(*args, **kwargs)
            return self

        if word in _OLD_SWITCHES:
            setter = _old_switch(name, _OLD_SWITCHES[word])
            return call
        for cls, values in (
            (NetworkConfiguration, self._network),
            (Settings, self._settings),
        ):
            try:
                setter = setter_of(cls, name, values)
            except AttributeError:
                continue
            return call
        known = set(self._own)
        for cls in (NetworkConfiguration, Settings):
            known |= {f.name for f in fields(cls)}
        raise AttributeError(
            f"NeuralNetConfiguration.builder() has no {name!r}: "
            f"{suggest(name, known) or 'known: ' + ', '.join(sorted(known))}"
        )

    def _for_network(self) -> dict[str, Any]:
        """The network's settings in their normal form."""
        kinds = {f.name: f.metadata.get("kind") for f in fields(NetworkConfiguration)}
        network = {}
        for name, value in self._network.items():
            kind = kinds[name]
            try:
                network[name] = value if kind is None else kind(value)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{name}: {error}") from error
        network.setdefault("seed", time.time_ns() % 2**31)
        return network

    def _for_layers(self) -> dict[str, Any]:
        """What layers inherit."""
        try:
            given_to_all = Settings(**self._settings).resolved(DEFAULTS)
        except ConfigurationError as error:
            raise ConfigurationError(f"all layers: {error}") from error
        settings = {f.name: getattr(given_to_all, f.name) for f in fields(Settings)}
        # the parameters that constraints hold for are named per layer
        settings["constraints"] = self._settings.get("constraints")
        return settings


def _built(layer: Any, place: str) -> Any:
    """A layer, finished where a builder of one was given."""
    if isinstance(layer, LayerBuilder):
        layer = layer.build()
    if not isinstance(layer, Layer):
        raise ConfigurationError(
            f"{place}(...): expected a layer configuration such as "
            f"dl4py.config.Dense(n_out=3), got {layer!r}"
        )
    return layer


def _fitted(
    layer: Any, given: InputType | None, before: Preprocessor | None
) -> tuple[Any, Preprocessor | None, InputType | None]:
    """(layer with its sizes, what stands before it, what leaves it)."""
    if given is None:
        if isinstance(layer, FeedForwardLayer) and layer.n_in is None:
            raise ConfigurationError(
                "n_in: expected a whole number >= 1, got nothing; give it "
                "or set input_type(...)"
            )
        return layer, before, None
    before = before or layer.takes(given)
    if before is not None:
        given = before.output(given)
    layer = layer.with_input(given)
    return layer, before, layer.output(given)


class NetworkBuilder(Words):
    """DL4J's ``NeuralNetConfiguration.Builder`` and its list form in one.

    Settings are words of :class:`Words`; layers follow each other.

    DL4J: org.deeplearning4j.nn.conf.NeuralNetConfiguration.Builder
    """

    _own = {"layer", "list", "input_type", "input_pre_processor", "graph_builder"}

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[int, Any] = {}
        self._preprocessors: dict[int, Any] = {}
        self._input: InputType | None = None

    def list(self) -> NetworkBuilder:
        """DL4J's step from settings to layers; nothing to do here."""
        return self

    def graph_builder(self) -> GraphBuilder:
        """From settings to a graph of layers and vertices."""
        if self._layers or self._preprocessors or self._input is not None:
            raise ConfigurationError(
                "graph_builder(): layers were given already; a network is a chain or a "
                "graph: use graph_builder() first, then add_layer(name, layer, inputs)"
            )
        return GraphBuilder(self)

    def layer(self, *values: Any) -> NetworkBuilder:
        """Add a layer: ``layer(conf)`` or ``layer(index, conf)``."""
        if len(values) not in (1, 2):
            raise ConfigurationError(
                f"layer(conf) or layer(index, conf): got {len(values)} values"
            )
        *index, layer = values
        layer = _built(layer, "layer")
        position = index[0] if index else len(self._layers)
        if position in self._layers:
            raise ConfigurationError(f"layer {position} was given twice")
        self._layers[position] = layer
        return self

    def input_type(self, given: InputType) -> NetworkBuilder:
        """What goes into the first layer; sizes and preprocessors follow from it."""
        self._input = _input_type(given)
        return self

    def input_pre_processor(self, index: int, value: Any) -> NetworkBuilder:
        """Put a preprocessor of one's own before layer ``index``."""
        self._preprocessors[index] = Data(PREPROCESSORS)(value)
        return self

    setInputType = set_input_type = inputType = input_type
    inputPreProcessor = input_pre_processor
    graphBuilder = graph_builder

    def build(self) -> MultiLayerConfiguration:
        """The final configuration; every fault is reported here, with its layer."""
        count = len(self._layers)
        missing = set(range(count)) - self._layers.keys()
        if not count or missing:
            raise ConfigurationError(
                f"layers must be numbered 0 to n-1, got {sorted(self._layers)}"
            )
        network, settings = self._for_network(), self._for_layers()
        layers: list[Any] = []
        preprocessors = dict(self._preprocessors)
        given = self._input
        for i in range(count):
            layer = self._layers[i]
            try:
                layer = layer.resolved(settings)
                layer = layer.named(f"layer{i}")
                if given is None and i == 0:
                    given = _implied(layer)
                layer, before, given = _fitted(layer, given, preprocessors.get(i))
                if before is not None:
                    preprocessors[i] = before
            except ValueError as error:
                name = type(layer).__name__
                raise ConfigurationError(f"layer {i} ({name}): {error}") from error
            layers.append(layer)
        conf = MultiLayerConfiguration(
            layers=tuple(layers), preprocessors=preprocessors, **network
        )
        if conf.validate_output_layer_config:
            _check_output(f"layer {count - 1}", layers[-1])
        return conf


class GraphBuilder(Words):
    """A graph of layers and vertices: ``builder().graph_builder()`` makes one.

    Settings are words of :class:`Words`, given before or after.

    Example:
        >>> from dl4py.config import Dense, MergeVertex, Output
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
        return self._add(name, _built(layer, "add_layer"), inputs, 1)

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
        self._types = tuple(_input_type(given) for given in _flat(types))
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
                        first = _implied(item)
                    item, before, types[name] = _fitted(
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
                _check_output(f"vertex {name!r}", conf.vertices[name])
        return conf  # type: ignore[no-any-return]


def _flat(given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of ``f(a, b)``, or of ``f([a, b])``."""
    single = len(given) == 1 and isinstance(given[0], (list, tuple))
    return tuple(given[0]) if single else given


def _input_type(given: Any) -> InputType:
    if not isinstance(given, InputType):
        raise ConfigurationError(
            "input_type(...): expected InputType.feed_forward(4) or the like, "
            f"got {given!r}"
        )
    return given


def _implied(layer: Layer) -> InputType | None:
    """The input type that a first layer with ``n_in`` implies, if that is clear."""
    size = getattr(layer, "n_in", None)
    if size is None or layer.family not in ("ff", "rnn"):
        return None
    if layer.family == "rnn":
        return Recurrent(size, None, getattr(layer, "format", None) or "NCW")
    return FeedForward(size)


def _old_switch(name: str, only: Any) -> Callable[..., None]:
    def check(*values: Any) -> None:
        if values != (only,):
            given = ", ".join(map(repr, values))
            raise ConfigurationError(
                f"{name}({given}): current DL4J and dl4py know only {name}({only!r})"
            )

    return check


def _check_output(place: str, layer: Any) -> None:
    """DL4J's check of combinations that cannot work."""
    if not isinstance(layer, HasLoss):
        return
    activation = getattr(layer, "activation", None)
    name = activation.name if isinstance(activation, Named) else None
    if name == "softmax" and getattr(layer, "n_out", None) == 1:
        raise ConfigurationError(
            f"{place} ({type(layer).__name__}): activation: softmax of one "
            "output is always 1, got n_out=1; use activation('sigmoid') with XENT, or "
            "validate_output_layer_config(False)"
        )
