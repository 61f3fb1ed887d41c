"""The tests of the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

``python -m tests.sanitize [PYTEST ARGUMENT ...]``

Builds the kernels with g++'s sanitizers into a cache of their own and runs the tests of
the ops with them; the first error ends the run. Takes about five minutes.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys

from dl4py.ops import build

CHECKS = "-fsanitize=address,undefined,float-cast-overflow"
FLAGS = f"{CHECKS} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
TESTS = (
    "tests/ops/test_ops.py",
    "tests/ops/test_losses.py",
    "tests/losses/test_losses.py",
    "tests/losses/test_golden.py",
    "tests/losses/test_kernels.py",
    "tests/solvers/test_linear_cg.py",
    "tests/ops/test_vectors.py",
    *sorted(glob.glob("tests/updaters/test_*.py")),
)


def main() -> None:
    compiler = build.compiler("cpu")
    libraries = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    env = os.environ | {
        "DL4PY_OPS_FLAGS": FLAGS,
        "LD_PRELOAD": " ".join(libraries),
        # Python and torch keep what they allocate; only wild accesses are of interest
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    arguments = sys.argv[1:] or [*TESTS, "-q"]
    done = subprocess.run([sys.executable, "-m", "dl4py.ops"], env=env)
    if not done.returncode:
        done = subprocess.run([sys.executable, "-m", "pytest", *arguments], env=env)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
