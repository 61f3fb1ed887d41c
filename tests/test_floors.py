"""Imports go from a higher floor to a lower one, read from the sources."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "dl4py"
ROWS = re.findall(
    r"^\| (\d) \| ([^|]*) \|", (PACKAGE / "ARCHITECTURE.md").read_text(), re.M
)
FLOOR = {name: int(n) for n, names in ROWS for name in re.findall(r"`(\w+)`", names)}
# every import that stays on a floor, and those inside a function that go up
BESIDE = {
    ("fields", "registry"),
    ("clock", "registry"),
    ("noise", "ops"),
    ("losses", "activations"),
    ("updaters", "schedules"),
    ("solvers", "updaters"),
    ("commands", "formats"),
    ("data", "normalizers"),
    ("lightning", "data"),
    ("lightning", "training"),
    ("stopping", "evaluation"),
    ("stopping", "serializer"),
    ("training", "stopping"),
    ("serializer", "normalizers"),
    ("training", "evaluation"),
    ("training", "normalizers"),
    ("pytorch_lightning", "data"),
    ("pytorch_lightning", "training"),
    ("commands", "serving"),
    ("serving", "formats"),
}
LAZY = {
    ("config", "network"),  # .module() and .lightning()
    ("network", "evaluation"),  # .evaluate(data)
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_typing_block(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports(tree):
    """(module, at top level) of every import that runs."""
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if is_typing_block(node)
        for child in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "dl4py":
                for alias in node.names:
                    yield f"dl4py.{alias.name}", id(node) in top
            else:
                yield node.module, id(node) in top


def test_every_module_has_a_floor():
    assert {module_of(p) for p in SOURCES} == set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = module_of(path)
    for name, top in imports(ast.parse(path.read_text())):
        if not name.startswith("dl4py."):
            continue
        there = name.split(".")[1]
        if there == here or here == "__init__" or there not in FLOOR:
            continue
        lower = FLOOR[there] < FLOOR[here]
        beside = (here, there) in BESIDE
        lazy = (here, there) in LAZY and not top
        assert lower or beside or lazy, f"{path.name} imports {name}"


def test_exceptions_are_needed():
    found = {
        (module_of(path), name.split(".")[1])
        for path in SOURCES
        for name, _ in imports(ast.parse(path.read_text()))
        if name.startswith("dl4py.")
    }
    assert (BESIDE | LAZY) <= found


def file_of(name):
    path = (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py")
    return path if path.exists() else None


def test_no_file_imports_itself_in_a_circle():
    """Files that are no ``__init__``: those only gather what a folder offers."""
    left = {}
    for path in SOURCES:
        names = imports(ast.parse(path.read_text()))
        left[path] = {file_of(name) for name, top in names if top} - {None, path}
    while free := {p for p, qs in left.items() if not qs & left.keys()}:
        left = {p: qs for p, qs in left.items() if p not in free}
    assert not left, f"a circle of imports: {sorted(str(p) for p in left)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "config").rglob("*.py")))
def test_configuration_imports_no_torch(path):
    names = {name.split(".")[0] for name, _ in imports(ast.parse(path.read_text()))}
    assert not names & {"torch", "lightning", "pytorch_lightning"}


def test_nothing_below_the_trainers_imports_lightning():
    for path in SOURCES:
        if FLOOR[module_of(path)] < 4 or module_of(path) == "__init__":
            names = {n.split(".")[0] for n, _ in imports(ast.parse(path.read_text()))}
            assert not names & {"lightning", "pytorch_lightning"}, path
