"""The package as a whole: what an import brings, the command, the README."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import dl4py
from tests import differences, importtime, kinds, migration

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=options.pop("cwd", ROOT),
        **options,
    )


def test_import_brings_neither_trainers_nor_compilers():
    code = "import json, sys, dl4py; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(run("-c", code).stdout)
    heavy = ("lightning", "pytorch_lightning", "torchmetrics", "matplotlib", "ninja")
    assert not [m for m in modules if m.split(".")[0] in heavy]
    slow = ("torch.utils.cpp_extension", "torch.onnx", "torch.distributed.tensor")
    assert not [m for m in modules if m.startswith(slow)]
    ours = {m.split(".")[1] for m in modules if m.startswith("dl4py.")}
    assert ours == {"ops", "registry"}  # the rest comes when it is asked for


def test_registries_fill_themselves():
    """Whether one is asked for a name first, or told one that might be taken."""
    code = """
from dl4py.registry import LAYERS, REGISTRIES, UPDATERS
mine = UPDATERS.add("of my own")(lambda: 0)
assert UPDATERS["of my own"] is mine and list(UPDATERS)[-1] == "of my own"
assert "lbfgs" in UPDATERS and "adam" in UPDATERS and LAYERS["dense"]
assert all(len(list(registry)) > 1 for registry in REGISTRIES.values())
import dl4py
assert dl4py.layers and set(dl4py.__all__) <= set(dir(dl4py))
"""
    result = run("-c", code)
    assert result.returncode == 0, result.stderr


def test_import_warns_of_nothing():
    result = run("-W", "error", "-c", "import dl4py")
    assert result.returncode == 0 and not result.stderr, result.stderr


@pytest.mark.parametrize(
    "package, extra", [("sklearn", "sklearn"), ("pyspark", "spark")]
)
def test_a_module_for_a_package_names_what_installs_it(package, extra):
    code = f"""
import sys
sys.modules["{package}"] = None
import dl4py.{extra}
"""
    last = run("-c", code).stderr.splitlines()[-1]
    assert "ImportError: dl4py." in last
    assert last.endswith(
        f"with {package}, which is not installed: pip install 'dl4py[{extra}]'"
    )


def test_import_time_command_measures():
    seconds = importtime.measure(runs=1)
    assert 0 < seconds < 10  # whether it is fast is for python -m tests.importtime


def test_every_public_name_is_there():
    for name in dl4py.__all__:
        assert getattr(dl4py, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dl4py.nothing  # noqa: B018


def test_version_is_stated_once():
    text = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{dl4py.__version__}"' in text


@pytest.mark.parametrize("module", ["lightning", "pytorch_lightning"])
def test_needs_only_one_of_the_trainer_packages(module):
    other = "pytorch_lightning" if module == "lightning" else "lightning"
    code = f"""
import sys
sys.modules[{other!r}] = None
import dl4py
from dl4py.config import *
chain = NeuralNetConfiguration.builder().layer(Dense(n_in=2, n_out=2))
print(type(chain.layer(Output(n_out=2)).build().lightning(package={module!r})).__module__)
"""
    result = run("-c", code)
    assert result.stdout.strip() == f"dl4py.{module}", result.stderr


def test_demo(tmp_path):
    folder = tmp_path / "out"
    result = run(
        "-m", "dl4py.commands.cli", "demo", "--out", str(folder), "--epochs", "25"
    )
    assert result.returncode == 0, result.stderr
    accuracy = float(re.search(r"test accuracy ([\d.]+)", result.stdout)[1])
    assert accuracy > 0.9
    assert "Confusion Matrix" in result.stdout and "predictions equal" in result.stdout
    for name in ("training-curve.png", "confusion-matrix.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "iris.ckpt").stat().st_size > 1000


def test_demo_refuses_nonsense():
    result = run("-m", "dl4py.commands.cli", "demo", "--epochs", "0")
    assert result.returncode == 2
    assert "must be a whole number >= 1, got 0" in result.stderr


class TestReadme:
    TEXT = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""
    PAGES = [ROOT / "README.md", *sorted((ROOT / "dl4py").rglob("*.md"))]

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_python_blocks_run(self, page, tmp_path):
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        for block in blocks:
            result = run("-c", block, cwd=tmp_path, env=env)
            assert result.returncode == 0, block + result.stderr

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_links_lead_somewhere(self, page):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), link

    def test_front_page_is_short(self):
        assert self.TEXT.count("\n") < 250
        assert self.TEXT.count("```python") >= 3

    def test_ci_calls_the_test_command(self):
        commands = re.findall(r"^python3 .*", self.TEXT, re.M)
        assert len(commands) == 2
        assert commands[0].endswith("dl4py demo")
        assert commands[1].endswith("-m pytest -n 2")
        assert "<!-- the test command -->" in self.TEXT

    @pytest.mark.parametrize("page", [differences, kinds, migration])
    def test_pages_are_current(self, page):
        run = f"run python -m {page.__name__}"
        assert page.PAGE.read_text() == page.page(), run
        assert f"(dl4py/{page.PAGE.name})" in self.TEXT


class TestStyle:
    @pytest.mark.parametrize(
        "command", ["ruff check .", "ruff format --check .", "mypy"]
    )
    def test_tool_is_content(self, command):
        result = run("-m", *command.split())
        assert result.returncode == 0, result.stdout + result.stderr
