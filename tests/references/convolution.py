"""Convolutions, pooling and their kin in NumPy, float64, from their formulas.

``NAME(conf, p, x, mask)`` as in ``tests/references/layers.py``; masks are of series.
"""

import numpy as np


def act(name, z):
    from tests.references import layers

    return layers.act(name, z)


def windows(w, x, fill):
    """(place, sizes, cells of the padded input) of every window, along all axes."""
    sizes = w.sizes(x.shape[2:])
    padded = np.pad(x, [(0, 0), (0, 0), *w.margins(x.shape[2:])], constant_values=fill)
    for place in np.ndindex(*sizes):
        cells = [
            [i * s + k * d for k in range(n)]
            for i, s, n, d in zip(place, w.stride, w.kernel, w.dilation, strict=True)
        ]
        yield place, sizes, padded[np.ix_(range(len(x)), range(x.shape[1]), *cells)]


def put(y, place, value):
    y[(slice(None), slice(None), *place)] = value


def each(bias, x):
    return np.reshape(bias, (1, -1, *(1,) * (x.ndim - 2)))


def linear(w, weight, x):
    y = None
    for place, sizes, window in windows(w, x, 0.0):
        if y is None:
            y = np.empty((len(x), len(weight), *sizes))
        axes = tuple(range(1, window.ndim))
        put(y, place, np.tensordot(window, weight, (axes, axes)))
    return y


def convolution2d(conf, p, x, mask=None):
    z = linear(conf.window, p["W"], x)
    return act(conf.activation, z + each(p["b"], z))


convolution3d = convolution2d


def convolution1d(conf, p, x, mask=None):
    return convolution2d(conf, {**p, "W": p["W"].transpose(2, 1, 0)}, x)


def opened(w, weight, x):
    """weight ``[n_in, n_out, …]``: every cell puts its window down."""
    axes = list(zip(x.shape[2:], w.stride, w.spread, w.padding, strict=True))
    same = w.mode == "Same"
    sizes = [s * n if same else s * (n - 1) + k - 2 * p for n, s, k, p in axes]
    # the first cells of the windows, and room around for what does not fit
    first = [int((k - s) / 2) if same else p for _, s, k, p in axes]
    room = max(s + k + p for _, s, k, p in axes)
    y = np.zeros((len(x), weight.shape[1], *(size + 2 * room for size in sizes)))
    for place in np.ndindex(*x.shape[2:]):
        corner = [
            i * s - f + room for i, s, f in zip(place, w.stride, first, strict=True)
        ]
        cells = tuple(
            slice(c, c + k, d)
            for c, k, d in zip(corner, w.spread, w.dilation, strict=True)
        )
        here = x[(slice(None), slice(None), *place)]
        y[(slice(None), slice(None), *cells)] += np.tensordot(here, weight, (1, 0))
    for axis, size in enumerate(sizes, 2):
        y = np.take(y, range(room, room + size), axis)
    return y


def deconvolution2d(conf, p, x, mask=None):
    z = opened(conf.window, p["W"], x)
    return act(conf.activation, z + each(p["b"], z))


def deconvolution3d(conf, p, x, mask=None):
    return deconvolution2d(conf, {**p, "W": p["W"].transpose(4, 3, 0, 1, 2)}, x)


def deep(w, weight, x):
    """weight ``[multiplier, n_in, …]``: every channel by itself."""
    parts = [
        linear(w, weight[m : m + 1, c : c + 1], x[:, c : c + 1])
        for c in range(x.shape[1])
        for m in range(len(weight))
    ]
    return np.concatenate(parts, 1)


def depthwise_convolution2d(conf, p, x, mask=None):
    z = deep(conf.window, p["W"].transpose(3, 2, 0, 1), x)
    return act(conf.activation, z + each(p["b"], z))


def separable_convolution2d(conf, p, x, mask=None):
    z = deep(conf.window, p["W"], x)
    z = np.einsum("nchw,oc->nohw", z, p["pW"][:, :, 0, 0])
    return act(conf.activation, z + each(p["b"], z))


def subsampling(conf, p, x, mask=None):
    x = x if mask is None else np.where(mask[:, None] != 0, x, -np.inf)
    y = None
    for place, sizes, window in windows(conf.window, x, -np.inf):
        if y is None:
            y = np.empty((*x.shape[:2], *sizes))
        put(y, place, window.max(tuple(range(2, x.ndim))))
    return np.where(np.isneginf(y), 0, y)


subsampling1d = subsampling3d = subsampling


def local_response_normalization(conf, p, x, mask=None):
    half, y = int(conf.n) // 2, np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - half) : c + half + 1]
        y[:, c] = x[:, c] / (conf.k + conf.alpha * (near**2).sum(1)) ** conf.beta
    return y


def _upsampling(conf, p, x, mask=None):
    for axis, times in enumerate(conf.size[: x.ndim - 2], 2):
        x = np.repeat(x, times, axis)
    return x


upsampling1d = upsampling2d = upsampling3d = _upsampling


def _cropping(conf, p, x, mask=None):
    for axis in range(2, x.ndim):
        before, after = conf.cropping[2 * axis - 4 : 2 * axis - 2]
        x = np.take(x, range(before, x.shape[axis] - after), axis)
    return x


cropping1d = cropping2d = cropping3d = _cropping


def _zero_padding(conf, p, x, mask=None):
    pairs = zip(conf.padding[::2], conf.padding[1::2], strict=True)
    return np.pad(x, [(0, 0), (0, 0), *pairs])


zero_padding1d = zero_padding2d = zero_padding3d = _zero_padding


def space_to_depth(conf, p, x, mask=None):
    b = range(conf.block_size)
    step = len(b)
    return np.concatenate([x[:, :, y::step, z::step] for y in b for z in b], 1)


def space_to_batch(conf, p, x, mask=None):
    x, (down, across) = np.pad(x, [(0, 0), (0, 0), *conf.padding]), conf.blocks
    corners = [(y, z) for y in range(down) for z in range(across)]
    return np.concatenate([x[:, :, y::down, z::across] for y, z in corners], 0)


def cnn_loss(conf, p, x, mask=None):
    return np.moveaxis(act(conf.activation, np.moveaxis(x, 1, -1)), -1, 1)


cnn3d_loss = cnn_loss


def _local(conf, p, x, order, mask):
    x = x if mask is None else x * mask[:, None]
    y = None
    for place, sizes, window in windows(conf.window, x, 0.0):
        if y is None:
            y = np.empty((len(x), conf.n_out, *sizes))
        row = np.ravel_multi_index(place, sizes, order=order)
        put(y, place, window.reshape(len(x), -1) @ p["W"][row] + p["b"])
    return np.tanh(y)


def locally_connected1d(conf, p, x, mask=None):
    return _local(conf, p, x, "C", mask)


def locally_connected2d(conf, p, x, mask=None):
    return _local(conf, p, x, "F", mask)
