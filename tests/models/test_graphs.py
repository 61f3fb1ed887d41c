"""Graphs: DL4J's numbers and order, builder, several inputs and outputs, bad input.

Single vertices are in test_vertices.py.
"""

import json
import random
import sys
import zipfile

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import dl4py
from dl4py.commands.cli import main
from dl4py.config import (
    CnnToFeedForward,
    Convolution2D,
    Dense,
    ElementWiseVertex,
    InputType,
    MergeVertex,
    NeuralNetConfiguration,
    Output,
    RnnOutput,
    ScaleVertex,
)
from tests import graphs
from tests.models.test_catalogue import Run
from tests.training.test_lightning import trainer

# what DL4J could not compute, and why
DL4J_FAILS = {"output_read_on": "it cannot train a graph that reads an output"}
ROWS = InputType.feed_forward(3)


def plain(found):
    """Without cuDNN's settings, of which DL4J writes more than what is built here."""
    return {key: x for key, x in found.items() if not key.startswith("cudnn")}


@pytest.mark.parametrize("name", list(graphs.CASES))
def test_equals_dl4j(name):
    """Masks through vertices, several inputs and outputs, and training on in Java."""
    case, conf = graphs.load(name), graphs.configuration(name)
    ours, theirs = (
        json.loads(t, object_hook=plain) for t in (conf.to_json(), case.json)
    )
    assert ours == theirs
    run = Run(case, conf)
    run.outputs()
    run.layers()
    run.gradient()
    if case.meta["trains"]:
        run.steps()
    assert case.meta["trains"] == (name not in DL4J_FAILS)


def start(*names, types=None):
    made = NeuralNetConfiguration.builder().seed(1).data_type("double")
    made = made.updater("adam", lr=0.05).graph_builder().add_inputs(*names)
    return made.set_input_types(types or [ROWS] * len(names))


def two_by_two():
    """Two inputs, a merge that nobody wrote, two outputs in another order."""
    made = start("x", "y", types=[ROWS, InputType.feed_forward(2)])
    made.add_layer("a", Dense(n_out=4, activation="tanh"), "x", "y")
    made.add_layer("o1", Output(n_out=3), "a")
    made.add_layer("o2", Output(n_out=2, activation="identity", loss="mse"), "a", "x")
    return made.set_outputs("o2", "o1")


