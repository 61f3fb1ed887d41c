"""Whether dl4py fits every torch that it promises: headers, private names, minima.

``python -m tests.headers [VERSION ...] [--minima] [--archs 75 90] [--keep FOLDER]``

Takes the newest release of each minor version from the least that pyproject.toml allows
on, with the newest of all (``pip index versions torch``); downloads one wheel at a time
without what it depends on, unpacks headers and Python sources only, and

- compiles all sources of ``csrc`` against the headers, for CPU and CUDA (without
  optimization, which is no matter of headers);
- looks for each private name of torch that ``dl4py`` uses, in those sources and type
  stubs. That is reading, not running: a name that kept its place and changed its
  meaning is not seen.

``--minima`` then makes an environment of the least Python, torch and Lightning that
pyproject.toml allows, and runs a share of the tests there. A torch for CUDA is put in
without NVIDIA's libraries: empty ones that say "no device" stand in their place, so
that its CPU half can be imported. Needs some 5 GB of disk and ten minutes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator

from dl4py.ops import build

ROOT = build.HERE.parent
PROJECT = (ROOT / "pyproject.toml").read_text()
QUICK = {"DL4PY_OPS_FLAGS": "-O0", "NVCC_APPEND_FLAGS": "-Xcicc -O0 -Xptxas -O0"}
TESTS = (
    "tests/training/test_lightning.py",
    "tests/losses/test_get.py",
    "tests/network/test_network.py",
    "tests/io/test_serializer.py",
    "tests/updaters/test_updaters.py",
)
NEEDED = ("pytest", "hypothesis", "mpmath", "numpy", "jsonargparse[signatures]")


def least(package: str) -> str:
    """The version after ``>=`` in pyproject.toml."""
    found = re.search(rf'"?{package}\s*(?:=\s*")?>=\s*([\d.]+)', PROJECT)
    assert found, package
    return found[1]


def most(package: str) -> str | None:
    """The version after ``<`` in pyproject.toml, that is refused."""
    found = re.search(rf'"{package}>=[\d.]+,<([\d.]+)', PROJECT)
    return found and found[1]


def number(version: str) -> tuple[int, ...]:
    """
    >>> number("2.13.0+cpu")
    (2, 13, 0)
    """
    return tuple(int(part) for part in version.partition("+")[0].split("."))


def chosen(known: list[str], at_least: str) -> list[str]:
    """The newest release of each minor version, in order.

    >>> chosen(["2.10.0", "2.11.0", "2.11.1", "2.12.0", "2.12.0+cpu"], "2.11")
    ['2.11.1', '2.12.0']
    """
    by_minor: dict[tuple[int, ...], str] = {}
    for version in sorted((v for v in known if "+" not in v), key=number):
        if number(version) >= number(at_least):
            by_minor[number(version)[:2]] = version
    return list(by_minor.values())


def released() -> list[str]:
    line = [sys.executable, "-m", "pip", "index", "versions", "torch"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Available versions: (.*)", told)
    assert found, told
    return [v.strip() for v in found[1].split(",")]


def unpack(version: str, folder: pathlib.Path) -> pathlib.Path:
    """Headers, Python sources and stubs of a release; the wheel is deleted at once."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        line = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        line += ["--only-binary=:all:", "--python-version=3.12", f"torch=={version}"]
        done = subprocess.run([*line, "-d", name], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"torch {version}: {' '.join(done.stderr.splitlines()[-2:])}")
        (wheel,) = pathlib.Path(name).glob("torch-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            wanted = [
                member
                for member in archive.namelist()
                if member.startswith("torch/include/") or member.endswith((".py", "i"))
            ]
            archive.extractall(folder / version, wanted)
    return folder / version / "torch"


