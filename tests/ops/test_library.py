"""Where compiled kernels come from: wheel, cache, compiler, nowhere."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable

import pytest

from dl4py.ops import build, library

ROOT = pathlib.Path(__file__).parent.parent.parent
SHOW = ["-m", "dl4py.ops"]
# nothing is loaded before the first call; then both passes work, and we see by what
USE = """
import torch
from dl4py.ops import cube, library
assert library._origin == {}
x = torch.tensor([-2.0, 3.0], requires_grad=True)
y = cube(x)
y.sum().backward()
assert y.tolist() == [-8, 27] and x.grad.tolist() == [12, 27]
print(library.origin())
"""


def has_compiler(device: str) -> bool:
    try:
        return bool(build.compiler(device))
    except build.BuildError:
        return False


needs_compiler = pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler")


class Process:
    """Python in a process of its own, warnings as errors, with a cache of its own."""

    def __init__(self, cache: pathlib.Path) -> None:
        self.cache = cache
        self.where = ROOT

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        full = {**os.environ, "TORCH_EXTENSIONS_DIR": str(self.cache)}
        full |= {"PYTHONPATH": str(self.where), **env}
        if "DL4PY_OPS" not in env:
            full.pop("DL4PY_OPS", None)
        return subprocess.Popen(
            [sys.executable, "-W", "error", *args],
            env=full,
            cwd=self.cache,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *args: str, **env: str) -> tuple[str, str]:
        process = self.start(*args, **env)
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, out + err
        return out, err


@pytest.fixture
def python(tmp_path: pathlib.Path) -> Process:
    return Process(tmp_path)


def test_import_loads_and_builds_nothing(python: Process) -> None:
    code = "import sys, dl4py, dl4py.ops as o; print(o.library._origin, *sys.modules)"
    out, err = python("-c", code)
    assert out.startswith("{} ") and not err
    assert not {"torch.utils.cpp_extension", "setuptools"} & set(out.split())
    assert not list(python.cache.iterdir())


@needs_compiler
def test_processes_share_one_build(python: Process) -> None:
    folder = python.cache / "dl4py" / library.cache().name
    folder.mkdir(parents=True)
    name = build.library_name("cpu")
    target = folder / name
    (folder / "lock").touch()  # left by a process that was killed
    target.write_bytes(b"\x7fELF")  # half-written
    both = [python.start("-c", USE) for _ in range(2)]
    said = set()
    for process in both:
        out, err = process.communicate(timeout=900)
        assert (out, process.returncode) == (f"jit: {target}\n", 0)
        said.add(err)
    assert said == {
        "dl4py: compiling CPU kernels, about 30 s, once\n",
        "dl4py: waiting for another process that compiles CPU kernels\n",
    }
    assert sorted(p.name for p in folder.iterdir()) == [name, "lock"]
    built = target.stat().st_mtime_ns
    assert python(*SHOW)[0].startswith(f"cpu: jit: {target}\n")
    assert target.stat().st_mtime_ns == built


def test_off(python: Process) -> None:
    out, err = python("-c", USE, DL4PY_OPS="off")
    assert out == "fallback: DL4PY_OPS=off\n" and not err


Break = Callable[[pathlib.Path], dict[str, str]]


@pytest.mark.parametrize(
    "break_it, reason",
    [
        (lambda cache: {"CXX": "/nowhere/g++"}, "no compiler found (/nowhere/g++)"),
        (lambda cache: {"CXX": "", "PATH": "/nowhere"}, "no compiler found (g++ or"),
        (lambda cache: {"CXX": "false"}, "the compiler failed, see "),
        (lambda cache: {"TORCH_EXTENSIONS_DIR": os.devnull}, "cannot keep"),
    ],
    ids=["CXX", "PATH", "failing", "cache"],
)
@pytest.mark.skipif(not has_compiler("cpu"), reason="no kernels for this system")
def test_what_is_missing_costs_one_line(
    python: Process, break_it: Break, reason: str
) -> None:
    out, err = python("-c", USE, **break_it(python.cache))
    assert out.startswith("fallback: ") and reason in out
    lines = [line for line in err.splitlines() if "dl4py: compiling" not in line]
    assert len(lines) == 1 and reason in lines[0]


MADE = {"compiler": "g++", "torch": "2.13.0"}


class Loads:
    """In the place of building and loading: what works, and what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
        self.tried: list[str] = []
        self.works = {"built"}
        monkeypatch.setattr(library, "PREBUILT", folder / "prebuilt")
        monkeypatch.setattr(library, "cache", lambda: folder / "jit")
        monkeypatch.setattr(build, "build", self.build)
        monkeypatch.setattr("torch.ops.load_library", self.load)
        monkeypatch.delenv("DL4PY_OPS", raising=False)
        self.name = build.library_name("cpu")

    def put(self, folder: pathlib.Path, content: str) -> None:
        folder.mkdir()
        (folder / self.name).write_bytes(build.sealed(content.encode(), MADE))

    def build(self, device: str, target: pathlib.Path, anew: bool = False) -> bool:
        """As the real one, which has loaded what it built."""
        self.tried.append("build")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(build.sealed(b"built", MADE))
        self.load(target)
        return True

    def load(self, path: pathlib.Path) -> None:
        if not path.exists():
            raise OSError("no such file")
        content = path.read_bytes().partition(b"{")[0].decode()
        self.tried.append(content)
        if content not in self.works:
            raise OSError("undefined symbol: aoti_torch_of_tomorrow")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Loads:
    return Loads(monkeypatch, tmp_path)


