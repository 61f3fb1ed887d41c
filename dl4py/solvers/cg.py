"""Linear conjugate gradients as Martens' Hessian-free method runs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Read = Callable[[Tensor], list[float]]


@dataclass
class Solved:
    """What conjugate gradients found.

    Attributes:
        x: the last iterate.
        iterates: (i, xᵢ) of the stored ones, in order, the last iterate at the end.
        stopped: the iteration after which x stayed.
        models: φ of each of ``iterates``.
    """

    x: Tensor
    iterates: list[tuple[int, Tensor]]
    stopped: int
    models: list[Tensor]


def grid(last: int) -> list[int]:
    """Iterations ⌈5·1.3ʲ⌉ up to ``last``, whose iterates are stored.

    >>> grid(32)
    [5, 7, 9, 11, 15, 19, 25, 32]
    """
    found: list[int] = []
    j = 0
    while (i := math.ceil(5 * 1.3**j)) <= last:
        found.append(i)
        j += 1
    return found


def window(i: int) -> int:
    """k = max(10, ⌈i/10⌉): over how many iterations progress is measured.

    >>> window(3), window(111)
    (10, 12)
    """
    return max(10, -(-i // 10))


def solve(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    start: Tensor,
    scale: Tensor | float = 1.0,
    *,
    max_iter: int = 100,
    tolerance: float = 5e-4,
    chunk: int = 10,
    read: Read | None = None,
) -> Solved:
    """Minimise φ(x) = ½·x·A·x - b·x by preconditioned conjugate gradients.

    Ends at iteration i where φᵢ₋ₖ < 0 and (φᵢ - φᵢ₋ₖ)/φᵢ < k·tolerance with k =
    :func:`window`, or before a direction p with p·A·p <= 0. What ended stays as it is,
    so that the host need look only when progress is first measured, and then every
    ``chunk`` iterations.

    Args:
        product: v → A·v, a new tensor; A symmetric.
        b: right-hand side, ``[size]``.
        start: x₀, ``[size]``; not changed.
        scale: the preconditioner M > 0, a diagonal, ``[size]``.
        max_iter: iterations at most, >= 1.
        tolerance: relative progress per iteration.
        chunk: iterations between two reads of the host, >= 1.
        read: tensor → numbers on the host.

    Source: Martens, Deep learning via Hessian-free optimization, 2010.
    """
    read = read or Tensor.tolist
    x = start.clone()
    r = product(x) - b
    y = r / scale
    p, ry = -y, r.dot(y)
    phi = [0.5 * (r - b).dot(x)]
    done = torch.zeros((), dtype=torch.bool, device=b.device)
    count = torch.zeros((), dtype=torch.long, device=b.device)
    zero = torch.zeros_like(ry)
    stored, wanted = [], set(grid(max_iter))
    first = window(1) + 1
    for i in range(1, max_iter + 1):
        q = product(p)
        curvature = p.dot(q)
        done = done | ~(curvature > 0)
        count = count + ~done
        a = torch.where(done, zero, ry / curvature)
        x.addcmul_(p, a)
        r.addcmul_(q, a)
        y = r / scale
        following = r.dot(y)
        p = p * torch.where(done, zero, following / ry) - y
        ry = following
        phi.append(0.5 * (r - b).dot(x))
        k = window(i)
        if i > k:
            old, new = phi[i - k], phi[i]
            done = done | ((old < 0) & ((new - old) / new < k * tolerance))
        if i in wanted:
            stored.append((i, x.clone()))
        looks = i >= first and (i - first) % chunk == 0 and i < max_iter
        if looks and read(done.double().reshape(1))[0]:
            break
    last = int(read(count.double().reshape(1))[0])
    kept = [(i, v) for i, v in stored if i < last]
    kept.append((last, x))
    return Solved(x, kept, last, [phi[i] for i, _ in kept])
