"""ND4J's CPU generator as an op: the draws of one state, as a function of their place.

The kernel calls the C library's ``log``, ``cos`` and ``sin``, as ND4J does; the formula
computes them in float64 and rounds, so that float32 normals may differ by 2 ulp.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dl4py.ops.register import define

DTYPES = (torch.float32, torch.float64)  # of the kernel
_LOW = 0xFFFFFFFF
EPSILON = 1e-5  # what Box and Muller's uniforms start from
EPSILON_AGAIN = 9.999999747378752e-06  # the same as a float, where ND4J draws again


def bits_at(index: Tensor, root: int, node: int) -> Tensor:
    """32 random bits for each place, in int64; only lower halves of a state matter.

    i = place + 2, s = root | i·(node + 24243287), q = node ^ i·(s + 723829),
    h = (s ^ q)·0x9E3779BB, rotl(h, 5)·5, all modulo 2³².
    """
    root, node, i = root & _LOW, node & _LOW, (index + 2) & _LOW
    s = (i * ((node + 24243287) & _LOW) & _LOW) | root
    q = (i * ((s + 723829) & _LOW)) ^ node
    h = ((s ^ q) & _LOW) * 0x9E3779BB & _LOW
    return ((h << 5) | (h >> 27)) * 5 & _LOW


def unit_at(
    index: Tensor, root: int, node: int, bits: int, dtype: torch.dtype
) -> Tensor:
    """A number of [0, 1) for each place, of 23 or 32 bits."""
    h, wide = bits_at(index, root, node), torch.promote_types(dtype, torch.float32)
    u = (h >> 9).to(wide) * 2.0**-23 if bits == 23 else h.to(wide) * 2.0**-32
    return u.to(dtype)


def draw(
    x: Tensor, root: int, node: int, bits: int, kind: str, a: float, b: float
) -> None:
    """Fill x, contiguous and of any floating dtype, with draws of a kind.

    "uniform": of [a, b); "normal", "truncated", "log_normal": of mean a and deviation
    b; "keep", "bernoulli": 1 where u < a or u <= a, else 0.
    """
    n, dtype = x.numel(), x.dtype

    def rounded(number: float) -> float:
        return float(torch.tensor(number, dtype=dtype))

    def units(index: Tensor) -> Tensor:
        return unit_at(index, root, node, bits, dtype)

    a, b, at = rounded(a), rounded(b), torch.arange(n, device=x.device)
    if kind in ("keep", "bernoulli"):
        u = units(at)
        filled = u < a if kind == "keep" else u <= a
    elif kind == "uniform":
        filled = units(at) * rounded(b - a) + a
    else:
        middle = n // 2 + n % 2

        def pairs(index: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
            low = rounded(epsilon)
            r0, r1 = (
                units(i) * rounded(1 - low) + low for i in (index, index + middle)
            )
            r = (-2 * _wide(torch.log, r0)).sqrt()
            return r, rounded(2 * rounded(math.pi)) * r1

        r, angle = pairs(at[:middle], EPSILON)
        halves = [r * _wide(torch.cos, angle), r * _wide(torch.sin, angle)]
        filled = torch.cat(halves)[:n] * b + a
        if kind == "truncated":
            low, high = (
                rounded(a - rounded(2 * abs(b))),
                rounded(a + rounded(2 * abs(b))),
            )
            r, angle = pairs(at, EPSILON_AGAIN)
            again = r * _wide(torch.cos, angle) * b + a
            least = torch.finfo(dtype).tiny if dtype == torch.float64 else 0.0
            again = again.masked_fill((again > high) | (again < low), a + least)
            filled = torch.where((filled > high) | (filled < low), again, filled)
        if kind == "log_normal":
            filled = _wide(torch.exp, filled)
    x.copy_(filled.view(x.shape))


def _wide(function, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    rounded: Tensor = function(x.double()).to(x.dtype)
    return rounded


native_draw_op = define(
    "native_draw_(Tensor(a!) x, int root, int node, int bits, str kind, float a,"
    " float b) -> ()",
    draw,
    lambda *_: None,
)
