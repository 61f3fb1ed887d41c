"""Numbers as Java prints them, so that tables equal DL4J's to the character."""

from __future__ import annotations

import base64
import decimal
import json as text
import math
from typing import Any

import numpy
from torch import Tensor

from dl4py.io.arrays import write_ndarray


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


def fixed(x: float, digits: int = 4) -> str:
    """``%.4f``: as :func:`scientific`, half up.

    >>> fixed(0.00005), f"{0.00005:.4f}"
    ('0.0001', '0.0001')
    """
    if not math.isfinite(x):
        return _not_finite(x)
    unit = decimal.Decimal(1).scaleb(-digits)
    half_up = decimal.Context(prec=400, rounding=decimal.ROUND_HALF_UP)
    return f"{decimal.Decimal(repr(float(x))).quantize(unit, context=half_up):f}"


def json(value: Any, indent: str = "") -> str:
    """JSON as Jackson's pretty printer writes it, lists in one line.

    >>> print(json({"a": [1, 0.5], "b": {}, "c": math.nan}))
    {
      "a" : [ 1, 0.5 ],
      "b" : { },
      "c" : "NaN"
    }
    """
    if isinstance(value, dict):
        inner = indent + "  "
        pairs = (f'{inner}"{k}" : {json(v, inner)}' for k, v in value.items())
        return "{\n" + ",\n".join(pairs) + f"\n{indent}}}" if value else "{ }"
    if isinstance(value, (list, tuple)):
        return f"[ {', '.join(json(v, indent) for v in value)} ]" if value else "[ ]"
    if isinstance(value, float):
        return double(value) if math.isfinite(value) else f'"{_not_finite(value)}"'
    return text.dumps(value, ensure_ascii=False)


def double(x: float) -> str:
    """``Double.toString``: the shortest digits, as ``1.0E-4`` outside [1e-3, 1e7).

    >>> double(0.3), double(1e-4), double(12345678.0)
    ('0.3', '1.0E-4', '1.2345678E7')
    """
    if not math.isfinite(x):
        return _not_finite(x)
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


def vector(values: list[Any], type: str = "DOUBLE") -> dict[str, Any]:
    """A small array as ND4J's JSON has it: type, shape and elements."""
    return {"dataType": type, "shape": [len(values)], "data": values}


def array(rows: list[list[Any]], type: str = "DOUBLE") -> dict[str, Any]:
    """:func:`vector` of two axes."""
    flat = [value for row in rows for value in row]
    return {**vector(flat, type), "shape": [len(rows), len(rows[0])]}


def table(values: Tensor) -> dict[str, str]:
    """A larger array as ND4J's JSON has it: its file in base64, in lines."""
    lines = base64.encodebytes(write_ndarray(values.cpu().numpy())).decode("ascii")
    wrapped = lines.rstrip("\n").replace("\n", "\r\n")
    return {"array": wrapped + "\r\n"}
