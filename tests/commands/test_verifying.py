"""``dl4py verify`` with masks and layers: where the first difference stands."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import torch

import dl4py
from dl4py.commands.cli import main
from tests import catalogue

CASES = ("fmask_holes_lstm_dense_lstm", "graph_reverse_mask_holes", "embedding")


def recorded(name: str) -> dict[str, Any]:
    """What DL4J recorded of a case: its batch, masks, outputs and layers."""
    arrays = catalogue.load(name).arrays
    wanted = ("in_", "out_", "fmask_", "lmask_", "layers/")
    return {
        key: np.asarray(array)
        for key, array in arrays.items()
        if key.startswith(wanted) and not key.startswith("out_after")
    }


@pytest.fixture(params=CASES)
def case(request: Any, tmp_path: pathlib.Path) -> tuple[str, pathlib.Path]:
    file = catalogue.load(request.param).file("model.zip")
    assert file is not None
    (tmp_path / "model.zip").write_bytes(file.read())
    np.savez(tmp_path / "case.npz", **recorded(request.param))
    return request.param, tmp_path


def run(folder: pathlib.Path, *words: Any, json: bool = True) -> int:
    extra = ["--json"] if json else []
    return main(["verify", str(folder / "model.zip"), *map(str, words), *extra])


def test_what_dl4j_recorded(case: Any, capsys: Any) -> None:
    name, folder = case
    assert run(folder, "--case", folder / "case.npz") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["first"] is None
    count = sum(key.startswith("layers/") for key in recorded(name))
    assert len(found["layers"]) == count >= 2


def test_the_first_layer_that_differs(case: Any, capsys: Any) -> None:
    """A parameter of the second layer is off: all from there on differ, it is named."""
    name, folder = case
    net = dl4py.load(folder / "model.zip")
    second = [n for n in net.nodes if list(n.layer.parameters())][1]
    with torch.no_grad():
        next(iter(second.layer.parameters())).view(-1)[0] += 0.01
    dl4py.save(net, folder / "model.zip", allow_difference=True)
    capsys.readouterr()
    assert run(folder, "--case", folder / "case.npz") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == second.name
    by_name = {one["name"]: one for one in found["layers"]}
    first = by_name[second.name]
    assert first["error"] > first["allowed"] and len(first["at"]) >= 2
    before = list(by_name)[: list(by_name).index(second.name)]
    assert all(by_name[n]["error"] <= by_name[n]["allowed"] for n in before)
    assert run(folder, "--case", folder / "case.npz", json=False) == 1
    text = capsys.readouterr().out
    assert text.startswith("DIFFERS: off by ")
    assert f"first at {second.name} ({type(second.conf).__name__}): off by" in text


def test_files_of_their_own(tmp_path: pathlib.Path, capsys: Any) -> None:
    name = CASES[0]
    file, arrays = catalogue.load(name).file("model.zip"), recorded(name)
    assert file is not None
    (tmp_path / "model.zip").write_bytes(file.read())
    words: list[Any] = []
    for word, key in {
        "inputs": "in",
        "outputs": "out",
        "features-masks": "fmask",
        "labels-masks": "lmask",
    }.items():
        if f"{key}_0" not in arrays:
            continue
        np.save(tmp_path / f"{word}.npy", arrays[f"{key}_0"])
        words += [f"--{word}", tmp_path / f"{word}.npy"]
    layers = {k.split("/")[1]: a for k, a in arrays.items() if k.startswith("layers/")}
    by_name = {f"layer{int(k.split('_')[0])}": a for k, a in layers.items()}
    np.savez(tmp_path / "layers.npz", **by_name)
    assert run(tmp_path, *words, "--layers", tmp_path / "layers.npz", json=False) == 0
    assert "layer1" in capsys.readouterr().out
    assert run(tmp_path, *words[:4]) == 1  # without its mask it is another number


def test_bad_input(tmp_path: pathlib.Path, capsys: Any) -> None:
    name = CASES[1]
    file, arrays = catalogue.load(name).file("model.zip"), recorded(name)
    assert file is not None
    (tmp_path / "model.zip").write_bytes(file.read())
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    place = tmp_path / "case.npz"
    layer = next(k for k in arrays if k.startswith("layers/"))
    for change, says in (
        ({"layers/nowhere": np.zeros(2)}, "'layers/nowhere' is none of the network's"),
        ({layer: np.zeros((1, 1))}, "layers: the network gives"),
        ({"in_7": np.zeros((1, 1))}, "inputs: expected "),
        ({"in_0": np.zeros((1, 1))}, "does not fit the network"),
        ({"in_0": np.zeros((1, 1), complex)}, "one array of real numbers"),
    ):
        np.savez(place, **{**arrays, **change})
        assert run(tmp_path, "--case", place, json=False) == 2
        assert says in capsys.readouterr().err
    for words, says in (
        (["--case", tmp_path / "a.npy"], "case: "),
        (["--inputs", tmp_path / "b.npy"], "b.npy: expected numbers of NumPy's"),
        (["--outputs", tmp_path / "a.npy"], "inputs: expected 1 files (in), got 0"),
        ([], "inputs: expected 1 files (in), got 0; give --inputs once for each"),
    ):
        assert run(tmp_path, *words, json=False) == 2
        assert says in capsys.readouterr().err
