"""Layers in NumPy, float64, from their formulas.

``NAME(conf, p, x, mask)``: the configuration, DL4J's arrays by name, input and mask;
channels on axis 1, test mode.
"""

import numpy as np

from tests.references import activations
from tests.references.convolution import *  # noqa: F403


def act(name, z):
    if name.name == "softmax":
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    return getattr(activations, name.name)(z)


def rows(y, mask):
    return y if mask is None else y * mask.reshape(-1, 1)


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


def _steps(step, state, x, mask, n_out):
    outputs = []
    for t in range(x.shape[2]):
        h, *state = step(x[:, :, t], *state)
        here = np.ones((len(x), 1)) if mask is None else mask[:, t : t + 1]
        state = [here * s for s in state]
        outputs.append(here * h)
    return np.stack(outputs, 2)


def simple_rnn(conf, p, x, mask=None):
    def step(x, h):
        h = act(conf.activation, x @ p["W"] + h @ p["RW"] + p["b"])
        return h, h

    return _steps(step, [np.zeros((len(x), conf.n_out))], x, mask, conf.n_out)


def lstm(conf, p, x, mask=None):
    def step(x, h, c):
        z = np.split(x @ p["W"] + h @ p["RW"] + p["b"], 4, axis=1)
        f, o, i = (act(conf.gate_activation, part) for part in z[1:])
        c = f * c + i * act(conf.activation, z[0])
        h = o * act(conf.activation, c)
        return h, h, c

    zero = np.zeros((len(x), conf.n_out))
    return _steps(step, [zero, zero], x, mask, conf.n_out)


def bidirectional(conf, p, x, mask=None):
    def part(letter):
        return {k[1:]: v for k, v in p.items() if k[0] == letter}

    turned = None if mask is None else mask[:, ::-1]
    y = lstm(conf.fwd, part("f"), x, mask)
    z = lstm(conf.bwd, part("b"), x[:, :, ::-1], turned)[:, :, ::-1]
    return np.concatenate([y, z], 1)


def last_time_step(conf, p, x, mask=None):
    y = lstm(conf.underlying, p, x, mask)
    if mask is None:
        return y[:, :, -1]
    last = [np.nonzero(m)[0][-1] for m in mask]
    return np.stack([row[:, t] for row, t in zip(y, last, strict=True)])


def time_distributed(conf, p, x, mask=None):
    steps = [dense(conf.underlying, p, x[:, :, t]) for t in range(x.shape[2])]
    y = np.stack(steps, 2)
    return y if mask is None else y * mask[:, None]


def mask_zero(conf, p, x, mask=None):
    own = (x != conf.masking_value).any(1).astype(float)
    return lstm(conf.underlying, p, x, own if mask is None else own * mask)


def frozen(conf, p, x, mask=None):
    return lstm(conf.underlying, p, x, mask)


frozen_with_backprop = frozen


from tests.references.special import *  # noqa: E402, F403
