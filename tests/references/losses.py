"""DL4J's losses from their formulas, in float64 NumPy: activations and labels → terms.

The terms of one example are summed; a loss without per-output terms returns one column.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mse(a: Array, y: Array) -> Array:
    return np.square(a - y) / a.shape[1]


def l2(a: Array, y: Array) -> Array:
    return np.square(a - y)


def l1(a: Array, y: Array) -> Array:
    return np.maximum(a - y, y - a)


def mae(a: Array, y: Array) -> Array:
    return l1(a, y) / a.shape[1]


def mape(a: Array, y: Array) -> Array:
    return 100 * np.abs(1 - a / y) / a.shape[1]


def msle(a: Array, y: Array) -> Array:
    return np.log((1 + a) / (1 + y)) ** 2 / a.shape[1]


def rmse_xent(a: Array, y: Array) -> Array:
    return np.sqrt(np.square(y - a))


def poisson(a: Array, y: Array) -> Array:
    return a - np.where(y == 0, 0, y * np.log(a))


def wasserstein(a: Array, y: Array) -> Array:
    return a * y / a.shape[1]


def cosine_proximity(a: Array, y: Array) -> Array:
    rows = []
    for p, q in zip(a, y, strict=True):
        rows.append(-p * q / (math.sqrt(p @ p) * math.sqrt(q @ q)))
    return np.stack(rows)


def mixture_density(a: Array, y: Array, gaussians: int, labels: int) -> Array:
    m = int(gaussians)
    rows = []
    for row, target in zip(a, y, strict=True):
        alpha = np.exp(row[:m]) / np.exp(row[:m]).sum()
        sigma = np.exp(row[m : 2 * m])
        density = 0.0
        for i in range(m):
            factor = alpha[i]
            for k in range(int(labels)):
                u = (target[k] - row[2 * m + i * int(labels) + k]) / sigma[i]
                factor *= math.exp(-u * u / 2) / (sigma[i] * math.sqrt(2 * math.pi))
            density += factor
        rows.append([-math.log(density)])
    return np.array(rows)


def xent(a: Array, y: Array, softmax: bool = False, clip_eps: float = 1e-5) -> Array:
    if softmax:
        return -y * np.log(a)
    p = np.minimum(np.maximum(a, clip_eps), 1 - clip_eps)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def mcxent(a: Array, y: Array) -> Array:
    return -y * np.log(a)


negativeloglikelihood = mcxent


def sparse_mcxent(a: Array, y: Array) -> Array:
    return -np.eye(a.shape[1])[y.reshape(-1).astype(int)] * np.log(a)


def kld(a: Array, y: Array) -> Array:
    p, q = (np.minimum(np.maximum(t, 1e-5), 1) for t in (a, y))
    return q * (np.log(q) - np.log(p))


def hinge(a: Array, y: Array) -> Array:
    return np.where(y * a < 1, 1 - y * a, 0)


def squared_hinge(a: Array, y: Array) -> Array:
    return hinge(a, y) ** 2


def multi_label(a: Array, y: Array) -> Array:
    terms = np.zeros_like(a)
    for n in range(len(a)):
        yes, no = np.flatnonzero(y[n]), np.flatnonzero(y[n] == 0)
        for other in no:
            pairs = [y[n, k] * math.exp(a[n, other] - a[n, k]) for k in yes]
            terms[n, other] = sum(pairs) / (len(no) * y[n].sum()) if pairs else 0
    return terms


def fmeasure(a: Array, y: Array, beta: float = 1.0, mask: Array | None = None) -> float:
    """The whole score."""
    p, truth = a[:, -1], y[:, -1]
    m = np.ones(len(p)) if mask is None else mask.reshape(-1)
    hits = (m * truth * p).sum()
    precision, recall = hits / (m * p).sum(), hits / (m * truth).sum()
    square = beta**2
    return float(1 - (1 + square) * precision * recall / (square * precision + recall))
