"""Layers of special purpose in NumPy, as :mod:`tests.references.layers` has others."""

import numpy as np

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
    z = act(conf.activation, x @ p["v"]) @ p["w"]
    return z if mask is None else z * mask
