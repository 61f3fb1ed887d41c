"""``predict`` and ``evaluate`` of graphs, and of data that does not fit."""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

import dl4py
from dl4py import config
from dl4py.commands.cli import main
from dl4py.io.datasets import DataSet, write_dataset

Written = tuple[pathlib.Path, pathlib.Path]


def refused(capsys: Any, *words: object) -> str:
    """The one line of an error."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return str(err)


@pytest.fixture
def graph(tmp_path: pathlib.Path) -> Written:
    """A graph of two inputs and two outputs, and a MultiDataSet of 5 examples."""
    builder = config.NeuralNetConfiguration.builder().seed(3).graph_builder()
    builder.add_inputs("a", "b").add_layer("h", config.Dense(n_in=5, n_out=4), "a", "b")
    kind = config.Output(n_in=4, n_out=3, loss="mcxent", activation="softmax")
    size = config.Output(n_in=4, n_out=2, loss="mse", activation="identity")
    builder.add_layer("kind", kind, "h").add_layer("size", size, "h")
    net = builder.set_outputs("kind", "size").build().module(dl4j_exact=True)
    model, data = tmp_path / "m.zip", tmp_path / "d.bin"
    dl4py.save(net, model)
    draw = np.random.default_rng(0)
    x = [draw.standard_normal((5, n)).astype(np.float32) for n in (2, 3)]
    hot = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    y = draw.standard_normal((5, 2)).astype(np.float32)
    with data.open("wb") as file:
        write_dataset(DataSet(tuple(x), (hot, y)), file)
    return model, data


def test_outputs_stand_side_by_side(graph: Written, tmp_path: pathlib.Path) -> None:
    model, data = graph
    out = tmp_path / "p.csv"
    assert main(["predict", str(model), str(data), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["kind.class", "kind.0", "kind.1", "kind.2", "size.0", "size.1"]
    from dl4py.io import read_dataset

    x = map(torch.from_numpy, read_dataset(data).features)
    kind, size = dl4py.restore(model).predict(tuple(x))
    assert [row[0] for row in rows] == [str(int(k)) for k in kind.argmax(1)]
    numbers = torch.tensor([[float(cell) for cell in row[1:]] for row in rows])
    assert torch.equal(numbers, torch.cat([kind, size], 1))


def test_each_output_has_its_metric(graph: Written, capsys: Any) -> None:
    assert main(["evaluate", *map(str, graph), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: one["metric"] for name, one in found.items()} == {
        "kind": "Evaluation",
        "size": "RegressionEvaluation",
    }
    words = ["--json", "--metric", "kind=roc_multi_class"]
    assert main(["evaluate", *map(str, graph), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["metric"] for one in found.values()] == [
        "ROCMultiClass",
        "RegressionEvaluation",
    ]
    assert main(["evaluate", *map(str, graph)]) == 0
    told = capsys.readouterr().out
    assert told.index("kind\n") < told.index("Accuracy") < told.index("size\n")
    line = refused(capsys, "evaluate", *graph, "--metric", "knid=ROC")
    assert "--metric: expected OUTPUT=METRIC, the outputs being kind, size" in line


def test_one_array_of_labels_is_not_for_two_outputs(
    graph: Written, tmp_path: pathlib.Path, capsys: Any
) -> None:
    path = tmp_path / "one.bin"
    with path.open("wb") as file:
        x = (np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32))
        write_dataset(DataSet(x, (np.zeros((1, 3), np.float32),)), file)
    line = refused(capsys, "evaluate", graph[0], path)
    assert "labels: expected an array for each of the outputs kind, size, got 1" in line


@pytest.mark.parametrize(
    "row, words, says",
    [
        ("1,red,0", [], "got 'red'; a column of words is named by labels, left out"),
        ("1,2,0", [], "the data has 1 labels; for a column of class numbers or names "),
    ],
)
def test_data_that_does_not_fit_has_a_way_out(
    row: str, words: list[str], says: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    chain = config.NeuralNetConfiguration.builder().layer(config.Dense(n_in=2, n_out=2))
    model, data = tmp_path / "m.zip", tmp_path / "d.csv"
    dl4py.save(chain.layer(config.Output(n_out=3)).build().module(True), model)
    data.write_text(f"a,b,kind\n{row}\n")
    line = refused(capsys, "evaluate", model, data, "--labels", "kind", *words)
    assert says in line


def test_a_missing_file_is_named_first(tmp_path: pathlib.Path, capsys: Any) -> None:
    path = tmp_path / "none.zip"
    line = refused(capsys, "inspect", path)
    assert line == f"dl4py inspect: {path}: no such file or directory\n"


def test_help_imports_no_reader() -> None:
    code = """
import sys
from dl4py.commands.cli import main
try:
    main(["--help"])
except SystemExit:
    heavy = ("dl4py.config", "dl4py.data", "dl4py.network", "pyarrow", "lightning")
    sys.exit(", ".join(name for name in heavy if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
