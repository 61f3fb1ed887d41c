"""A configuration as the Python code that builds it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dl4py.config import ComputationGraphConfiguration
from dl4py.config.codec import unknown
from dl4py.config.layer import DEFAULTS, Layer
from dl4py.config.regularization import L1, L2, WeightDecay
from dl4py.config.settings import NetworkConfiguration
from dl4py.config.vertex import Vertex
from dl4py.config.words import Settings
from dl4py.registry import REGISTRIES, SCHEDULES, Named, parameters

WIDTH = 88
_PENALTIES = {L1: "l1", L2: "l2", WeightDecay: "weight_decay"}
_SIDES = {"regularization": "", "regularization_bias": "_bias"}
# words that a network may say for all layers where only most agree: a layer's own wins
_OVERRULED = {"activation", "updater", "weight_init", "bias_init", "gain_init"}


def source(conf: NetworkConfiguration) -> str:
    """A script that builds ``conf`` in DL4J's words.

    Raises:
        ValueError: where a part of it is code of somebody's own, or of no word of the
            builder's; names the layer.

    Example:
        >>> from dl4py.config import Dense, NeuralNetConfiguration, Output
        >>> chain = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.1)
        >>> chain = chain.layer(Dense(n_in=4, n_out=5)).layer(Output(n_out=3))
        >>> print(source(chain.build()))
        from dl4py.config import Dense, NeuralNetConfiguration, Output
        <BLANKLINE>
        conf = (
            NeuralNetConfiguration.builder()
            .seed(1)
            .updater("adam", lr=0.1)
            .list()
            .layer(Dense.builder().n_in(4).n_out(5).build())
            .layer(Output.builder().n_in(5).n_out(3).build())
            .build()
        )
        <BLANKLINE>
    """
    writer = _Writer()
    lines = list(writer.network(conf))
    body = "\n".join(f"    {line}" for call in lines for line in call.splitlines())
    imports = "\n".join(
        _import(home, sorted(names)) for home, names in sorted(writer.homes.items())
    )
    text = f"{imports}\n\nconf = (\n{body}\n)\n"
    built: dict[str, Any] = {}
    try:
        exec(text, built)  # calls of our own classes with literals, nothing else
    except ValueError as error:
        raise ValueError(f"the builder refuses this configuration: {error}") from error
    made = built["conf"]
    if made != conf and repr(made) != repr(conf):  # NaN, where a schedule is beside it
        raise ValueError(
            "the builder makes another configuration of these words: "
            f"{_first_difference(built['conf'], conf)}"
        )
    return text


def unsaid(conf: NetworkConfiguration) -> list[str]:
    """JSON keys that the code does not say: those that dl4py does not know."""
    steps = conf.plan().steps
    found = {key: None for step in steps for key in unknown(step.conf)}
    return list(found)


class _Writer:
    """Values as expressions, and what they import."""

    def __init__(self) -> None:
        self.homes: dict[str, set[str]] = {}
        self.common: dict[str, Any] = {}  # what the network says for all layers

    def network(self, conf: NetworkConfiguration) -> Iterator[str]:
        graph = isinstance(conf, ComputationGraphConfiguration)
        self.homes["dl4py.config"] = {"NeuralNetConfiguration"}
        steps = conf.plan().steps
        items = conf.vertices.values() if graph else [s.conf for s in steps]  # type: ignore[attr-defined]
        self.common = _common(list(items))
        yield "NeuralNetConfiguration.builder()"
        for f in dataclasses.fields(NetworkConfiguration):
            value = getattr(conf, f.name)
            if f.name == "seed" or not _same(value, _default(f)):
                yield f".{f.name}({self.value(value, f.name)})"
        for f in dataclasses.fields(Settings):
            if f.name in self.common:
                yield self.word(f, self.common[f.name])
        if isinstance(conf, ComputationGraphConfiguration):
            yield from self.graph(conf)
        else:
            yield ".list()"
            preprocessors = conf.preprocessors  # type: ignore[attr-defined]
            for i, layer in enumerate(conf.layers):  # type: ignore[attr-defined]
                place = f"layer {i} ({type(layer).__name__})"
                if i in preprocessors:
                    before = self.value(preprocessors[i], place)
                    yield f".input_pre_processor({i}, {before})"
                yield _call(".layer", [self.layer(layer, place, f"layer{i}")])
        yield ".build()"

    def graph(self, conf: ComputationGraphConfiguration) -> Iterator[str]:
        yield ".graph_builder()"
        yield _call(".add_inputs", map(_text, conf.network_inputs))
        for name, item in conf.vertices.items():
            place = f"vertex {name!r} ({type(item).__name__})"
            reads = list(map(_text, conf.vertex_inputs[name]))
            if isinstance(item, Layer):
                made = self.layer(item, place, name)
                if name in conf.preprocessors:
                    before = self.value(conf.preprocessors[name], place)
                    reads = [before, *reads]
                yield _call(".add_layer", [_text(name), made, *reads])
            else:
                made = self.value(item, place)
                yield _call(".add_vertex", [_text(name), made, *reads])
        yield _call(".set_outputs", map(_text, conf.network_outputs))

    def layer(self, layer: Layer, place: str, name: str | None = None) -> str:
        """A layer by its builder."""
        calls = [
            self.word(f, value, place)
            for f, value in self.said(layer)
            if not (f.name == "name" and value == name)
        ]
        start = f"{self.name(type(layer), place)}.builder()"
        line = "".join([start, *calls, ".build()"])
        if len(line) + 20 <= WIDTH and "\n" not in line:
            return line
        return "\n".join([start, *calls, ".build()"])

    def said(self, item: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
        """The fields of a layer or vertex that do not follow from the network's."""
        for f in dataclasses.fields(item):
            value, without = getattr(item, f.name), _default(f)
            if f.metadata.get("inherit") and f.name != "constraints":
                without = self.common.get(f.name, DEFAULTS.get(f.name))
            if f.init and not _same(value, without):
                yield f, value

    def word(self, f: dataclasses.Field[Any], value: Any, place: str = "") -> str:
        """A call of a builder that sets a field."""
        where = f"{place}: {f.name}" if place else f.name
        if f.name in _SIDES and len(value) == 1 and type(value[0]) in _PENALTIES:
            (penalty,) = value
            word = _PENALTIES[type(penalty)] + _SIDES[f.name]
            first, *rest = dataclasses.fields(penalty)
            given = [self.value(_plain(getattr(penalty, first.name)), where)]
            for other in rest:
                if not _same(own := getattr(penalty, other.name), _default(other)):
                    given.append(f"{other.name}={self.value(own, where)}")
            return _call(f".{word}", given)
        if isinstance(value, Named):
            rest_ = [f"{k}={self.value(v, where)}" for k, v in _arguments(value)]
            return _call(f".{f.name}", [_text(value.name), *rest_])
        if isinstance(value, tuple) and len(value) > 1:
            return _call(f".{f.name}", [self.value(v, where) for v in value])
        return _call(f".{f.name}", [self.value(value, where)])

    def value(self, value: Any, place: str) -> str:
        """Any value of a configuration."""
        if isinstance(value, str):
            return _text(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if value is None or isinstance(value, (bool, int, float)):
            return repr(value)
        if isinstance(value, (tuple, list)):
            parts = [self.value(v, place) for v in value]
            if isinstance(value, list):
                return f"[{', '.join(parts)}]"
            return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
        if isinstance(value, Mapping):
            pairs = (
                f"{self.value(k, place)}: {self.value(v, place)}"
                for k, v in value.items()
            )
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, Named):
            given = _arguments(value)
            if not given:
                return _text(value.name)
            registry = REGISTRIES[value.kind]
            home = importlib.import_module("dl4py.registry")
            word = next(n for n, r in vars(home).items() if r is registry)
            self.homes.setdefault("dl4py.registry", set()).add(word)
            args = [f"{k}={self.value(v, place)}" for k, v in given]
            return _call(f"{word}.named", [_text(value.name), *args])
        if isinstance(value, Layer):
            return self.layer(value, place)
        if type(value).__name__ == "FromDistribution":
            return str(self.value(value.distribution, place))
        if not _is_registered(type(value)):
            raise _nameless(place, value)
        given_ = _fields(value)
        if isinstance(value, Vertex):
            given_ = ((f.name, v) for f, v in self.said(value))
        args = [f"{k}={self.value(v, place)}" for k, v in given_]
        return _call(self.name(type(value), place), args)

    def name(self, kind: type, place: str) -> str:
        """The name of a class, which is imported."""
        home = ".".join(kind.__module__.split(".")[:2])
        own = importlib.import_module(home)
        if getattr(own, kind.__name__, None) is not kind:
            raise _nameless(place, kind)
        self.homes.setdefault(home, set()).add(kind.__name__)
        return str(kind.__name__)


