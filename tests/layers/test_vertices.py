"""Every vertex: its formula in NumPy, derivatives, in a graph, compiled, copied."""

import copy
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import dl4py
from dl4py import config, layers
from dl4py.config import (
    ConfigurationError,
    Dense,
    GlobalPooling,
    InputType,
    NeuralNetConfiguration,
    Output,
    RnnToFeedForward,
    ScaleVertex,
    TrainedVertex,
    Vertex,
)
from dl4py.config.inputs import FeedForward
from dl4py.layers import View, implements
from dl4py.registry import MODULES, VERTICES

N = 3
ROWS, SERIES, IMAGE = (4,), (4, 5), (2, 3, 4)  # shapes of an example
TYPES = {
    1: lambda s: InputType.feed_forward(*s),
    2: lambda s: InputType.recurrent(*s),
    3: lambda s: InputType.convolutional(s[1], s[2], s[0]),
}


@dataclass
class Example:
    """A vertex, shapes of examples that go in, and its formula on arrays."""

    fields: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    formula: Any
    more: list[Any] = field(default_factory=list)  # what else forward takes


def attend(q, k, v, seen=None, weights=None):
    """Attention head by head and query by query."""
    heads = range(1 if weights is None else len(weights["Wq"]))
    parts = []
    for h in heads:
        if weights is None:
            qs, ks, vs = q, k, v
        else:
            names = zip((q, k, v), ("Wq", "Wk", "Wv"), strict=True)
            qs, ks, vs = (np.einsum("di,nit->ndt", weights[w][h], x) for x, w in names)
        z = np.einsum("ndt,nds->nts", qs, ks) / np.sqrt(qs.shape[1])
        if seen is not None:
            z = z - 1e9 * (1 - seen[:, None, :])
        p = np.exp(z - z.max(2, keepdims=True))
        p /= p.sum(2, keepdims=True)
        parts.append(np.einsum("nts,nds->ndt", p, vs))
    y = np.concatenate(parts, 1)
    return y if weights is None else np.einsum("ndt,do->not", y, weights["Wo"])


MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]], float)


def last(x):
    """The last step that MASK shows."""
    return np.stack([x[i, :, np.flatnonzero(MASK[i])[-1]] for i in range(N)])


def turned(x):
    """Shown steps in reverse order, 0 elsewhere."""
    y = np.zeros_like(x)
    for i in range(N):
        shown = np.flatnonzero(MASK[i])
        y[i][:, shown] = x[i][:, shown[::-1]]
    return y


def rows_of_steps(x):
    """Row = step · n + example."""
    return np.concatenate([x[:, :, t] for t in range(x.shape[2])])


def length(x):
    """Euclidean, of each example."""
    return np.sqrt((x.reshape(N, -1) ** 2).sum(1))


