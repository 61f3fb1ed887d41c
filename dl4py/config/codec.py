"""Configuration ↔ DL4J's JSON, generic: every class states its Java name and its keys.

An object is ``{"@class": its Java class, key: value …}``, keys in alphabetical order as
Jackson writes them, those in a class's ``json_last`` after the others. Keys that a
class does not know are kept and written back.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from dl4py import registry as registries
from dl4py.registry import (
    ACTIVATIONS,
    DISTRIBUTIONS,
    LAYERS,
    LOSSES,
    PREPROCESSORS,
    REGISTRIES,
    VERTICES,
    Entry,
    Named,
    Registry,
    camel,
    json_key,
    parameters,
)

# attribute of an object read from JSON: the keys that nobody declared
_UNKNOWN = "_unknown_json"
_TAGS = ("@class", "type")  # distributions are tagged by "type" in DL4J's files
_MAX_DEPTH = 64  # of JSON; DL4J's own has less than 20
_MAX_PARTS = 50_000  # objects and lists in a short JSON text; a layer has about 15
_PART = 64  # characters for each of them in a long one; DL4J writes over 100
# what code that trusts its arguments raises on wrong ones
_FAULTS = (
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
)


class DL4JFormatError(ValueError):
    """A file or JSON text that is not what DL4J writes; the message names the place."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))  # it may quote the file


