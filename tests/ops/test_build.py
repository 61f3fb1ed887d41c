"""How kernels are compiled: what of torch they name, compilers, failing builds."""

from __future__ import annotations

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from dl4py.ops import build, library
from tests import headers

SHIM = "stable.h"
PUBLIC = {"STD_TORCH_CHECK", "TORCH_BOX", "STABLE_TORCH_LIBRARY_IMPL"}


def names_of_torch(text: str) -> set[str]:
    """What a source takes of torch, comments and messages aside."""
    code = re.sub(r'//.*|"(\\.|[^"\n])*"', "", text)
    code = "\n".join(line for line in code.splitlines() if "#include" not in line)
    found = set(re.findall(r"\b\w*(?:TORCH|torch|aoti|Aten|ATen|c10)\w*\b", code))
    return found | set(re.findall(r"#include\s*<((?:torch|ATen|c10)/.*)>", text))


def test_only_the_shim_header_knows_torch() -> None:
    """All else is the same in every release; the shim is tried with each of them."""
    folder = build.source_folder()
    files = [p for p in folder.iterdir() if p.suffix in {".h", ".inl", ".cpp", ".cu"}]
    taken = {p.name: names_of_torch(p.read_text()) - PUBLIC for p in files}
    assert taken.pop(SHIM) >= {"aoti_torch_empty_strided", "AtenTensorHandle"}
    assert len(taken) > 10 and not any(taken.values()), taken


def test_what_counts_as_a_name_of_torch() -> None:
    text = '#include <torch/a.h>\n#include "b.h"  // torch\nTORCH_CHECK(1, "torch");'
    assert names_of_torch(text) == {"torch/a.h", "TORCH_CHECK"}


def test_private_names_are_looked_for_in_sources() -> None:
    """As ``python -m tests.headers`` does it in torches that are not installed."""
    here = pathlib.Path(torch.__file__).parent
    names = headers.private_names()
    assert {"torch._C._set_grad_enabled", "torch._foreach_mul_"} < set(names)
    assert [name for name in names if not headers.defined(name, here)] == []
    for made_up in (
        "torch._C._set_grad",
        "torch._ops.OpOverload._o",
        "torch._foreach_x",
    ):
        assert not headers.defined(made_up, here)


FAKE = """#!/bin/sh
echo "$0 $*" >> "{folder}/calls"
for word; do
  shift
  case $word in
    -fno-thread-jumps) [ -e "{folder}/clang" ] && exit 1; set -- "$@" "$word" ;;
    *csrc/*.cpp) set -- "$@" "{folder}/empty.cpp" ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec {real} "$@"
"""


class Compiler:
    """A real one that finds every source empty: a build takes a second."""

    def __init__(self, folder: pathlib.Path, real: str) -> None:
        self.folder, self.path = folder, folder / "bin" / "g++"
        (folder / "bin").mkdir()
        (folder / "empty.cpp").touch()
        self.path.write_text(FAKE.format(folder=folder, real=real))
        self.path.chmod(0o755)

    def calls(self) -> list[str]:
        """Command lines so far that made something."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if " -o " in line]


@pytest.fixture
def compiler(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    try:
        monkeypatch.delenv("CXX", raising=False)
        (real,) = build.compiler("cpu")
    except build.BuildError as error:
        pytest.skip(str(error))
    made = Compiler(tmp_path, real)
    monkeypatch.setenv("CXX", str(made.path))
    return made


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "cache" / "cpu-of-a-test.so"


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_torch_builds_with_its_variables(
    compiler: Compiler,
    target: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from torch.utils import cpp_extension

    ways: list[tuple[str, object]] = []
    load = cpp_extension.load

    def spy(*args: object, **given: object) -> object:
        folder = given["build_directory"]
        assert isinstance(folder, str) and pathlib.Path(folder).parent == target.parent
        assert not target.exists()
        made = load(*args, **given)
        text = pathlib.Path(folder, "build.ninja").read_text()
        ways.append((text, given["is_python_module"]))
        return made

    monkeypatch.setattr(cpp_extension, "load", spy)
    assert build.build("cpu", target)
    ((ninja, is_module),) = ways
    assert is_module is False
    assert f"cxx = {compiler.path}\n" in ninja.replace("ccache ", "")
    assert "-fno-thread-jumps" in ninja and "-Wl,--as-needed" in ninja
    assert len(compiler.calls()) == len(build.sources("cpu")) + 1
    assert names(target.parent) == [target.name, "lock"]
    assert build.note(target) == {
        "compiler": str(compiler.path),
        "torch": torch.__version__,
    }
    said = capsys.readouterr()
    assert (
        said.err == "dl4py: compiling CPU kernels, about 30 s, once\n" and not said.out
    )
    assert not build.build("cpu", target)  # it is there
    assert len(ways) == 1 and not capsys.readouterr().err


@pytest.mark.parametrize(
    "words, seen",
    [
        ("{launcher} {compiler}", ["launched", "-shared"]),
        ("{compiler} -m64 -DA='b c'", ["-m64 -DA=b c", "-shared"]),
        ("{launcher} {compiler} -m64", ["launched", "-m64"]),
        ("{spaces}", ["-shared"]),
    ],
)
def test_cxx_may_have_a_launcher_options_and_spaces(
    words: str,
    seen: list[str],
    compiler: Compiler,
    target: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher, spaces = target.parent.with_name("launch"), compiler.folder / "my g++"
    launcher.write_text(
        f'#!/bin/sh\necho launched "$@" >> "{compiler.folder}/calls"\nexec "$@"\n'
    )
    launcher.chmod(0o755)
    spaces.symlink_to(compiler.path)
    given = {"launcher": launcher, "compiler": compiler.path, "spaces": spaces}
    monkeypatch.setenv("CXX", words.format_map(given))
    assert build.build("cpu", target)
    assert os.environ["CXX"] == words.format_map(given)
    linking = [line for line in compiler.calls() if "-shared" in line]
    assert all(any(word in line for line in linking) for word in seen), linking


def test_folders_may_have_spaces(
    compiler: Compiler,
    target: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of torch's libraries, those of options, and that of the kernels."""
    from torch.utils import cpp_extension

    folder = compiler.folder / "Program Files"
    folder.mkdir()
    (folder / "lib").symlink_to(cpp_extension.TORCH_LIB_PATH)
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", str(folder / "lib"))
    monkeypatch.setenv("DL4PY_OPS_FLAGS", f"-O0 '-L{folder}' -DTOLD='\"a b\"'")
    assert '-DTOLD="a b"' in build.flags("cpu")
    assert build.build("cpu", folder / "cache" / target.name)
    assert str(folder / "lib") == cpp_extension.TORCH_LIB_PATH
    monkeypatch.setenv("DL4PY_OPS_FLAGS", "'-L")
    with pytest.raises(build.BuildError, match="DL4PY_OPS_FLAGS: No closing quotation"):
        build.build("cpu", target)


