"""Hessian-free as PyTorchHessianFree has it, where it leaves Martens' rules.

ρ is measured from the decayed start of CG and with λ in the model, CG stops at a
progress below 5e-4 however many iterations that took or at a residual of 1e-5, and
nothing is preconditioned. λ = 1 at first, 250 iterations at most: its defaults. The
products are dl4py's, which cost less than its own, and the search tries 60 lengths, not
20, so that only these rules differ. The package itself is a contestant too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton

Vector = nn.utils.parameters_to_vector


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, x: Tensor
) -> list[tuple[Tensor, float]]:
    """(x, ½·xᵀAx - bᵀx) of the iterates 1, 2, …, thinned out as Martens does."""
    r = product(x) - b
    p, first = -r, float(0.5 * (r - b).dot(x))
    models, kept, following = [first], [(x, first)], 5
    for i in range(1, 251):
        ap = product(p)
        curvature = p.dot(ap)
        if curvature <= 0:
            break
        square = r.dot(r)
        x, r = x + square / curvature * p, r + square / curvature * ap
        models.append(float(0.5 * (r - b).dot(x)))
        k = max(10, -(-i // 10))
        progress = i > k and (models[i - k] - models[i]) / (first - models[i]) < 5e-4
        stops = progress or float(r.norm()) < 1e-5
        if i >= following or stops:
            kept.append((x, models[i]))
            following = max(following + 1, round(1.3 * following))
        if stops:
            break
        p = r.dot(r) / square * p - r
    return kept


def loose(params: list[nn.Parameter], watch: Callable[[], Tensor]) -> None:
    """Until ``watch`` says that the time is over."""
    damping, start = 1.0, torch.zeros_like(Vector(params))

    def put(x: Tensor) -> None:
        nn.utils.vector_to_parameters(x, params)

    def value(x: Tensor) -> float:
        put(x)
        return float(watch().detach())  # a closure may differentiate by itself

    while True:
        with Capture() as seen:
            loss = watch()
        here = Vector(params).detach().clone()
        slopes = torch.autograd.grad(loss, params, retain_graph=True)
        g = torch.cat([s.flatten() for s in slopes])
        matrix = GaussNewton(loss, seen.outputs, params)

        # called in this turn of the loop only, as B023 cannot know
        def product(v: Tensor, matrix: GaussNewton = matrix) -> Tensor:
            parts, place = [], 0
            for p in params:
                parts.append(v[place : place + p.numel()].view_as(p))
                place += p.numel()
            return torch.cat([t.flatten() for t in matrix(parts)]) + damping * v  # noqa: B023

        kept = conjugate_gradients(product, -g, 0.95 * start)
        score, (last, model) = float(loss.detach()), kept[-1]
        before = value(here + kept[0][0])
        rho = (value(here + last) - before) / (model - kept[0][1])
        damping *= 1.5 if not rho >= 0.25 else 2 / 3 if rho > 0.75 else 1
        start, best = last, last
        lowest = value(here + best)
        for x, _ in reversed(kept[1:-1]):
            if not (new := value(here + x)) < lowest:
                break
            lowest, best = new, x
        length = 1.0
        for _ in range(60):
            if lowest <= score + 1e-2 * length * float(g.dot(best)):
                break
            length *= 0.8
            lowest = value(here + length * best)
        else:
            length = 0.0
        put(here + length * best)
