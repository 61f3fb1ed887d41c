"""Elementwise formulas that torch lacks, defines differently or computes slowly.

Each function here is the formula of one op, for f, f' and f''; importing the module
replaces it by the op's fast entry: the same name and arguments without ``order``. All
arguments are positional and have no defaults. Kernels in C++ (``csrc``)
compute the same numbers; without them the formula runs itself. ``python -m dl4py.ops``
says which of the two it is.

>>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
>>> cube(x)
tensor([-1.,  8.], grad_fn=<FastBackward>)

The input may have any shape and strides, in float64, float32, float16 or bfloat16; the
result is like it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py.ops import library, sharding
from dl4py.ops.losses import sigmoid_xent as sigmoid_xent
from dl4py.ops.losses import softmax_xent as softmax_xent
from dl4py.ops.philox import uniform
from dl4py.ops.register import OPS as OPS
from dl4py.ops.register import alone as alone
from dl4py.ops.register import exporting as exporting
from dl4py.ops.register import op
from dl4py.ops.vectors import axpy_dot_ as axpy_dot_
from dl4py.ops.vectors import cg_step_ as cg_step_
from dl4py.ops.vectors import dot as dot


def serves(x: Tensor) -> bool:
    """Whether a kernel of ours computes what ATen has a kernel for, too.

    On the CPU, for small x as for large: ATen's are slower from 2,048 to 8,192 elements
    on, and round differently by where in a tensor an element stands. Graphs keep
    ATen's, which Inductor fuses and programs without dl4py know.
    """
    if torch.compiler.is_compiling() or exporting():
        return False
    # a proxy of torch.fx stands for any tensor, which our ops take
    return not isinstance(x, Tensor) or (x.is_cpu and library.compiled("cpu"))


def _zero(x: Tensor) -> Tensor:
    # not zeros_like: that cuts the graph to higher derivatives
    return x.masked_fill(torch.ones_like(x, dtype=torch.bool), 0)


def _finite_below(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).min)  # -∞ · 0


def _within(x: Tensor, low: float, high: float) -> Tensor:
    return ((x >= low) & (x <= high)).to(x.dtype)


@op(fuse=True)
def cube(x: Tensor, order: int) -> Tensor:
    """f(x) = x³"""
    if order == 0:
        return x * x * x
    return 3 * x * x if order == 1 else 6 * x


@op()
def rationaltanh(x: Tensor, order: int, a: float, c: float) -> Tensor:
    """f(x) = a · sgn(x) · (1 - 1/q),  q = 1 + |v| + v² + c·v⁴,  v = 2x/3"""
    # 1 - 1/q as (q - 1)/q, which does not cancel; the bound keeps v⁶ finite
    bound = 1e50 if x.dtype == torch.float64 else 1e6
    v = (2 / 3 * x).clamp(-bound, bound)
    m = v.abs()
    r = 1 + m + c * m * m * m
    q = 1 + m * r
    if order == 0:
        return a * (v * r) / q
    if order == 1:
        return a * 2 / 3 * ((1 + 2 * m + 4 * c * m * m * m) / q) / q
    poly = 6 + m * (6 - 12 * c + m * (4 * c + m * (18 * c + m * m * (20 * c * c))))
    return -a * 4 / 9 * (v * poly) / q / q / q


@op(active=lambda x: ~(x <= 0))
def rectifiedtanh(x: Tensor, order: int) -> Tensor:
    """f(x) = max(0, tanh x), its derivative 0 where inactive even for a NaN gradient"""
    x = x.clamp(min=0)
    if order == 0:
        return torch.tanh(x)
    e = torch.exp(-2 * x)
    slope = 4 * e / ((1 + e) * (1 + e))  # 1 - tanh² cancels
    return slope if order == 1 else -2 * torch.tanh(x) * slope


@op()
def hardsigmoid(x: Tensor, order: int, slope: float) -> Tensor:
    """f(x) = min(1, max(0, slope·x + ½)),  f' = slope on -2.5 <= x <= 2.5"""
    if order == 0:
        return (slope * x + 0.5).clamp(0, 1)
    return slope * _within(x, -2.5, 2.5) if order == 1 else _zero(x)


@op()
def tanh(x: Tensor, order: int) -> Tensor:
    """f(x) = tanh x"""
    if order == 0:
        return torch.tanh(x)
    e = torch.exp(-2 * x.abs())
    slope = 4 * e / ((1 + e) * (1 + e))  # 1 - tanh² cancels
    return slope if order == 1 else -2 * torch.tanh(x) * slope


@op()
def sigmoid(x: Tensor, order: int) -> Tensor:
    """f(x) = 1 / (1 + e⁻ˣ)"""
    s, t = torch.sigmoid(x), torch.sigmoid(-x)  # 1 - σ(x) cancels
    if order == 0:
        return s
    return s * t if order == 1 else -s * t * torch.tanh(x / 2)


@op()
def softplus(x: Tensor, order: int) -> Tensor:
    """f(x) = ln(1 + eˣ)"""
    if order == 0:
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))
    s, t = torch.sigmoid(x), torch.sigmoid(-x)
    return s if order == 1 else s * t


@op()
def log1exp(x: Tensor, order: int) -> Tensor:
    """f(x) = ln(1 + eˣ) of a rounded 1 + eˣ, as DL4J has it"""
    if order == 0:
        return torch.where(x > 40, x, torch.log(1 + torch.exp(x.clamp(max=40))))
    s, t = torch.sigmoid(x), torch.sigmoid(-x)
    return s if order == 1 else s * t