SIZES = {"n_in_queries": 4, "n_in_keys": 4, "n_in_values": 4, "n_out": 4}
EXAMPLES = {
    "merge_vertex": [
        Example({}, (ROWS, (2,)), lambda a, b: np.hstack([a, b])),
        Example({}, (IMAGE, (1, 3, 4)), lambda *xs: np.concatenate(xs, 1)),
        Example({"merge_axis": 2}, (SERIES, (4, 2)), lambda *xs: np.concatenate(xs, 2)),
    ],
    "element_wise_vertex": [
        Example({"op": "Add"}, (ROWS,) * 3, lambda a, b, c: a + b + c),
        Example({"op": "Subtract"}, (SERIES, SERIES), lambda a, b: a - b),
        Example({"op": "Product"}, (ROWS, (1,)), lambda a, b: a * b),
        Example({"op": "Average"}, (IMAGE,) * 2, lambda a, b: (a + b) / 2),
        Example({"op": "Max"}, (ROWS,) * 2, np.maximum),
    ],
    "subset_vertex": [
        Example({"first": 1, "last": 2}, (SERIES,), lambda x: x[:, [1, 2]])
    ],
    "stack_vertex": [
        Example({}, (ROWS, ROWS), lambda *xs: np.vstack(xs)),
        Example(
            {},
            (SERIES, (4, 3)),
            lambda a, b: np.vstack([a, np.pad(b, ((0, 0), (0, 0), (0, 2)))]),
        ),
    ],
    "unstack_vertex": [
        Example({"index": 2, "stack_size": 3}, (ROWS,), lambda x: x[2:])
    ],
    "scale_vertex": [Example({"scale_factor": -1.5}, (ROWS,), lambda x: -1.5 * x)],
    "shift_vertex": [Example({"shift_factor": -1.5}, (ROWS,), lambda x: x - 1.5)],
    "l2_vertex": [Example({}, (SERIES, SERIES), lambda a, b: length(a - b)[:, None])],
    "l2_normalize_vertex": [
        Example({}, (SERIES,), lambda x: x / length(x)[:, None, None]),
        Example(
            {"dimension": (1,)},
            (SERIES,),
            lambda x: x / np.sqrt((x**2).sum(1))[:, None],
        ),
    ],
    "reshape_vertex": [
        Example({"new_shape": (-1, 2, 2)}, (ROWS,), lambda x: x.reshape(N, 2, 2)),
        Example({"new_shape": (3, 20)}, (SERIES,), lambda x: x.reshape(N, 20)),
        Example({"new_shape": (-1, 2)}, (ROWS,), lambda x: x.reshape(2 * N, 2)),
    ],
    "preprocessor_vertex": [
        Example({"preprocessor": RnnToFeedForward()}, (SERIES,), rows_of_steps)
    ],
    "pool_helper_vertex": [Example({}, (IMAGE,), lambda x: x[:, :, 1:, 1:])],
    "last_time_step_vertex": [
        Example({}, (SERIES,), lambda x: x[:, :, -1]),
        Example({"mask_input": "x0"}, (SERIES,), last, [torch.from_numpy(MASK)]),
    ],
    "duplicate_to_time_series_vertex": [
        Example({"input": "time"}, (ROWS,), lambda x: np.stack([x] * 5, 2), more=[5])
    ],
    "reverse_time_series_vertex": [
        Example({}, (SERIES,), lambda x: x[:, :, ::-1]),
        Example({"mask_input": "x0"}, (SERIES,), turned, [torch.from_numpy(MASK)]),
    ],
    "frozen_vertex": [
        Example({"underlying": ScaleVertex(2.0)}, (ROWS,), lambda x: 2 * x)
    ],
    "attention_vertex": [
        Example(SIZES, (SERIES, (4, 6), (4, 6)), attend),
        Example(
            SIZES,
            (SERIES, SERIES, SERIES),
            lambda *qkv: attend(*qkv, seen=MASK),
            [None, torch.from_numpy(MASK)],
        ),
        Example(
            {**SIZES, "n_in_keys": 3, "n_out": 6, "n_heads": 2, "project_input": True},
            (SERIES, (3, 5), SERIES),
            lambda *qkv, **weights: attend(*qkv, weights=weights) * MASK[:, None],
            [torch.from_numpy(MASK)],
        ),
    ],
}
CASES = [
    pytest.param(key, e, id=f"{key}-{i}")
    for key, found in EXAMPLES.items()
    for i, e in enumerate(found)
]


def module_and_inputs(key, e, seed=0):
    torch.manual_seed(seed)
    module = getattr(layers, VERTICES[key].__name__)(**e.fields).double()
    xs = [torch.randn(N, *shape, dtype=torch.float64) for shape in e.shapes]
    return module, xs


def graph_around(key, e):
    """The vertex between layers, and a batch; its score is a plain sum."""
    settings = NeuralNetConfiguration.builder().seed(3).data_type("double")
    made = settings.updater("sgd", lr=0.01).mini_batch(False).graph_builder()
    names = [f"x{i}" for i in range(len(e.shapes))]
    kinds = [TYPES[len(s)](s) for s in e.shapes]
    xs = [torch.randn(N, *s, dtype=torch.float64) for s in e.shapes]
    vertex = VERTICES[key](**e.fields)
    if "time" in vertex.named_inputs:
        names.append("time")
        kinds.append(InputType.recurrent(1, 5))
        xs.append(torch.randn(N, 1, 5, dtype=torch.float64))
    made.add_inputs(names).set_input_types(kinds)
    read = []
    for name, shape in zip(names, e.shapes, strict=False):
        if len(shape) == 1:  # so that gradients come to parameters below
            made.add_layer(f"{name}-a", Dense(n_out=shape[0]), name)
        read.append(f"{name}-a" if len(shape) == 1 else name)
    made.add_vertex("v", vertex, *read)
    given = tuple(kinds[: len(e.shapes)])
    leaves = vertex.with_inputs(given).output(given)
    if not isinstance(leaves, FeedForward):
        made.append_layer("pool", GlobalPooling(pooling_type="avg"))
    made.append_layer("out", Output(n_out=2)).set_outputs("out")
    return made, tuple(xs)


