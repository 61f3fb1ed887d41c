"""Steps of the solvers on flat vectors, the result read as a Python float."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from dl4py import ops
from dl4py.ops.vectors import cg_iterate_op
from tests.benchmarks.harness import Case, Floor, Table

A = 1e-6


def cases(quick: bool) -> Iterator[Case]:
    for n in (10**6,) if quick else (100, 10**5, 10**6, 10**7):
        x, r, p, q = (torch.randn(n) for _ in range(4))

        def cg(x=x, r=r, p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            x.add_(p, alpha=A)
            r.add_(q, alpha=-A)
            return float(r.dot(r))

        def naive(x=x, r=r, p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            y, s = x + A * p, r - A * q
            return float(y[0] + s.dot(s))

        def axpy(x=x, p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(x.add_(p, alpha=A).dot(q))

        def ours(x=x, r=r, p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(ops.cg_step_(x, r, A, p, q))

        def step(x=x, p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(ops.axpy_dot_(x, A, p, q))

        def dot(p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(ops.dot(p, q))

        def float32(p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(p.dot(q))

        def float64(p=p, q=q) -> float:  # type: ignore[no-untyped-def]
            return float(p.double().dot(q.double()))

        state = torch.zeros(20, dtype=torch.float64)  # ended: numbers stay
        none = torch.zeros(())

        def iteration(x=x, r=r, p=p, q=q, state=state) -> float:  # type: ignore[no-untyped-def]
            cg_iterate_op(x, r, p, q, None, state, 1, 0, 0.0)
            return float(state[0])

        def calls(x=x, r=r, p=p, q=q, none=none) -> float:  # type: ignore[no-untyped-def]
            a = none / p.dot(q)
            x.addcmul_(p, a)
            r.addcmul_(q, -a)
            p.mul_(none * r.dot(r)).add_(r)
            return float(a)

        label = f"{n:.0e}"
        yield Case("cg_iterate", n, label, iteration, {"in place": calls})
        yield Case("cg_step", n, label, ours, {"in place": cg, "naive": naive})
        yield Case("axpy_dot", n, label, step, {"in place": axpy})
        yield Case("dot", n, label, dot, {"in place": float32, "float64": float64})


FLOORS = (
    Floor("in place", 1.2, lambda row: row.name == "cg_step" and row.size >= 10**6),
)
TABLE = Table("Vectors of the solvers", cases, FLOORS)