@contextmanager
def at(path: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one DL4JFormatError that names ``path``."""
    try:
        yield
    except DL4JFormatError:
        raise
    except _FAULTS as error:
        raise DL4JFormatError(f"{path}: {brief(error)}") from error


def brief(error: Exception) -> str:
    """What an error says, without stack traces and whole files that some quote."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return first if len(first) <= 300 else f"{first[:296]} ..."


def printable(text: str) -> str:
    r"""``text`` with escapes for what a terminal would obey, or not show.

    >>> printable("red: \x1b[31m")
    'red: \\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def parse(text: str) -> dict[str, Any]:
    """The object that a JSON text holds, in plain Python types.

    Raises:
        DL4JFormatError: if it is none, or nested deeper or larger than DL4J's are.
    """
    limit = max(_MAX_PARTS, len(text) // _PART)  # work in proportion to the text
    if text.count("{") + text.count("[") > limit:
        raise DL4JFormatError(
            f"$: more than {limit} objects and lists in {len(text)} characters"
        )
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise DL4JFormatError("$: nested too deeply") from None
    except ValueError as error:
        raise DL4JFormatError(f"$: not JSON: {brief(error)}") from error
    mapping(content, "$")
    level = [content]
    for _ in range(_MAX_DEPTH):
        level = [v for part in level for v in _children(part)]
        if not level:
            _refuse_lone_surrogates(content, "$")
            return content  # type: ignore[no-any-return]
    raise DL4JFormatError(f"$: nested deeper than {_MAX_DEPTH} levels")


def _refuse_lone_surrogates(value: Any, path: str) -> None:
    """Halves of characters, which no UTF-8 file can hold: they could not be saved."""
    if isinstance(value, dict):
        for key, part in value.items():
            _refuse_lone_surrogates(key, path)
            _refuse_lone_surrogates(part, f"{path}.{key}")
    elif isinstance(value, list):
        for i, part in enumerate(value):
            _refuse_lone_surrogates(part, f"{path}[{i}]")
    elif isinstance(value, str) and not is_unicode(value):
        raise DL4JFormatError(f"{path}: half of a character in {shown(value)}")


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold ``text``: no lone surrogates."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _children(part: Any) -> list[Any]:
    values = part.values() if isinstance(part, dict) else part
    return [v for v in values if isinstance(v, (dict, list))]


def mapping(value: Any, path: str) -> dict[str, Any]:
    """``value`` if it is a JSON object."""
    if not isinstance(value, dict):
        raise DL4JFormatError(f"{path}: expected an object, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """``value`` for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def unknown(value: object) -> dict[str, Any]:
    """The JSON keys of ``value`` that its class does not declare."""
    return dict(getattr(value, _UNKNOWN, {}))


def replace(value: Any, **changes: Any) -> Any:
    """:func:`dataclasses.replace` that keeps undeclared JSON keys."""
    return _with_unknown(dataclasses.replace(value, **changes), unknown(value))


def encode(value: Any, path: str = "$") -> Any:
    """Plain JSON types for a configuration value.

    Args:
        value: a configuration, or anything that a field of one may hold.
        path: where the value stands, for error messages.

    Example:
        >>> encode((1, float("inf")))
        [1, 'Infinity']
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _JAVA_FLOATS[str(value)]
    if isinstance(value, Named):
        rest = encode(unknown(value), path)
        return _tagged(value.entry, _named_fields(value, path), rest)
    entry = _entry(type(value))
    if dataclasses.is_dataclass(value) and entry is not None:
        fields = {
            json_key(f): encode(getattr(value, f.name), f"{path}.{json_key(f)}")
            for f in dataclasses.fields(value)
        }
        derived = getattr(value, "json_extra", dict[str, Any])()
        return _tagged(entry, {**fields, **derived}, encode(unknown(value), path))
    if isinstance(value, Mapping):
        return {str(k): encode(v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v, f"{path}[{i}]") for i, v in enumerate(value)]
    raise TypeError(
        f"{path}: {value!r} has no name in DL4J's JSON; register it "
        "(@ACTIVATIONS.add('name') and so on) so that it can be written and read"
    )


def decode(value: Any, path: str = "$") -> Any:
    """The configuration value that :func:`encode` writes as ``value``.

    Args:
        value: JSON in plain Python types.
        path: where the value stands, for error messages.

    Example:
        >>> decode([1, "Infinity"])
        [1, inf]
    """
    if isinstance(value, str):
        return _PYTHON_FLOATS.get(value, value)
    if isinstance(value, list):
        return [decode(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    tag = next((t for t in _TAGS if isinstance(value.get(t), str)), None)
    if tag is None:
        if value.keys() == {"dataType", "shape", "data"}:
            with at(path):
                return _row(**value)
        return {k: decode(v, f"{path}.{k}") for k, v in value.items()}
    entry = _java_entry(value[tag])
    if entry is None:
        _refuse_code(value, value[tag], path)
        key = path.rpartition(".")[2].partition("[")[0]
        registry = _registry_at(path)
        if registry is not None:
            raise DL4JFormatError(f"{path}: {unregistered(registry, value[tag])}")
        raise DL4JFormatError(f"{path}: unknown {key or 'object'} {shown(value[tag])}")
    content = {k: v for k, v in value.items() if k != tag}
    with at(path):
        return _build(entry, content, path)


# classes of old releases that DL4J took out → why there is none here
_GONE = {
    "RBM": "restricted Boltzmann machines ended with 0.9.1",
    "gru": "GRUs ended with 0.5.0",
}


def unregistered(registry: Registry[Any], java: str) -> str:
    """What to say of a class that nobody registered."""
    simple = java.rpartition(".")[2]
    if simple in _GONE and registry is LAYERS:
        return f"{simple}: {_GONE[simple]}, DL4J 1.0.0-M2.1 has none, nor have we"
    name = next(n for n, r in vars(registries).items() if r is registry)
    return (
        f"unknown {registry.kind} {shown(java)}: a class of somebody's own needs a "
        f"twin in Python; register it with @{name}.add('name', java={shown(java)})"
    )


_PLACES: dict[str, Registry[Any]] = {
    "$.vertices": VERTICES,
    "$.inputPreProcessors": PREPROCESSORS,
}
_KEYS: dict[str, Registry[Any]] = {
    **dict.fromkeys(("layer", "fwd", "bwd", "underlying"), LAYERS),
    "lossFn": LOSSES,
    "preProcessor": PREPROCESSORS,
    "dist": DISTRIBUTIONS,
    "distribution": DISTRIBUTIONS,
}


def _registry_at(path: str) -> Registry[Any] | None:
    """The registry of what may stand at a place of a configuration."""
    place, _, key = path.rpartition(".")
    if "activation" in key.lower():
        return ACTIVATIONS
    return _PLACES.get(place) or _KEYS.get(key)


def _refuse_code(value: Mapping[str, Any], java: str, path: str) -> None:
    """Refuse what is somebody's Java code by name: SameDiff layers and vertices."""
    if java.startswith("org.deeplearning4j.") and ".samediff." not in java:
        return  # its own, which need no code of others
    simple = java.rpartition(".")[2]
    vertex = "vertexParams" in value or "Vertex" in simple
    if {"layerParams", "vertexParams"} & value.keys() or "SameDiff" in simple:
        kind, registry = ("vertex", "VERTICES") if vertex else ("layer", "LAYERS")
        raise DL4JFormatError(
            f"{path}: {shown(java)} is a SameDiff {kind}: what it computes is Java "
            f"code that is not in the file; write it as a {kind} of your own and "
            f"register it with @{registry}.add('name', java={simple!r})"
        )


def decode_field(field: dataclasses.Field[Any], value: Any, path: str) -> Any:
    """The normal form of a field whose JSON is ``value``.

    A kind with a method ``from_json`` takes less from JSON than from Python. Only a
    field whose default is ``None`` may be null, if it is no number of Java's.
    """
    kind: Callable[[Any], Any] | None = field.metadata.get("kind")
    primitive = getattr(kind, "primitive", False)
    if value is None and (field.default is not None or primitive):
        raise DL4JFormatError(f"{path}: must be given, got null")
    if not (isinstance(value, str) and getattr(kind, "takes_text", False)):
        value = decode(value, path)  # a layer may be called "NaN"
    if kind is None or value is None:
        return value
    with at(path):
        return getattr(kind, "from_json", kind)(value)


def _row(dataType: Any, shape: Any, data: Any) -> tuple[Any, ...]:  # noqa: N803
    """The numbers of an array that DL4J writes into its JSON; of a matrix its rows."""
    if dataType not in _FLOATING:
        raise ValueError(f"dataType: must be one of {_FLOATING}, got {shown(dataType)}")
    if not isinstance(data, list) or not all(map(is_real, data)):
        raise ValueError(f"data: must be finite numbers, got {shown(data)}")
    matrix = isinstance(shape, list) and len(shape) == 2 and shape[0] != 1
    if matrix and all(type(n) is int and n > 0 for n in shape):
        count, width = shape
        if count * width == len(data):
            values = tuple(map(float, data))
            return tuple(values[i * width :][:width] for i in range(count))
    if shape not in ([len(data)], [1, len(data)]) or not all(
        type(n) is int for n in shape
    ):
        raise ValueError(f"shape: must be [{len(data)}], got {shown(shape)}")
    return tuple(map(float, data))


_FLOATING = ("DOUBLE", "FLOAT", "HALF", "BFLOAT16")


def is_real(value: object) -> bool:
    """Whether ``value`` is a finite number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max


_JAVA_FLOATS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_PYTHON_FLOATS = {java: float(python) for python, java in _JAVA_FLOATS.items()}


def _entry(item: object) -> Entry[Any] | None:
    found = (registry.entry_of(item) for registry in REGISTRIES.values())
    return next((entry for entry in found if entry is not None), None)


def _java_entry(java: str) -> Entry[Any] | None:
    found = (r.by_java(java) for r in REGISTRIES.values() if r.kind != "module")
    exact = [e for e in found if e is not None]
    simple = java.rpartition(".")[2].lower()
    for entry in exact:
        if entry.java is not None and entry.java.rpartition(".")[2].lower() == simple:
            return entry
    return next(iter(exact), None)


def _tagged(
    entry: Entry[Any], fields: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    tag = "type" if DISTRIBUTIONS.entry_of(entry.item) is not None else "@class"
    content = {**fields, **extra}
    # Jackson writes a constructor's own arguments before the others
    first = getattr(entry.item, "json_first", ())
    last = getattr(entry.item, "json_last", ())
    keys = sorted(content, key=lambda k: (k not in first, k in last, k))
    return {tag: entry.java or entry.key, **{k: content[k] for k in keys}}


def _build(entry: Entry[Any], content: dict[str, Any], path: str) -> Any:
    if dataclasses.is_dataclass(entry.item) and isinstance(entry.item, type):
        rest = dict(content)
        known = {}
        for f in dataclasses.fields(entry.item):
            key = json_key(f)
            if f.init and key in rest:
                known[f.name] = decode_field(f, rest.pop(key), f"{path}.{key}")
            elif f.init and f.default is f.default_factory is dataclasses.MISSING:
                raise DL4JFormatError(f"{path}.{key}: must be given")
        rest = {k: decode(v, f"{path}.{k}") for k, v in rest.items()}
        value: Any = entry.item(**known)
        for key in getattr(entry.item, "json_derived", ()):
            if key in rest:
                _agrees(key, rest.pop(key), value.json_extra()[key])
        return _with_unknown(value, rest)
    return _build_named(
        entry, {k: decode(v, f"{path}.{k}") for k, v in content.items()}
    )


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON, where true is not 1."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _agrees(key: str, given: Any, derived: Any) -> None:
    """Raise where a value that follows from the others is another one."""
    close = is_real(given) and is_real(derived) and math.isclose(given, derived)
    if not close and not _same(given, derived):
        raise ValueError(
            f"{key}: must be {derived!r}, which follows from the other values, got "
            f"{shown(given)}"
        )


def argument_key(item: Any, name: str) -> str:
    return str(getattr(item, "json", {}).get(name, camel(name)))


def _schedule_key(key: str) -> str:
    return "momentumISchedule" if key == "momentum" else key + "Schedule"


def _named_fields(value: Named, path: str) -> dict[str, Any]:
    item = value.entry.item
    fields: dict[str, Any] = {}
    for name, argument in value.args:
        key = argument_key(item, name)
        if key == "weights":  # DL4J leaves the key out where there are none
            if argument is not None:
                data = [float(w) for w in argument]
                fields[key] = {"dataType": "DOUBLE", "shape": [len(data)], "data": data}
        elif _is_schedule(argument):
            fields[key] = "NaN"
            fields[_schedule_key(key)] = encode(argument, f"{path}.{key}")
        else:
            fields[key] = encode(argument, f"{path}.{key}")
    return fields


def _build_named(entry: Entry[Any], content: dict[str, Any]) -> Named:
    kind = next(r.kind for r in REGISTRIES.values() if r.entry_of(entry.item) is entry)
    args: dict[str, Any] = {}
    rest = dict(content)
    for name in parameters(entry.item):
        key = argument_key(entry.item, name)
        number = rest.pop(key, inspect.Parameter.empty)
        schedule = rest.pop(_schedule_key(key), None)
        if schedule is not None:
            if not _is_schedule(schedule):
                raise ValueError(
                    f"{_schedule_key(key)}: must be a schedule, got {shown(schedule)}"
                )
            args[name] = schedule
            if is_real(number):
                rest[key] = number
            elif number is not inspect.Parameter.empty and not _is_nan(number):
                raise ValueError(f"{key}: must be a number or NaN, got {shown(number)}")
        elif number is not inspect.Parameter.empty:
            if key == "weights" and not isinstance(number, (tuple, type(None))):
                raise ValueError(f"{key}: must be an array, got {shown(number)}")
            args[name] = number
    named = REGISTRIES[kind].named(entry.key, **args)
    _with_unknown(named, rest)
    return named


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_schedule(value: object) -> bool:
    return REGISTRIES["schedule"].entry_of(type(value)) is not None


def _with_unknown(value: Any, rest: Mapping[str, Any]) -> Any:
    if rest:
        object.__setattr__(value, _UNKNOWN, dict(rest))
    return value
