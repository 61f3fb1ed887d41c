"""Measure dl4py beside its peers.

``python -m tests.benchmarks [TABLE ...] [--only NAME ...] [--quick] [--check]
[--out FOLDER]``
``python -m tests.benchmarks kernels ops losses updaters vectors --device cuda``

Runs every table of this folder (``harness`` says what one is), each in a process of its
own, with 1 and 2 threads, or on a GPU. Writes ``results.json``, ``tables.md`` and a
picture per table: the peer's time divided by ours over the size, one line a peer. With
``--only`` the other rows stay as they were, and the new ones say where they are from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

from tests.benchmarks import harness, report, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    known = run.tables()
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds")
    parser.add_argument(
        "--check",
        action="store_true",
        help="fail where a floor is missed by over 20 %%",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", help="1 2; on a GPU 1")
    parser.add_argument("--only", nargs="+", default=[], help="rows of these names")
    parser.add_argument("--out", type=pathlib.Path, help="folder for JSON and pictures")
    given = parser.parse_args()
    if wrong := [name for name in given.tables if name not in known]:
        parser.error(f"unknown table {wrong[0]!r}: expected one of {', '.join(known)}")
    threads = given.threads or ([1, 2] if given.device == "cpu" else [1])
    out = given.out or pathlib.Path("build", "benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    failed = []
    for name in given.tables or known:
        table = known[name]
        print(f"\n## {table.title} ({name})\n", flush=True)
        rows = run.in_own_process(
            name, table, given.quick, threads, given.device, given.only
        )
        print(f"\n{report.shown(rows)}")
        if not rows:
            continue  # none has such a name here
        machine, apart = report.machine(given.device), {}
        if given.only and (old := result.get(name)):
            apart = old.get("apart", {}) | {row.name: machine for row in rows}
            machine, rows = old["machine"], merged(old["rows"], rows)
        result[name] = {
            "title": table.title,
            "quick": given.quick,
            "machine": machine,
            "apart": apart,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        file.write_text(json.dumps(result, indent=1) + "\n")
        (out / "tables.md").write_text(report.document(result, known))
        try:
            report.draw(table, rows, out / f"{name}.png")
        except ImportError:
            print("no picture: matplotlib is not installed")
        for row in rows:
            for peer, least, ratio in harness.misses(table.floors, row, harness.SLACK):
                what = f"{name}: {row.name} {row.label}, {row.threads} threads"
                failed.append(f"{what}: {peer} {ratio:.2f}, floor {least:.2f}")
    print(f"\nwritten to {out}")
    if given.check and failed:
        sys.exit("\n".join(["missed by more than 20 %:", *failed]))


def merged(old: list[dict[str, Any]], new: list[harness.Row]) -> list[harness.Row]:
    """The rows that were there, those measured anew in their places."""
    rows = {(r.name, r.label, r.threads): r for r in (harness.Row(**r) for r in old)}
    return list((rows | {(r.name, r.label, r.threads): r for r in new}).values())


if __name__ == "__main__":
    main()
