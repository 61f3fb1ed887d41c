"""A builder's words as plain values: networks in YAML as one would write them.

.. code-block:: yaml

    seed: 42
    updater: {nesterovs: {lr: 0.1, momentum: 0.9}}
    layers:
      - dense: {n_in: 4, n_out: 10, activation: tanh}
      - output: {n_out: 3, loss: mcxent}

Every key is a word of the builder. What has a name and arguments is ``{name: {argument:
value}}``, or its name alone. In a graph ``layers`` are by name and say what they read:

.. code-block:: yaml

    inputs: [x]
    input_types: [{feed_forward: 4}]
    layers:
      a: {dense: {n_out: 5}, reads: x}
      both: {merge: {}, reads: [a, x]}
      out: {output: {n_out: 3}, reads: both}
    outputs: [out]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from dl4py.config.inputs import InputType
from dl4py.config.kinds import Item, Many
from dl4py.config.layer import ConfigurationError
from dl4py.config.settings import NetworkConfiguration
from dl4py.config.words import Settings
from dl4py.registry import LAYERS, SCHEDULES, VERTICES, Registry, canonical, suggest

_GRAPH = ("inputs", "outputs")


def heard(content: Mapping[str, Any], builder: Any) -> Any:
    """The configuration that ``builder`` makes of ``content``.

    Raises:
        ConfigurationError: naming the place in ``content``.
    """
    words = dict(content)
    layers = words.pop("layers")
    types = [_input(t) for t in _list(words.pop("input_types", ()))]
    graph = {name: words.pop(name) for name in _GRAPH if name in words}
    first = words.pop("input_type", None)
    for word, value in words.items():
        with _at(word):
            kind = _kinds(NetworkConfiguration, Settings).get(canonical(word))
            getattr(builder, word)(_value(kind, value))
    if isinstance(layers, Mapping):
        return _graph(layers, graph, types, builder.graph_builder())
    if graph or types:
        raise ConfigurationError(
            f"{', '.join(graph) or 'input_types'}: only a graph has them, whose layers "
            "are a mapping by name"
        )
    if not isinstance(layers, Sequence) or isinstance(layers, str):
        raise ConfigurationError(f"layers: expected a list, got {layers!r}")
    if first is not None:
        builder.input_type(_input(first))
    for i, layer in enumerate(layers):
        with _at(f"layers[{i}]"):
            builder.layer(_made(LAYERS, *_named(layer)))
    return builder.build()


def _graph(
    layers: Mapping[str, Any], around: Mapping[str, Any], types: Any, builder: Any
) -> Any:
    for name in _GRAPH:
        if name not in around:
            raise ConfigurationError(f"{name}: a graph needs them, a list of names")
    builder.add_inputs(*_list(around["inputs"]))
    if types:
        builder.set_input_types(*types)
    for name, given in layers.items():
        with _at(f"layers.{name}"):
            if not isinstance(given, Mapping) or "reads" not in given:
                raise ValueError(f"expected {{kind: ..., reads: names}}, got {given!r}")
            kind = {k: v for k, v in given.items() if k != "reads"}
            word, arguments = _named(kind)
            where = LAYERS if word in LAYERS else VERTICES
            made = _made(where, word, arguments)
            builder.add_vertex(name, made, *_list(given["reads"]))
    return builder.set_outputs(*_list(around["outputs"])).build()


def _made(registry: Registry[Any], word: str, arguments: Any) -> Any:
    """An item of a registry, with arguments that may be items themselves."""
    cls = registry[word]
    if not isinstance(arguments, Mapping):
        return cls(*_list(arguments))
    kinds = _kinds(cls)
    return cls(**{k: _value(kinds.get(canonical(k)), v) for k, v in arguments.items()})


def _value(kind: Any, value: Any) -> Any:
    """What a plain value stands for in a field of this kind."""
    if isinstance(kind, Many) and isinstance(value, list):
        return [_value(kind.kind, part) for part in value]
    if not isinstance(value, Mapping):
        return value
    word, arguments = _named(value)
    kind = getattr(kind, "kind", kind) if isinstance(kind, Many) else kind
    kind = getattr(kind, "strict", kind)
    registry = getattr(kind, "registry", None)
    if isinstance(kind, Item):
        scheduled = {k: _value(None, v) for k, v in dict(arguments).items()}
        return kind.registry.named(word, **scheduled)
    if registry is None:
        registry = SCHEDULES if word in SCHEDULES else LAYERS
    return _made(registry, word, arguments)


def _named(value: Any) -> tuple[str, Any]:
    """(name, arguments) of what is given as a name or as ``{name: arguments}``."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, arguments),) = value.items()
        return str(name), {} if arguments is None else arguments
    raise ValueError(
        f"expected a name, or {{name: {{argument: value}}}}, got {value!r}"
    )


def _input(value: Any) -> InputType:
    with _at("input_type"):
        word, sizes = _named(value)
        known = {canonical(n): n for n in vars(InputType) if not n.startswith("_")}
        if canonical(word) not in known:
            hint = suggest(canonical(word), known)
            raise ValueError(f"unknown {word!r}: {hint or ', '.join(known)}")
        make = getattr(InputType, known[canonical(word)])
        found: InputType = (
            make(**sizes) if isinstance(sizes, Mapping) else make(*_list(sizes))
        )
        return found


def _kinds(*classes: Any) -> dict[str, Any]:
    return {
        canonical(f.name): f.metadata.get("kind")
        for cls in classes
        if is_dataclass(cls)
        for f in fields(cls)
    }


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def _at(place: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{place}: {error}") from error
