"""Philox4x32-10 in torch ops: the numbers of ``csrc/philox.h`` on any device."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low half of the 64-bit product of two 32-bit numbers held in int64.

    The constant goes in as two 16-bit halves: the whole product would not fit.
    """
    upper, lower = x * (constant >> 16), x * (constant & 0xFFFF)
    middle = upper + (lower >> 16)
    return middle >> 16, ((middle << 16) | (lower & 0xFFFF)) & _LOW


def uniform(seed: Tensor, n: int) -> Tensor:
    """Numbers in [0, 1) in steps of 2⁻²⁴ for n elements: float32, ``[*seed, n]``.

    Element 64·b + 16·w + c is word w of counter 16·b + c: so vectors of 16 counters
    fill whole rows of 16 elements.

    Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
    """
    seed = seed.unsqueeze(-1)
    i = torch.arange(n, device=seed.device)
    counter, word = (i >> 6) * 16 + (i & 15), (i >> 4) & 3
    c0, c1 = counter & _LOW, counter >> 32
    c2 = c3 = torch.zeros_like(counter)
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    low, high = torch.where(word == 0, c0, c1), torch.where(word == 2, c2, c3)
    return (torch.where(word < 2, low, high) >> 8).float() * 2.0**-24