@op(fuse=True)
def gelu(x: Tensor, order: int, a: float) -> Tensor:
    """f(x) = x · σ(a·x)"""
    z = (a * x).clamp(-1e4, 1e4)
    s, t = torch.sigmoid(z), torch.sigmoid(-z)  # 1 - σ(z) cancels
    if order == 0:
        return _finite_below(x) * s
    return s + z * s * t if order == 1 else a * s * t * (2 + z * (t - s))


@op(fuse=True)
def gelutanh(x: Tensor, order: int) -> Tensor:
    """f(x) = x/2 · (1 + tanh(z/2)) = x · σ(z),  z = 2·√(2/π)·(x + 0.044715·x³)"""
    k, c = math.sqrt(8 / math.pi), 0.044715
    v = x.clamp(-40, 40)  # σ is 0 or 1 beyond, and no power of x overflows
    z, dz = k * v * (1 + c * v * v), k * (1 + 3 * c * v * v)
    s, t = torch.sigmoid(z), torch.sigmoid(-z)
    if order == 0:
        return _finite_below(x) * s
    if order == 1:
        return s + v * dz * s * t
    return s * t * (2 * dz + v * (6 * k * c * v + dz * dz * (t - s)))


@op(fuse=True)
def mish(x: Tensor, order: int) -> Tensor:
    """f(x) = x · tanh(ln(1 + eˣ))"""
    # w = tanh(ln(1 + eˣ)) = (e² + 2e) / d, d = e² + 2e + 2, in powers of e = e⁻ˣ for
    # x > 0; the bound keeps ∞ · 0 from its derivatives
    low, v = x < 0, x.clamp(-1e4, 1e4)
    e = torch.exp(torch.where(low, v, -v))
    r = 1 / torch.where(low, e * (e + 2) + 2, 2 * e * (e + 1) + 1)
    w = torch.where(low, e * (e + 2), 2 * e + 1) * r
    if order == 0:
        return _finite_below(x) * w
    dw = 4 * (1 + e) * torch.where(low, e, e * e) * r * r
    if order == 1:
        return w + v * dw
    below, above = 2 + e * (2 - e * (3 + 2 * e)), e * (e * (2 * e + 2) - 3) - 2
    d2w = 4 * torch.where(low, e * below, e * e * above) * r * r * r
    return 2 * dw + v * d2w


@op()
def hardtanh(x: Tensor, order: int) -> Tensor:
    """f(x) = min(1, max(-1, x)),  f' = 1 on -1 <= x <= 1"""
    if order == 0:
        return x.clamp(-1, 1)
    return _within(x, -1, 1) if order == 1 else _zero(x)


@op()
def leakyrelu(x: Tensor, order: int, alpha: float) -> Tensor:
    """f(x) = x for x >= 0, alpha·x below"""
    if order == 0:
        return torch.where(x < 0, alpha * x, x)
    return torch.where(x < 0, alpha, torch.ones_like(x)) if order == 1 else _zero(x)


@op()
def elu(x: Tensor, order: int, alpha: float) -> Tensor:
    """f(x) = x for x >= 0, alpha·(eˣ - 1) below"""
    if order == 0:
        return F.elu(x, alpha)
    m = x.clamp(max=0)  # keeps eˣ finite where it is not taken
    return torch.where(x >= 0, float(order == 1), alpha * torch.exp(m))


@op()
def selu(x: Tensor, order: int) -> Tensor:
    """f(x) = λ·x for x > 0, λα·(eˣ - 1) up to 0"""
    if order == 0:
        return F.selu(x)
    scale, slope, m = 1.0507009873554805, 1.7580993408473769, x.clamp(max=0)
    return torch.where(x > 0, scale * (order == 1), slope * torch.exp(m))


@op()
def softsign(x: Tensor, order: int) -> Tensor:
    """f(x) = x / (1 + |x|)"""
    r = 1 / (1 + x.abs())
    if order == 0:
        m = x.clamp(-(top := torch.finfo(x.dtype).max), top)
        return m / (1 + m.abs())
    return r * r if order == 1 else -2 * x.sign() * r * r * r


@op()
def rectifier(
    x: Tensor, order: int, max: float, threshold: float, slope: float
) -> Tensor:
    """f(x) = min(max, x) for x >= threshold, min(max, slope·(x - threshold)) below

    f' is 0 from max on. The plain ReLU (threshold 0, slope 0) has f'(0) = 0.
    """
    if order == 0:
        low = slope * (x - threshold) if slope else torch.zeros_like(x)  # 0 · ∞
        return torch.where(x < threshold, low, x).clamp(max=max)
    if order == 2:
        return _zero(x)
    plain = threshold == 0 and slope == 0
    below = (x <= threshold) if plain else (x < threshold)
    return torch.where(below, slope, torch.ones_like(x)) * (
        (x < max) | (max == math.inf)
    )


@op()
def rrelu(x: Tensor, order: int, seed: Tensor, lower: float, upper: float) -> Tensor:
    """f(x) = x for x >= 0, s·x below, each s from U(lower, upper)

    The slopes are a function of ``seed``, an int64 tensor without dimensions, and of an
    element's place in row-major order; the backward pass draws them again.

    >>> rrelu(torch.tensor([-1.0, -1.0, 2.0]), torch.tensor(1), 0.5, 0.5)
    tensor([-0.5000, -0.5000,  2.0000])
    """
    if order == 2:
        return _zero(x)
    u = uniform(seed, x.numel() // max(seed.numel(), 1)).to(x.dtype).reshape(x.shape)
    s = lower + u * (upper - lower)
    if order == 0:
        return torch.where(x < 0, s * x, x)
    return torch.where(x < 0, s, torch.ones_like(x))


sharding.tell()
