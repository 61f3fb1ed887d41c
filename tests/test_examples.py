"""The examples do what they say, at a small setting."""

import contextlib
import importlib
import io
import pathlib
import runpy
import sys

import numpy as np
import pytest

from dl4py.config import ConfigurationError, NeuralNetConfiguration
from dl4py.registry import REGISTRIES

EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch, tmp_path):
    """Neither files where an example runs nor names that it registers."""
    for registry in REGISTRIES.values():
        list(registry)  # what fills itself at first use, fills itself now
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_java", dict(registry._java))
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.fixture
def example(monkeypatch):
    """``example(name)``: the module, imported anew so that it registers its names."""

    def example(name):
        monkeypatch.delitem(sys.modules, f"examples.{name}", raising=False)
        return importlib.import_module(f"examples.{name}")

    return example


@pytest.fixture
def run(example):
    """``run(name, epochs)``: the numbers that example ``name`` returns."""
    return lambda name, epochs: example(name).main(["--epochs", str(epochs)])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_says_how_to_run_it(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # keeps the summary on one line
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    out = io.StringIO()
    with pytest.raises(SystemExit, match="^0$"), contextlib.redirect_stdout(out):
        runpy.run_path(str(path), run_name="__main__")
    summary, *rest = path.read_text().split('"""')[1].splitlines()
    assert any(line.startswith(f"    python examples/{path.name}") for line in rest)
    assert summary in out.getvalue() and "--epochs" in out.getvalue()


def test_series_of_unequal_length(run):
    assert run("japanese_vowels", epochs=6) > 0.8  # > 0.93 with its default


def test_unsupervised(example):
    found = example("unsupervised").main(["--epochs", "3", "--picture", "codes.png"])
    picture = pathlib.Path("codes.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    picture.unlink()
    assert found["ROC of the unseen 7"] > 0.8  # > 0.94 with its default
    assert abs(found["k-means on codes"] - found["k-means on pixels"]) < 0.2


def test_lenet(run):
    assert run("lenet_mnist", epochs=2) > 0.93  # > 0.97 with its default


def test_regression(run):
    r_squared = run("regression", epochs=100)
    assert r_squared["dl4py"] == pytest.approx(r_squared["scikit-learn"], abs=1e-3)


def test_poisson_regression(run):
    result = run("poisson_regression", epochs=150)
    coefficients, deviance = result["coefficients"], result["deviance"]
    np.testing.assert_allclose(*coefficients.values(), rtol=0, atol=1e-3)
    assert deviance["dl4py"] == pytest.approx(deviance["scikit-learn"], rel=1e-5)


def test_logistic_regression(run):
    result = run("logistic_regression", epochs=300)
    coefficients, accuracy = result["coefficients"], result["accuracy"]
    np.testing.assert_allclose(*coefficients.values(), rtol=0, atol=0.005)
    assert accuracy["dl4py"] == accuracy["scikit-learn"] > 0.95


def test_two_towers(run):
    result = run("two_towers", epochs=20)
    assert result["accuracy"]["dl4py"] > 0.9 and result["R²"]["dl4py"] > 0.45


def test_drop_in(run):
    accuracy = run("drop_in", epochs=20)
    assert list(accuracy) == ["Before", "After"]
    assert min(accuracy.values()) > 0.9


def test_custom_parts(run):
    result = run("custom_parts", epochs=150)
    assert result.pop("error") < 0.03  # the labels' own is 1.6
    assert list(result.values()) == [True, True]


def test_custom_parts_are_named_and_checked(example):
    parts = example("custom_parts")
    text = parts.configuration().to_json()
    for name in ("snake", "cauchy", "lion", "half_cosine", "maxout"):
        assert f'"@class": "{name}"' in text
    chain = NeuralNetConfiguration.builder().layer(
        parts.Maxout(n_in=2, n_out=2, pieces=1)
    )
    with pytest.raises(
        ConfigurationError, match=r"layer 0 \(Maxout\): pieces: .* got 1"
    ):
        chain.build()


def test_solvers(run, example):
    results = run("solvers", epochs=10)
    assert set(results) == set(example("solvers").SOLVERS)
    for result in results.values():
        assert result["loss"] < 0.2 and result["accuracy"] > 0.9


def test_pinn(run):
    errors = run("pinn", epochs=6)
    assert errors["dl4py L-BFGS"] < 1e-3 < 0.1 * errors["Adam"]


def test_autoencoder(example):
    errors = example("autoencoder").main(["--epochs", "5", "--images", "100"])
    assert errors["before"] > 200 and errors["after"] < 25


def test_optuna_search(example):
    search = example("optuna_search")
    found = search.main(["--epochs", "6", "--trials", "10"])
    assert found["score"] < 0.5 and found["pruned"] > 0
    assert {"lr", "updater", "layers", "width0"} <= set(found["choices"])


def test_serve_and_query(run):
    pytest.importorskip("uvicorn")
    with pytest.warns(UserWarning, match="DL4J will differ"):
        found = run("serve_and_query", epochs=5)
    np.testing.assert_allclose(found["served"], found["here"], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # PySpark's and Lightning's own
def test_spark_wine(run, monkeypatch):
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES[0].parent.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert run("spark_wine", epochs=10) > 0.9
    finally:
        SparkSession.getActiveSession().stop()
