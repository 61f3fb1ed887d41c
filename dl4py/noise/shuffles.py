"""The order of rows after DL4J's ``DataSet.shuffle``."""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIER, _MASK = 0x5DEECE66D, (1 << 48) - 1


class _JavaRandom:
    """java.util.Random, as far as shuffles ask it: a linear congruential generator."""

    def __init__(self, seed: int) -> None:
        self.state = (seed ^ _MULTIPLIER) & _MASK

    def below(self, n: int) -> int:
        """A whole number of [0, n)."""
        while True:
            self.state = (self.state * _MULTIPLIER + 0xB) & _MASK
            drawn = self.state >> 17
            if n & (n - 1) == 0:
                return n * drawn >> 31
            if drawn - drawn % n + n - 1 < 1 << 31:
                return drawn % n


def permutation(n: int, seed: int) -> Tensor:
    """Which row stands where after DL4J's ``DataSet.shuffle(seed)`` of ``n`` rows.

    It is no uniform permutation: every odd row changes places with an even one, of an
    odd ``n`` one even row stays and its partner is the last. Twice the same seed is
    the old order.

    Args:
        n: number of rows, >= 0.
        seed: of ``java.util.Random``.

    Returns:
        int64 ``[n]``: shuffled = rows[permutation(n, seed)].

    Example:
        >>> permutation(10, 42)
        tensor([3, 8, 5, 0, 7, 2, 9, 4, 1, 6])

    DL4J: org.nd4j.linalg.dataset.DataSet.shuffle, org.nd4j.linalg.factory.Nd4j.shuffle
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"permutation(n=...): expected a number of rows, got {n!r}")
    draw = _JavaRandom(seed)
    odd: list[int | None] = list(range(1, n, 2))
    for i in range(len(odd), 1, -1):
        j = draw.below(i)
        odd[i - 1], odd[j] = odd[j], odd[i - 1]
    partner: list[int | None] = [None] * n
    partner[0 : 2 * len(odd) : 2] = odd
    if n % 2 and n > 1:
        i = 2 * draw.below(n // 2)
        partner[i], partner[n - 1] = partner[n - 1], partner[i]
    rows = list(range(n))
    for i, other in enumerate(partner):
        if other is not None:
            rows[i], rows[other] = rows[other], rows[i]
    return torch.tensor(rows, dtype=torch.int64)