def test_options_that_a_compiler_does_not_know_are_left_out(compiler: Compiler) -> None:
    assert "-fno-thread-jumps" in build.flags("cpu")
    (compiler.folder / "clang").touch()
    assert "-fno-thread-jumps" not in build.flags("cpu")
    assert "-fno-math-errno" in build.flags("cpu")


def test_old_compilers_make_one_baseline_and_say_so(
    compiler: Compiler,
    target: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not build.vectors():
        pytest.skip("the compiler here is an old one")
    old = f"{compiler.path} -U__GNUC__ -D__GNUC__=11"
    monkeypatch.setenv("CXX", old)
    assert not build.vectors()
    assert build.build("cpu", target)
    assert capsys.readouterr().err == (
        f"dl4py: compiling CPU kernels ({build.PLAIN}), about 30 s, once\n"
    )


def test_a_failed_build_is_told_once_and_not_repeated(
    compiler: Compiler, target: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = target.with_suffix(".log")
    (compiler.folder / "empty.cpp").write_text("no C++")
    with pytest.raises(build.BuildError, match=f"^the compiler failed, see {log}$"):
        build.build("cpu", target)
    assert "empty.cpp" in log.read_text()
    assert names(target.parent) == [log.name, "lock"]
    tried = len(compiler.calls())
    with pytest.raises(build.BuildError, match=f"failed 0 min ago, see {log}; delete"):
        build.build("cpu", target)
    assert len(compiler.calls()) == tried
    (compiler.folder / "empty.cpp").write_text("")
    old = log.stat().st_mtime - 2 * 3600
    os.utime(log, (old, old))
    assert build.build("cpu", target) and not log.exists()
    log.write_text("some other compiler\n")
    assert build.check("cpu", target) == [str(compiler.path)]


def test_what_was_built_but_cannot_be_loaded_is_a_failed_build(
    compiler: Compiler, target: pathlib.Path
) -> None:
    (compiler.folder / "empty.cpp").write_text(
        'extern "C" int missing(); static int here = missing();'
    )
    with pytest.raises(
        build.BuildError, match=r"undefined symbol: missing, see .*log$"
    ):
        build.build("cpu", target)
    assert not target.exists()
    with pytest.raises(build.BuildError, match="failed 0 min ago"):
        build.build("cpu", target, anew=True)


def test_whatever_torch_raises_is_one_line(
    compiler: Compiler, target: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("torch changed its mind\nabout this")

    monkeypatch.setattr("torch.utils.cpp_extension.load", fail)
    with pytest.raises(build.BuildError, match=r"^torch changed its mind, see .*log$"):
        build.build("cpu", target)
    assert "about this" in target.with_suffix(".log").read_text()
    assert not list(target.parent.glob(".build-*"))


def test_what_killed_builds_left_is_removed(
    compiler: Compiler, target: pathlib.Path
) -> None:
    left = target.parent / ".build-abc"
    left.mkdir(parents=True)
    (left / "a.o").touch()
    assert build.build("cpu", target)
    assert names(target.parent) == [target.name, "lock"]


def test_a_killed_build_leaves_no_lock(
    compiler: Compiler, target: pathlib.Path
) -> None:
    path = compiler.path
    text = path.read_text()
    path.write_text(
        text.replace("exec", f"touch {compiler.folder}/busy; sleep 60; exec")
    )
    path.chmod(0o755)
    code = "import sys, pathlib; from dl4py.ops import build; "
    code += "build._accepts = lambda flag: True; build.vectors = lambda: True; "
    code += "build.build('cpu', pathlib.Path(sys.argv[1]))"
    env = os.environ | {"PYTHONPATH": str(build.HERE.parent)}
    killed = subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        env=env,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not (compiler.folder / "busy").exists():
            assert killed.poll() is None
    finally:
        os.killpg(killed.pid, 9)
        killed.wait()
    assert any(name.startswith(".build-") for name in names(target.parent))
    path.write_text(text)
    assert build.build("cpu", target)
    assert names(target.parent) == [target.name, "lock"]


def test_waiting_is_told_and_has_an_end(
    compiler: Compiler,
    target: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target.parent.mkdir()
    monkeypatch.setenv("DL4PY_OPS_WAIT", "0.3")
    with open(target.parent / "lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(build.BuildError, match=r"compiled for 0.3 s \(DL4PY_OPS_W"):
            build.build("cpu", target)
    assert capsys.readouterr().err == (
        "dl4py: waiting for another process that compiles CPU kernels\n"
    )
    assert not compiler.calls()
    for told in ("long", "nan", "-1", ""):
        monkeypatch.setenv("DL4PY_OPS_WAIT", told)
        with pytest.raises(build.BuildError, match=f"0 or more, got {told!r}"):
            build.build("cpu", target)


def test_a_folder_where_nothing_runs_is_found_before_a_build(
    compiler: Compiler, target: pathlib.Path
) -> None:
    """On a real mount, in a namespace of its own."""
    target.parent.mkdir()
    code = "import sys, pathlib, runpy; build = runpy.run_path(sys.argv[1])['build']; "
    code += "build('cpu', pathlib.Path(sys.argv[2]))"
    mount = f"mount -t tmpfs -o noexec none {target.parent} || exit 77; exec "
    mount += f'{sys.executable} -c "{code}" {build.__file__} {target}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount]
        if shutil.which("unshare")
        else ["false"],
        capture_output=True,
        text=True,
    )
    if "BuildError" not in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr[-200:]}")
    assert "(mounted noexec): set TORCH_EXTENSIONS_DIR" in done.stderr
    assert not compiler.calls()


def test_no_permission_to_execute(
    compiler: Compiler, target: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("mmap.mmap", refuse)
    with pytest.raises(build.BuildError, match=r"\(mounted noexec\): set TORCH_EXT"):
        build.build("cpu", target)
    assert not compiler.calls()


def test_a_cache_that_cannot_be_written_names_the_way_out(compiler: Compiler) -> None:
    with pytest.raises(build.BuildError, match="cannot keep.*set TORCH_EXT"):
        build.build("cpu", pathlib.Path(os.devnull) / "a.so")


def test_ninja_of_an_environment_that_is_not_activated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ninja")
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("ninja", path=build._path_with_ninja())


Archs = Callable[[str, tuple[int, int]], str]


@pytest.fixture
def archs(monkeypatch: pytest.MonkeyPatch) -> Archs:
    def found(told: str, *cards: tuple[int, int]) -> str:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", told)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        get = lambda i=0: cards[i]  # noqa: E731
        monkeypatch.setattr(torch.cuda, "get_device_capability", get)
        return library._archs()

    return found


def test_a_cuda_library_is_named_after_what_it_is_compiled_for(archs: Archs) -> None:
    assert archs("", (9, 0)) == "90"
    assert archs("native", (9, 0), (8, 0), (9, 0)) == "80.90"
    assert archs("8.0;9.0+PTX", (9, 0)) == "-8.0_9.0+PTX"
    assert archs("8.0 8.6", (8, 9)) == "-8.0_8.6"
    assert (
        archs("7.0+PTX", (9, 0)) and archs("Hopper", (9, 0)) and archs("9.0a", (9, 0))
    )
    assert build.library_name("cuda", "90").startswith("cuda90-")


@pytest.mark.parametrize("told", ["7.0", "9.0", "8.9", "8.0a;7.5", "9.0+PTX"])
def test_a_list_without_code_for_the_card_is_told(told: str, archs: Archs) -> None:
    with pytest.raises(build.BuildError, match=r"no code for this card \(8.6\)"):
        archs(told, (8, 6))
