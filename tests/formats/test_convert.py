"""Files from one kind to another, and what runs without dl4py."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import dl4py
from dl4py import InputType, NeuralNetConfiguration
from dl4py.config import (
    BatchNormalization,
    Convolution1D,
    Convolution2D,
    Dense,
    GlobalPooling,
    MergeVertex,
    OCNNOutput,
    Output,
    RnnOutput,
    SimpleRnn,
    WeightNoise,
)
from dl4py.formats import convert
from dl4py.formats.converting import WRITERS, Options
from dl4py.network import Network
from dl4py.normalizers import MultiStandardize, Standardize
from dl4py.weight_init import NormalDistribution
from tests.formats.test_load import assert_same, fitted

WHOLE = ("zip", "ckpt", "safetensors")
RUN = """
import json, sys
import numpy as np, onnxruntime, torch

sys.modules["dl4py"] = None  # installed or not, it cannot be imported
session = onnxruntime.InferenceSession("model.onnx")
names = [i.name for i in session.get_inputs()]
about = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
print(json.dumps([names, [o.name for o in session.get_outputs()], about]))
program = torch.export.load("model.pt2").module()
for rows in sys.argv[1:]:
    given = dict(np.load(rows + ".npz"))
    xs = [given[k] for k in sorted(given) if k[0] == "x"]
    found = {"onnx": session.run(None, dict(zip(names, map(np.float32, xs))))}
    with torch.no_grad():
        y = program(*map(torch.from_numpy, xs))
    found["pt2"] = [t.numpy() for t in (y if isinstance(y, tuple) else (y,))]
    for kind, ys in found.items():
        for i, y in enumerate(ys):
            expected = given[f"y{i}"]
            assert y.shape == expected.shape and abs(expected).max() > 1e-4
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
assert "dl4py" not in " ".join(k for k, m in sys.modules.items() if m is not None)
"""


SHAPES: tuple[tuple[int, ...], ...] = ((3, 4), (2, 7, 6))


def everything() -> Network:
    """Series and images in, two outputs, raw features, in float64, as DL4J computes."""
    conf = (
        NeuralNetConfiguration.builder()
        .seed(1)
        .data_type("double")
        .graph_builder()
        .add_inputs("series", "image")
        .add_layer("rnn", SimpleRnn(n_out=4, activation="rectifiedtanh"), "series")
        .add_layer("each", RnnOutput(n_out=2, activation="softmax"), "rnn")
        .add_layer("pool", GlobalPooling(), "rnn")
        .add_layer("conv", Convolution2D(kernel_size=3, n_out=3), "image")
        .add_layer("norm", BatchNormalization(), "conv")
        .add_layer("dense", Dense(n_out=5, activation="rationaltanh"), "norm")
        .add_vertex("both", MergeVertex(), "pool", "dense")
        .add_layer("whole", Output(n_out=1, activation="cube", loss="mse"), "both")
        .set_outputs("whole", "each")
        .set_input_types(InputType.recurrent(3, 4), InputType.convolutional(7, 6, 2))
        .build()
    )
    net: Network = conf.module(dl4j_exact=True)
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(9, *s, generator=generator).double() * 9 for s in SHAPES]
    net.normalizer = MultiStandardize().fit((tuple(x), None))
    return net


def test_they_run_without_dl4py(tmp_path: pathlib.Path) -> None:
    old, net = saved(everything(), tmp_path / "model.safetensors"), everything()
    for rows in (1, 7):  # none of them the number that it was exported with
        xs = [torch.randint(256, (rows, *shape)).double() for shape in SHAPES]
        found = net.predict(tuple(xs))
        arrays = {f"x{i}": x.numpy() for i, x in enumerate(xs)}
        arrays |= {f"y{i}": y.numpy() for i, y in enumerate(found)}
        np.savez(tmp_path / f"{rows}.npz", **arrays)
    for kind in ("pt2", "onnx"):
        told = convert(
            old, tmp_path / f"model.{kind}", shapes=SHAPES, labels=["a", "b"]
        )
        assert told.about["inputs"]["image"] == ["n", 2, 7, 6]
        assert ["masks" in line for line in told.left_out].count(True) == 1
        assert ("FLOAT" in str(told.left_out)) == (kind == "onnx")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, "1", "7"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    names = [["series", "image"], ["whole", "each"], ["a", "b"]]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [names]


@pytest.mark.parametrize("first", WHOLE)
@pytest.mark.parametrize("second", WHOLE)
def test_there_and_back(first: str, second: str, tmp_path: pathlib.Path) -> None:
    net = fitted()
    net = net.conf.module(dl4j_exact=True)
    net.set_params(fitted().params())
    net.optimizer.load_state_dict(fitted().optimizer.state_dict())
    net.normalizer = fitted().normalizer
    one, two, three = (
        tmp_path / n for n in (f"1.{first}", f"2.{second}", f"3.{first}")
    )
    with open(one, "wb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        WRITERS[one.suffix](net, file, Options())
    there = convert(one, two)
    convert(two, three)
    assert (there.read, there.written) == (first, second)
    for path in (two, three):
        found = dl4py.load(path)
        assert_same(found, net.eval())
        assert isinstance(found.normalizer, Standardize)
        raw = torch.ones(2, 4, dtype=torch.float64)
        assert torch.equal(found.predict(raw), net.predict(raw))
    if first == second == "zip":
        assert one.read_bytes() == three.read_bytes()
    if "zip" in (first, second):
        return
    assert not [line for line in there.left_out if "Trainer" not in line]


def saved(net: Network, path: pathlib.Path) -> pathlib.Path:
    with open(path, "wb") as file:
        WRITERS[".safetensors"](net, file, Options())
    return path


def test_code(tmp_path: pathlib.Path) -> None:
    told = convert(saved(fitted(), tmp_path / "a.b"), tmp_path / "model.py")
    found: dict[str, Any] = {}
    exec((tmp_path / "model.py").read_text(), found)
    assert found["conf"] == dl4py.load(tmp_path / "a.b").conf
    assert found["conf"].iteration_count == 3
    assert "parameters" in told.left_out[0] and "normalizer" in told.left_out[1]


class TestRefused:
    """One clear error, and the folder as it was."""

    @pytest.fixture(autouse=True)
    def unchanged(self, tmp_path: pathlib.Path) -> Any:
        self.old = saved(fitted(), tmp_path / "old.safetensors")
        (tmp_path / "new.zip").write_bytes(b"mine")
        yield
        assert (tmp_path / "new.zip").read_bytes() == b"mine"
        assert {p.name for p in tmp_path.iterdir()} == {"old.safetensors", "new.zip"}

    def test_a_file_that_is_there(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(FileExistsError, match=r"new.zip exists; --force"):
            convert(self.old, tmp_path / "new.zip")

    def test_endings(self, tmp_path: pathlib.Path) -> None:
        for name in ("new.h5", "new"):
            with pytest.raises(ValueError, match=r"ends in .zip, .ckpt, .safetensors"):
                convert(self.old, tmp_path / name)

    def test_a_layer_that_has_no_graph(self, tmp_path: pathlib.Path) -> None:
        """DL4J's one-class output looks at a batch as a whole."""
        chain = NeuralNetConfiguration.builder().seed(1)
        chain = chain.layer(Dense(n_in=3, n_out=4))
        conf = chain.layer(OCNNOutput(hidden_size=3)).build()
        saved(conf.module(dl4j_exact=True), self.old)
        for kind in ("pt2", "onnx"):
            with pytest.raises(
                ValueError, match=r"layer 'layer1' \(OCNNOutput\) cannot be exported"
            ):
                convert(self.old, tmp_path / f"new.{kind}")

    def test_shapes(self, tmp_path: pathlib.Path) -> None:
        chain = NeuralNetConfiguration.builder().seed(1)
        chain = chain.layer(Convolution2D(kernel_size=3, n_out=3)).layer(
            Output(n_out=3)
        )
        conf = chain.input_type(InputType.convolutional(7, 6, 2)).build()
        saved(conf.module(), self.old)
        with pytest.raises(ValueError, match=r"'input' is; give --shape 2,height,wid"):
            convert(self.old, tmp_path / "new.pt2")
        with pytest.raises(ValueError, match=r"shape: expected 1, one for each of inp"):
            convert(self.old, tmp_path / "new.pt2", shapes=[(1,), (2,)])
        with pytest.raises(ValueError, match=r"shape: \[6, 3, 3, 3\] does not fit"):
            convert(self.old, tmp_path / "new.pt2", shapes=[(3, 3, 3)])

    def test_noise_in_test_mode(self, tmp_path: pathlib.Path) -> None:
        """One of DL4J's faults: the other mode has a graph."""
        noise = WeightNoise(distribution=NormalDistribution(0, 1), apply_to_bias=True)
        chain = NeuralNetConfiguration.builder().seed(1)
        chain = chain.layer(Dense(n_in=3, n_out=4, weight_noise=noise))
        conf = chain.layer(Output(n_out=2)).build()
        saved(conf.module(dl4j_exact=True), self.old)
        new = tmp_path / "new.pt2"
        with pytest.raises(
            ValueError, match=r"layer 'layer0' \(Dense\) .* draws noise"
        ):
            convert(self.old, new)
        convert(self.old, new, dl4j_exact=False)
        new.unlink()

    def test_a_length_that_is_not_free(self, tmp_path: pathlib.Path) -> None:
        chain = NeuralNetConfiguration.builder().seed(1)
        chain = chain.layer(Convolution1D(kernel_size=2, n_in=3, n_out=4))
        chain = chain.layer(SimpleRnn(n_out=2)).layer(RnnOutput(n_out=2))
        conf = chain.input_type(InputType.recurrent(3, 6)).build()
        saved(conf.module(), self.old)
        says = r"layer 'layer1' \(SimpleRnn\) cannot be exported; give its lengths in"
        with pytest.raises(ValueError, match=says):
            convert(self.old, tmp_path / "new.pt2", shapes=[(3, None)])

    def test_a_custom_normalizer(self, tmp_path: pathlib.Path) -> None:
        net = fitted()
        net.normalizer = b"\0\nNORMALIZER\0\0\0\1\0\6CUSTOM..."
        saved(net, self.old)
        with pytest.raises(ValueError, match="a Java class of somebody's own"):
            convert(self.old, tmp_path / "new.pt2")


def test_force(tmp_path: pathlib.Path) -> None:
    old = saved(fitted(), tmp_path / "a.safetensors")
    convert(old, old, force=True)
    assert_same(dl4py.load(old), fitted())


def test_lengths_that_are_free(tmp_path: pathlib.Path) -> None:
    chain = NeuralNetConfiguration.builder().seed(1)
    chain = chain.layer(Convolution1D(kernel_size=2, n_in=3, n_out=4))
    conf = chain.layer(GlobalPooling()).layer(Output(n_out=2))
    net = conf.input_type(InputType.recurrent(3, 6)).build().module()
    told = convert(saved(net, tmp_path / "a.b"), tmp_path / "a.pt2", shapes=[(3, None)])
    assert told.about["inputs"] == {"input": ["n", 3, "any"]}
    program = torch.export.load(tmp_path / "a.pt2").module()
    for length in (4, 9):
        x = torch.randn(2, 3, length)
        torch.testing.assert_close(program(x), net.output(x))
