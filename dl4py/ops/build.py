"""Compiling the kernels: one shared library per device, out of all sources in ``csrc``.

They use torch's stable ABI only: a library built here serves torch 2.10 and all later
releases. Needs nothing of dl4py, so that the wheel's build hook runs it as a file.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent.parent
SUFFIX = {"cpu": ".cpp", "cuda": ".cu"}
_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"
_FLAGS = {
    "cpu": (
        "-O3 -fno-math-errno -fno-trapping-math -mprefer-vector-width=512 "
        "-fvisibility=hidden -fPIC"
    ).split(),
    "cuda": (
        "-O3 -DUSE_CUDA --cudart shared -Xcompiler -fPIC,-fvisibility=hidden"
    ).split(),
}


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message is one line saying why."""


def source_folder() -> pathlib.Path:
    """``csrc``, in the package (wheel) or beside it (clone)."""
    inside = HERE / "csrc"
    return inside if inside.is_dir() else HERE.parent / "csrc"


def digest(device: str) -> str:
    """Changes with the sources and the way they are compiled."""
    h = hashlib.sha256(" ".join(_FLAGS[device]).encode())
    kinds = {".h", ".inl", SUFFIX[device]}
    for path in sorted(source_folder().glob("*")):
        if path.suffix in kinds:
            h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def library_name(device: str, arch: str = "") -> str:
    """File name of the library; a CUDA one is for one architecture, e.g. ``"90"``."""
    return f"{device}{arch}-{digest(device)}.so"


def compiler(device: str) -> str:
    """The compiler's path, from ``CXX`` or ``CUDA_HOME`` where they are set."""
    if sys.platform != "linux" or device not in SUFFIX:
        raise BuildError(f"no {device} kernels for {sys.platform}")
    if device == "cuda":
        home = os.environ.get("CUDA_HOME")
        names = [f"{home}/bin/nvcc"] if home else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    elif platform.machine() != "x86_64":
        raise BuildError(f"no CPU kernels for {platform.machine()}")
    else:
        chosen = os.environ.get("CXX")
        names = [chosen] if chosen else ["g++", "c++", "clang++"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise BuildError(f"no compiler found ({' or '.join(names)})")


def sources(device: str) -> list[pathlib.Path]:
    """What the library of a device is made of."""
    return sorted(source_folder().glob(f"*{SUFFIX[device]}"))


def command(device: str, arch: str = "") -> list[str]:
    """The compiler's command line without files."""
    line = [compiler(device), "-std=c++20", _TARGET, *_FLAGS[device]]
    if arch:
        line += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    return [*line, "-isystem", str(_torch() / "include")]


def _torch() -> pathlib.Path:
    import torch

    return pathlib.Path(torch.__file__).parent


def build(device: str, target: pathlib.Path, arch: str = "") -> None:
    """Compile into ``target``, which appears whole or not at all.

    Several processes may ask for one target: the first builds, the others wait.
    """
    line = command(device, arch)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.with_suffix(".lock")):
        if target.exists():
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
            library = pathlib.Path(folder, target.name)
            parts = {s: pathlib.Path(folder, f"{s.stem}.o") for s in sources(device)}
            lines = [[*line, "-c", "-o", str(o), str(s)] for s, o in parts.items()]
            link = [*line, "-shared", "-o", str(library), *map(str, parts.values())]
            link += [f"-L{_torch() / 'lib'}", "-ltorch_cpu"]
            link += ["-ltorch_cuda"] if device == "cuda" else []
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                done = list(pool.map(_run, lines))
            done += [] if any(code for code, _ in done) else [_run(link)]
            if failures := [log for code, log in done if code]:
                log = target.with_suffix(".log")
                log.write_text("\n".join(failures))
                raise BuildError(f"the compiler failed, see {log}")
            os.replace(library, target)


def _run(line: list[str]) -> tuple[int, str]:
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    return done.returncode, f"{' '.join(line)}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    import fcntl  # Linux only, as are the kernels

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the process, however it ends
        yield
