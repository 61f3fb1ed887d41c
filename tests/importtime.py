"""How long ``import dl4py`` takes on top of ``import torch``.

``python -m tests.importtime`` prints the median of 11 fresh processes; the goal is below
0.15 s.
"""

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
    times = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True).stdout)
        for _ in range(runs)
    ]
    return statistics.median(times)


if __name__ == "__main__":
    print(f"import dl4py: {measure():.3f} s on top of import torch, median of 11")
