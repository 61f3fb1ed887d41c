"""Numbers as Java prints them, so that tables equal DL4J's to the character."""

from __future__ import annotations

import decimal
import math

import numpy


def decimals(x: float) -> str:
    """``new DecimalFormat("0.0000")``: four digits, exact ties to the even digit.

    >>> decimals(2 / 3), decimals(1 / 32), decimals(float("nan"))
    ('0.6667', '0.0312', 'NaN')
    """
    return f"{x:.4f}" if math.isfinite(x) else _not_finite(x)


def scientific(x: float, digits: int) -> str:
    """``%.5e``: Java rounds the shortest decimal form half up, C the binary number.

    >>> scientific(1.000425, 5), f"{1.000425:.5e}"
    ('1.00043e+00', '1.00042e+00')
    """
    if not math.isfinite(x):
        return _not_finite(x)
    half_up = decimal.Context(prec=digits + 1, rounding=decimal.ROUND_HALF_UP)
    return f"{float(half_up.create_decimal(repr(x))):.{digits}e}"


def double(x: float) -> str:
    """``Double.toString``: the shortest digits, as ``1.0E-4`` outside [1e-3, 1e7).

    >>> double(0.3), double(1e-4), double(12345678.0)
    ('0.3', '1.0E-4', '1.2345678E7')
    """
    return _shortest(decimal.Decimal(repr(float(x))))


def single(x: float) -> str:
    """``Float.toString``: as :func:`double` with the digits a float32 needs."""
    return _shortest(decimal.Decimal(str(numpy.float32(x))))


def _shortest(x: decimal.Decimal) -> str:
    if not x:
        return "0.0"
    if -3 <= x.adjusted() < 7:
        text = f"{x.normalize():f}"
        return text if "." in text else text + ".0"
    sign, digits, _ = x.normalize().as_tuple()
    first, *rest = map(str, digits)
    return f"{'-' * sign}{first}.{''.join(rest) or '0'}E{x.adjusted()}"


def _not_finite(x: float) -> str:
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"
