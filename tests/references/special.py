"""Layers of special purpose in NumPy, as :mod:`tests.references.layers` has others."""

import numpy as np

from tests.references.convolution import windows
from tests.references.layers import act, output, rows


def prelu(conf, p, x, mask=None):
    return np.where(x >= 0, x, p["W"] * x)


def element_wise_multiplication(conf, p, x, mask=None):
    return rows(act(conf.activation, p["W"] * x + p["b"]), mask)


def auto_encoder(conf, p, x, mask=None):
    return rows(act(conf.activation, x @ p["W"] + p["b"]), mask)


def variational_autoencoder(conf, p, x, mask=None):
    for i in range(len(conf.encoder_layer_sizes)):
        x = act(conf.activation, x @ p[f"e{i}W"] + p[f"e{i}b"])
    return act(conf.pzx_activation, x @ p["pZXMeanW"] + p["pZXMeanb"])


center_loss_output = output


def ocnn_output(conf, p, x, mask=None):
    return rows(act(conf.activation, x @ p["v"]) @ p["w"][:, None], mask)


def yolo2_output(conf, p, x, mask=None):
    n, channels, h, w = x.shape
    y = x.reshape(n, len(conf.bounding_boxes), -1, h, w).copy()
    for box, prior in enumerate(conf.bounding_boxes):
        for k in range(2):
            y[:, box, k] = 1 / (1 + np.exp(-y[:, box, k]))
            y[:, box, 2 + k] = prior[k] * np.exp(y[:, box, 2 + k])
        y[:, box, 4] = 1 / (1 + np.exp(-y[:, box, 4]))
        e = np.exp(y[:, box, 5:])
        y[:, box, 5:] = e / e.sum(1, keepdims=True)
    return y.reshape(x.shape)


def yolo2_output_labels(conf, y):
    """Labels that the layer takes: one object in each image."""
    labels = y.new_zeros(len(y), y.shape[1] // len(conf.bounding_boxes) - 1, 3, 4)
    labels[:, :5, 1, 2] = y.new_tensor([1.9, 0.5, 3.0, 2.1, 1.0])
    return labels


def _squash(s):
    square = (s**2).sum(-1, keepdims=True)
    return s * square / (1 + square) / np.sqrt(square + 1e-5)


def primary_capsules(conf, p, x, mask=None):
    y = None
    for (i, j), sizes, window in windows(conf.window, x, 0.0):
        if y is None:
            y = np.empty((len(x), p["weight"].shape[3], *sizes))
        y[:, :, i, j] = np.einsum("nckl,klco->no", window, p["weight"])
    y = y + p["bias"][:, None, None]
    return _squash(y.reshape(len(x), -1, conf.capsule_dimensions))


def capsule(conf, p, x, mask=None):
    w, bias = p["weight"][0, ..., 0], p["bias"][0, 0, ..., 0]
    u = np.einsum("ijd,nid->nij", w, x)
    u = u.reshape(*u.shape[:2], conf.capsules, conf.capsule_dimensions)
    b = np.zeros(u.shape[:3])
    for _ in range(conf.routings):
        e = np.exp(b)
        c = e / e.sum(2, keepdims=True)
        v = _squash(np.einsum("nij,nijd->njd", c, u) + bias)
        b = b + np.einsum("nijd,njd->nij", u, v)
    return v


def capsule_strength(conf, p, x, mask=None):
    return np.sqrt((x**2).sum(2))
