"""What a model file says of its inputs, and that it predicts."""

import zipfile

import numpy as np
import pytest
import torch

import dl4py
from dl4py.config import EmbeddingSequence, NeuralNetConfiguration, RnnOutput
from dl4py.formats import convert
from dl4py.serving import open_model
from dl4py.serving.spec import Refused
from tests.serving import models


def exported(path, rows):
    module = torch.nn.Sequential(torch.nn.Linear(4, 2), dl4py.activations.get("cube"))
    shapes = None if rows else ({0: torch.export.Dim("n")},)
    program = torch.export.export(
        module, (torch.ones(rows or 2, 4),), dynamic_shapes=shapes
    )
    torch.export.save(program, path)
    return module


@pytest.mark.parametrize("rows", [None, 3])
def test_a_program_of_torchs(tmp_path, rows):
    module = exported(tmp_path / "model.pt2", rows)
    model = open_model(tmp_path / "model.pt2")
    assert model.spec.inputs["input"].shapes == (("n", 4),) and model.spec.rows == rows
    x = np.random.default_rng(0).normal(size=(3, 4))
    found = model.predict(model.spec.taken({"input": x}))["output"]
    expected = module(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if rows:
        with pytest.raises(Refused, match="was exported for 3 rows, got 2"):
            model.spec.taken({"input": x[:2]})
        with (
            zipfile.ZipFile(tmp_path / "model.pt2") as archive,
            zipfile.ZipFile(tmp_path / "b.pt2", "w") as bad,
        ):
            for entry in archive.infolist():
                if not entry.filename.endswith("model.json"):
                    bad.writestr(entry, archive.read(entry))
        with pytest.raises(ValueError, match="b.pt2: torch.export.load cannot read it"):
            open_model(tmp_path / "b.pt2")


def test_a_program_keeps_the_names_of_its_network(tmp_path):
    net = models.towers()
    net.classes = ("no", "maybe")
    dl4py.save(net, tmp_path / "towers.zip")
    assert open_model(tmp_path / "towers.zip").spec.labels == ("no", "maybe")
    file = tmp_path / "towers.pt2"
    convert(tmp_path / "towers.zip", file, labels=["yes", "no"])
    model = open_model(file)
    assert model.spec.labels == ("yes", "no") and model.spec.outputs == ("one", "two")
    left, right = torch.randn(5, 2), torch.randn(5, 3)
    given = {"right": right.numpy(), "left": left.numpy()}
    found = model.predict(model.spec.taken(given))
    for name, expected in zip(("one", "two"), net.predict((left, right)), strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", ["double", "float", "half", "bfloat16"])
def test_numbers_are_those_of_the_network(tmp_path, dtype):
    net = models.iris()
    net.normalizer = None
    dl4py.save(net, tmp_path / "model.zip")
    net = dl4py.restore(tmp_path / "model.zip", dtype=dtype)
    dl4py.save(net, tmp_path / "model.zip")
    model = open_model(tmp_path / "model.zip")
    x = np.random.default_rng(0).normal(size=(3, 4))
    found = model.predict(model.spec.taken({"input": x}))["layer1"]
    first = next(net.parameters()).dtype
    expected = net.predict(torch.from_numpy(x).float().to(first))
    if dtype == "double":
        expected = net.predict(torch.from_numpy(x))
    np.testing.assert_array_equal(found.astype(float), expected.double().numpy())
    with pytest.raises(Refused, match="expected finite"):
        model.spec.taken(
            {"input": np.full((1, 4), np.inf if first.itemsize == 8 else 1e39)}
        )


def test_indices_stay_whole(tmp_path):
    chain = NeuralNetConfiguration.builder().seed(1)
    chain.layer(EmbeddingSequence(n_in=20, n_out=3, input_length=5))
    net = chain.layer(RnnOutput(n_in=3, n_out=2)).build().module(dl4j_exact=True)
    dl4py.save(net, tmp_path / "model.zip")
    model = open_model(tmp_path / "model.zip")
    x = np.arange(10).reshape(2, 5)
    taken = model.spec.taken({"input": x})
    assert taken["input"].dtype == np.int64
    found = model.predict(taken)
    expected = net.predict(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(next(iter(found.values())), expected)
