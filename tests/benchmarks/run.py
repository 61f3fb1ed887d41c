"""Finding the tables and running each in a process of its own."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import os
import pkgutil
from collections.abc import Sequence

import torch

from tests import benchmarks
from tests.benchmarks import harness
from tests.benchmarks.harness import Row, Table


def tables() -> dict[str, Table]:
    """The ``TABLE`` of each module beside this one that has one."""
    found = {}
    for info in pkgutil.iter_modules(benchmarks.__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"tests.benchmarks.{info.name}")
            if hasattr(module, "TABLE"):
                found[info.name] = module.TABLE
    return found


def measure(
    name: str,
    quick: bool,
    threads: Sequence[int],
    device: str,
    only: Sequence[str] = (),
) -> list[Row]:
    with torch.device(device):
        table = tables()[name].only(only)
    done = []
    for row in harness.rows(table, quick, threads, device):
        done.append(row)
        missed = [
            f"{peer} {ratio:.2f} < {least:.2f}"
            for peer, least, ratio in harness.misses(table.floors, row)
        ]
        ratios = " ".join(f"{peer} {ratio:.2f}" for peer, ratio in row.ratios.items())
        where = f"{row.name} {row.label} {row.threads}t"
        note = f"   MISSED: {', '.join(missed)}" if missed else ""
        print(f"{where:32s} {row.seconds * 1e6:10.1f} us   {ratios}{note}", flush=True)
    return done


def in_own_process(
    name: str,
    table: Table,
    quick: bool,
    threads: Sequence[int],
    device: str,
    only: Sequence[str] = (),
) -> list[Row]:
    before = dict(os.environ)
    os.environ.update(table.environment)
    try:
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(measure, name, quick, threads, device, only).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
