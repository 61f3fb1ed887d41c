"""``python -m tests.gpu`` as far as it goes without a GPU: order, limits, table."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.benchmarks import run as benchmarks
from tests.gpu import __main__ as command
from tests.gpu import jobs, only
from tests.gpu.jobs import Job, Result

OF: dict[str, Any] = {
    "cards": ["NVIDIA Test, sm_90, 80 GiB, driver 1.2"],
    "torch": "2.13.0",
    "cuda": "13.0",
    "python": "3.12.1",
    "lightning": "2.6.6",
    "processor": "a processor",
    "nvcc": "nvcc 13.0",
    "date": "2026-01-01",
}
SLEEP = (
    sys.executable,
    "-c",
    "import time; print('so far', flush=True); time.sleep(60)",
)


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def pytest_job(file: pathlib.Path) -> Job:
    return Job("some tests", (sys.executable, *jobs.PYTEST, str(file)))


def test_without_a_gpu_it_is_one_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = [sys.executable, "-m", "tests.gpu"]
    done = subprocess.run(line, cwd=jobs.ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and not done.stdout
    here = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    assert done.stderr == f"tests.gpu: no GPU here ({here})\n"


def test_the_most_important_comes_first(tmp_path: pathlib.Path) -> None:
    names = [job.name for job in jobs.jobs(tmp_path)]
    assert names[:4] == ["build", *jobs.FIRST]
    tables = [name for name in names if name.startswith("benchmark ")]
    assert names[-len(tables) :] == tables and names.index("compute-sanitizer") > 5
    assert {name.split()[1] for name in tables} == set(jobs.LAST)
    assert set(jobs.LAST) <= set(benchmarks.tables())


def test_every_test_that_needs_a_gpu_is_run() -> None:
    """Every file that looks for a card does so in words that the command knows."""
    folder = jobs.ROOT / "tests"
    look = re.compile(r"(skipif\(\s*not|^DEVICE = .*) torch.cuda.is_available", re.M)
    having = {
        str(path.relative_to(folder))
        for path in folder.rglob("test_*.py")
        if look.search(path.read_text())
    }
    assert having == set(jobs.files()) and len(having) >= 7


def test_only_such_tests_are_run_and_noted(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(f"""
import pytest
needs_gpu = pytest.mark.skipif(False, reason="{only.REASON}")
def test_other(): assert False
@needs_gpu
def test_good(): pass
@needs_gpu
def test_bad(): assert False
@pytest.mark.skipif(True, reason="{only.REASON}")
class TestAbsent:
    def test_it(self): pass
""")
    result = jobs.run(pytest_job(file), 100, tmp_path)
    assert result.tests == {"passed": 1, "failed": 1, "skipped": 1}
    assert result.status == "FAILED" and "test_bad" in result.note


def test_a_job_that_tests_nothing_has_failed(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "test_none.py"
    file.write_text(f"""
import pytest
@pytest.mark.skipif(True, reason="{only.REASON}")
def test_it(): pass
""")
    result = jobs.run(pytest_job(file), 100, tmp_path)
    assert (result.status, result.tests) == ("FAILED", {"skipped": 1})


def test_what_the_limit_cuts_off_comes_last_and_is_told(tmp_path: pathlib.Path) -> None:
    todo = [
        Job("quick", python("print('done')")),
        Job("broken", python("raise SystemExit('no such thing')")),
        Job("absent", ("nothing",), needs="no tool for it"),
        Job("slow", SLEEP),
        Job("never", python("print('done')")),
    ]
    results = command.all_of(todo, 3.0, tmp_path, OF)
    assert [r.status for r in results] == [
        "passed",
        "FAILED",
        "not run",
        "cut off",
        "not run",
    ]
    assert [r.note for r in results] == [
        "",
        "no such thing",
        "no tool for it",
        "so far",
        "the time is up",
    ]
    assert results[3].seconds < 10
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["machine"] == OF and len(written["results"]) == 5
    text = (tmp_path / "gpu.md").read_text()
    assert "NVIDIA Test, sm_90, 80 GiB, driver 1.2; torch 2.13.0 (CUDA 13.0)" in text
    assert "| slow | cut off |" in text and "| never | not run |" in text


def test_a_job_may_have_a_limit_of_its_own(tmp_path: pathlib.Path) -> None:
    (result,) = command.all_of([Job("slow", SLEEP, 0.5)], 100, tmp_path, OF)
    assert result.status == "cut off" and result.seconds < 10


def test_the_table() -> None:
    results = [
        Result("a", "passed", 12.3, {"passed": 7}),
        Result("b", "FAILED", note="|"),
    ]
    lines = command.document(OF, results).splitlines()
    assert "| a | passed | 12 | 7 passed |  |" in lines
    assert "| b | FAILED | 0 |  | \\| |" in lines and lines[-1] == "12 s in all."


def test_machine_is_named() -> None:
    assert set(command.machine()) == set(OF)