def compiled(device: str, include: pathlib.Path, archs: list[str]) -> str:
    """One cell: how long all sources took, or the first error."""
    with tempfile.TemporaryDirectory() as name:
        folder, start = pathlib.Path(name), time.perf_counter()
        log = folder / "log"
        try:
            objects = build.compile_all(device, folder, log, archs, include)
        except build.BuildError as error:
            text = log.read_text() if log.exists() else str(error)
            errors = [line for line in text.splitlines() if "error" in line]
            return f"FAILED: {(errors or [text])[0]}"
        seconds = time.perf_counter() - start
        warned = ", with warnings" if log.exists() else ""
        return f"{len(objects)} sources in {seconds:.0f} s{warned}"


def private_names() -> list[str]:
    """Names of torch with a leading underscore that ``dl4py`` reads, dotted."""
    from dl4py.ops.register import PRIVATE

    found = set(PRIVATE)
    for path in (ROOT / "dl4py").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    private = re.compile(r"torch(\.\w+)*\._(?!_)\w+(\.\w+)*")
    names = {name for name in found if private.fullmatch(name)}
    return sorted(n for n in names if not any(m.startswith(f"{n}.") for m in names))


def defined(name: str, torch: pathlib.Path) -> bool:
    """Whether a release's sources or stubs define a private name."""
    module, _, last = name.rpartition(".")
    places = [torch / "_C"] if "._C" in name or module == "torch" else []
    if module == "torch":
        places.append(torch / "__init__.py")
    inside = torch.parent / module.replace(".", "/")
    while not (places or inside == torch.parent):  # of a class: its module
        places = [p for p in (inside.with_suffix(".py"), inside) if p.exists()]
        inside = inside.parent
    if module == "torch._VF":
        places = [torch / "_C"]
    word = rf"(?m)^\s*(async def|def|class)?\s*{last}\b\s*[(:=]|self\.{last}\b\s*[:=]"
    word += rf"|import .*\b{last}\b|\b{last}\b,?$"
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else place.glob("*.py*"))
    ]
    return any(re.search(word, file.read_text()) for file in files)


def check(version: str, folder: pathlib.Path, archs: list[str]) -> bool:
    """Print what came out for one release; whether it fits."""
    torch = unpack(version, folder)
    print(f"torch {version}", flush=True)
    cells = {"cpu": compiled("cpu", torch / "include", [])}
    print(f"  CPU: {cells['cpu']}", flush=True)
    try:
        build.compiler("cuda")
    except build.BuildError as error:
        print(f"  CUDA: not tried, {error}")
    else:
        cells["cuda"] = compiled("cuda", torch / "include", archs)
        what = " ".join(f"sm_{arch}" for arch in archs)
        print(f"  CUDA ({what}): {cells['cuda']}", flush=True)
    names = private_names()
    missing = [name for name in names if not defined(name, torch)]
    print(f"  private names: {len(names) - len(missing)} of {len(names)} found", end="")
    print(f", MISSING {', '.join(missing)}" if missing else "", flush=True)
    shutil.rmtree(folder / version)
    return not missing and not any("FAILED" in cell for cell in cells.values())


def told(*line: object) -> str:
    return subprocess.run(list(map(str, line)), capture_output=True, text=True).stdout


def stand_ins(torch: pathlib.Path, folder: pathlib.Path) -> None:
    """Empty libraries in place of NVIDIA's: each function says "no device" (100)."""
    libraries = sorted((torch / "lib").glob("*.so*"))
    like = r"lib(?:cu|nv|nccl)\S*"
    needed = re.findall(rf"\(NEEDED\).*\[({like})\]", told("readelf", "-d", *libraries))
    defined = set(
        re.findall(r" \w (\w+)", told("nm", "-D", "--defined-only", *libraries))
    )
    wanted = re.findall(
        r" U (\w+)(?:@(\S+))?", told("nm", "-D", "--undefined-only", *libraries)
    )
    nodes: dict[str, set[str]] = {name: set() for name in needed}  # versions by file
    for block in told("readelf", "-V", *libraries).split(" File: ")[1:]:
        file = block.split()[0]
        if file in nodes:
            entries = block.partition("\n\n")[0]
            nodes[file] |= set(re.findall(r" Name: (\S+) ", entries))
    plain = {
        name
        for name, version in wanted
        if not version and name not in defined and re.match("_*(cu|nccl|nv|CU)", name)
    }
    folder.mkdir()
    for file, versions in nodes.items():
        script, text = [], [".text"]
        for version in sorted(versions) or [""]:
            names = {n for n, v in wanted if v == version} if version else plain
            script.append(f"{version} {{ global: {'; '.join([*names, 'none'])}; }};")
            text += [f".globl {n}\n{n}: movl $100, %eax\nret" for n in sorted(names)]
        source, map_ = folder / f"{file}.s", folder / f"{file}.map"
        source.write_text("\n".join(text) + "\n")
        map_.write_text("\n".join(script) + "\n")
        line = [*build.compiler("cpu"), "-shared", "-nostdlib", f"-Wl,-soname,{file}"]
        line += [f"-Wl,--version-script={map_}", "-o", str(folder / file), str(source)]
        subprocess.run(line, check=True)


