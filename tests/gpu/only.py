"""A pytest plugin: runs what is marked as needing a GPU and notes outcomes at once.

``$DL4PY_GPU_OUTCOMES`` is the file of the outcomes, one JSON line a test, so that a run
that is cut off has told what it got through.
"""

from __future__ import annotations

import json
import os
import pathlib

import pytest

REASON = "needs a GPU"  # of the mark ``skipif``
HERE = (
    'DEVICE = "cuda" if torch.cuda.is_available()'  # of a file that takes what is here
)
FILE = "DL4PY_GPU_OUTCOMES"


def needs_gpu(item: pytest.Item) -> bool:
    if getattr(getattr(item, "module", None), "DEVICE", "cpu") == "cuda":
        return True
    return any(m.kwargs.get("reason") == REASON for m in item.iter_markers("skipif"))


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    other = [item for item in items if not needs_gpu(item)]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if needs_gpu(item)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        line = json.dumps({"test": report.nodeid, "outcome": report.outcome})
        with pathlib.Path(os.environ[FILE]).open("a") as file:
            file.write(line + "\n")