def _is_registered(kind: type) -> bool:
    return any(r.entry_of(kind) is not None for r in REGISTRIES.values())


def _nameless(place: str, value: Any) -> ValueError:
    named = getattr(value, "__name__", None) or repr(value)
    return ValueError(
        f"{place}: {named} is of somebody's own; code can name what dl4py has"
    )


def _common(items: list[Any]) -> dict[str, Any]:
    """What all layers, those inside others too, agree on and DL4J does not default."""
    found: dict[str, Any] = {}
    every = [i for item in items for i in _inside(item)]
    for f in dataclasses.fields(Settings):
        if not f.metadata.get("inherit") or f.name == "constraints":
            continue
        values = [
            getattr(item, f.name)
            for item in every
            for own in dataclasses.fields(item)
            if own.name == f.name and own.metadata.get("inherit")
        ]
        if not values or any(v is None for v in values):
            continue
        most = values[0]
        if f.name in _OVERRULED:
            counts = Counter(map(repr, values))
            chosen = counts.most_common(1)[0][0]
            most = next(v for v in values if repr(v) == chosen)
        elif not all(_same(v, most) for v in values):
            continue
        if len(values) > 1 and not _same(most, DEFAULTS.get(f.name)):
            found[f.name] = most
    return found


def _inside(item: Any) -> Iterator[Any]:
    """A layer or vertex, and the layers in it."""
    yield item
    for f in dataclasses.fields(item):
        value = getattr(item, f.name)
        if isinstance(value, Layer):
            yield from _inside(value)


