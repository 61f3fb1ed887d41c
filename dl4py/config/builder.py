"""DL4J's builders: words in, the configuration of a chain or a graph out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dl4py.config.chain import MultiLayerConfiguration
from dl4py.config.codec import DL4JFormatError, parse, printable
from dl4py.config.eras import current, recognise
from dl4py.config.graph import ComputationGraphConfiguration
from dl4py.config.graph_builder import GraphBuilder
from dl4py.config.inputs import InputType
from dl4py.config.kinds import Data
from dl4py.config.layer import (
    ConfigurationError,
)
from dl4py.config.spoken import heard
from dl4py.config.words import (
    Words,
    an_input_type,
    built,
    check_output,
    fitted,
    implied,
)
from dl4py.registry import PREPROCESSORS


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

        A builder's words do too: a text with ``layers`` is read as
        :mod:`dl4py.config.spoken` says.

        Raises:
            DL4JFormatError: naming the place in ``text``, if it is not that.
            ConfigurationError: where words do not fit.

        >>> text = "layers: [{dense: {n_in: 2, n_out: 3}}, {output: {n_out: 2}}]"
        >>> NeuralNetConfiguration.from_yaml(text).layers[1].n_in
        3
        """
        from dl4py.config.yaml import load  # takes time to import

        return NeuralNetConfiguration.from_words(load(text))

    @staticmethod
    def from_words(content: Mapping[str, Any]) -> Any:
        """As :meth:`from_yaml`, from plain Python types."""
        if "layers" in content:
            return heard(content, NetworkBuilder())
        if not {"confs", "vertices"} & set(content):
            came = ", ".join(map(str, list(content)[:10])) or "nothing"
            raise DL4JFormatError(
                "$: expected layers, of a builder's words, or DL4J's confs or "
                f"vertices; there is {printable(came)}"
            )
        return NeuralNetConfiguration.from_dict(content)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Any:
        """As :meth:`from_json`, from plain Python types."""
        era = recognise(content)
        with era.assumed():
            if {"vertices", "confs"} <= content.keys():
                raise DL4JFormatError(
                    "$: expected 'confs' of a chain or 'vertices' of a graph, got both"
                )
            content = current(content, era)
            if "vertices" in content:
                return ComputationGraphConfiguration.from_dict(content)
            return MultiLayerConfiguration.from_dict(content)

    Builder = builder
    fromJson = from_json
    fromYaml = from_yaml


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
        layer = built(layer, "layer")
        position = index[0] if index else len(self._layers)
        if position in self._layers:
            raise ConfigurationError(f"layer {position} was given twice")
        self._layers[position] = layer
        return self

    def input_type(self, given: InputType) -> NetworkBuilder:
        """What goes into the first layer; sizes and preprocessors follow from it."""
        self._input = an_input_type(given)
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
                    given = implied(layer)
                layer, before, given = fitted(layer, given, preprocessors.get(i))
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
            check_output(f"layer {count - 1}", layers[-1])
        self._check_truncation(conf)
        return conf
