"""Compiling the kernels: one shared library per device, out of all sources in ``csrc``.

They use torch's stable ABI only: a library built here serves torch 2.10 and all later
releases. ``torch.utils.cpp_extension.load`` builds it, so ``TORCH_CUDA_ARCH_LIST``,
``MAX_JOBS``, ``CXX``, ``CUDA_HOME`` and ``NVCC_APPEND_FLAGS`` mean what they always
mean; ``DL4PY_OPS_FLAGS`` adds options for compiler and linker of the CPU library, and
``DL4PY_OPS_WAIT`` says how many seconds to wait for another process's build (600).

Needs nothing of dl4py, so that the wheel's build hook runs it as a file.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import mmap
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent.parent
ARCHS = ("75", "80", "86", "89", "90", "100", "120")  # CUDA's that are supported
SUFFIX = {"cpu": ".cpp", "cuda": ".cu"}
_COMMON = ["-std=c++20", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-O3"]
_FLAGS = {
    "cpu": "-fno-math-errno -fno-trapping-math -fopenmp-simd -fvisibility=hidden",
    "cuda": "-DUSE_CUDA -Xcompiler -fvisibility=hidden",
}
_IF_KNOWN = (
    "-mprefer-vector-width=512",
    "-fno-thread-jumps",  # threaded jumps turn a clamp of one instruction into four
)
PLAIN = "for any x86-64: g++ from 12 on makes faster ones"
_RETRY = 3600  # seconds after which a build that failed is tried again
_ELSEWHERE = "set TORCH_EXTENSIONS_DIR to another folder"


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message is one line saying why."""


def reason(error: BaseException) -> BaseException:
    """What a failed load is due to: torch hides what the loader said."""
    return error.__cause__ or error if isinstance(error, OSError) else error


def source_folder() -> pathlib.Path:
    """``csrc``, in the package (wheel) or beside it (clone)."""
    inside = HERE / "csrc"
    return inside if inside.is_dir() else HERE.parent / "csrc"


def digest(device: str) -> str:
    """Changes with the sources and the way they are compiled."""
    flags = [*_COMMON, _FLAGS[device], *_IF_KNOWN, *_more(device)]
    h = hashlib.sha256(" ".join(flags).encode())
    kinds = {".h", ".inl", SUFFIX[device]}
    for path in sorted(source_folder().glob("*")):
        if path.suffix in kinds:
            h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def library_name(device: str, archs: str = "") -> str:
    """File name of the library; a CUDA one is for some architectures, e.g. ``"90"``."""
    return f"{device}{archs}-{digest(device)}.so"


def compiler(device: str) -> list[str]:
    """The compiler as the words of a command line, from ``CXX`` or ``CUDA_HOME``.

    ``CXX`` may hold a launcher and options: ``ccache g++ -m64``.
    """
    if sys.platform != "linux" or device not in SUFFIX:
        raise BuildError(f"no {device} kernels for {sys.platform}")
    if device == "cuda":
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        names = [f"{home}/bin/nvcc"] if home else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    elif platform.machine() != "x86_64":
        raise BuildError(f"no CPU kernels for {platform.machine()}")
    else:
        chosen = os.environ.get("CXX")
        names = [chosen] if chosen else ["g++", "c++", "clang++"]
    for name in names:
        if found := shutil.which(name):  # a path may have spaces
            return [found]
        with contextlib.suppress(ValueError):  # of quotes that do not end
            first, *rest = shlex.split(name) or [""]
            if rest and (found := shutil.which(first)):
                return [found, *rest]
    raise BuildError(f"no compiler found ({' or '.join(names)})")


def sources(device: str) -> list[pathlib.Path]:
    """What the library of a device is made of."""
    return sorted(source_folder().glob(f"*{SUFFIX[device]}"))


def flags(device: str) -> list[str]:
    """The compiler's options, less those that it does not know."""
    found = [*_COMMON, *_FLAGS[device].split(), *_more(device)]
    if device == "cuda":
        return found
    return found + [flag for flag in _IF_KNOWN if _accepts(flag)]


def _accepts(flag: str) -> bool:
    line = [*compiler("cpu"), flag, "-E", "-x", "c++", os.devnull]
    return subprocess.run(line, capture_output=True).returncode == 0


def vectors() -> bool:
    """Whether the compiler knows to compile for several generations of processors."""
    line = [*compiler("cpu"), "-E", "-P", "-x", "c++", "-"]
    asked = f'#include "{source_folder() / "philox.h"}"\nDL4PY_X86\n'
    done = subprocess.run(line, input=asked, capture_output=True, text=True)
    return done.stdout.split()[-1:] == ["1"]


