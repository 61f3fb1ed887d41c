"""Fixtures of several files, and what a run ends with: how much of DL4J passed."""

import os
import random
from collections import Counter

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from dl4py import updaters
from tests.oracle import Oracle, at_hand
from tests.updating import NAMES

CASE = "tests/models/test_catalogue.py::test_equals_dl4j["


@pytest.fixture(autouse=True)
def seeded():
    """A test draws the same numbers alone, in a suite and on a worker."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def oracle():
    """DL4J, or a skipped test with the reason; in CI it must be there."""
    if not at_hand():
        if os.environ.get("CI"):
            pytest.fail("DL4J must be at hand in CI: set DL4PY_SHARED and install Java")
        pytest.skip("DL4J itself is not at hand")
    with Oracle() as running:
        yield running


@pytest.fixture(params=NAMES)
def cls(request):
    """Every updater's class in turn."""
    return updaters.get(request.param)


def pytest_terminal_summary(terminalreporter):
    """Count what passed whole, what passed but for listed parts, what was left out."""
    from tests.models.test_catalogue import listed

    counts = Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            node = getattr(report, "nodeid", "")
            if not node.startswith(CASE) or getattr(report, "when", "") != "call":
                continue
            part = outcome == "passed" and listed(node[len(CASE) : -1])
            counts["passed but for listed parts" if part else outcome] += 1
    if counts:
        found = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        terminalreporter.write_line(f"DL4J's catalogue: {found}")
