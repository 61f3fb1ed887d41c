"""Every kind of layer under Inductor: ``python -m tests.compiled [KIND ...]``.

The suite compiles them whole with aot_eager; this takes minutes for code generation.
"""

from __future__ import annotations

import sys

import torch

from tests.layers import test_every_layer as every


def differs(key: str) -> str | None:
    """What is wrong with a compiled layer, if anything is."""
    layer, x = every.made(key)
    torch.compiler.reset()
    try:
        y = torch.compile(layer, backend="inductor", fullgraph=True)(x)
        y = y[0] if layer.recurrent else y
        torch.testing.assert_close(y, every.activations(layer, x))
    except Exception as error:  # of Dynamo, Inductor, the compiler: all are findings
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def main(keys: list[str]) -> int:
    failed = 0
    for key in keys or every.KINDS:
        found = differs(key)
        failed += found is not None
        print(f"{key}: {found or 'equal'}", flush=True)
    print(f"{failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
