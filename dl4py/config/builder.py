"""DL4J's builder: words in, a MultiLayerConfiguration out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dl4py.config.codec import parse, replace
from dl4py.config.convolutional import MODES
from dl4py.config.feedforward import HasLoss
from dl4py.config.inputs import FeedForward, InputType, Recurrent
from dl4py.config.kinds import Data, field
from dl4py.config.layer import (
    BaseLayer,
    ConfigurationError,
    FeedForwardLayer,
    Layer,
    LayerBuilder,
    setter_of,
)
from dl4py.config.network import DEFAULTS, MultiLayerConfiguration
from dl4py.config.preprocessors import Preprocessor
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
    def from_json(text: str) -> MultiLayerConfiguration:
        """The configuration in DL4J's JSON ``text``.

        Raises:
            DL4JFormatError: naming the place in ``text``, if it is not that.
        """
        return MultiLayerConfiguration.from_dict(parse(text))

    Builder = builder
    fromJson = from_json


@dataclass(frozen=True, kw_only=True)
class Settings(BaseLayer):
    """What a network sets for all its layers."""

    convolution_mode: str | None = field(None, MODES, inherit=True)


_OLD_SWITCHES = {"backprop": True, "pretrain": False, "iterations": 1}


class NetworkBuilder:
    """DL4J's ``NeuralNetConfiguration.Builder`` and its list form in one.

    Every setting of a layer can be given for all layers (``activation``,
    ``weight_init``, ``updater``, ``bias_updater``, ``dropout``, ``l1``, ``l2``,
    ``weight_decay``, ``gradient_normalization``, ``constrain_weights`` …), every
    setting of the network for itself (``seed``, ``data_type``, ``mini_batch``,
    ``optimization_algo`` …), in snake_case or DL4J's camelCase. A layer's own value
    wins.

    DL4J: org.deeplearning4j.nn.conf.NeuralNetConfiguration.Builder
    """

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        self._network: dict[str, Any] = {}
        self._layers: dict[int, Any] = {}
        self._preprocessors: dict[int, Any] = {}
        self._input: InputType | None = None

    def list(self) -> NetworkBuilder:
        """DL4J's step from settings to layers; nothing to do here."""
        return self

    def layer(self, *values: Any) -> NetworkBuilder:
        """Add a layer: ``layer(conf)`` or ``layer(index, conf)``."""
        *index, layer = values
        if isinstance(layer, LayerBuilder):
            layer = layer.build()
        if not isinstance(layer, Layer):
            raise ConfigurationError(
                "layer(...): expected a layer configuration such as "
                f"dl4py.config.Dense(n_out=3), got {layer!r}"
            )
        position = index[0] if index else len(self._layers)
        if position in self._layers:
            raise ConfigurationError(f"layer {position} was given twice")
        self._layers[position] = layer
        return self

    def input_type(self, given: InputType) -> NetworkBuilder:
        """What goes into the first layer; sizes and preprocessors follow from it."""
        if not isinstance(given, InputType):
            raise ConfigurationError(
                "input_type(...): expected InputType.feed_forward(4) or the like, "
                f"got {given!r}"
            )
        self._input = given
        return self

    def input_pre_processor(self, index: int, value: Any) -> NetworkBuilder:
        """Put a preprocessor of one's own before layer ``index``."""
        self._preprocessors[index] = Data(PREPROCESSORS)(value)
        return self

    setInputType = set_input_type = inputType = input_type
    inputPreProcessor = input_pre_processor

    def __getattr__(self, name: str) -> Callable[..., NetworkBuilder]:
        if name.startswith("__"):
            raise AttributeError(name)
        word = canonical(name)

        def call(*args: Any, **kwargs: Any) -> NetworkBuilder:
            setter(*args, **kwargs)
            return self

        if word in _OLD_SWITCHES:
            setter = _old_switch(name, _OLD_SWITCHES[word])
            return call
        for cls, values in (
            (MultiLayerConfiguration, self._network),
            (Settings, self._settings),
        ):
            try:
                setter = setter_of(cls, name, values)
            except AttributeError:
                continue
            return call
        known = {"layer", "list", "input_type", "input_pre_processor", "build"}
        for cls in (MultiLayerConfiguration, Settings):
            known |= {f.name for f in fields(cls)}
        raise AttributeError(
            f"NeuralNetConfiguration.builder() has no {name!r}: "
            f"{suggest(name, known) or 'known: ' + ', '.join(sorted(known))}"
        )

    def build(self) -> MultiLayerConfiguration:
        """The final configuration; every fault is reported here, with its layer."""
        count = len(self._layers)
        missing = set(range(count)) - self._layers.keys()
        if not count or missing:
            raise ConfigurationError(
                f"layers must be numbered 0 to n-1, got {sorted(self._layers)}"
            )
        network = {}
        kinds = {
            f.name: f.metadata.get("kind") for f in fields(MultiLayerConfiguration)
        }
        for name, value in self._network.items():
            kind = kinds[name]
            try:
                network[name] = value if kind is None else kind(value)
            except (ValueError, TypeError) as error:
                raise ConfigurationError(f"{name}: {error}") from error
        network.setdefault("seed", time.time_ns() % 2**31)
        try:
            given_to_all = Settings(**self._settings).resolved(DEFAULTS)
        except ConfigurationError as error:
            raise ConfigurationError(f"all layers: {error}") from error
        settings = {f.name: getattr(given_to_all, f.name) for f in fields(Settings)}
        # the parameters that constraints hold for are named per layer
        settings["constraints"] = self._settings.get("constraints")
        layers, preprocessors = self._chain(settings)
        conf = MultiLayerConfiguration(
            layers=layers, preprocessors=preprocessors, **network
        )
        if conf.validate_output_layer_config:
            _check_output(len(layers) - 1, layers[-1])
        return conf

    def _chain(
        self, settings: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[int, Preprocessor]]:
        layers: list[Any] = []
        preprocessors = dict(self._preprocessors)
        given = self._input
        for i in range(len(self._layers)):
            layer = self._layers[i]
            try:
                layer = layer.resolved(settings)
                layer = replace(layer, name=layer.name or f"layer{i}")
                if given is None and i == 0:
                    given = _implied(layer)
                if given is not None:
                    between = preprocessors.get(i) or layer.takes(given)
                    if between is not None:
                        preprocessors[i] = between
                        given = between.output(given)
                    layer = layer.with_input(given)
                    given = layer.output(given)
                elif isinstance(layer, FeedForwardLayer) and layer.n_in is None:
                    raise ConfigurationError(
                        "n_in: expected a whole number >= 1, got nothing; give it "
                        "or set input_type(...)"
                    )
            except ValueError as error:
                name = type(layer).__name__
                raise ConfigurationError(f"layer {i} ({name}): {error}") from error
            layers.append(layer)
        return tuple(layers), preprocessors


def _implied(layer: Layer) -> InputType | None:
    """The input type that a first layer with ``n_in`` implies, if that is clear."""
    size = getattr(layer, "n_in", None)
    if size is None or layer.family not in ("ff", "rnn"):
        return None
    if layer.family == "rnn":
        return Recurrent(size, None, getattr(layer, "format", None) or "NCW")
    return FeedForward(size)


def _old_switch(name: str, only: Any) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value != only:
            raise ConfigurationError(
                f"{name}({value!r}): current DL4J and dl4py know only {name}({only!r})"
            )

    return check


def _check_output(index: int, layer: Any) -> None:
    """DL4J's check of combinations that cannot work."""
    if not isinstance(layer, HasLoss):
        return
    activation = getattr(layer, "activation", None)
    name = activation.name if isinstance(activation, Named) else None
    if name == "softmax" and getattr(layer, "n_out", None) == 1:
        raise ConfigurationError(
            f"layer {index} ({type(layer).__name__}): activation: softmax of one "
            "output is always 1, got n_out=1; use activation('sigmoid') with XENT, or "
            "validate_output_layer_config(False)"
        )
