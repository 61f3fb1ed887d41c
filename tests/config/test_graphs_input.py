"""What graphs refuse: one error that names the vertex, at build time or at the door."""

import pytest
import torch

from dl4py.config import (
    ConfigurationError,
    Dense,
    DL4JFormatError,
    ElementWiseVertex,
    InputType,
    LastTimeStepVertex,
    NeuralNetConfiguration,
    Output,
    ReshapeVertex,
)
from tests.models.test_graphs import ROWS, batch, start, two_by_two


def build(*parts, inputs=("x",), outputs=("o",), **options):
    made = start(*inputs, **options)
    for name, item, *reads in parts:
        made.add_vertex(name, item, *reads)
    return made.set_outputs(*outputs).build()


OUT = Output(n_out=2)
IMAGE = InputType.convolutional(4, 4, 2)
BAD_GRAPHS = {
    "cycle": (
        lambda: build(
            ("a", Dense(n_out=3), "x", "c"),
            ("b", Dense(n_out=3), "a"),
            ("c", Dense(n_out=3), "b"),
            ("o", OUT, "c"),
        ),
        "the graph has a cycle: 'a' reads 'a-merge' reads 'c' reads 'b' reads 'a'",
    ),
    "reads itself": (
        lambda: build(("o", OUT, "x", "o")),
        "the graph has a cycle: 'o' reads 'o-merge' reads 'o'",
    ),
    "unknown name": (
        lambda: build(("dense", Dense(n_out=3), "x"), ("o", OUT, "dnse")),
        "vertex 'o' reads 'dnse', which does not exist: did you mean 'dense'",
    ),
    "name twice": (
        lambda: build(("a", OUT, "x"), ("a", OUT, "x")),
        "the name 'a' was given twice",
    ),
    "name of an input": (
        lambda: build(("x", OUT, "x")),
        "the name 'x' was given twice",
    ),
    "no name": (lambda: build((None, OUT, "x")), "a name must be a string, got None"),
    "input unread": (
        lambda: build(("o", OUT, "x"), inputs=("x", "y")),
        "input 'y' is read by nothing",
    ),
    "vertex unread": (
        lambda: build(("a", Dense(n_out=3), "x"), ("o", OUT, "x")),
        r"vertex 'a' \(Dense\) is read by nothing and no output",
    ),
    "no inputs": (
        lambda: build(("o", OUT)),
        r"vertex 'o' \(Output\) takes 1 inputs, got 0",
    ),
    "too few inputs": (
        lambda: build(("v", ElementWiseVertex("Add"), "x"), ("o", OUT, "v")),
        r"vertex 'v' \(ElementWiseVertex\) takes 2 or more inputs, got 1: x",
    ),
    "subtract three": (
        lambda: build(
            ("v", ElementWiseVertex("Subtract"), "x", "x", "x"), ("o", OUT, "v")
        ),
        r"vertex 'v' \(ElementWiseVertex\): inputs: Subtract needs exactly two",
    ),
    "sizes to add": (
        lambda: build(
            ("a", Dense(n_out=4), "x"),
            ("v", ElementWiseVertex("Add"), "a", "x"),
            ("o", OUT, "v"),
        ),
        r"vertex 'v' .*: inputs: expected equal sizes, or 1, got FeedForward\(size=4\)",
    ),
    "images to add": (
        lambda: build(
            ("v", ElementWiseVertex("Add"), "x", "y"),
            ("o", OUT, "v"),
            inputs=("x", "y"),
            types=[IMAGE, InputType.convolutional(4, 5, 2)],
        ),
        "vertex 'v' .*: inputs: expected equal sizes, or 1, got Convolutional",
    ),
    "images to merge": (
        lambda: build(
            ("o", OUT, "x", "y"),
            inputs=("x", "y"),
            types=[IMAGE, InputType.convolutional(4, 5, 2)],
        ),
        r"vertex 'o-merge' \(MergeVertex\): inputs: expected one width to merge along "
        "channels",
    ),
    "kinds to merge": (
        lambda: build(("o", OUT, "x", "y"), inputs=("x", "y"), types=[ROWS, IMAGE]),
        "vertex 'o-merge' .* one kind and format, got FeedForward",
    ),
    "series wanted": (
        lambda: build(("v", LastTimeStepVertex(), "x"), ("o", OUT, "v")),
        r"vertex 'v' .*: inputs: expected a time series, got FeedForward\(size=3\)",
    ),
    "shape": (
        lambda: build(("v", ReshapeVertex((-1, 2, 2)), "x"), ("o", OUT, "v")),
        r"vertex 'v' .*: new_shape: \(-1, 2, 2\) does not hold the 3 numbers",
    ),
    "mask input": (
        lambda: build(
            ("v", LastTimeStepVertex("y"), "x"),
            ("o", OUT, "v"),
            types=[InputType.recurrent(3)],
        ),
        "vertex 'v' .* names the network input 'y', expected one of x",
    ),
    "input types": (
        lambda: build(("o", OUT, "x"), types=[ROWS, ROWS]),
        r"set_input_types\(...\): expected 1 types, for x, got 2",
    ),
    "no input type": (
        lambda: build(("o", OUT, "x"), types=[3]),
        r"expected InputType.feed_forward\(4\) or the like, got 3",
    ),
    "unknown output": (
        lambda: build(("o", OUT, "x"), outputs=("out",)),
        "output 'out' does not exist: did you mean 'o'|known: o",
    ),
    "output twice": (
        lambda: build(("o", OUT, "x"), outputs=("o", "o")),
        "output 'o' was given twice",
    ),
    "no outputs": (lambda: build(("o", OUT, "x"), outputs=()), "needs an output"),
    "no vertex": (lambda: build(("o", torch.relu, "x")), r"add_vertex\('o', …\): exp"),
    "inputs no names": (lambda: build(("o", OUT, 3)), "vertex 'o': inputs must be nam"),
    "nothing before": (
        lambda: NeuralNetConfiguration.builder().graph_builder().append_layer("a", OUT),
        "nothing was added before it",
    ),
    "preprocessor": (
        lambda: (
            start("x")
            .add_layer("o", OUT, "x")
            .input_pre_processor("p", "rnn_to_feed_forward")
            .set_outputs("o")
            .build()
        ),
        "preprocessor for 'p': expected the name of a layer",
    ),
}


