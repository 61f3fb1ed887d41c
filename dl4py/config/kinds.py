"""Kinds of configuration values: what a field accepts, and its one normal form.

A field states its kind once (``field(kind=Integer(1))``); the builder, JSON decoding
and the error messages read it from there. Those of plain numbers are in
``dl4py.fields``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from dl4py.config.codec import is_unicode, replace, shown
from dl4py.fields import Checked as Checked
from dl4py.fields import Integer as Integer
from dl4py.fields import Kind, wrong
from dl4py.fields import Real as Real
from dl4py.registry import (
    SCHEDULES,
    WEIGHT_INITS,
    Named,
    Registry,
    canonical,
    option,
    parameters,
)


def field(
    default: Any = dataclasses.MISSING,
    kind: Kind | None = None,
    *,
    json: str | None = None,
    inherit: bool = False,
    training: bool = False,
) -> Any:
    """A configuration field.

    Args:
        default: the value when nothing is given.
        kind: what values it takes; ``None`` accepts anything.
        json: DL4J's key where it is not the camelCase of the name.
        inherit: ``None`` means "as the network's global setting of the same name".
        training: it says how parameters are trained, not what a layer computes.
    """
    return option(default, json=json, kind=kind, inherit=inherit, training=training)


@dataclasses.dataclass(frozen=True)
class Rate:
    """A number as :class:`Real`, or a schedule of it."""

    minimum: float = 0.0
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __call__(self, value: Any) -> Any:
        if callable(value) or value != value:  # NaN: DL4J's mark of "see the schedule"
            return value
        return Real(self.minimum, self.maximum, self.above, below=self.below)(value)


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise wrong("True or False", value)
    return value


class Text:
    """A string that UTF-8 can hold."""

    takes_text = True

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong("a string", value)
        if not is_unicode(value):
            raise wrong("whole characters (no lone surrogates)", value)
        return value


class Choice:
    """One of a few words, spelled as DL4J's enum; case and ``_`` do not matter."""

    takes_text = True

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: Any) -> str:
        word = getattr(value, "name", value)
        if isinstance(word, str):
            for known in self.words:
                if canonical(known) == canonical(word):
                    return known
        raise wrong("one of " + ", ".join(self.words), value)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """``count`` whole numbers; a single number stands for all of them."""

    count: int = 2
    minimum: int = 1

    def __call__(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            value = [value] * self.count
        if len(value) != self.count:
            raise wrong(f"{self.count} whole numbers", value)
        return tuple(Integer(self.minimum)(v) for v in value)

    def from_json(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list):
            raise wrong(f"a list of {self.count} whole numbers", value)
        return self(value)


@dataclasses.dataclass(frozen=True)
class Item:
    """A registered item with its arguments: an activation, a loss, an updater.

    Takes a name, a :class:`~dl4py.registry.Named`, a registered class, and whatever
    else torch users hold in its place, which is kept as it is: a module, a function, an
    optimizer class.
    """

    registry: Registry[Any]

    def __call__(self, value: Any) -> Any:
        value = getattr(value, "name", value) if _is_enum(value) else value
        func = value.func if isinstance(value, functools.partial) else value
        entry = self.registry.entry_of(func)
        if entry is not None:  # Adam, or functools.partial(Adam, lr=0.01)
            value = self.registry.named(entry.key, **getattr(value, "keywords", {}))
        if isinstance(value, (str, Named)):
            if isinstance(value, Named) and value.kind != self.registry.kind:
                raise wrong(f"a {self.registry.kind}", value)
            given = self.registry.named(value)
            defaults = {
                name: default
                for name, default in parameters(given.entry.item).items()
                if default is not inspect.Parameter.empty
            }
            full = {**defaults, **given.kwargs}
            item = given.entry.item
            if hasattr(item, "check"):
                item.check(**full)
            elif inspect.isclass(item) and self.registry.kind != "updater":
                item(**full)  # its constructor checks the values
            origin = value if isinstance(value, Named) else given
            return replace(origin, name=given.name, args=tuple(sorted(full.items())))
        if callable(value):
            return value
        raise wrong(
            f"the name of a {self.registry.kind}, a module or a function", value
        )

    def from_json(self, value: Any) -> Any:
        return self(_of(self.registry, value))


@dataclasses.dataclass(frozen=True)
class Data:
    """An instance of a class in ``registry`` or its name.

    Schedules and weight inits are functions: any callable may be in their place.

    Args:
        registry: where names are looked up.
        number: makes an instance of a plain number (a retain probability, say) or of a
            schedule of it.
    """

    registry: Registry[Any]
    number: Callable[[Any], Any] | None = None

    def __call__(self, value: Any) -> Any:
        value = getattr(value, "name", value) if _is_enum(value) else value
        if isinstance(value, str):
            value = self.registry[value]
        if inspect.isclass(value):
            value = value()
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.number is None:
                raise wrong(f"a {self.registry.kind}", value)
            return self.number(float(value))
        if self.number is not None and SCHEDULES.entry_of(type(value)) is not None:
            return self.number(value)
        function = self.registry in (SCHEDULES, WEIGHT_INITS) and callable(value)
        if function or self.registry.entry_of(type(value)) is not None:
            return value
        raise wrong(f"a {self.registry.kind}", value)

    def from_json(self, value: Any) -> Any:
        return self(_of(self.registry, value))


def _of(registry: Registry[Any], value: Any) -> Any:
    """``value`` if it was decoded from a JSON object of one of the registry's items."""
    named = isinstance(value, Named) and value.kind == registry.kind
    if not named and registry.entry_of(type(value)) is None:
        raise ValueError(f"must be a {registry.kind}, got {shown(value)}")
    return value


@dataclasses.dataclass(frozen=True)
class Loose:
    """A kind that takes more from Python than from JSON.

    Args:
        given: the normal form of what stands in Python.
        strict: what JSON holds.
    """

    given: Kind
    strict: Data

    def __call__(self, value: Any) -> Any:
        return self.given(value)

    def from_json(self, value: Any) -> Any:
        return self.strict.from_json(value)


@dataclasses.dataclass(frozen=True)
class Many:
    """A tuple of values of one kind; a single value stands for a tuple of one.

    Args:
        kind: of each of them.
        least: how many there must be.
    """

    kind: Kind
    least: int = 0

    def __call__(self, value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, (list, tuple)) else (value,)
        if len(values) < self.least:
            raise wrong(f"{self.least} or more", value)
        return tuple(self.kind(v) for v in values)

    def from_json(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong("a list", value)
        return self([getattr(self.kind, "from_json", self.kind)(v) for v in value])


def _is_enum(value: object) -> bool:
    return type(type(value)).__name__ == "EnumType"