def _arguments(named: Named) -> list[tuple[str, Any]]:
    """The arguments that are not the defaults."""
    defaults = parameters(named.entry.item)
    return [
        (name, value)
        for name, value in named.args
        if not _same(value, defaults.get(name, inspect.Parameter.empty))
    ]


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The arguments of a plain object that are not the defaults."""
    if dataclasses.is_dataclass(value):
        defaults = {f.name: _default(f) for f in dataclasses.fields(value) if f.init}
    else:
        defaults = parameters(type(value))
    own = {name: getattr(value, name) for name in defaults}
    for name, given in own.items():
        schedule = own.get(f"{name}_schedule")
        if schedule is not None:  # beside a number, which is NaN then
            yield name, schedule
        elif not name.endswith("_schedule") and not _same(given, defaults[name]):
            yield name, _plain(given) if type(value) in _PENALTIES else given


def _plain(rate: Any) -> Any:
    """A number where a schedule is fixed, as coefficients of penalties are."""
    return rate.value if type(rate) is SCHEDULES["fixed"] else rate


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    kind = f.metadata.get("kind")
    if kind is None or f.default is None or f.default is dataclasses.MISSING:
        return f.default
    return kind(f.default)


def _same(a: Any, b: Any) -> bool:
    """Equal in kind too: True is not 1, and a default's name is not an item's."""
    if isinstance(a, Named) and isinstance(b, str):
        return a.name == REGISTRIES[a.kind].entry(b).key and not _arguments(a)
    if isinstance(b, str) and not isinstance(a, str) and a is not None:
        entry = REGISTRIES["weight init"].entry_of(type(a))
        return entry is not None and entry.key == b and not list(_fields(a))
    return type(a) is type(b) and bool(a == b)


def _text(value: str) -> str:
    text = repr(value)
    return f'"{text[1:-1]}"' if '"' not in text else text


def _call(head: str, given: Any) -> str:
    parts = list(given)
    line = f"{head}({', '.join(parts)})"
    if len(line) + 4 <= WIDTH and "\n" not in line:
        return line
    inner = ",\n".join([*parts, ""])
    body = "\n".join(f"    {line}" for line in inner.splitlines())
    return f"{head}(\n{body}\n)"


def _import(home: str, names: list[str]) -> str:
    line = f"from {home} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {home} import (\n" + "".join(f"    {n},\n" for n in names) + ")"


def _first_difference(a: Any, b: Any) -> str:
    for f in dataclasses.fields(b):
        ours, theirs = getattr(a, f.name), getattr(b, f.name)
        if repr(ours) == repr(theirs):
            continue
        if f.name == "layers":
            ours, theirs = (dict(enumerate(layers)) for layers in (ours, theirs))
        if f.name in ("layers", "vertices"):
            for place, y in theirs.items():
                x = ours.get(place)
                if type(x) is type(y) and repr(x) != repr(y):
                    return f"{place} ({type(y).__name__}): {_first_difference(x, y)}"
        return f"{f.name}: {ours!r}, expected {theirs!r}"
    return "in what is not a field"
