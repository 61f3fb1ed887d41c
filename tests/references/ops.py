"""Ops from their formulas in NumPy: ``name(x, *params)`` gives f, f' and f''."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Orders = tuple[Array, Array, Array]


def cube(x: Array) -> Orders:
    return x**3, 3 * x**2, 6 * x


def rationaltanh(x: Array, a: float, c: float) -> Orders:
    x = x.astype(np.longdouble)
    k = np.longdouble(2) / 3
    v = k * np.abs(x)
    q = 1 + v + v**2 + c * v**4
    dq = 1 + 2 * v + 4 * c * v**3
    # q·q'' - 2·q'² multiplied out
    n = -6 * v + (12 * c - 6) * v**2 - 4 * c * v**3 - 18 * c * v**4 - 20 * c**2 * v**6
    f = -a * np.sign(x) * np.expm1(-np.log1p(v + v**2 + c * v**4))  # 1 - 1/q
    return _double(f, a * k * dq / q**2, a * k**2 * np.sign(x) * n / q**3)


def rectifiedtanh(x: Array) -> Orders:
    on = x > 0
    z = np.where(on, np.minimum(x, 300), 0)
    slope = 1 / np.cosh(z) ** 2
    zero = np.zeros_like(x)
    return (
        np.where(on, np.tanh(z), zero),
        np.where(on, slope, zero),
        np.where(on, -2 * np.tanh(z) * slope, zero),
    )


def hardsigmoid(x: Array, slope: float) -> Orders:
    inside = (x >= -2.5) & (x <= 2.5)
    f = np.minimum(1, np.maximum(0, slope * x + 0.5))
    return f, np.where(inside, slope, 0), np.zeros_like(x)


def gelu(x: Array, a: float) -> Orders:
    z = np.clip(a * x, -700, 700)  # σ in its two tails: e^z and 1
    s, t = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    return x * s, s * (1 + z * t), a * s * t * (2 + z * (t - s))


def tanh(x: Array) -> Orders:
    z = np.clip(x, -300, 300)
    slope = 1 / np.cosh(z) ** 2
    return np.tanh(x), slope, -2 * np.tanh(x) * slope


def sigmoid(x: Array) -> Orders:
    s, t = np.exp(-np.logaddexp(0, -x)), np.exp(-np.logaddexp(0, x))
    return s, s * t, -s * t * np.tanh(x / 2)


def softplus(x: Array) -> Orders:
    return np.logaddexp(0, x), *sigmoid(x)[:2]


def log1exp(x: Array) -> Orders:
    y = np.where(x > 40, x, np.log(1 + np.exp(np.minimum(x, 40))))
    return y, *sigmoid(x)[:2]


def gelutanh(x: Array) -> Orders:
    z = np.clip(x, -40, 40)
    k, c = np.sqrt(8 / np.pi), 0.044715
    s, ds, d2s = sigmoid(k * (z + c * z**3))
    du, d2u = k * (1 + 3 * c * z**2), 6 * k * c * z
    return x * s, s + z * ds * du, 2 * ds * du + z * (d2s * du**2 + ds * d2u)


def mish(x: Array) -> Orders:
    z = np.clip(x, -700, 700)
    w, dw, d2w = tanh(softplus(z)[0])
    s, ds, _ = sigmoid(z)
    first = dw * s
    return x * w, w + z * first, 2 * first + z * (d2w * s**2 + dw * ds)


def selu(x: Array) -> Orders:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    e = scale * alpha * np.exp(np.minimum(x, 0))
    low = scale * alpha * np.expm1(np.minimum(x, 0))
    return (
        np.where(x > 0, scale * x, low),
        np.where(x > 0, scale, e),
        np.where(x > 0, 0, e),
    )


def hardtanh(x: Array) -> Orders:
    return np.clip(x, -1, 1), np.where(np.abs(x) <= 1, 1.0, 0.0), np.zeros_like(x)


def leakyrelu(x: Array, alpha: float) -> Orders:
    return np.where(x >= 0, x, alpha * x), np.where(x >= 0, 1, alpha), np.zeros_like(x)


def elu(x: Array, alpha: float) -> Orders:
    e = alpha * np.exp(np.minimum(x, 0))
    low = alpha * np.expm1(np.minimum(x, 0))
    return np.where(x >= 0, x, low), np.where(x >= 0, 1, e), np.where(x >= 0, 0, e)


def softsign(x: Array) -> Orders:
    d = 1 + np.abs(x)
    return x / d, d**-2.0, -2 * np.sign(x) * d**-3.0


def rectifier(x: Array, max: float, threshold: float, slope: float) -> Orders:
    f = np.minimum(np.where(x >= threshold, x, slope * (x - threshold)), max)
    above = (x > 0) if threshold == slope == 0 else (x >= threshold)
    return f, np.where(above, 1, slope) * (x < max), np.zeros_like(x)


def rrelu(x: Array, seed: int, lower: float, upper: float) -> Orders:
    s = lower + (upper - lower) * philox_uniform(seed, x.size).reshape(x.shape)
    return np.where(x < 0, s * x, x), np.where(x < 0, s, 1), np.zeros_like(x)


def philox_words(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011) for one counter, in Python's integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b % 2**32, (a >> 32) ^ c[3] ^ k1, a % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def philox_uniform(seed: int, n: int) -> Array:
    """Element 64b + 16w + c: the upper 24 bits of word w of counter 16b + c."""
    u = np.empty(-(-n // 64) * 64)
    for block in range(len(u) // 64):
        for c in range(16):
            counter = (16 * block + c, 0, 0, 0)
            words = philox_words(counter, (seed % 2**32, seed >> 32))
            for w, word in enumerate(words):
                u[64 * block + 16 * w + c] = (word >> 8) / 2**24
    return u[:n]


def _double(*arrays: NDArray[np.longdouble]) -> Orders:
    f, df, d2f = (a.astype(np.float64) for a in arrays)
    return f, df, d2f
