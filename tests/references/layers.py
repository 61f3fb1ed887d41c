"""Layers in NumPy, float64, from their formulas.

``NAME(conf, p, x, mask)``: the configuration, DL4J's arrays by name, input and mask;
channels on axis 1, test mode.
"""

import numpy as np

from tests.references.recurrent import *  # noqa: F403
from tests.references.recurrent import act, rows


def dense(conf, p, x, mask=None):
    z = x @ p["W"]
    if getattr(conf, "has_layer_norm", False):
        z = (z - z.mean(1, keepdims=True)) / z.std(1, keepdims=True) * p["g"]
    return rows(act(conf.activation, z + p.get("b", 0.0)), mask)


output = dense


def loss_layer(conf, p, x, mask=None):
    return rows(act(conf.activation, x), mask)


def activation_layer(conf, p, x, mask=None):
    return act(conf.activation, x)


def dropout_layer(conf, p, x, mask=None):
    return x


def embedding(conf, p, x, mask=None):
    one_hot = np.eye(conf.n_in)[x[:, 0].astype(int)]
    return rows(act(conf.activation, one_hot @ p["W"] + p.get("b", 0.0)), mask)


def rnn_output(conf, p, x, mask=None):
    steps = [dense(conf, p, x[:, :, t]) for t in range(x.shape[2])]
    y = np.stack(steps, 2)
    return y if mask is None else y * mask[:, None]


def _windows(conf, x, fill):
    """(start of each window, cells of the padded input) along all axes."""
    w = conf.window
    sizes = w.sizes(x.shape[2:])
    padded = np.pad(x, [(0, 0), (0, 0), *w.margins(x.shape[2:])], constant_values=fill)
    for place in np.ndindex(*sizes):
        cells = [
            [i * s + k * d for k in range(n)]
            for i, s, n, d in zip(place, w.stride, w.kernel, w.dilation, strict=True)
        ]
        yield place, sizes, padded[np.ix_(range(len(x)), range(x.shape[1]), *cells)]


def _convolution(conf, weight, bias, x):
    y = None
    for place, sizes, window in _windows(conf, x, 0.0):
        if y is None:
            y = np.empty((len(x), len(weight), *sizes))
        axes = tuple(range(1, window.ndim))
        y[(slice(None), slice(None), *place)] = np.tensordot(
            window, weight, (axes, axes)
        )
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return act(conf.activation, y + np.reshape(bias, shape))


def convolution2d(conf, p, x, mask=None):
    return _convolution(conf, p["W"], p["b"], x)


def convolution1d(conf, p, x, mask=None):
    return _convolution(conf, p["W"].transpose(2, 1, 0), p["b"], x)


def subsampling(conf, p, x, mask=None):
    y = None
    for place, sizes, window in _windows(conf, x, -np.inf):
        if y is None:
            y = np.empty((*x.shape[:2], *sizes))
        y[(slice(None), slice(None), *place)] = window.max((2, 3))
    return y


def batch_normalization(conf, p, x, mask=None):
    shape = (1, -1, *(1,) * (x.ndim - 2))
    mean, std = p["mean"].reshape(shape), 10 ** p["log10stdev"].reshape(shape)
    y = (x - mean) / np.sqrt(std**2 + conf.eps)
    return y * p["gamma"].reshape(shape) + p["beta"].reshape(shape)


def global_pooling(conf, p, x, mask=None):
    shown = x if mask is None else np.where(mask[:, None] != 0, x, -np.inf)
    return shown.max(2)


def time_distributed(conf, p, x, mask=None):
    steps = [dense(conf.underlying, p, x[:, :, t]) for t in range(x.shape[2])]
    y = np.stack(steps, 2)
    return y if mask is None else y * mask[:, None]
