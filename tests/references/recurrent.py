"""Recurrent layers, attention and what goes with them, as in ``layers.py``."""

import numpy as np

from tests.references import activations


def act(name, z):
    if name.name == "softmax":
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    return getattr(activations, name.name)(z)


def rows(y, mask):
    return y if mask is None else y * mask.reshape(-1, 1)


def _steps(step, state, x, mask, n_out):
    outputs = []
    for t in range(x.shape[2]):
        h, *state = step(x[:, :, t], *state)
        here = np.ones((len(x), 1)) if mask is None else mask[:, t : t + 1]
        state = [here * s for s in state]
        outputs.append(here * h)
    return np.stack(outputs, 2)


def simple_rnn(conf, p, x, mask=None):
    n = conf.n_out

    def normal(z, gain):
        if not conf.has_layer_norm:
            return z
        std = z.std(1, keepdims=True)
        return (z - z.mean(1, keepdims=True)) / np.where(std == 0, 1, std) * gain

    def step(x, h):
        g = p.get("g", np.ones(2 * n))
        z = normal(x @ p["W"], g[:n]) + normal(h @ p["RW"], g[n:])
        h = act(conf.activation, z + p["b"])
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


def mask_zero(conf, p, x, mask=None):
    own = (x != conf.masking_value).any(1).astype(float)
    return lstm(conf.underlying, p, x, own if mask is None else own * mask)


def frozen(conf, p, x, mask=None):
    return lstm(conf.underlying, p, x, mask)


frozen_with_backprop = frozen


def graves_lstm(conf, p, x, mask=None, names=("W", "RW", "b")):
    w, rw, b = (p[name] for name in names)
    n = conf.n_out
    gate = conf.gate_activation

    def step(x, h, c):
        z = x @ w + h @ rw[:, : 4 * n] + b
        f = act(gate, z[:, n : 2 * n] + c * rw[:, 4 * n])
        i = act(gate, z[:, 3 * n :] + c * rw[:, 4 * n + 2])
        c = f * c + i * act(conf.activation, z[:, :n])
        o = act(gate, z[:, 2 * n : 3 * n] + c * rw[:, 4 * n + 1])
        h = o * act(conf.activation, c)
        return h, h, c

    zero = np.zeros((len(x), n))
    return _steps(step, [zero, zero], x, mask, n)


def graves_bidirectional_lstm(conf, p, x, mask=None):
    turned = None if mask is None else mask[:, ::-1]
    y = graves_lstm(conf, p, x, mask, ("WF", "RWF", "bF"))
    z = graves_lstm(conf, p, x[:, :, ::-1], turned, ("WB", "RWB", "bB"))
    return y + z[:, :, ::-1]


def rnn_loss(conf, p, x, mask=None):
    steps = [act(conf.activation, x[:, :, t]) for t in range(x.shape[2])]
    return np.stack(steps, 2)


def repeat_vector(conf, p, x, mask=None):
    return np.stack([x] * conf.n, 2)


def mask_layer(conf, p, x, mask=None):
    return x if mask is None else x * mask[:, None]


def embedding_sequence(conf, p, x, mask=None):
    one_hot = np.eye(conf.n_in)[x[:, 0].astype(int)]
    y = act(conf.activation, one_hot @ p["W"] + p.get("b", 0.0)).transpose(0, 2, 1)
    return y if mask is None else y * mask[:, None]


def _attention(conf, p, query, x, shown):
    """What one query sees of one example's series ``[size, time]``."""
    if not conf.project_input:
        scores = query @ x / np.sqrt(len(query)) + (shown - 1) * 1e9
        return x @ _softmax(scores)
    heads = []
    for wq, wk, wv in zip(p["Wq"], p["Wk"], p["Wv"], strict=True):
        scores = (wq @ query) @ (wk @ x) / np.sqrt(conf.head_size)
        heads.append((wv @ x) @ _softmax(scores + (shown - 1) * 1e9))
    return np.concatenate(heads) @ p["Wo"]


def _softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def _shown(x, mask):
    return np.ones((len(x), x.shape[2])) if mask is None else mask


def self_attention(conf, p, x, mask=None):
    shown = _shown(x, mask)
    return np.stack(
        [
            np.stack([_attention(conf, p, q, row, m) for q in row.T], 1)
            for row, m in zip(x, shown, strict=True)
        ]
    )


def learned_self_attention(conf, p, x, mask=None):
    shown = _shown(x, mask)
    return np.stack(
        [
            np.stack([_attention(conf, p, q, row, m) for q in p["Q"][0].T], 1)
            for row, m in zip(x, shown, strict=True)
        ]
    )


def recurrent_attention(conf, p, x, mask=None):
    f = getattr(activations, conf.activation.lower())
    examples = []
    for row, m in zip(x, _shown(x, mask), strict=True):
        h, outputs = None, []
        for step in row.T:
            z = step @ p["W"] + p.get("b", 0.0)
            if h is not None:
                z = z + _attention(conf, p, h, row, m) @ p["RW"]
            h = f(z)
            outputs.append(h)
        examples.append(np.stack(outputs, 1))
    return np.stack(examples)
