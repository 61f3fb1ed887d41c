"""Ops against eager composition, torch.compile and ``F.relu``, forward and backward.

``python -m tests.benchmarks.ops [--quick]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py import ops
from dl4py.ops import library
from tests.benchmarks.harness import compare, table

Function = Callable[[Tensor], Tensor]
A, C = 1.7159, 1.41645


def _rationaltanh(x: Tensor) -> Tensor:
    v = 2 / 3 * x
    m = v.abs()
    return A * v.sign() * (1 - 1 / (1 + m + m * m + C * m**4))


# name: (op, what a user of torch would write)
PAIRS: dict[str, tuple[Function, Function]] = {
    "cube": (ops.cube, lambda x: x * x * x),
    "rationaltanh": (lambda x: ops.rationaltanh(x, A, C), _rationaltanh),
    "rectifiedtanh": (ops.rectifiedtanh, lambda x: torch.relu(torch.tanh(x))),
    "hardsigmoid": (
        lambda x: ops.hardsigmoid(x, 0.2),
        lambda x: (0.2 * x + 0.5).clamp(0, 1),
    ),
    "gelu": (lambda x: ops.gelu(x, 1.702), lambda x: x * torch.sigmoid(1.702 * x)),
}


def training(f: Function, n: int) -> Callable[[], object]:
    """One forward and backward pass over ``n`` numbers."""
    x = torch.randn(n, requires_grad=True)
    g = torch.randn(n)
    return lambda: torch.autograd.grad(f(x), x, g)


def rows(sizes: list[int], threads: list[int], rounds: int) -> Iterator[list[object]]:
    for count in threads:
        torch.set_num_threads(count)
        for name, (op, composition) in PAIRS.items():
            torch.compiler.reset()
            compiled = torch.compile(composition, fullgraph=True, dynamic=False)
            for n in sizes:
                t = compare(
                    {
                        "op": training(op, n),
                        "eager": training(composition, n),
                        "compile": training(compiled, n),
                        "relu": training(F.relu, n),
                    },
                    rounds=rounds,
                )
                yield [
                    name,
                    f"2^{n.bit_length() - 1}",
                    count,
                    t["op"] * 1e6,
                    t["eager"] / t["op"],
                    t["compile"] / t["op"],
                    t["op"] / t["relu"],
                ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    quick = parser.parse_args().quick
    sizes = [2**10, 2**18] if quick else [2**10, 2**18, 2**22]
    print(library.origin())
    head = ["op", "size", "threads", "us", "eager / op", "compile / op", "op / relu"]
    print(table(head, rows(sizes, [1] if quick else [1, 2], 7 if quick else 21)))


if __name__ == "__main__":
    main()
