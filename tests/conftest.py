"""DL4J itself as a fixture, and a run's last line: how much of its catalogue passed."""

import os
from collections import Counter

import pytest

from tests.oracle import Oracle, at_hand

CASE = "tests/test_catalogue.py::test_equals_dl4j["


@pytest.fixture(scope="module")
def oracle():
    """DL4J, or a skipped test with the reason; in CI it must be there."""
    if not at_hand():
        if os.environ.get("CI"):
            pytest.fail("DL4J must be at hand in CI: set DL4PY_SHARED and install Java")
        pytest.skip("DL4J itself is not at hand")
    with Oracle() as running:
        yield running


def pytest_terminal_summary(terminalreporter):
    """Count what passed whole, what passed but for listed parts, what was left out."""
    from tests.test_catalogue import listed

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
