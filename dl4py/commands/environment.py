"""What dl4py finds here: versions, devices, compilers, kernels and what they need."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import torch

import dl4py
from dl4py.ops import build, library
from dl4py.table import Table

PACKAGES = (
    "torch",
    "lightning",
    "pytorch-lightning",
    "torchmetrics",
    "numpy",
    "ninja",
    "setuptools",
)
VARIABLES = (
    "DL4PY_OPS",
    "DL4PY_OPS_FLAGS",
    "DL4PY_OPS_WAIT",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_CUDA_ARCH_LIST",
    "MAX_JOBS",
    "CXX",
    "CUDA_HOME",
    "NVCC_APPEND_FLAGS",
)


def describe() -> dict[str, Any]:
    """All of it as plain types. Builds and loads nothing.

    >>> describe()["kernels"]["cpu"]["state"] in library.STATES
    True
    """
    return {
        "versions": {
            "dl4py": dl4py.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "system": platform.platform(),
        },
        "devices": {
            "cpu": f"{_processor()}, {os.cpu_count()} cores, "
            f"{torch.get_num_threads()} threads",
            **{f"cuda:{i}": card for i, card in enumerate(cards())},
        },
        "torch's CUDA": torch.version.cuda,
        "compilers": {device: _compiler(device) for device in build.SUFFIX},
        "cache": _cache(),
        "kernels": {device: library.state(device) for device in build.SUFFIX},
        "variables": {n: os.environ[n] for n in VARIABLES if n in os.environ},
    }


def cards() -> list[str]:
    """The GPUs that torch sees, each with its driver."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = []
    for i in range(count):
        of = torch.cuda.get_device_properties(i)
        size = f"{of.total_memory / 2**30:.0f} GiB"
        what = f"{of.name}, sm_{of.major}{of.minor}, {size}"
        found.append(f"{what}, driver {driver() or 'unknown'}")
    return found


def driver() -> str | None:
    """The version of NVIDIA's driver."""
    line = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return next(iter(_told(line).splitlines()), None)


def table() -> Table:
    """The same to read."""
    return Table(list(_rows(describe())))


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if name == "kernels":
            for device, state in value.items():
                yield f"{device} kernels", _shown(state)
        elif name == "compilers":
            yield from ((f"{key} compiler", told) for key, told in value.items())
        elif isinstance(value, dict):
            yield from ((key, told or "not installed") for key, told in value.items())
        else:
            yield name, value or "none"


def _shown(state: dict[str, Any]) -> str:
    told = str(state["state"])
    if state["path"]:
        told += f": {state['path']}"
    if state["made"]:
        told += f" ({', '.join(map(str, state['made'].values()))})"
    return told + (f"; {state['needs']}" if state["needs"] else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    name = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        models = (line.split(": ")[1] for line in file if line.startswith("model name"))
        name = next(models, name).strip()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _compiler(device: str) -> str:
    try:
        words = build.compiler(device)
    except build.BuildError as error:
        return str(error)
    lines = _told([*words, "--version"]).splitlines()
    named = [line for line in lines if "release" in line] or lines
    told = f"{shlex.join(words)}: {named[0] if named else 'does not run'}"
    if device == "cpu" and not build.vectors():
        told += f"; {build.PLAIN}"
    return told


def _cache() -> str:
    try:
        return str(library.cache())
    except build.BuildError as error:
        return str(error)


def _told(line: list[str]) -> str:
    if not shutil.which(line[0]):
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(line, capture_output=True, text=True, timeout=20)
        return done.stdout if done.returncode == 0 else ""
    return ""