def command(
    device: str,
    source: pathlib.Path,
    target: pathlib.Path,
    archs: Sequence[str] = (),
    include: pathlib.Path | None = None,
) -> list[str]:
    """The command line that makes object code of one source, without linking.

    Args:
        archs: of CUDA, e.g. ``["90"]``; any, whatever card is here.
        include: folder of the headers of some torch (default: of the one installed).
    """
    line = [*compiler(device), *flags(device)]
    line += ["-fPIC"] if device == "cpu" else ["-Xcompiler", "-fPIC"]
    for arch in archs:
        line += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    line += [
        "-isystem",
        str(include or pathlib.Path(_torch().__file__).with_name("include")),
    ]
    return [*line, "-c", str(source), "-o", str(target)]


def compile_all(
    device: str,
    folder: pathlib.Path,
    log: pathlib.Path,
    archs: Sequence[str] = (),
    include: pathlib.Path | None = None,
) -> list[pathlib.Path]:
    """Object code of every source in ``folder``, ``MAX_JOBS`` at a time."""
    objects = {source: folder / f"{source.stem}.o" for source in sources(device)}
    lines = [command(device, s, t, archs, include) for s, t in objects.items()]
    jobs = os.environ.get("MAX_JOBS", "")
    with concurrent.futures.ThreadPoolExecutor(
        int(jobs) if jobs.isdigit() and int(jobs) else os.cpu_count()
    ) as pool:
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
    if device != "cpu":
        return []
    told = os.environ.get("DL4PY_OPS_FLAGS", "")
    try:
        return shlex.split(told)
    except ValueError as error:
        raise BuildError(f"DL4PY_OPS_FLAGS: {error}, got {told!r}") from None


def _torch() -> Any:
    import torch  # not to read names and files

    return torch


def check(device: str, target: pathlib.Path) -> list[str]:
    """The compiler's words; an error that says what is needed to build here."""
    words, log = compiler(device), target.with_suffix(".log")
    with contextlib.suppress(OSError):
        text, age = log.read_text(), time.time() - log.stat().st_mtime
        if text.partition("\n")[0] == shlex.join(words) and age < _RETRY:
            when = f"{int(age / 60)} min ago"
            raise BuildError(f"building failed {when}, see {log}; delete it to retry")
    return words


