"""What is counted, and the text in which Prometheus reads it."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterator

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Count:
    """A number that grows."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, n: int = 1) -> None:
        """Count ``n`` more."""
        self.value += n


class Counts:
    """What is counted for one model."""

    def __init__(self) -> None:
        self.batches, self.rows = Count(), Count()
        self.restarts, self.reloads = Count(), Count()
        self.answers: dict[int, int] = defaultdict(int)
        self.buckets = [0] * (len(SECONDS) + 1)
        self.seconds = 0.0

    def answered(self, status: int, seconds: float) -> None:
        """Count one request that was answered."""
        self.answers[status] += 1
        self.buckets[bisect.bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds


def text(models: dict[str, tuple[Counts, dict[str, int]]]) -> str:
    """Prometheus's text format.

    Args:
        models: name → what was counted, and gauges with their present values.

    Example:
        >>> counts = Counts()
        >>> counts.answered(200, 0.003)
        >>> print(text({"iris": (counts, {"waiting": 2})}).splitlines()[1])
        dl4py_requests_total{model="iris",status="200"} 1
    """
    return "\n".join(_lines(models)) + "\n"


def _lines(models: dict[str, tuple[Counts, dict[str, int]]]) -> Iterator[str]:
    labels = {name: f'model="{_escaped(name)}"' for name in models}
    yield "# TYPE dl4py_requests_total counter"
    for name, (counts, _) in models.items():
        for status, n in sorted(counts.answers.items()):
            yield f'dl4py_requests_total{{{labels[name]},status="{status}"}} {n}'
    for word in ("rows", "batches", "restarts", "reloads"):
        yield f"# TYPE dl4py_{word}_total counter"
        for name, (counts, _) in models.items():
            yield f"dl4py_{word}_total{{{labels[name]}}} {getattr(counts, word).value}"
    yield "# TYPE dl4py_request_seconds histogram"
    for name, (counts, _) in models.items():
        ends = (*map(str, SECONDS), "+Inf")
        sums = itertools.accumulate(counts.buckets)
        for end, n in zip(ends, sums, strict=True):
            yield f'dl4py_request_seconds_bucket{{{labels[name]},le="{end}"}} {n}'
        yield f"dl4py_request_seconds_sum{{{labels[name]}}} {counts.seconds:.6f}"
        yield f"dl4py_request_seconds_count{{{labels[name]}}} {sum(counts.buckets)}"
    for word in next(iter(models.values()))[1]:
        yield f"# TYPE dl4py_{word} gauge"
        for name, (_, gauges) in models.items():
            yield f"dl4py_{word}{{{labels[name]}}} {gauges[word]}"


def _escaped(name: str) -> str:
    return name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
