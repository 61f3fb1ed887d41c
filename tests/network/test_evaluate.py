"""net.evaluate(data), net.summary() and dl4py diff."""

import json

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py.commands.cli import main
from dl4py.config import Dense, InputType, NeuralNetConfiguration, Output, RnnOutput
from dl4py.config import SimpleRnn as Rnn
from dl4py.evaluation import Evaluation, RegressionEvaluation, ROCMultiClass


def network(seed=1, n_out=3):
    chain = NeuralNetConfiguration.builder().seed(seed).data_type("double")
    chain = chain.updater("adam", lr=0.1)
    chain = chain.list().layer(Dense(n_in=4, n_out=5, activation="tanh"))
    return chain.layer(Output(n_out=n_out)).build().module(dl4j_exact=True)


X, Y = torch.randn(20, 4).double(), torch.eye(3).double()[torch.arange(20) % 3]


@pytest.mark.parametrize("metric", [None, RegressionEvaluation(), ROCMultiClass()])
def test_counts_all_batches(metric):
    net = network()
    loader = DataLoader(TensorDataset(X, Y), batch_size=6)
    found = net.evaluate(loader, metric)
    assert found is metric or (metric is None and isinstance(found, Evaluation))
    other = type(found)()
    other.update(net.output(X), Y)
    assert found.stats() == other.stats()
    assert net.evaluate((X, Y)).accuracy() == net.evaluate([(X, Y)]).accuracy()


def test_no_data_is_an_error():
    with pytest.raises(ValueError, match="evaluate.data.: expected at least one batch"):
        network().evaluate([])


def test_masked_steps_do_not_count():
    chain = NeuralNetConfiguration.builder().input_type(InputType.recurrent(2))
    net = chain.layer(Rnn(n_out=3)).layer(RnnOutput(n_out=2)).build().module()
    x, y = torch.randn(4, 2, 5), torch.eye(2)[torch.randint(2, (4, 5))].mT
    mask = torch.tensor([[1.0, 1, 1, 0, 0]]).repeat(4, 1)
    found = net.evaluate((x, y, mask, mask))
    assert found.num_row_counter() == 12
    expected = (net.output(x, mask).argmax(1) == y.argmax(1))[:, :3].float().mean()
    assert found.accuracy() == pytest.approx(float(expected))


def test_several_outputs_have_a_metric_each():
    graph = NeuralNetConfiguration.builder().graph_builder().add_inputs("x")
    graph.add_layer("a", Output(n_in=4, n_out=3), "x")
    graph.add_layer("b", Output(n_in=4, n_out=1, loss="mse", activation="tanh"), "x")
    net = graph.set_outputs("a", "b").build().module()
    x, z = X.float(), torch.randn(20, 1)
    both = {"b": RegressionEvaluation(), "a": Evaluation()}
    for labels in ((Y, z), {"a": Y, "b": z}):
        for metric in both.values():
            metric.reset()
        assert net.evaluate((x, labels), both) is both
        assert both["a"].num_row_counter() == 20
        error = (net.output(x)[1] - z).square().mean()
        assert both["b"].mean_squared_error() == pytest.approx(float(error))
    with pytest.raises(
        ValueError, match=r"a dict by the names of the outputs \(a, b\)"
    ):
        net.evaluate((x, (Y, z)))


def test_summary():
    lines = network().summary().splitlines()
    assert (
        lines[2].split()[:3] == ["0", "layer0", "Dense"] and "43 parameters" in lines[4]
    )


class TestDiff:
    def files(self, tmp_path, *nets):
        paths = [tmp_path / f"{i}.zip" for i in range(len(nets))]
        for net, path in zip(nets, paths, strict=True):
            dl4py.save(net, path)
        return [str(p) for p in paths]

    def test_equal(self, tmp_path, capsys):
        paths = self.files(tmp_path, network(), network())
        assert main(["diff", *paths]) == 0
        assert capsys.readouterr().out == "no difference\n"

    def test_says_where(self, tmp_path, capsys):
        net, other = network(), network()
        other.fit(X, Y)
        with torch.no_grad():
            next(iter(other.views())).tensor.add_(1.0)
        paths = self.files(tmp_path, net, other)
        assert main(["diff", *paths]) == 1
        text = capsys.readouterr().out
        assert "configuration: $.iterationCount: 0 against 1\n" in text
        assert "parameters: layer0.W: up to 1." in text
        assert "updater_state: updater state: up to " in text
        assert main(["diff", *paths, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert found["parameters"]["layer0.W"] == pytest.approx(1.0, abs=0.2)

    def test_other_shapes(self, tmp_path, capsys):
        paths = self.files(tmp_path, network(), network(n_out=4))
        assert main(["diff", *paths]) == 1
        text = capsys.readouterr().out
        assert "parameters: layer1.W: [5, 3] against [5, 4]" in text
        assert "nout: 3 against 4" in text

    def test_no_model(self, tmp_path, capsys):
        assert main(["diff", *map(str, [tmp_path / "a.zip", tmp_path / "b.zip"])]) == 2
        assert "dl4py diff:" in capsys.readouterr().err
