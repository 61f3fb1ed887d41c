"""Frozen dataclasses whose fields take their normal form when they are made.

A field states its kind: what it accepts, and the one form that it has then.
``kind(value)`` returns that, or raises a ``ValueError`` that goes on after the field's
name: "must be …, got …". Kinds of numbers are here, those that look up registered
items in ``dl4py.config.kinds``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

from dl4py.registry import option

INF = math.inf
Kind = Callable[[Any], Any]


class Checked:
    """A frozen dataclass whose fields take their normal form when it is made.

    ``None`` stays where it stands for "not given".

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Decay(Checked):
        ...     rate: float = number(low=0.0, high=1.0)
        >>> Decay(1)
        Decay(rate=1.0)
        >>> Decay(2)
        Traceback (most recent call last):
        ValueError: Decay(rate=...) must be in [0, 1], got 2
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            kind, value = f.metadata.get("kind"), getattr(self, f.name)
            if kind is not None and (value is not None or f.default is not None):
                try:
                    object.__setattr__(self, f.name, kind(value))
                except ValueError as error:
                    raise ValueError(self._place(f.name, str(error))) from None

    def _require(self, *names: str) -> None:
        """Raise where one of the fields ``names`` was not given."""
        for name in names:
            if getattr(self, name) is None:
                raise self._wrong(name, "given", None)

    def _wrong(self, name: str, expected: str, value: object) -> ValueError:
        return ValueError(self._place(name, str(wrong(expected, value))))

    def _place(self, name: str, fault: str) -> str:
        return f"{type(self).__name__}({name}=...) {fault}"


def wrong(expected: str, value: object) -> ValueError:
    """What a kind raises."""
    return ValueError(f"must be {expected}, got {value!r}")


def is_number(value: object) -> bool:
    """Whether ``value`` stands for one real number; strings and booleans do not."""
    return hasattr(value, "__float__") and not isinstance(value, bool)


def real(value: Any) -> float:
    """``value`` as a finite number, NaN if it is none."""
    try:
        x = float(value) if is_number(value) else math.nan
    except (OverflowError, TypeError, ValueError):  # a tensor of many numbers, say
        return math.nan
    return x if math.isfinite(x) else math.nan


@dataclasses.dataclass(frozen=True)
class Real:
    """A finite number in [``minimum``, ``maximum``] between ``above`` and ``below``."""

    minimum: float = -INF
    maximum: float = INF
    above: float = -INF
    primitive: bool = True  # in Java: it is never null
    below: float = INF

    def __call__(self, value: Any) -> float:
        x = real(value)
        if not (self.minimum <= x <= self.maximum and self.above < x < self.below):
            raise wrong(self._expected(), value)
        return x

    def _expected(self) -> str:
        if self.minimum > -INF and self.maximum < INF:
            opened = "(" if self.above >= self.minimum else "["
            closed = ")" if self.below <= self.maximum else "]"
            return f"in {opened}{self.minimum:g}, {self.maximum:g}{closed}"
        bounds = ((">=", self.minimum), (">", self.above), ("<=", self.maximum))
        return " ".join(
            [
                "a finite number",
                *(f"{sign} {b:g}" for sign, b in bounds if abs(b) < INF),
            ]
        )


@dataclasses.dataclass(frozen=True)
class Integer:
    """A whole number of at least ``minimum`` that fits in Java's ``int``.

    Args:
        minimum: the smallest one.
        bits: 31, or 63 for what is a ``long`` in Java.
    """

    minimum: int = 0
    bits: int = 31
    primitive: ClassVar[bool] = True

    def __call__(self, value: Any) -> int:
        x = value if isinstance(value, int) else real(value)
        if isinstance(value, bool) or not (x == x // 1 and x >= self.minimum):
            raise wrong(f"a whole number >= {self.minimum}", value)
        if x >= 1 << self.bits:
            raise wrong(f"a whole number below 2^{self.bits}", value)
        return int(x)


def number(
    default: Any = dataclasses.MISSING,
    *,
    low: float = -INF,
    high: float = INF,
    above: float = -INF,
    whole: bool = False,
) -> Any:
    """A field for a finite number; ``None`` is let through where it is the default.

    Args:
        default: the value when none is given.
        low: smallest value.
        high: largest value.
        above: every value is greater than this.
        whole: whole numbers only, which fit in Java's ``int``.
    """
    real = Real(low, high, above, primitive=default is not None)
    return option(default, kind=Integer(int(low)) if whole else real)
