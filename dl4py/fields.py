"""Frozen dataclasses whose numbers are checked when they are made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dl4py.registry import option

INF = math.inf


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
    return option(default, low=low, high=high, above=above, whole=whole)


def is_number(value: object) -> bool:
    """Whether ``value`` stands for one real number; strings and booleans do not."""
    return hasattr(value, "__float__") and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Base of data with fields made by :func:`number`.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Decay(Numbers):
        ...     rate: float = number(low=0.0, high=1.0)
        >>> Decay(1)
        Decay(rate=1.0)
        >>> Decay(2)
        Traceback (most recent call last):
        ValueError: Decay(rate=...) must be a finite number >= 0 and <= 1, got 2
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "whole" in field.metadata and not (value is None is field.default):
                object.__setattr__(self, field.name, self._checked(field, value))

    def _checked(self, field: dataclasses.Field[Any], value: Any) -> float:
        low, high, above, whole = (
            field.metadata[fact] for fact in ("low", "high", "above", "whole")
        )
        x = float(value) if is_number(value) else math.nan
        good = math.isfinite(x) and low <= x <= high and x > above
        if not good or (whole and not (x.is_integer() and abs(x) < 2**31)):
            bounds = ((">=", low), (">", above), ("<=", high))
            words = [f"{sign} {b:g}" for sign, b in bounds if math.isfinite(b)]
            kind = "a whole number" if whole else "a finite number"
            raise self._wrong(field.name, " ".join([kind, " and ".join(words)]), value)
        return int(x) if whole else x

    def _require(self, *names: str) -> None:
        """Raise where one of the fields ``names`` was not given."""
        for name in names:
            if getattr(self, name) is None:
                raise self._wrong(name, "given", None)

    def _wrong(self, name: str, expected: str, value: object) -> ValueError:
        owner = type(self).__name__
        return ValueError(
            f"{owner}({name}=...) must be {expected.strip()}, got {value!r}"
        )