def batch(n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y, o2 = (torch.randn(n, k, generator=g).double() for k in (3, 2, 2))
    return (x, y), (o2, torch.eye(3).double()[torch.arange(n) % 3])


class TestBuilder:
    def test_both_spellings(self):
        camel = (
            NeuralNetConfiguration.Builder()
            .seed(1)
            .dataType("double")
            .updater("adam", lr=0.05)
            .graphBuilder()
            .addInputs("x", "y")
            .addLayer("a", Dense.builder().nOut(4).activation("tanh").build(), "x", "y")
            .addLayer("o1", Output(n_out=3), "a")
            .addVertex("both", MergeVertex(), "a", "x")
            .addLayer("o2", Output(n_out=2, activation="identity", loss="mse"), "both")
            .setOutputs("o2", "o1")
            .setInputTypes(ROWS, InputType.feedForward(2))
            .build()
        )
        snake = two_by_two().build()
        assert snake.vertices.keys() - camel.vertices.keys() == {"o2-merge"}
        assert camel.vertices["o2"] == snake.vertices["o2"]
        assert list(snake.vertices) == ["a", "a-merge", "o1", "o2", "o2-merge"]
        assert snake.vertex_inputs["a-merge"] == ("x", "y")
        assert snake.vertices["a"].n_in == 5 and snake.vertices["o2"].n_in == 7

    def test_the_order_is_dl4js(self, oracle, tmp_path):
        """Random graphs, parts of them added before what they read."""
        for seed, count in enumerate((5, 20, 60)):
            r, names = random.Random(seed), ["i0", "i1"]
            reads = {}
            for i in range(count):
                reads[f"v{i}"] = r.sample(names, r.choice((1, 1, 2)))
                names.append(f"v{i}")
            made = start("i0", "i1")
            for name in r.sample(list(reads), count):
                item = r.choice((Dense(n_out=2), ScaleVertex(1.0)))
                made.add_vertex(name, item, *reads[name])
            seen = {other for given in reads.values() for other in given}
            loose = [name for name in names if name not in seen]
            made.add_layer("out", Output(n_out=2), *loose).set_outputs("out")
            content = made.build().to_dict()
            ours = content.pop("topologicalOrderStr"), content.pop("topologicalOrder")
            (tmp_path / "c.json").write_text(json.dumps(content))
            oracle("init", tmp_path / "c.json", tmp_path / "m.zip")
            with zipfile.ZipFile(tmp_path / "m.zip") as archive:
                theirs = json.loads(archive.read("configuration.json"))
            assert ours == tuple(
                theirs[k] for k in ("topologicalOrderStr", "topologicalOrder")
            )

    def test_preprocessors(self):
        image = InputType.convolutional(4, 4, 1)
        made = start("x", types=[image])
        made.add_layer("c", Convolution2D(kernel_size=3, n_out=2), "x")
        made.append_layer("a", Dense(n_out=3)).append_vertex("s", ScaleVertex(2.0))
        conf = made.append_layer("o", Output(n_out=2)).set_outputs("o").build()
        own = conf.preprocessors["a"]
        assert conf.preprocessors.keys() == {"a"} and isinstance(own, CnnToFeedForward)
        assert conf.vertices["a"].n_in == own.output(image).features == 8
        for given in (
            start("x", types=[image]).add_layer("o", Output(n_out=2), own, "x"),
            start("x", types=[image])
            .add_layer("o", Output(n_out=2), "x")
            .input_pre_processor("o", own),
        ):
            assert given.set_outputs("o").build().preprocessors == {"o": own}

    def test_sizes_without_input_types(self):
        made = NeuralNetConfiguration.builder().graph_builder().add_inputs("x", "y")
        made.add_layer("a", Dense(n_in=2, n_out=3), "x").add_layer(
            "b", Dense(n_in=4, n_out=3), "y"
        )
        made.add_vertex("sum", ElementWiseVertex("add"), "a", "b")
        conf = made.add_layer("o", Output(n_out=2), "sum").set_outputs("o").build()
        assert conf.vertices["o"].n_in == 3

    @pytest.mark.parametrize("wide", [False, True])
    def test_large_graphs_take_linear_time(self, wide):
        """Twice the vertices are twice the calls, in building and in the module."""
        calls = []
        for count in (100, 200):
            made, seen = start("x"), [0]

            def counted(frame, event, argument, seen=seen):
                seen[0] += 1

            sys.setprofile(counted)
            try:
                for i in range(count):
                    made.add_layer(
                        f"l{i}", Dense(n_out=3), "x" if wide or not i else f"l{i - 1}"
                    )
                made.add_vertex(
                    "m",
                    MergeVertex(),
                    *(
                        [f"l{i}" for i in range(count)]
                        if wide
                        else ["x", f"l{count - 1}"]
                    ),
                )
                net = (
                    made.append_layer("o", Output(n_out=2))
                    .set_outputs("o")
                    .build()
                    .module()
                )
            finally:
                sys.setprofile(None)
            assert net.num_params() > 12 * count
            calls.append(seen[0])
        assert calls[1] < 2.1 * calls[0]


class TestSeveral:
    def test_tuples_and_names(self):
        xs, ys = batch()
        net = two_by_two().build().module()
        names = dict(zip("xy", xs, strict=True))
        labels = {"o1": ys[1], "o2": ys[0]}
        by_name, by_place = net(names), net(xs)
        assert all(map(torch.equal, by_name, by_place))
        assert [tuple(y.shape) for y in by_place] == [(6, 2), (6, 3)]
        assert net.score(names, labels) == net.score(list(xs), list(ys))
        mask = torch.tensor([1.0, 1, 0, 0, 1, 0]).double()
        masked = net.score(xs, ys, None, {"o1": mask})
        assert masked == net.score(xs, ys, None, (None, mask)) < net.score(xs, ys)
        assert net.feed_forward(xs).keys() == net.conf.vertices.keys()

    def test_scores_add_up(self):
        xs, ys = batch()
        net = two_by_two().build().module()
        o2, o1 = net.output(xs)
        mse = (o2 - ys[0]).square().mean(1).sum() / 6
        entropy = -(ys[1] * o1.log()).sum() / 6
        assert net.score(xs, ys) == pytest.approx(float(mse + entropy), rel=1e-14)

    def test_trainer_equals_fit_and_checkpoints_load(self, tmp_path):
        class Pairs(Dataset):
            xs, ys = batch(12)

            def __len__(self):
                return 12

            def __getitem__(self, i):
                return tuple(x[i] for x in self.xs), tuple(y[i] for y in self.ys)

        loader = DataLoader(Pairs(), batch_size=4)
        net = two_by_two().build().module()
        net.fit(loader, epochs=2)
        module = two_by_two().build().lightning(package="lightning")
        t = trainer(lightning, tmp_path)
        t.fit(module, loader, loader)
        assert torch.equal(module.network.params(), net.params())
        assert torch.equal(module.network.updater_state(), net.updater_state())
        assert t.callback_metrics["val_loss"] == pytest.approx(
            net.score(Pairs.xs, Pairs.ys), rel=1e-12
        )
        (first, *_) = t.predict(module, DataLoader(Pairs(), batch_size=12))
        assert all(map(torch.equal, first, net.output(Pairs.xs)))
        t.save_checkpoint(tmp_path / "c.ckpt")
        again = type(module).load_from_checkpoint(tmp_path / "c.ckpt")
        assert torch.equal(again.network.params(), net.params())
        net.fit(loader)
        trainer(lightning, tmp_path, max_epochs=3).fit(
            again, loader, ckpt_path=tmp_path / "c.ckpt"
        )
        assert torch.equal(again.network.params(), net.params())

    def test_by_name_under_a_trainer(self, tmp_path):
        xs, ys = batch(4)
        rows = [
            (
                {"x": xs[0][i], "y": xs[1][i]},
                {"o1": ys[1][i], "o2": ys[0][i]},
            )
            for i in range(4)
        ]
        module = two_by_two().build().lightning(package="lightning")
        trainer(lightning, tmp_path, max_epochs=1).fit(module, DataLoader(rows, 4))
        net = two_by_two().build().module()
        net.fit(xs, ys)
        assert torch.equal(module.network.params(), net.params())


class TestFiles:
    def saved(self, folder):
        xs, ys = batch()
        net = two_by_two().build().module(dl4j_exact=True)
        net.fit(xs, ys)
        dl4py.save(net, folder / "m.zip")
        for name, array in zip(
            ("x", "y", "o2", "o1"), (*xs, *net.output(xs)), strict=True
        ):
            np.save(folder / f"{name}.npy", array.numpy())
        return net

    def test_restore_goes_on(self, tmp_path):
        xs, ys = batch()
        net, again = self.saved(tmp_path), dl4py.restore(tmp_path / "m.zip")
        assert list(again.conf.order) == list(net.conf.order)
        assert net.fit(xs, ys) == again.fit(xs, ys)
        assert torch.equal(net.params(), again.params())
        assert torch.equal(net.updater_state(), again.updater_state())

    def test_inspect(self, tmp_path, capsys):
        self.saved(tmp_path)
        assert main(["inspect", str(tmp_path / "m.zip")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[-1] == "reads" and lines[2].split()[1] == "a-merge"
        assert lines[2].endswith("x, y") and lines[3].endswith("a-merge")
        assert main(["inspect", "--json", str(tmp_path / "m.zip")]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["inputs"] == ["x", "y"] and found["outputs"] == ["o2", "o1"]
        assert {x["name"]: x["reads"] for x in found["layers"]}["o2-merge"] == [
            "a",
            "x",
        ]

    def test_verify(self, tmp_path, capsys):
        self.saved(tmp_path)
        path = {n: str(tmp_path / f"{n}.npy") for n in ("x", "y", "o2", "o1")}
        model = ["verify", str(tmp_path / "m.zip"), "--outputs", path["o2"], path["o1"]]
        twice = [*model, "--inputs", path["x"], "--inputs", path["y"]]
        for command in (twice, [*model, "--inputs", path["x"], path["y"]]):
            assert main(command) == 0
            assert capsys.readouterr().out.startswith("ok")
        assert main([*model, "--inputs", path["x"]]) == 2
        assert "expected 2 files (x, y), got 1" in capsys.readouterr().err
        assert main([*model, "--inputs", path["y"], path["x"]]) == 2
        assert "does not fit the network" in capsys.readouterr().err
        np.save(path["o1"], np.load(path["o1"]) + 1e-8)
        assert main(twice) == 1
        assert "DIFFERS: off by 1.0e-08" in capsys.readouterr().out


def test_rnn_outputs_of_two_lengths():
    made = start("x", "y", types=[InputType.recurrent(3)] * 2)
    made.add_layer("o1", RnnOutput(n_out=2), "x").add_layer(
        "o2", RnnOutput(n_out=2), "y"
    )
    net = made.set_outputs("o1", "o2").build().module()
    first, second = net.output(
        (torch.zeros(2, 3, 4).double(), torch.zeros(2, 3, 7).double())
    )
    assert first.shape == (2, 2, 4) and second.shape == (2, 2, 7)
