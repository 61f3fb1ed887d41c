"""Everything that needs a GPU: ``python -m tests.gpu [--out DIR] [--limit SECONDS]``.

Builds the kernels, runs the tests that need a GPU (networks beside recorded numbers,
solvers, trainers and CUDA graphs first), a share of them under ``compute-sanitizer``
where it is installed, and the benchmark with a GPU's floors. What the limit (480 s)
cuts off is the least important. Prints one table and writes ``gpu.json``, ``gpu.md``
and every job's output to the folder. Needs no network and nothing but this clone.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import Any

import torch

from dl4py.commands import environment
from tests.benchmarks.harness import markdown
from tests.gpu.jobs import Job, Result, jobs, run

BAD = "FAILED", "cut off"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu")
    default = pathlib.Path("build", "gpu")
    parser.add_argument("--out", type=pathlib.Path, default=default, help="a folder")
    parser.add_argument("--limit", type=float, default=480, help="seconds for all")
    given = parser.parse_args()
    if missing := lacking():
        sys.exit(f"tests.gpu: {missing}")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = all_of(jobs(out), given.limit, out, machine())
    print(document(machine(), results))
    sys.exit(any(result.status in BAD for result in results))


def lacking() -> str | None:
    """What is not here, in one line."""
    if not torch.cuda.is_available():
        return f"no GPU here (torch {torch.__version__}, CUDA {torch.version.cuda})"
    for package in ("pytest", "hypothesis", "mpmath", "lightning", "pytorch_lightning"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install '.[test]'"
    return None


def machine() -> dict[str, Any]:
    found = environment.describe()
    return {
        "cards": environment.cards(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": found["versions"]["python"],
        "lightning": found["versions"]["lightning"],
        "processor": found["devices"]["cpu"],
        "nvcc": found["compilers"]["cuda"],
        "date": datetime.date.today().isoformat(),
    }


def all_of(
    todo: Iterable[Job], limit: float, out: pathlib.Path, of: dict[str, Any]
) -> list[Result]:
    """Run jobs in their order until the time is up; what is known is always written."""
    end = time.monotonic() + limit
    results: list[Result] = []
    for job in todo:
        print(f"{job.name} ...", end=" ", flush=True)
        results.append(run(job, end - time.monotonic(), out))
        print(f"{results[-1].status}, {results[-1].seconds:.0f} s", flush=True)
        written = {"machine": of, "results": [dataclasses.asdict(r) for r in results]}
        (out / "gpu.json").write_text(json.dumps(written, indent=1) + "\n")
        (out / "gpu.md").write_text(document(of, results))
    return results


def document(of: dict[str, Any], results: list[Result]) -> str:
    """The table, below the names of the machine."""
    named = "; ".join(of["cards"]) if of["cards"] else "no card"
    head = f"{named}; torch {of['torch']} (CUDA {of['cuda']}), Python {of['python']}, "
    head += (
        f"Lightning {of['lightning']}; {of['processor']}; {of['nvcc']}; {of['date']}"
    )
    lines = [
        [
            r.name,
            r.status,
            f"{r.seconds:.0f}",
            ", ".join(f"{n} {outcome}" for outcome, n in sorted(r.tests.items())),
            r.note.replace("|", "\\|"),
        ]
        for r in results
    ]
    total = sum(r.seconds for r in results)
    table = markdown(["", "", "s", "tests", "why"], lines)
    return f"# On a GPU\n\n{head}\n\n{table}\n\n{total:.0f} s in all.\n"


if __name__ == "__main__":
    main()