class TestBadInput:
    @pytest.mark.parametrize("name", list(BAD_GRAPHS))
    def test_at_build_time(self, name):
        make, message = BAD_GRAPHS[name]
        with pytest.raises(ConfigurationError, match=message):
            make()

    def test_allow_disconnected(self):
        made = start("x", "y").add_layer("a", Dense(n_out=3), "x")
        made.add_layer("o", OUT, "x").set_outputs("o").allow_disconnected(True)
        net = made.build().module()
        x = torch.zeros(2, 3).double()
        assert net.output((x, x)).shape == (2, 2)

    @pytest.mark.parametrize(
        "x, y, message",
        [
            (lambda x, y: x[0], lambda x, y: y, r"x: expected 2 tensors \(x, y\)"),
            (lambda x, y: x[:1], lambda x, y: y, "x: expected 2 tensors .* of 1"),
            (lambda x, y: {"x": x[0]}, lambda x, y: y, "nothing was given for 'y'"),
            (lambda x, y: {"z": x[0]}, lambda x, y: y, "expected the names x, y, got"),
            (
                lambda x, y: {"x": 1, "y": 2},
                lambda x, y: y,
                "expected a torch.Tensor, got builtins.in",
            ),
            (lambda x, y: x, lambda x, y: y[0], r"labels: expected 2 tensors \(o2, o1"),
            (
                lambda x, y: (x[0], x[1][:4]),
                lambda x, y: y,
                r"vertex 'a-merge' \(MergeVertex\): .*shape \(6, 3\), \(4, 2\)",
            ),
        ],
    )
    def test_at_the_door(self, x, y, message):
        net = two_by_two().build().module()
        before, given = net.params(), batch()
        with pytest.raises((ValueError, TypeError), match=message):
            net.fit(x(*given), y(*given))
        assert torch.equal(before, net.params()) and net.clock.iteration == 0

    def test_a_tuple_where_one_tensor_is_wanted(self):
        net = build(("o", OUT, "x")).module()
        x = torch.zeros(2, 3).double()
        with pytest.raises(ValueError, match="x: expected one tensor, got a tuple"):
            net.output((x, x))

    def test_an_output_without_a_loss(self):
        conf = build(("a", Dense(n_out=2), "x"), ("o", OUT, "a"), outputs=("o", "a"))
        net, x = conf.module(), torch.zeros(2, 3).double()
        assert len(net.output(x)) == 2
        with pytest.raises(ValueError, match="the output 'a', Dense, has no loss"):
            net.loss(x, (x[:, :2], x[:, :2]))

    @pytest.mark.parametrize(
        "damage, message",
        [
            (lambda c: c["vertices"].pop("a"), "'a': expected a vertex and its inputs"),
            (lambda c: c["vertexInputs"].pop("a"), "'a': expected a vertex and its"),
            (lambda c: c.pop("networkInputs"), r"\$.networkInputs: expected a list"),
            (lambda c: c.update(networkOutputs=[]), "needs an output"),
            (lambda c: c["vertexInputs"].update(a=["o1"]), "'a' stands before 'o1'"),
            (lambda c: c["vertexInputs"].update(a="x"), r"\$.vertexInputs.a: expected"),
            (lambda c: c["topologicalOrderStr"].pop(), "every input and vertex once"),
            (lambda c: c["vertices"]["a"].pop("layerConf"), r"\$.vertices.a.layerConf"),
            (
                lambda c: c["vertices"]["a-merge"].update({"@class": "x.FooVertex"}),
                r"\$.vertices.a-merge: unknown .*'x.FooVertex'",
            ),
            (
                lambda c: c["vertices"]["a-merge"].update(mergeAxis="b"),
                r"\$.vertices.a-merge.mergeAxis: must be a whole number",
            ),
        ],
    )
    def test_damaged_json(self, damage, message):
        content = two_by_two().build().to_dict()
        damage(content)
        with pytest.raises(DL4JFormatError, match=message):
            NeuralNetConfiguration.from_dict(content)

    def test_a_mask_that_does_not_fit(self):
        conf = build(
            ("v", ReshapeVertex((-1, 2)), "x"),
            ("o", OUT, "v"),
            types=[InputType.recurrent(2, 3)],
        )
        net = conf.module()
        x, mask = torch.zeros(4, 2, 3).double(), torch.ones(4, 3).double()
        assert net.output(x, mask).shape == (12, 2)  # one for each step
        with pytest.raises(ValueError, match=r"features_mask: expected \[4, 3\]"):
            net.output(x, torch.ones(4, 2).double())

    def test_a_mask_that_does_not_fit_what_leaves(self):
        conf = build(
            ("v", ReshapeVertex((-1, 3)), "x"),
            ("o", OUT, "v"),
            types=[InputType.recurrent(2, 3)],
        )
        x, mask = torch.zeros(4, 2, 3).double(), torch.ones(4, 3).double()
        with pytest.raises(ValueError, match="vertex 'v' .*mask .*give mask_shape"):
            conf.module().output(x, mask)
