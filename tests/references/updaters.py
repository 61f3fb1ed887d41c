"""DL4J's updaters in NumPy, with averages as sums over the past.

Each function takes the gradients ``[steps, ...]`` and returns the updates (what is
subtracted from the parameters) and the final state, in DL4J's order.
"""

from __future__ import annotations

import numpy as np


def _average(x, decay, start=0.0):
    """Σ (1 - d)·d^(t-k)·x_k + d^(t+1)·start for every t."""
    steps = np.arange(len(x))
    weights = (1 - decay) * np.tril(decay ** np.maximum(steps[:, None] - steps, 0.0))
    past = decay ** (steps + 1.0) * start
    return np.tensordot(weights, x, 1) + past.reshape(-1, *[1] * (x.ndim - 1))


def _unbiased(decay, x):
    return (1 - decay ** np.arange(1, len(x) + 1)).reshape(-1, *[1] * (x.ndim - 1))


def sgd(g, lr):
    return lr * g, []


def noop(g):
    return g, []


def nesterovs(g, lr, momentum):
    v, updates = np.zeros_like(g[0]), []
    for x in g:
        new = momentum * v - lr * x
        updates.append(momentum * v - (1 + momentum) * new)
        v = new
    return np.stack(updates), [v]


def adagrad(g, lr, epsilon):
    h = 1e-6 + np.cumsum(g**2, axis=0)
    return lr * g / (np.sqrt(h) + epsilon), [h[-1]]


def rmsprop(g, lr, rms_decay, epsilon):
    s = _average(g**2, rms_decay, epsilon)
    return lr * g / (np.sqrt(s) + epsilon), [s[-1]]


def adadelta(g, rho, epsilon):
    s, x, updates = _average(g**2, rho), np.zeros_like(g[0]), []
    for gradient, size in zip(g, s, strict=True):
        updates.append(gradient * np.sqrt(x + epsilon) / np.sqrt(size + epsilon))
        x = rho * x + (1 - rho) * updates[-1] ** 2
    return np.stack(updates), [s[-1], x]


def adam(g, lr, beta1, beta2, epsilon):
    m, v = _average(g, beta1), _average(g**2, beta2)
    corrected = m / _unbiased(beta1, g)
    root = np.sqrt(_unbiased(beta2, g))
    return lr * corrected * root / (np.sqrt(v) + epsilon), [m[-1], v[-1]]


def amsgrad(g, lr, beta1, beta2, epsilon):
    m, v = _average(g, beta1), _average(g**2, beta2)
    top = np.maximum.accumulate(v)
    corrected = m / _unbiased(beta1, g)
    root = np.sqrt(_unbiased(beta2, g))
    return lr * corrected * root / (np.sqrt(top) + epsilon), [m[-1], v[-1], top[-1]]


def adamax(g, lr, beta1, beta2, epsilon):
    m, q, sizes = _average(g, beta1), np.zeros_like(g[0]), []
    for x in g:
        q = np.where(beta2 * q > np.abs(x), beta2 * q, np.abs(x)) + 1e-32
        sizes.append(q)
    return lr * m / _unbiased(beta1, g) / np.stack(sizes), [m[-1], q]


def nadam(g, lr, beta1, beta2, epsilon):
    m, v = _average(g, beta1), _average(g**2, beta2)
    ahead = (beta1 * m + (1 - beta1) * g) / _unbiased(beta1, g)
    return lr * ahead / (np.sqrt(v) + epsilon), [m[-1], v[-1]]


def adabelief(g, lr, beta1, beta2, epsilon):
    m = _average(g, beta1)
    grown = np.cumsum(beta2 ** np.arange(len(g))) * epsilon
    s = _average((g - m) ** 2, beta2) + grown.reshape(-1, *[1] * (g.ndim - 1))
    root = np.sqrt(_unbiased(beta2, g))
    return lr * m / _unbiased(beta1, g) * root / (np.sqrt(s) + epsilon), [m[-1], s[-1]]
