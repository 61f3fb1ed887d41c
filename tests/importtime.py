"""How long ``import dl4py`` takes on top of ``import torch``, and all of its parts.

``python -m tests.importtime`` prints medians of 11 fresh processes; the goal is 0.10 s
for the import. Bytecode is cached, as in any installation.
"""

import os
import statistics
import subprocess
import sys

CODE = """
import time, torch
start = time.perf_counter()
import dl4py
{more}
print(time.perf_counter() - start)
"""
PARTS = "dl4py.Network, dl4py.solvers"  # what builds and trains


def measure(runs: int = 11, more: str = "") -> float:
    """The median in seconds."""
    cached = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once() -> float:
        command = [sys.executable, "-c", CODE.format(more=more)]
        return float(subprocess.run(command, capture_output=True, env=cached).stdout)

    once()  # compiles the bytecode
    return statistics.median(once() for _ in range(runs))


if __name__ == "__main__":
    print(f"import dl4py: {measure():.3f} s on top of import torch, median of 11")
    print(f"with all that builds and trains networks: {measure(more=PARTS):.3f} s")