def test_every_vertex_has_an_example():
    ours = {k for k in VERTICES if VERTICES[k].__module__.startswith("dl4py.")}
    assert EXAMPLES.keys() == ours


@pytest.mark.parametrize("key, e", CASES)
class TestAlone:
    def test_equals_formula(self, key, e):
        module, xs = module_and_inputs(key, e)
        weights = {k: w.detach().numpy() for k, w in module.named_parameters()}
        y = module(*xs, *e.more).detach().numpy()
        expected = e.formula(*(x.numpy() for x in xs), **weights)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)

    def test_derivatives(self, key, e):
        module, xs = module_and_inputs(key, e)
        tight = {"rtol": 1e-6, "atol": 1e-8}
        inputs = [x.requires_grad_() for x in xs]
        inputs += list(module.parameters())

        def f(*given):
            weights = dict(zip(names, given[len(xs) :], strict=True))
            return torch.func.functional_call(
                module, weights, (*given[: len(xs)], *e.more)
            )

        names = [name for name, _ in module.named_parameters()]
        assert gradcheck(f, inputs, fast_mode=True, **tight)
        assert gradgradcheck(f, inputs, fast_mode=True, **tight)

    def test_copies_and_words(self, key, e):
        module, xs = module_and_inputs(key, e)
        y = module(*xs, *e.more)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(twin(*xs, *e.more), y)
        assert type(module).__name__ in repr(module)


SHAPED = [c for c in CASES if c.id not in ("reshape_vertex-2",)]  # half of examples


@pytest.mark.parametrize("key, e", SHAPED)
class TestInAGraph:
    def made(self, key, e):
        torch.manual_seed(1)
        made, xs = graph_around(key, e)
        conf = made.build()
        net = conf.module()
        n = net(xs).shape[0]
        y = torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2]
        return conf, net, xs, y

    def test_gradient_is_the_derivative_of_the_score(self, key, e):
        _, net, xs, y = self.made(key, e)
        g, score = net.gradient_and_score(xs, y)
        assert score == pytest.approx(net.score(xs, y), rel=1e-14)
        p, d = net.params(), torch.randn_like(g)
        ends = []
        for sign in (1, -1):
            net.set_params(p + sign * 1e-6 * d)
            ends.append(net.score(xs, y))
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(float(g @ d), rel=1e-6, abs=1e-9)

    def test_json_and_copies(self, key, e):
        conf, net, xs, y = self.made(key, e)
        again = NeuralNetConfiguration.from_json(conf.to_json())
        assert again == conf and again.to_json() == conf.to_json()
        assert conf.vertices["v"].named_inputs == again.vertices["v"].named_inputs
        net.fit(xs, y)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(twin.output(xs), net.output(xs))


