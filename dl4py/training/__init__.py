"""Networks and solvers under Lightning, the same for both of its packages."""

from __future__ import annotations

from typing import Any

from dl4py.network.build import trainers


def __getattr__(name: str) -> Any:
    if name == "StatsCallback":  # of the package that is imported already
        return trainers().StatsCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
