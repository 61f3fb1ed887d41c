"""Layers in NumPy, float64, from their formulas.

``NAME(conf, p, x, mask)``: the configuration, DL4J's arrays by name, input and mask;
channels on axis 1, test mode.
"""

import numpy as np

from tests.references.convolution import *  # noqa: F403
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


from tests.references.special import *  # noqa: E402, F403
