"""Timing ours beside its peers: a ratio means something even on a shared machine.

A table is a module in this folder with a ``TABLE``; ``python -m tests.benchmarks``
finds, runs, prints and draws all of them, so that a new table is a new module::

    def cases(quick: bool) -> Iterator[Case]:  # asked anew for every number of threads
        for n in [2**10, 2**18] if quick else [2**10, 2**18, 2**22]:
            yield Case("cube", n, power(n), ours=..., peers={"eager": ..., "copy": ...})

    TABLE = Table("Forward and backward", cases, floors=(
        Floor("eager", 3.0, lambda row: row.size >= 2**18),
    ))

``ours`` and the peers are calls without arguments, timed interleaved. A row's ratio is
the peer's time divided by ours: above 1 we are faster. A floor is the least ratio: "at
most 1.5 times F.relu" is ``Floor("relu", 1 / 1.5)``, and "0.9 of copy bandwidth" is
``Floor("copy", 0.9)`` with the peer's ``weight`` (bytes moved by ours / bytes moved by
the copy). A case's tensors should live only while it is timed: make them in ``cases``.
A peer may be missing from a case; a floor on it then says nothing. Tensors that
``cases`` and its module make without naming a device are on the one asked for.
"""

from __future__ import annotations

import dataclasses
import gc
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch

PRESSURE = pathlib.Path("/proc/pressure/cpu")
DISTURBED = 0.03  # share of a block in which someone waited for a CPU
REPEATS = 5  # of a disturbed block
SLACK = 0.2  # by which a floor may be missed before --check fails

Call = Callable[[], object]
Clock = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is timed side by side: one point on one picture.

    Args:
        name: what is measured, e.g. an op; a picture each.
        size: its place on the picture's axis.
        label: the size as people write it.
        ours: dl4py's call.
        peers: the others by name; a name is a line in every picture.
        weight: factors on the times of peers that do less or more than ours.
        measured: seconds of peers that no call of this process can time.
    """

    name: str
    size: int
    label: str
    ours: Call
    peers: Mapping[str, Call]
    weight: Mapping[str, float] = dataclasses.field(default_factory=dict)
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """What came out: seconds of ours, and each peer's time divided by it."""

    name: str
    size: int
    label: str
    threads: int
    seconds: float
    ratios: dict[str, float]
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class Floor:
    """The least ratio to a peer on a device, in the rows where ``where`` holds."""

    peer: str
    least: float
    where: Callable[[Row], bool] = lambda row: True
    device: str = "cpu"


@dataclasses.dataclass(frozen=True)
class Table:
    """A family of cases and what is promised about them.

    Args:
        title: one line.
        cases: ``quick -> cases``; called once for each number of threads, set before.
        floors: see :class:`Floor`.
        axis: what ``Case.size`` counts.
        environment: variables of the process that runs it (each table has its own).
        block: least seconds of a timing block; slow calls have one call to a block.
        computes: its calls wait for nothing, so that with one thread on a CPU the
            thread's own time is taken, which other processes do not lengthen.
    """

    title: str
    cases: Callable[[bool], Iterator[Case]]
    floors: tuple[Floor, ...] = ()
    axis: str = "elements"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    block: float = 0.01
    computes: bool = False

    def only(self, names: Sequence[str]) -> Table:
        """The rows of some names; of all without names."""
        if not names:
            return self

        def some(quick: bool) -> Iterator[Case]:
            return (case for case in self.cases(quick) if case.name in names)

        return dataclasses.replace(self, cases=some)


# freed memory of any size is used again, so that pages are not faulted in anew
WARM = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def power(n: int) -> str:
    """``2^10`` for 1024."""
    return f"2^{n.bit_length() - 1}"


def rows(
    table: Table, quick: bool, threads: Sequence[int] = (1, 2), device: str = "cpu"
) -> Iterator[Row]:
    """Measure a table in this process."""
    for count in threads:
        own = table.computes and count == 1 and device == "cpu"
        clock = time.thread_time if own else time.perf_counter
        torch.set_num_threads(count)
        for case in _on(device, table.cases(quick)):
            variants = {"": case.ours, **case.peers}
            if quick:
                block = table.block / 4
                t = compare(variants, rounds=5, seconds=0.4, block=block, clock=clock)
            else:
                t = compare(variants, block=table.block, clock=clock)
            ratios = {p: t[p] * case.weight.get(p, 1) / t[""] for p in case.peers}
            ratios |= {p: s / t[""] for p, s in case.measured.items()}
            yield Row(case.name, case.size, case.label, count, t[""], ratios, device)


def _on(device: str, cases: Iterator[Case]) -> Iterator[Case]:
    """Cases made on a device; a default device costs time, so not while they run."""
    while True:
        with torch.device(device):
            case = next(cases, None)
        if case is None:
            return
        yield case
        del case


def misses(
    floors: Iterable[Floor], row: Row, slack: float = 0.0
) -> Iterator[tuple[str, float, float]]:
    """Peer, floor and ratio of each floor that a row misses by more than ``slack``."""
    for floor in floors:
        ratio = row.ratios.get(floor.peer)
        if ratio is None or floor.device != row.device or not floor.where(row):
            continue
        if ratio < floor.least * (1 - slack):
            yield floor.peer, floor.least, ratio


def compare(
    variants: Mapping[str, Call],
    *,
    rounds: int = 21,
    seconds: float = 2.5,
    block: float = 0.01,
    warmup: int = 3,
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Median seconds per call of each variant, in the order given.

    Every round runs one block of calls of each variant; the next round begins one
    variant further. A block in which other processes waited for a CPU is repeated,
    where the kernel counts that.

    Args:
        rounds: blocks per variant; fewer, but at least 5, where they take longer than
            ``seconds`` together.
        block: least seconds of a block; sets how many calls one has.
        warmup: calls before anything is timed.
        clock: what counts seconds; nothing disturbs ``time.thread_time``.
    """
    names = list(variants)
    calls, total = {}, 0.0
    for name, call in variants.items():
        for _ in range(warmup):
            call()
        calls[name] = max(1, round(block / max(_time(call, 1, clock), 1e-7)))
        once = _time(call, calls[name], clock)
        calls[name] = max(1, round(block / max(once, 1e-7)))
        total += calls[name] * once
    rounds = max(min(5, rounds), min(rounds, int(seconds / total)))
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for i in range(rounds):
            shift = i % len(names)
            for name in names[shift:] + names[:shift]:
                times[name].append(_undisturbed(variants[name], calls[name], clock))
    finally:
        if collecting:
            gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def _time(call: Call, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in range(calls):
        call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (clock() - start) / calls


def _undisturbed(call: Call, calls: int, clock: Clock) -> float:
    """Seconds per call of the least disturbed of up to ``REPEATS`` blocks."""
    if clock is time.thread_time:
        return _time(call, calls, clock)
    blocks = []
    for _ in range(REPEATS):
        before = _waited()
        seconds = _time(call, calls, clock)
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


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats get three digits.

    >>> print(markdown(["op", "ratio"], [["cube", 3.14159]]))
    | op | ratio |
    | --- | --- |
    | cube | 3.14 |
    """

    def line(cells: Iterable[object]) -> str:
        shown = (f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells)
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, lines)])
