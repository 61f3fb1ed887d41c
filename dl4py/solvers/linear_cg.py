"""Linear conjugate gradients as Martens' Hessian-free method runs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dl4py.ops.vectors import COUNT, GOES_ON, MODELS, SQUARE, cg_iterate_op, dot_op

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
    scale: Tensor | None = None,
    *,
    max_iter: int = 100,
    tolerance: float = 5e-4,
    chunk: int = 10,
    read: Read | None = None,
) -> Solved:
    """Minimise φ(x) = ½·x·A·x - b·x by preconditioned conjugate gradients.

    Ends at iteration i where φᵢ₋ₖ < 0 and (φᵢ - φᵢ₋ₖ)/φᵢ < k·tolerance with k =
    :func:`window`, or before a direction p with p·A·p <= 0. What ended stays as it is,
    so that the host need look only at iteration 11, where progress is first measured,
    and then every ``chunk`` iterations.

    Args:
        product: v → A·v, a new tensor; A symmetric.
        b: right-hand side, ``[size]``.
        start: x₀, ``[size]``; not changed.
        scale: the preconditioner M > 0, a diagonal, ``[size]``; None: 1.
        max_iter: iterations at most, >= 1.
        tolerance: relative progress per iteration.
        chunk: iterations between two reads of the host, >= 1.
        read: tensor → numbers on the host.

    Source: Martens, Deep learning via Hessian-free optimization, 2010.
    """
    read = read or Tensor.tolist
    x, r = start.clone(), b - product(start)
    y = r if scale is None else r / scale
    p = y.clone()
    state = torch.zeros(MODELS + 1 + max_iter, dtype=torch.float64, device=b.device)
    state[GOES_ON], state[SQUARE] = 1, dot_op(r, y)
    state[MODELS] = -0.5 * (dot_op(r, x) + dot_op(b, x))
    last, stored, wanted = 0, [], set(grid(max_iter))
    first = window(1) + 1
    for i in range(1, max_iter + 1):
        k = window(i)  # progress over so many is true while φᵢ₋ₖ >= 0, for φ falls
        measured = k if i > k else 0
        cg_iterate_op(x, r, p, product(p), scale, state, i, measured, tolerance)
        if i in wanted:
            stored.append((i, x.clone()))
        if i == max_iter or (i >= first and (i - first) % chunk == 0):
            more, last = map(int, read(state[: COUNT + 1]))
            if not more:
                break
    kept = [(i, v) for i, v in stored if i < last]
    kept.append((last, x))
    return Solved(x, kept, last, [state[MODELS + i] for i, _ in kept])
