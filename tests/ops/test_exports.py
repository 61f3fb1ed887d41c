"""Activations in other people's graphs: ONNX, torch.jit, torch.fx."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dl4py import InputType, NeuralNetConfiguration, activations, ops
from dl4py.config import Convolution2D, Dense, MergeVertex, Output, Subsampling
from dl4py.registry import ACTIVATIONS
from tests import exports
from tests.activations.test_activations import CASES, make

VARIANTS = [(case, exact) for case in CASES for exact in (False, True)]
# kinks, both sides of them, tails
X = torch.cat([torch.linspace(-8, 8, 65), torch.tensor([-100.0, -30, 30, 100, 2.25])])
X = X.reshape(-1, 7)

torchs_own = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:You are"
)


def variant(case: str, exact: bool) -> nn.Module:
    return make(case, dl4j_exact=exact).float()


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Fan(nn.Module):
    """Every activation on what ``stem`` makes of the input, one after another."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.all = nn.ModuleList(variant(*given) for given in VARIANTS)

    def forward(self, x: Tensor) -> Tensor:
        z = self.stem(x)
        # shifted: onnxscript's optimizer mixes up what is clamped twice
        return torch.stack([f(z + k / 64) for k, f in enumerate(self.all)], -1)


def network(exact: bool) -> nn.Module:
    """One that is built, with a layer of each activation."""
    graph = NeuralNetConfiguration.builder().seed(1).graph_builder().add_inputs("in")
    keys = [key for key in CASES if key in ACTIVATIONS and key != "prelu"]
    for key in keys:
        graph = graph.add_layer(key + "_", Dense(n_out=3, activation=key), "in")
    graph = graph.add_vertex("merge", MergeVertex(), *(key + "_" for key in keys))
    graph = graph.add_layer("out", Output(n_out=2), "merge").set_outputs("out")
    conf = graph.set_input_types(InputType.feed_forward(7)).build()
    return conf.module(dl4j_exact=exact)


def convolutional(exact: bool) -> nn.Module:
    conf = NeuralNetConfiguration.builder().seed(1).list()
    conf = conf.layer(Convolution2D.builder(3, 3).nOut(4).activation("ELU").build())
    conf = conf.layer(Subsampling.builder("MAX").kernelSize(2, 2).stride(2, 2).build())
    conf = conf.layer(Dense(n_out=5, activation="rationaltanh")).layer(Output(n_out=3))
    built = conf.input_type(InputType.convolutional(8, 8, 2)).build()
    return built.module(dl4j_exact=exact)


IMAGES = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))
MODELS = {
    "alone": (lambda: Fan(nn.Identity()), X),
    "in a CNN": (lambda: Fan(nn.Conv2d(2, 3, 3)), IMAGES),
    "in a network": (lambda: network(False), X),
    "in an exact network": (lambda: network(True), X),
    "in a convolutional network": (lambda: convolutional(False), IMAGES),
}


def same(model: nn.Module, file: bytes, x: Tensor) -> None:
    with torch.no_grad():
        expected, found = model(x), exports.session(file)(x)
    assert expected.std() > 1e-3  # something to compare
    wrong = ((found - expected).abs() > 1e-5 * (1 + expected.abs())).nonzero()
    given = {VARIANTS[k] for k in wrong[:, -1]} if isinstance(model, Fan) else ""
    assert not wrong.numel(), given


@torchs_own
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_onnx(name: str, dynamo: bool) -> None:
    build, x = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    same(model, exports.exported(model, x, dynamo, free=True), x)


@torchs_own
@pytest.mark.parametrize("strict", [True, False])
def test_programs_become_onnx(strict: bool) -> None:
    """torch.onnx sees through our ops in what torch.export made before."""
    model, file = Fan(nn.Linear(7, 7)).eval(), io.BytesIO()
    torch.export.save(torch.export.export(model, (X,), strict=strict), file)
    file.seek(0)
    program = torch.export.load(file)
    assert "dl4py" in program.graph_module.code
    file = io.BytesIO()
    torch.onnx.export(program, (X,), dynamo=True, verbose=False).save(file)
    same(model, file.getvalue(), X)


@torchs_own
@pytest.mark.parametrize("case, exact", VARIANTS)
class TestGraph:
    @pytest.fixture
    def model(self, case: str, exact: bool) -> nn.Module:
        return nn.Sequential(nn.Linear(7, 5), variant(case, exact))

    def test_trace(self, model: nn.Module) -> None:
        traced, file = torch.jit.trace(model, X[:2]), io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        for twin in (traced, torch.jit.load(file)):
            close(twin(X), model(X))
            ours, theirs = (
                torch.autograd.grad(m(X).square().sum(), list(m.parameters()))
                for m in (model, twin)
            )
            close(theirs, ours)

    def test_symbolic_trace(self, model: nn.Module) -> None:
        graph = torch.fx.symbolic_trace(model)
        assert graph.graph.find_nodes(op="call_module", target="1")  # as torch's own
        close(pickle.loads(pickle.dumps(graph))(X), model(X))
        alone = torch.fx.symbolic_trace(model[1])
        for dtype in (torch.float32, torch.float64):
            x, f = X.to(dtype), model[1].to(dtype)
            close(alone.to(dtype)(x), f(x))

    def test_script_says_what_to_use(self, model: nn.Module) -> None:
        name = type(model[1]).__name__
        with pytest.raises(TypeError, match=f"cannot compile {name}: use torch.jit.tr"):
            torch.jit.script(model)


def test_functions_of_ops_are_traced_symbolically() -> None:
    f = activations.get(lambda x: ops.elu(x, 0.5) + ops.cube(x))
    graph = torch.fx.symbolic_trace(f)
    assert torch.equal(graph(X), f(X))
    (node,) = graph.graph.find_nodes(op="call_function", target=ops.elu)
    assert node.args[1] == 0.5


def test_programs_of_torchs_functions_need_no_dl4py() -> None:
    for key in ("gelu", "mish", "selu", "sigmoid", "softplus", "swish", "tanh"):
        f = activations.get(key, **({"precise": True} if key == "gelu" else {}))
        assert "dl4py" not in torch.export.export(f, (X,)).graph_module.code