def everything():
    """One graph with every kind of vertex but the pool helper; float64."""
    made = (
        NeuralNetConfiguration.builder().seed(3).data_type("double").activation("tanh")
    )
    made = made.updater("adam", lr=0.01).graph_builder().add_inputs("x", "s")
    made.set_input_types(InputType.feed_forward(4), InputType.recurrent(4, 5))
    made.add_layer("a", Dense(n_out=4), "x")
    for name, vertex, *read in (
        ("scaled", config.ScaleVertex(2.0), "a"),
        ("shifted", config.ShiftVertex(1.0), "scaled"),
        ("sum", config.ElementWiseVertex("Add"), "a", "shifted"),
        ("max", config.ElementWiseVertex("Max"), "a", "sum"),
        ("unit", config.L2NormalizeVertex(), "max"),
        ("apart", config.L2Vertex(), "a", "unit"),
        ("some", config.SubsetVertex(1, 2), "sum"),
        ("under", config.StackVertex(), "a", "max"),
        ("lower", config.UnstackVertex(1, 2), "under"),
        ("shape", config.ReshapeVertex((-1, 2, 2)), "lower"),
        ("back", config.PreprocessorVertex(config.RnnToFeedForward()), "turned"),
        ("series", config.PreprocessorVertex(config.FeedForwardToRnn()), "back"),
        ("turned", config.ReverseTimeSeriesVertex("s"), "s"),
        ("steps", config.DuplicateToTimeSeriesVertex("s"), "max"),
        ("frozen", config.FrozenVertex(ScaleVertex(2.0)), "steps"),
        ("seen", config.AttentionVertex(n_out=4, project_input=True),
         "frozen", "series", "s"),
        ("end", config.LastTimeStepVertex("s"), "seen"),
        ("tail", config.LastTimeStepVertex(), "shape"),
        ("all", config.MergeVertex(), "end", "tail", "some", "apart", "unit"),
    ):  # fmt: skip
        made.add_vertex(name, vertex, *read)
    made.append_layer("out", Output(n_out=2, activation="softmax"))
    conf = made.add_layer("steps-out", config.RnnOutput(n_out=3), "seen")
    g = torch.Generator().manual_seed(0)
    shapes = ((N, 4), (N, 4, 5))
    xs = tuple(torch.randn(*s, generator=g, dtype=torch.float64) for s in shapes)
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 0]]
    ys = torch.eye(3, dtype=torch.float64)[torch.arange(N * 5) % 3].view(N, 5, 3)
    return conf.set_outputs("out", "steps-out").build(), xs, (y, ys.transpose(1, 2))


def test_compile_and_export():
    conf, xs, _ = everything()
    net = conf.module().eval()
    masks = None, torch.from_numpy(MASK)
    expected = net.output(xs, masks)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    exported = torch.export.export(net, (xs, masks)).module()
    for f in (compiled, exported):
        torch.testing.assert_close(f(xs, masks), expected, rtol=1e-12, atol=1e-14)


def test_channels_last():
    """Merge follows the format; vertices that take axis 1 say so."""
    image = InputType.convolutional(3, 4, 2, "NHWC")
    steps = InputType.recurrent(4, 5, "NWC")
    merged = config.MergeVertex().with_inputs((image, image))
    assert merged.merge_axis == 3 and merged.output((image, image)).channels == 4
    assert config.MergeVertex().with_inputs((steps, steps)).merge_axis == 2
    meant = config.MergeVertex(merge_axis=1, modified=True).with_inputs((steps, steps))
    assert meant.output((steps, steps)) == InputType.recurrent(4, 10, "NWC")
    for vertex, given in (
        (config.SubsetVertex(0, 1), image),
        (config.PoolHelperVertex(), image),
        (config.LastTimeStepVertex(), steps),
        (config.ReverseTimeSeriesVertex(), steps),
    ):
        with pytest.raises(ConfigurationError, match="channels on axis 1.*got"):
            vertex.output((given,))