def test_a_library_for_another_torch_is_replaced(
    loads: Loads, tmp_path: pathlib.Path
) -> None:
    loads.put(tmp_path / "prebuilt", "for another torch")
    loads.put(tmp_path / "jit", "for another system")
    origin, path = library._bring("cpu")
    assert origin == "jit" and path == tmp_path / "jit" / loads.name
    assert loads.tried == ["for another torch", "for another system", "build", "built"]
    loads.tried.clear()
    assert library._bring("cpu")[0] == "jit"
    assert loads.tried == ["for another torch", "built"]


def test_a_damaged_library_is_never_loaded(
    loads: Loads, tmp_path: pathlib.Path
) -> None:
    loads.put(tmp_path / "jit", "built")
    file = tmp_path / "jit" / loads.name
    assert build.whole(file)
    for content in (b"", file.read_bytes()[:-1], b"x" + file.read_bytes()[1:]):
        file.write_bytes(content)
        assert not build.whole(file)
        library._bring("cpu")
        assert loads.tried == ["build", "built"] and build.whole(file)
        loads.tried.clear()


def test_a_damaged_library_of_the_wheel_is_never_loaded(
    loads: Loads, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loads.put(tmp_path / "prebuilt", "built")
    file = tmp_path / "prebuilt" / loads.name
    assert library._bring("cpu") == ("prebuilt", file) and loads.tried == ["built"]
    file.write_bytes(file.read_bytes()[:-1])
    assert library._bring("cpu")[0] == "jit"
    assert loads.tried == ["built", "build", "built"]
    assert capsys.readouterr().err == f"dl4py: {file} is damaged\n"


def test_a_library_that_another_process_built_is_loaded(
    loads: Loads, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(device: str, target: pathlib.Path, anew: bool = False) -> bool:
        loads.put(target.parent, "built")
        return False

    monkeypatch.setattr(build, "build", waited)
    assert library._bring("cpu") == ("jit", tmp_path / "jit" / loads.name)
    assert loads.tried == ["built"]


def test_what_cannot_be_loaded_even_new_is_an_error(loads: Loads) -> None:
    loads.works.clear()
    with pytest.raises(OSError, match="undefined symbol"):
        library._bring("cpu")


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user id that the system does not know: ``~`` stays as it is."""
    for variable in ("HOME", "XDG_CACHE_HOME", "TORCH_EXTENSIONS_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["unknown"])


def test_without_a_home_the_wheel_serves_and_nothing_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    cache = library.cache
    loads = Loads(monkeypatch, tmp_path)
    monkeypatch.setattr(library, "cache", cache)
    homeless(monkeypatch)
    with pytest.raises(build.BuildError, match="no home folder.*set TORCH_EXTENSIONS"):
        library._bring("cpu")
    assert library.state("cpu")["needs"].startswith("no home folder")
    loads.put(tmp_path / "prebuilt", "built")
    assert library._bring("cpu")[0] == "prebuilt" == library.state("cpu")["state"]


def test_state_says_what_is_there_and_what_is_needed(
    loads: Loads, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> tuple[object, ...]:
        return tuple(library.state("cpu").values())

    file = tmp_path / "jit" / loads.name
    monkeypatch.setattr(build, "check", lambda *_: ["g++"])
    assert state() == ("to build", str(file), None, "compiled at first use")
    loads.put(tmp_path / "jit", "built")
    assert state() == ("built", str(file), MADE, None)
    monkeypatch.setenv("DL4PY_OPS", "off")
    assert state() == ("formulas", None, None, "DL4PY_OPS=off")
    monkeypatch.delenv("DL4PY_OPS")
    file.unlink()
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert state()[3] == "no compiler found (/nowhere/g++)"
    assert not loads.tried


def wheel(folder: pathlib.Path, **env: str) -> pathlib.Path:
    for tool in ("pip", "hatchling"):
        try:  # looking for the module pip breaks setuptools in this process
            importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"no {tool}")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "-w", str(folder)]
        + ["--no-build-isolation", "--no-deps", "--no-index", "-q"],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
    )
    (made,) = folder.glob("*.whl")
    return made


@needs_compiler
def test_wheel_with_kernels(python: Process, tmp_path: pathlib.Path) -> None:
    made = wheel(tmp_path / "wheel", DL4PY_BUILD_OPS="1")
    assert "-py3-none-linux_" in made.name
    python.where = tmp_path / "installed"
    with zipfile.ZipFile(made) as archive:
        archive.extractall(python.where)
    out, err = python("-c", USE, CXX="/nowhere/g++")
    name = build.library_name("cpu")
    assert out == f"prebuilt: {python.where / 'dl4py' / '_lib' / name}\n" and not err


def test_wheel_without_kernels_is_pure_python(tmp_path: pathlib.Path) -> None:
    made = wheel(tmp_path, DL4PY_BUILD_OPS="")
    assert made.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(made).namelist()
    assert "dl4py/csrc/sigmoids.inl" in names  # what the first call compiles
    assert not [n for n in names if n.endswith(".so") or "_lib" in n]


def test_formulas_pass_the_same_tests() -> None:
    tests = ["tests/ops/test_ops.py", "tests/ops/test_autograd.py"]
    tests += ["tests/ops/test_losses.py", "tests/ops/test_vectors.py"]
    tests += ["-k", "not TestTransforms and not TestGraphs"]  # the same code either way
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *tests,
            "-k",
            "not Transforms and not Graphs",
        ],
        env={**os.environ, "DL4PY_OPS": "off"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not has_compiler("cuda"), reason="no nvcc")
def test_cuda_sources_compile(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    objects = build.compile_all("cuda", tmp_path, log, ["90"])
    assert not log.exists(), log.read_text()  # no warnings
    assert objects and all(path.stat().st_size for path in objects)
