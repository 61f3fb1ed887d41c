"""The kernels alone, into warm memory, against copy bandwidth.

``copy`` is ``dst.copy_(src)`` of as many floats, scaled by the bytes that ours moves: 8
per float forward, 12 backward. No autograd; freed memory stays warm (``WARM``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch

from dl4py.ops import OPS
from tests.benchmarks import ops
from tests.benchmarks.harness import WARM, Case, Floor, Row, Table, power
from tests.ops_cases import VALUES


def cases(quick: bool) -> Iterator[Case]:
    for name, op in OPS.items():
        p: list[Any] = [
            torch.tensor(VALUES[key]) if key == "seed" else VALUES[key]
            for key in op.params
        ]
        for n in (2**18,) if quick else (2**14, 2**18, 2**22, 2**25):
            x, g, y = torch.randn(n), torch.randn(n), torch.randn(n)
            copy = {"copy": lambda x=x, y=y: y.copy_(x)}
            forward = functools.partial(op.raw, x, *p)
            backward = functools.partial(op.raw_d, x, g, *p)
            yield Case(name, n, power(n), forward, copy)
            yield Case(f"{name}'", n, power(n), backward, copy, {"copy": 12 / 8})


def _cheap(row: Row) -> bool:
    op = ops.OPS.get(row.name.rstrip("'"))
    return op is not None and op.cheap and row.size >= 2**18


FLOORS = (
    Floor("copy", 0.9, _cheap),
    Floor("copy", 0.85, lambda row: row.size >= 2**24, "cuda"),
)
TABLE = Table("Kernels alone", cases, FLOORS, environment=WARM)
