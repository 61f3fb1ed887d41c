"""How long ``import dl4py`` takes on top of ``import torch``.

``python -m tests.importtime`` prints the median of 11 fresh processes; the goal is
below 0.15 s. Bytecode is cached, as in any installation.
"""

import os
import statistics
import subprocess
import sys

CODE = """
import time, torch
start = time.perf_counter()
import dl4py
print(time.perf_counter() - start)
"""


def measure(runs: int = 11) -> float:
    """The median in seconds."""
    cached = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once() -> float:
        command = [sys.executable, "-c", CODE]
        return float(subprocess.run(command, capture_output=True, env=cached).stdout)

    once()  # compiles the bytecode
    return statistics.median(once() for _ in range(runs))


if __name__ == "__main__":
    print(f"import dl4py: {measure():.3f} s on top of import torch, median of 11")