class TestAttention:
    def builder(self, **fields):
        made = NeuralNetConfiguration.builder().seed(1).data_type("double").l2(0.01)
        made = made.updater("adam", lr=0.1).graph_builder().add_inputs("q", "k")
        made.set_input_types(InputType.recurrent(4, 5), InputType.recurrent(3))
        made.add_vertex("att", config.AttentionVertex(**fields), "q", "k", "k")
        made.add_layer("out", config.RnnOutput(n_out=2), "att").set_outputs("out")
        return made

    def test_sizes_and_settings_follow(self):
        conf = self.builder(n_out=6, n_heads=2, project_input=True).build()
        vertex = conf.vertices["att"]
        assert (vertex.n_in_queries, vertex.n_in_keys, vertex.head_size) == (4, 3, 3)
        assert (
            vertex.updater.name == "adam" and vertex.regularization[0].l2(0, 0) == 0.01
        )
        assert conf.vertices["out"].n_in == 6
        net = conf.module()
        names = [(v.node, v.name, tuple(v.array.shape)) for v in net.views()]
        assert names[:4] == [
            ("att", "Wq", (2, 3, 4)),
            ("att", "Wk", (2, 3, 3)),
            ("att", "Wv", (2, 3, 3)),
            ("att", "Wo", (6, 6)),
        ]
        before = net.params()
        x = torch.randn(3, 4, 5).double(), torch.randn(3, 3, 7).double()
        net.fit(x, torch.rand(3, 2, 5).double())
        assert (net.params() != before).all()

    @pytest.mark.parametrize(
        "fields, message",
        [
            ({}, "n_out: expected a whole number >= 1, got nothing"),
            ({"n_out": 4}, r"project_input: .* sizes equal, got n_heads = 1"),
            ({"n_out": 4, "n_heads": 2}, "project_input: "),
            ({"n_out": 4, "n_in_keys": 5}, "n_in_keys: the input has size 3, got 5"),
        ],
    )
    def test_bad_sizes(self, fields, message):
        with pytest.raises(ConfigurationError, match=f"vertex 'att' .*{message}"):
            self.builder(**fields).build()
        with pytest.raises(ValueError, match="head_size: must be given"):
            config.AttentionVertex(n_out=4, n_heads=3)
        with pytest.raises(ValueError, match="expected a whole number"):
            layers.AttentionVertex(n_out=4)

    def test_exact_mode_doubles_the_gradient(self):
        conf = self.builder(n_out=4, project_input=True).build()
        x = torch.randn(3, 4, 5).double(), torch.randn(3, 3, 7).double()
        y = torch.eye(2)[torch.arange(15) % 2].view(3, 5, 2).transpose(1, 2).double()
        grads = [conf.module(e).gradient_and_score(x, y)[0] for e in (False, True)]
        weights = sum(
            v.tensor.numel() for v in conf.module().views() if v.node == "att"
        )
        torch.testing.assert_close(grads[1][:weights], 2 * grads[0][:weights])
        torch.testing.assert_close(grads[1][weights:], grads[0][weights:])
        assert any("twice the derivative" in line for line in conf.module().differs())


@pytest.fixture
def registered(monkeypatch):
    for registry in (VERTICES, MODULES):
        for name in ("_entries", "_java"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_a_vertex_of_ones_own(registered, tmp_path):
    """One dataclass and one module: it trains, is saved, restored and inspected."""

    @VERTICES.add("gate")
    @dataclass(frozen=True)
    class Gate(TrainedVertex):
        sharpness: float = 1.0

        least, most = 2, 2

    @implements(Gate)
    class GateModule(layers.Vertex):
        def build(self):
            self.weight = nn.Parameter(torch.empty(1, 4))

        def views(self):
            yield View(self, "G", "weight", fans=(4, 4))

        def forward(self, a, b):
            g = torch.sigmoid(self.conf.sharpness * self.weight)
            return g * a + (1 - g) * b

    @VERTICES.add("double")
    @dataclass(frozen=True)
    class Double(Vertex):
        pass

    @implements(Double)
    class DoubleModule(layers.Vertex):
        def forward(self, x):
            return 2 * x

    made = NeuralNetConfiguration.builder().seed(1).updater("adam", lr=0.1).l2(0.1)
    made = (
        made.graph_builder().add_inputs("x").set_input_types(InputType.feed_forward(3))
    )
    made.add_layer("a", Dense(n_out=4), "x").add_vertex("b", Double(), "a")
    made.add_vertex("gate", Gate(2.0), "a", "b").add_layer(
        "out", Output(n_out=2), "gate"
    )
    net = made.set_outputs("out").build().module()
    x, y = torch.randn(5, 3), torch.eye(2)[[0, 1, 0, 1, 0]]
    before = net.params()
    net.fit(x, y)
    assert (net.params() != before).all() and net.penalty() > 0
    with pytest.warns(UserWarning, match="labels to sum to 1"):
        dl4py.save(net, tmp_path / "m.zip")
    again = dl4py.restore(tmp_path / "m.zip", dl4j_exact=False)
    assert again.conf.vertices == net.conf.vertices
    assert torch.equal(again.params(), net.params())
    net.fit(x, y), again.train().fit(x, y)
    assert torch.equal(again.params(), net.params())
    with pytest.raises(ConfigurationError, match="takes 2 inputs, got 1"):
        made = NeuralNetConfiguration.builder().graph_builder().add_inputs("x")
        made.add_vertex("g", Gate(), "x").set_outputs("g").build()
