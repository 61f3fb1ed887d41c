"""What is run on a GPU, the most important first, and how one job went."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.benchmarks import run as benchmarks
from tests.gpu import only

ROOT = pathlib.Path(__file__).parent.parent.parent
PYTEST = ("-m", "pytest", "-q", "-p", "tests.gpu.only", "-W", "default", "--tb=short")
# whose files tell most; all others that need a GPU follow
FIRST = ("gpu/test_networks.py", "ops/test_ops.py", "gpu/test_gpu.py")
SANITIZED = ("ops/test_vectors.py",)
ENDED = "passed", "FAILED"
LAST = "ops", "losses", "updaters", "vectors", "kernels"  # tables, in this order


@dataclasses.dataclass(frozen=True)
class Job:
    """One row of the table: a command line, and the seconds that it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float = 300
    needs: str | None = None  # what is missing here for it


@dataclasses.dataclass(frozen=True)
class Result:
    """How it went: ``passed``, ``FAILED``, ``cut off``, ``not run``."""

    name: str
    status: str
    seconds: float = 0.0
    tests: dict[str, int] = dataclasses.field(default_factory=dict)
    note: str = ""


def jobs(out: pathlib.Path) -> Iterator[Job]:
    """All of them; nothing that is cut off is more important than what ran before."""
    build = "from dl4py.ops import library as l; print(l.origin('cuda')); "
    build += "raise SystemExit(not l.compiled('cuda'))"
    yield Job("build", (sys.executable, "-c", build))
    yield from (tests(file) for file in files())
    yield sanitizer()
    line = (sys.executable, "-m", "tests.benchmarks")
    line += ("--device", "cuda", "--quick", "--check", "--out", str(out / "benchmarks"))
    known = [name for name in LAST if name in benchmarks.tables()]
    yield from (Job(f"benchmark {name}", (*line, name), 120) for name in known)


def files() -> list[str]:
    """Every test file with something that needs a GPU."""
    folder = ROOT / "tests"
    found = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("test_*.py"))
        if any(w in path.read_text() for w in (f'reason="{only.REASON}"', only.HERE))
    ]
    return sorted(found, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))


def tests(file: str) -> Job:
    return Job(file, (sys.executable, *PYTEST, f"tests/{file}"))


def sanitizer() -> Job:
    """Wild accesses of a share of the kernels."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    places = os.pathsep.join([os.environ.get("PATH", ""), f"{home}/bin"])
    tool = shutil.which("compute-sanitizer", path=places)
    line = (tool or "", "--error-exitcode", "9", sys.executable, *PYTEST)
    paths = (f"tests/{file}" for file in SANITIZED)
    needs = None if tool else "compute-sanitizer is not installed"
    return Job("compute-sanitizer", (*line, *paths), 90, needs)


def run(job: Job, seconds: float, out: pathlib.Path) -> Result:
    """Run a job for at most so many seconds; its output goes to a file in ``out``."""
    if job.needs:
        return Result(job.name, "not run", note=job.needs)
    seconds = min(seconds, job.seconds)
    if seconds <= 0:
        return Result(job.name, "not run", note="the time is up")
    log = out / f"{re.sub(r'[ /]', '-', job.name)}.log"
    outcomes = log.with_suffix(".jsonl")
    outcomes.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            job.command,
            cwd=ROOT,
            env=os.environ | {only.FILE: str(outcomes)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            status = ENDED[process.wait(seconds) != 0]
        except subprocess.TimeoutExpired:
            status = "cut off"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    tests = counted(outcomes)
    if status == "passed" and only.__name__ in job.command and not tests.get("passed"):
        status = "FAILED"  # nothing was tested
    if tests.get("failed"):
        status = "FAILED"
    note = "" if status == "passed" else why(log)
    return Result(job.name, status, time.monotonic() - start, tests, note)


def counted(outcomes: pathlib.Path) -> dict[str, int]:
    if not outcomes.exists():
        return {}
    lines = outcomes.read_text().splitlines()
    return dict(Counter(json.loads(line)["outcome"] for line in lines))


def why(log: pathlib.Path) -> str:
    """The last line of the output that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    told = [line for line in lines if line.strip("=-. ")]
    failed = [line for line in told if line.startswith(("FAILED", "ERROR"))]
    return (failed or told or [""])[-1][:200]
