"""The last line of a run: how much of DL4J's catalogue was compared."""

from collections import Counter

CASE = "tests/test_catalogue.py::test_equals_dl4j["


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
