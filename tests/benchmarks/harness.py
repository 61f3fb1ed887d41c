"""Timing variants side by side: their ratio means something on a shared machine."""

from __future__ import annotations

import gc
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

PRESSURE = pathlib.Path("/proc/pressure/cpu")
DISTURBED = 0.03  # share of a block in which someone waited for a CPU
REPEATS = 5  # of a disturbed block


def compare(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 21,
    block: float = 0.01,
    warmup: int = 3,
) -> dict[str, float]:
    """Median seconds per call of each variant, in the order given.

    Every round runs one block of calls of each variant; the next round begins one
    variant further. A block in which other processes waited for a CPU is repeated,
    where the kernel counts that.

    Args:
        rounds: blocks per variant.
        block: least seconds of a block; sets how many calls one has.
        warmup: calls before anything is timed.
    """
    names = list(variants)
    calls = {}
    for name, call in variants.items():
        for _ in range(warmup):
            call()
        calls[name] = max(1, round(block / max(_time(call, 1), 1e-7)))
        calls[name] = max(1, round(block / max(_time(call, calls[name]), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i in range(rounds):
            shift = i % len(names)
            for name in names[shift:] + names[:shift]:
                times[name].append(_undisturbed(variants[name], calls[name]))
    finally:
        if collecting:
            gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def _time(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _undisturbed(call: Callable[[], object], calls: int) -> float:
    """Seconds per call of the least disturbed of up to ``REPEATS`` blocks."""
    blocks = []
    for _ in range(REPEATS):
        before = _waited()
        seconds = _time(call, calls)
        share = (_waited() - before) / (seconds * calls)
        blocks.append((share, seconds))
        if share <= DISTURBED:
            return seconds
    return min(blocks)[1]


def _waited() -> float:
    """Seconds in which some process waited for a CPU; 0 where nobody counts them."""
    try:
        return int(PRESSURE.read_text().split("total=")[1].split()[0]) * 1e-6
    except (OSError, IndexError):
        return 0.0


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats get three digits.

    >>> print(table(["op", "ratio"], [["cube", 3.14159]]))
    | op | ratio |
    | --- | --- |
    | cube | 3.14 |
    """

    def line(cells: Iterable[object]) -> str:
        shown = (f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells)
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])