def minima(folder: pathlib.Path) -> bool:
    """The least of everything, and whether the tests pass there."""
    wanted = least("requires-python")
    python = shutil.which(f"python{wanted}")
    roots = pathlib.Path.home() / ".pyenv" / "versions"
    for found in sorted(roots.glob(f"{wanted}.*/bin/python")):
        python = str(found)
    if not python:
        print(f"minima: needs a python{wanted} (not found)")
        return False
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    inside = str(folder / "venv" / "bin" / "python")
    torch_version = next(v for v in chosen(released(), least("torch")))
    lightning = f"{least('lightning')}.0"
    install = [inside, "-m", "pip", "install", "-q"]
    subprocess.run([*install, "--no-deps", f"torch=={torch_version}"], check=True)
    purely = ["filelock", "typing-extensions", "setuptools<82", "sympy", "networkx"]
    purely += ["jinja2", "fsspec", "ninja", "packaging", "pyyaml", "tqdm", "wheel"]
    subprocess.run([*install, *purely, *NEEDED, "hatchling"], check=True)
    others = ["torchmetrics", "lightning-utilities"]
    others += [f"lightning=={lightning}", f"pytorch-lightning=={lightning}"]
    subprocess.run([*install, "--no-deps", *others], check=True)
    subprocess.run([*install, "aiohttp"], check=True)
    line = [
        inside,
        "-c",
        "import importlib.util as u; print(u.find_spec('torch').origin)",
    ]
    where = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    stand_ins(pathlib.Path(where.strip()).parent, folder / "stand-ins")
    env = os.environ | {
        "LD_LIBRARY_PATH": str(folder / "stand-ins"),
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": str(folder / "cache"),
        "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    for name in QUICK:
        env.pop(name, None)
    print(
        f"minima: Python {wanted}, torch {torch_version}, Lightning {lightning}",
        flush=True,
    )
    line = [inside, "-m", "pytest", "-q", "-p", "no:randomly", *TESTS]
    line += ["-W", "default", "--deselect=tests/test_package.py"]
    done = subprocess.run([*line, "--tb=line"], cwd=ROOT, env=env, text=True)
    return done.returncode == 0


@contextlib.contextmanager
def workplace(keep: pathlib.Path | None) -> Iterator[pathlib.Path]:
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.headers")
    parser.add_argument("versions", nargs="*", help="of torch (default: see above)")
    parser.add_argument("--archs", nargs="+", default=["90"], help="of CUDA")
    parser.add_argument("--minima", action="store_true")
    parser.add_argument("--only-minima", action="store_true")
    parser.add_argument("--keep", type=pathlib.Path, help="folder to work in")
    given = parser.parse_args()
    with workplace(given.keep) as folder:
        fits = []
        if not given.only_minima:
            os.environ |= QUICK
            versions = given.versions or chosen(released(), least("torch"))
            limit = most("torch")
            for version in versions:
                refused = limit is not None and number(version) >= number(limit)
                fits.append(check(version, folder, given.archs) or refused)
        if given.minima or given.only_minima:
            fits.append(minima(folder))
    sys.exit(0 if all(fits) else "something does not fit")


if __name__ == "__main__":
    main()
