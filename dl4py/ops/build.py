"""Compiling the kernels: one shared library per device, out of all sources in ``csrc``.

They use torch's stable ABI only: a library built here serves torch 2.10 and all later
releases. Needs nothing of dl4py, so that the wheel's build hook runs it as a file.
``DL4PY_OPS_FLAGS`` adds options for compiler and linker of the CPU library.
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
from collections.abc import Iterator, Sequence

HERE = pathlib.Path(__file__).resolve().parent.parent
ARCHS = ("75", "80", "86", "89", "90", "100", "120")  # CUDA's that are supported
SUFFIX = {"cpu": ".cpp", "cuda": ".cu"}
_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"
_FLAGS = {
    "cpu": (
        "-O3 -fno-math-errno -fno-trapping-math -mprefer-vector-width=512 "
        # threaded jumps turn a clamp of one instruction into four
        "-fno-thread-jumps -fopenmp-simd -fvisibility=hidden -fPIC"
    ).split(),
    "cuda": "-O3 -DUSE_CUDA -Xcompiler -fPIC,-fvisibility=hidden".split(),
}
_LINK = {"cpu": [], "cuda": ["--cudart", "shared"]}


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message is one line saying why."""


def source_folder() -> pathlib.Path:
    """``csrc``, in the package (wheel) or beside it (clone)."""
    inside = HERE / "csrc"
    return inside if inside.is_dir() else HERE.parent / "csrc"


def digest(device: str) -> str:
    """Changes with the sources and the way they are compiled."""
    h = hashlib.sha256(" ".join(_FLAGS[device] + _more(device)).encode())
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


def command(
    device: str, source: pathlib.Path, target: pathlib.Path, archs: Sequence[str] = ()
) -> list[str]:
    """The compiler's command line that makes object code of one source."""
    line = [compiler(device), "-std=c++20", _TARGET, *_FLAGS[device], *_more(device)]
    for arch in archs:
        line += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    include = str(_torch() / "include")
    return [*line, "-isystem", include, "-c", str(source), "-o", str(target)]


def compile_all(
    device: str, folder: pathlib.Path, log: pathlib.Path, archs: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Object code of every source in ``folder``, all processors at work."""
    objects = {source: folder / f"{source.stem}.o" for source in sources(device)}
    lines = [command(device, s, target, archs) for s, target in objects.items()]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda line: _run(line, log), lines):
            pass
    return list(objects.values())


def _run(line: list[str], log: pathlib.Path) -> None:
    done = subprocess.run(line, capture_output=True, text=True, errors="replace")
    if done.returncode or done.stderr:
        log.write_text(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
    if done.returncode:
        raise BuildError(f"the compiler failed, see {log}")


def _more(device: str) -> list[str]:
    return os.environ.get("DL4PY_OPS_FLAGS", "").split() if device == "cpu" else []


def _torch() -> pathlib.Path:
    import torch

    return pathlib.Path(torch.__file__).parent


def build(
    device: str, target: pathlib.Path, arch: str = "", anew: bool = False
) -> None:
    """Compile into ``target``, which appears whole or not at all.

    Several processes may ask for one target: the first builds, the others wait. One
    that is there and whole is kept, unless ``anew``.
    """
    compiler(device)  # before anything is written
    target.parent.mkdir(parents=True, exist_ok=True)
    log = target.with_suffix(".log")
    with _lock(target.with_suffix(".lock")):
        if whole(target) and not anew:
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as name:
            folder = pathlib.Path(name)
            library = folder / target.name
            objects = compile_all(device, folder, log, [arch] if arch else [])
            line = [compiler(device), *_LINK[device], *_more(device)]
            line += ["-shared", "-o", str(library), *map(str, objects)]
            line += [f"-L{_torch() / 'lib'}", "-ltorch_cpu"]
            _run(line + ["-ltorch_cuda"] * (device == "cuda"), log)
            with open(library, "ab") as file:  # loaders ignore what follows
                file.write(hashlib.sha256(library.read_bytes()).digest())
            os.replace(library, target)


def whole(library: pathlib.Path) -> bool:
    """Whether a built library is as it was written; loading a part of one crashes."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    import fcntl  # Linux only, as are the kernels

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the process, however it ends
        yield
