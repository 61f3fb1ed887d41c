"""What the builders of chains and graphs share: settings, and layers that fit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from dl4py.config.feedforward import HasLoss
from dl4py.config.inputs import FeedForward, InputType, Recurrent
from dl4py.config.kinds import field
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
from dl4py.config.windows import MODES
from dl4py.registry import Named, canonical, suggest


@dataclass(frozen=True, kw_only=True)
class Settings(BaseLayer):
    """What a network sets for all its layers."""

    convolution_mode: str | None = field(None, MODES, inherit=True)


_OLD_SWITCHES = {"backprop": True, "pretrain": False, "iterations": 1}
_TBPTT = {  # DL4J's words in its builders, where its JSON has others
    "tbpttforwardlength": ("tbptt_fwd_length",),
    "tbpttbackwardlength": ("tbptt_back_length",),
    "tbpttlength": ("tbptt_fwd_length", "tbptt_back_length"),
}


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
        if word in _TBPTT:

            def setter(length: int) -> None:
                self._network.update(dict.fromkeys(_TBPTT[word], length))

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

    def _check_truncation(self, conf: NetworkConfiguration) -> None:
        """Refuse what windows cannot train; tell of lengths without windows."""
        if conf.truncated:
            conf.plan().check_truncation()
            return
        lengths = sorted(n for n in self._network if n.startswith("tbptt_"))
        if lengths:
            warnings.warn(
                f"{' and '.join(lengths)}: without backprop_type('TruncatedBPTT') "
                "series are trained on whole, as in DL4J",
                stacklevel=3,
            )

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


def built(layer: Any, place: str) -> Any:
    """A layer, finished where a builder of one was given."""
    if isinstance(layer, LayerBuilder):
        layer = layer.build()
    if not isinstance(layer, Layer):
        raise ConfigurationError(
            f"{place}(...): expected a layer configuration such as "
            f"dl4py.config.Dense(n_out=3), got {layer!r}"
        )
    return layer


def fitted(
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


def an_input_type(given: Any) -> InputType:
    if not isinstance(given, InputType):
        raise ConfigurationError(
            "input_type(...): expected InputType.feed_forward(4) or the like, "
            f"got {given!r}"
        )
    return given


def implied(layer: Layer) -> InputType | None:
    """The input type that a first layer with ``n_in`` implies, if that is clear."""
    size = getattr(layer, "n_in", None)
    if not size or layer.family not in ("ff", "rnn"):
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


def check_output(place: str, layer: Any) -> None:
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
