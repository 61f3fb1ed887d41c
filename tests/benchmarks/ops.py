"""Activations forward and backward against what a user of torch would write.

Peers: ``eager`` composition where torch has no kernel of its own, ``compile`` of the
same (or of torch's op), ``torch``: its nearest op, ``relu``: F.relu, the least that
any activation costs, ``copy``: moving the same bytes at copy bandwidth (8 forward, 12
backward per float).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py import ops
from tests.benchmarks.harness import Call, Case, Floor, Row, Table, power

Function = Callable[[Tensor], Tensor]
A, C = 1.7159, 1.41645
SEED = torch.tensor(1)


@dataclasses.dataclass(frozen=True)
class Op:
    """dl4py's function, what one would compose, torch's nearest single op."""

    ours: Function
    eager: Function | None = None
    torch: Function | None = None
    cheap: bool = False  # polynomial, rational, piecewise linear


def _rationaltanh(x: Tensor) -> Tensor:
    v = 2 / 3 * x
    m = v.abs()
    return A * v.sign() * (1 - 1 / (1 + m + m * m + C * m**4))


def _rectifier(x: Tensor) -> Tensor:
    return torch.where(x >= 0.5, x, 0.1 * (x - 0.5)).clamp(max=2.5)


OPS = {
    "cube": Op(ops.cube, lambda x: x * x * x, cheap=True),
    "rationaltanh": Op(
        lambda x: ops.rationaltanh(x, A, C), _rationaltanh, torch.tanh, cheap=True
    ),
    "hardsigmoid": Op(
        lambda x: ops.hardsigmoid(x, 0.2),
        lambda x: (0.2 * x + 0.5).clamp(0, 1),
        F.hardsigmoid,
        cheap=True,
    ),
    "rectifiedtanh": Op(
        ops.rectifiedtanh, lambda x: torch.relu(torch.tanh(x)), torch.tanh
    ),
    "gelu": Op(
        lambda x: ops.gelu(x, 1.702),
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "tanh": Op(ops.tanh, None, torch.tanh),
    "sigmoid": Op(ops.sigmoid, None, torch.sigmoid),
    "softplus": Op(ops.softplus, None, lambda x: F.softplus(x, threshold=40.0)),
    "swish": Op(lambda x: ops.gelu(x, 1.0), None, F.silu),
    "mish": Op(ops.mish, None, F.mish),
    "gelutanh": Op(ops.gelutanh, None, lambda x: F.gelu(x, approximate="tanh")),
    "selu": Op(ops.selu, None, F.selu),
    "softsign": Op(ops.softsign, F.softsign, cheap=True),
    "rectifier": Op(lambda x: ops.rectifier(x, 2.5, 0.5, 0.1), _rectifier, cheap=True),
    "hardtanh": Op(ops.hardtanh, None, F.hardtanh, cheap=True),
    "leakyrelu": Op(
        lambda x: ops.leakyrelu(x, 0.01), None, lambda x: F.leaky_relu(x), cheap=True
    ),
    "elu": Op(lambda x: ops.elu(x, 1.0), None, F.elu),
    "rrelu": Op(
        lambda x: ops.rrelu(x, SEED, 0.125, 0.375),
        None,
        lambda x: F.rrelu(x, 0.125, 0.375, training=True),
    ),
}
COMPILED_QUICKLY = ("cube", "rationaltanh", "rectifiedtanh", "hardsigmoid", "gelu")


def training(f: Function, x: Tensor, g: Tensor) -> Call:
    """One forward and backward pass."""
    return lambda: torch.autograd.grad(f(x), x, g)


def cases(quick: bool) -> Iterator[Case]:
    for name, op in OPS.items():
        compiled = None
        if not quick or name in COMPILED_QUICKLY:
            torch.compiler.reset()
            graph = op.eager or op.torch
            assert graph is not None
            compiled = torch.compile(graph, fullgraph=True, dynamic=quick)
        for n in (2**10, 2**18) if quick else (2**10, 2**14, 2**18, 2**22, 2**25):
            x, g = torch.randn(n, requires_grad=True), torch.randn(n)
            given = {"eager": op.eager, "compile": compiled, "torch": op.torch}
            given["relu"] = F.relu
            peers = {k: training(f, x, g) for k, f in given.items() if f is not None}
            source, target = torch.randn(n), torch.randn(n)
            peers["copy"] = lambda a=source, b=target: b.copy_(a)
            yield Case(
                name, n, power(n), training(op.ours, x, g), peers, {"copy": 20 / 8}
            )


def _cheap(row: Row) -> bool:
    return OPS[row.name].cheap


FLOORS = (
    Floor("relu", 1 / 1.5, lambda r: _cheap(r) and r.size in (2**10, 2**18)),
    Floor("relu", 1 / 1.2, lambda r: _cheap(r) and r.size == 2**22),
    Floor("compile", 1.0, lambda r: r.size <= 2**22),
    Floor("compile", 0.95, lambda r: r.size == 2**25),
    Floor("eager", 1.0),
    Floor("eager", 3.0, lambda r: r.size >= 2**18),
    Floor(
        "torch", 2.5, lambda r: r.name == "rectifiedtanh" and r.size in (2**18, 2**22)
    ),
    Floor(
        "torch", 3.5, lambda r: (r.name, r.threads) == ("rrelu", 1) and r.size > 2**17
    ),
    Floor(
        "torch", 6.0, lambda r: (r.name, r.threads) == ("rrelu", 2) and r.size > 2**17
    ),
    Floor("relu", 1 / 1.5, lambda r: r.size == 2**10, "cuda"),  # what a launch costs
    Floor("compile", 0.97, device="cuda"),
    Floor("copy", 0.85, lambda r: r.size >= 2**24, "cuda"),
)
TABLE = Table("Activations, forward and backward", cases, FLOORS)