def build(device: str, target: pathlib.Path, anew: bool = False) -> bool:
    """Build and load a library, and keep it as ``target``, which appears whole.

    Several processes may ask for one target: the first builds, the others wait. One
    that is there and whole is kept, unless ``anew``; then nothing is loaded and the
    result is false. What failed is not tried again for an hour, or while its log
    lies beside the target.
    """
    words = check(device, target)  # before anything is written
    folder, log = target.parent, target.with_suffix(".log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / "lock", f"{device.upper()} kernels"):
            if whole(target) and not anew:
                return False
            check(device, target)  # the one who was waited for may have failed
            _check_may_execute(folder)
            say(f"compiling {device.upper()} kernels{_plain(device)}, about 30 s, once")
            with _private(folder) as private:
                library = _load(device, private, words, log).read_bytes()
                made = {"compiler": shlex.join(words), "torch": _torch().__version__}
                finished = private / "finished"
                finished.write_bytes(sealed(library, made))
                os.replace(finished, target)
            log.unlink(missing_ok=True)
            return True
    except OSError as error:
        what = f"cannot keep kernels in {folder} ({error.strerror})"
        raise BuildError(f"{what}: {_ELSEWHERE}") from None


def say(line: str) -> None:
    """One line to who waits."""
    print(f"dl4py: {line}", file=sys.stderr, flush=True)


def _plain(device: str) -> str:
    if device == "cuda" or vectors():
        return ""
    return f" ({PLAIN})"


def _load(
    device: str, private: pathlib.Path, words: list[str], log: pathlib.Path
) -> pathlib.Path:
    """Build in a folder of one's own and load from there."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    # the stable ABI is one of C: any compiler will do
    variables = {"PATH": _path_with_ninja(), "TORCH_DONT_CHECK_COMPILER_ABI": "1"}
    if device == "cpu":
        variables |= _cxx(words, private)
    given, more = _quoted(flags(device)), _quoted(_more(device))
    try:
        with _environment(variables), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            from torch.utils import cpp_extension  # takes a second

            with _one_word(cpp_extension):
                cpp_extension.load(
                    f"dl4py_{device}",
                    list(map(str, sources(device))),
                    extra_cflags=given if device == "cpu" else [],
                    extra_cuda_cflags=given if device == "cuda" else [],
                    # of the libraries that torch names, those that are used
                    extra_ldflags=["-Wl,--as-needed", *more],
                    build_directory=str(private),
                    is_python_module=False,
                )
    except Exception as error:  # torch's, ninja's, setuptools', the loader's
        told = str(reason(error))
        failed = told.startswith("Error building extension")
        short = "the compiler failed" if failed else told.partition("\n")[0]
        with contextlib.suppress(OSError):
            log.write_text(f"{shlex.join(words)}\n{told}\n")
        raise BuildError(f"{short}, see {log}") from None
    finally:
        logger.setLevel(level)
    (library,) = private.glob("*.so")
    return library


def _quoted(words: list[str]) -> list[str]:
    """Words as the shell takes them, to which torch hands a line."""
    return [shlex.quote(word) for word in words]


@contextlib.contextmanager
def _one_word(cpp_extension: Any) -> Iterator[None]:
    """The folder of torch's libraries quoted, which torch itself leaves out."""
    folder = cpp_extension.TORCH_LIB_PATH
    cpp_extension.TORCH_LIB_PATH = shlex.quote(folder)
    try:
        yield
    finally:
        cpp_extension.TORCH_LIB_PATH = folder


def _cxx(words: list[str], private: pathlib.Path) -> dict[str, str]:
    """``CXX`` as one word, which is what torch takes it for."""
    if len(words) == 1 and " " not in words[0]:
        return {"CXX": words[0]}
    script = private / "cxx"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    script.chmod(0o755)
    # the words have a launcher, or do without
    return {"CXX": str(script), "TORCH_NO_COMPILER_WRAPPER": "1"}


def _path_with_ninja() -> str:
    """``PATH``; a virtual environment's ninja is found without its activation."""
    path = os.environ.get("PATH", os.defpath)
    if shutil.which("ninja"):
        return path
    try:
        import ninja
    except ImportError:
        return path
    return f"{ninja.BIN_DIR}{os.pathsep}{path}"


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _private(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to build in. The lock is held: others there are of killed processes."""
    for left in folder.glob(".build-*"):
        shutil.rmtree(left, ignore_errors=True)
    made = pathlib.Path(tempfile.mkdtemp(dir=folder, prefix=".build-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _check_may_execute(folder: pathlib.Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
        file.flush()
        try:
            mmap.mmap(
                file.fileno(), 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
            ).close()
        except PermissionError:
            what = f"nothing can be executed in {folder} (mounted noexec)"
            raise BuildError(f"{what}: {_ELSEWHERE}") from None


def sealed(library: bytes, made: dict[str, str]) -> bytes:
    """The library, a note on how it was made, and what shows that both are whole.

    Loaders ignore what follows a library.
    """
    note = json.dumps(made).encode()
    content = library + note + len(note).to_bytes(4, "little")
    return content + hashlib.sha256(content).digest()


def note(library: pathlib.Path) -> dict[str, Any] | None:
    """How a library was made; None where it is not as it was written."""
    try:
        content = library.read_bytes()
    except OSError:
        return None
    content, seal = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != seal:
        return None
    length = int.from_bytes(content[-4:], "little")
    try:
        found = json.loads(content[-4 - length : -4])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def whole(library: pathlib.Path) -> bool:
    """Whether a built library is as it was written; loading a part of one crashes."""
    return note(library) is not None


def _seconds_to_wait() -> float:
    told = os.environ.get("DL4PY_OPS_WAIT", "600")
    with contextlib.suppress(ValueError):
        if (seconds := float(told)) >= 0:  # NaN is not: no time would be up
            return seconds
    raise BuildError(f"DL4PY_OPS_WAIT: expected seconds, 0 or more, got {told!r}")


@contextlib.contextmanager
def _lock(path: pathlib.Path, what: str) -> Iterator[None]:
    import fcntl  # Linux only, as are the kernels

    limit = _seconds_to_wait()
    with open(path, "w") as file:
        end = None
        while True:
            try:
                # goes with the process, however it ends
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if end is None:
                    end = time.monotonic() + limit
                    say(f"waiting for another process that compiles {what}")
            if time.monotonic() >= end:
                raise BuildError(
                    f"another process has compiled for {limit:g} s (DL4PY_OPS_WAIT); "
                    f"it holds {path}"
                )
            time.sleep(0.1)
        yield
