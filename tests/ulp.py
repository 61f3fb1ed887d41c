"""Errors of ``csrc/exp.h`` in units in the last place: ``python -m tests.ulp``.

Compiles a probe with the kernels' own flags and compares it with NumPy's float64 for
every one of the 2³² floats (two to three minutes a function and core). The tests take a
sample of the same, and doubles against mpmath.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import dataclasses
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dl4py.ops import build

Array = NDArray[np.float64]
Float = NDArray[np.floating]
CHUNK = 2**22

PROBE = """
#include "exp.h"
namespace dl4py { namespace {
#define LOOP(T, i) \\
  extern "C" __attribute__((visibility("default"), CLONES)) \\
  void NAME(T, i)(const T* __restrict x, T* __restrict y, int64_t n) { \\
    for (int64_t k = 0; k < n; ++k) y[k] = math::i(x[k]); \\
  }
#define NAME(T, i) T##_##i
#define BOTH(i) LOOP(float, i) LOOP(double, i)
"""


@dataclasses.dataclass(frozen=True)
class Function:
    """What is promised of one function of ``csrc/exp.h``.

    Args:
        exact: in float64; the caller gives it float32 numbers only.
        high: the text of the same for mpmath, of ``x``.
        bound: units in the last place of the result, for floats and for doubles.
        low, up: the domain; NaN is always in it.
        flushes: results below so many of the smallest normal number may be 0.
    """

    exact: Callable[[Array], Array]
    high: str
    bound: float
    low: float = -np.inf
    up: float = np.inf
    flushes: int = 1


def _slope(x: Array) -> Array:
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS = {
    "exp": Function(np.exp, "exp(x)", 1.25, flushes=0),
    "exp_below_1": Function(np.exp, "exp(x)", 1.25, up=0),
    "expm1_below_0": Function(np.expm1, "expm1(x)", 1.5, up=0, flushes=0),
    "tanh": Function(np.tanh, "tanh(x)", 2.6, flushes=0),
    "tanh_slope": Function(_slope, "sech(x)**2", 5.2, flushes=4),
    "sigmoid": Function(_sigmoid, "1 / (1 + exp(-x))", 2.6),
    "log": Function(np.log, "log(x)", 2.0, flushes=0),
    "log1p": Function(np.log1p, "log1p(x)", 2.5, low=-1, flushes=0),
    "log1p_to_1": Function(np.log1p, "log1p(x)", 2.0, low=0, up=1, flushes=0),
    "softplus": Function(lambda x: np.logaddexp(0, x), "log1p(exp(x))", 2.9),
}


class Probe:
    """The functions compiled as the kernels are, for one instruction set.

    Args:
        isa: as for g++'s target_clones.
    """

    def __init__(self, folder: pathlib.Path, isa: str = "default") -> None:
        source, self.path = folder / "probe.cpp", folder / f"probe-{isa}.so"
        clones = "noinline" if isa == "default" else f'target("arch={isa}")'
        names = "".join(f"BOTH({name})\n" for name in FUNCTIONS)
        source.write_text(f"#define CLONES {clones}\n{PROBE}{names}}}}}\n")
        line = build.command("cpu", source, self.path)
        line.remove("-c")
        line[1:1] = ["-shared", f"-I{build.source_folder()}"]
        subprocess.run(line, check=True)
        self.library = ctypes.CDLL(str(self.path))

    def __call__(self, name: str, x: Float) -> Float:
        y = np.empty_like(x)
        kind = {"float32": "float", "float64": "double"}[x.dtype.name]
        self.library[f"{kind}_{name}"](
            *(ctypes.c_void_p(a.ctypes.data) for a in (x, y)), ctypes.c_int64(x.size)
        )
        return y


def error(f: Function, x: NDArray[np.float32], y: NDArray[np.float32]) -> Array:
    """Units in the last place by which each float result is off, infinity for a wrong
    NaN, infinity or sign of zero."""
    with np.errstate(all="ignore"):
        exact = f.exact(x.astype(np.float64))
        rounded = exact.astype(np.float32)
        unit = np.exp2(np.maximum(np.frexp(exact)[1] - 24.0, -149))
        units = np.abs(y - exact) / unit
    units[(y == 0) & (np.abs(exact) < f.flushes * np.finfo(np.float32).tiny)] = 0
    special = ~np.isfinite(rounded) | ~np.isfinite(y)
    same = (rounded == y) | (np.isnan(rounded) & np.isnan(y))
    units[special] = np.where(same, 0, np.inf)[special]
    return units


def floats(f: Function, start: int, stop: int, step: int = 1) -> NDArray[np.float32]:
    """The floats of the function's domain among these bit patterns."""
    x = np.arange(start, stop, step, dtype=np.uint32).view(np.float32)
    return x[~((x < f.low) | (x > f.up))]


def chunks() -> Iterator[int]:
    yield from range(0, 2**32, CHUNK)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ulp")
    parser.add_argument("names", nargs="*", help=", ".join(FUNCTIONS))
    parser.add_argument("--step", type=int, default=1, help="take every n-th float")
    parser.add_argument("--isa", nargs="*", default=["default", "x86-64-v3"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        probes = {isa: Probe(pathlib.Path(folder), isa) for isa in given.isa}
        for name in given.names or FUNCTIONS:
            f, start = FUNCTIONS[name], time.perf_counter()

            def worst(first: int, f: Function = f, name: str = name) -> list[tuple]:
                x = floats(f, first, first + CHUNK, given.step)
                found = []
                for probe in probes.values() if x.size else ():
                    units = error(f, x, probe(name, x))
                    at = int(units.argmax())
                    found.append((float(units[at]), float(x[at]), x.size))
                return found

            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                parts = [part for part in pool.map(worst, chunks()) if part]
            seconds = time.perf_counter() - start
            for k, isa in enumerate(probes):
                units, at, _ = max(part[k] for part in parts)
                count = sum(part[k][2] for part in parts)
                verdict = "ok" if units <= f.bound else "TOO MUCH"
                print(
                    f"{name:14s} {isa:10s} {count} floats: at most {units:.3f} ulp "
                    f"(x = {at!r}), bound {f.bound}: {verdict}   {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
