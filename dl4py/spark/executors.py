"""The Pythons that run what Spark is given."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any


def same_python(spark: Any) -> None:
    """Let this machine's executors use this Python, unless a setting names one."""
    context = spark.sparkContext
    named = "PYSPARK_PYTHON" in os.environ or context.getConf().get(
        "spark.pyspark.python"
    )
    if not named and str(context.master).startswith("local"):
        context.pythonExec = sys.executable


def check_executors(spark: Any, processes: int) -> None:
    """Refuse executors without dl4py, which would say so less clearly later."""

    def without(_: int) -> str:  # goes to the executors by value
        import importlib.util

        there = all(importlib.util.find_spec(n) for n in ("dl4py", "torch", "pyarrow"))
        return "" if there else f"{socket.gethostname()} ({sys.executable})"

    tasks = spark.sparkContext.parallelize(range(processes), processes)
    lacking = sorted(set(filter(None, tasks.map(without).collect())))
    if lacking:
        raise RuntimeError(
            f"fit(...): no dl4py in the Python of {', '.join(lacking)}: pip install "
            "'dl4py[spark]' there, or set PYSPARK_PYTHON to a Python that has it"
        )
