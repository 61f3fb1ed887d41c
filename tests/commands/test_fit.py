"""From a CSV by YAML to a model zip, its table and its predictions."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import dl4py
from dl4py import data
from dl4py.commands.cli import main

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "iris.yaml"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with iris.csv, conf.yaml and what ``dl4py fit`` made of them."""
    folder = tmp_path_factory.mktemp("fit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copy(Path(data.__file__).parent / "iris.csv", folder)
        text = EXAMPLE.read_text().replace("dl4py/data/iris.csv", "iris.csv", 4)
        text = text.replace("max_epochs: 30", "max_epochs: 12\n  logger: false")
        (folder / "conf.yaml").write_text(text)
        assert main(["fit", "--config", "conf.yaml", "--out", "model.zip"]) == 0
    return folder


@pytest.fixture
def here(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    return fitted


def refused(capsys, *words):
    """The one line of an error."""
    assert main(list(map(str, words))) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err


class TestFit:
    def test_the_zip_holds_network_and_normalizer(self, here):
        net = dl4py.restore("model.zip")
        assert net.clock.epoch == 12 and net.clock.iteration == 12 * 8
        x, y = data.read("iris.csv", labels="species").batch(torch.arange(150))
        assert float((net.predict(x).argmax(1) == y.argmax(1)).float().mean()) > 0.95
        assert "Standardize" in net.normalizer.describe()

    def test_a_checkpoint_is_there_too(self, here):
        (path,) = here.rglob("*.ckpt")
        from dl4py.lightning import Network

        loaded = Network.load_from_checkpoint(path, weights_only=True).network
        x = torch.randn(3, 4)
        assert torch.equal(loaded.predict(x), dl4py.restore("model.zip").predict(x))

    def test_java_opens_it(self, here, oracle):
        net = dl4py.restore("model.zip")
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        np.save("x.npy", x.double().numpy())
        oracle("output", here / "model.zip", here / "out", here / "x.npy")
        theirs = torch.from_numpy(np.load("out/out_0.npy")).float()
        torch.testing.assert_close(net.output(x), theirs, rtol=1e-5, atol=1e-6)

    def test_goes_on_from_a_zip_and_answers_in_json(self, here, capsys):
        words = ["fit", "--config", "conf.yaml", "--out", "more.zip", "--json"]
        more = ["--model.network", "model.zip", "--trainer.max_epochs", "1"]
        assert main([*words, *more]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["classes"] == list(data.IRIS_CLASSES)
        assert found["examples"] == {"train": 120, "validation": 30}
        assert found["epochs"] == 13 and found["scores"]["val_accuracy"] > 0.9
        assert dl4py.restore("more.zip").clock.epoch == 13

    @pytest.mark.parametrize(
        "words, says",
        [
            (["--out", "model.zip"], "model.zip exists; --force replaces it"),
            (["--out", "none/m.zip"], "there is no folder none"),
            (["--out", "/proc/m.zip"], "/proc/m.zip: no file can be written into /pr"),
            (["--out", "m.onnx"], "in .zip, then dl4py convert m.zip m.onnx"),
            (["--config=iris.csv"], "iris.csv: expected YAML with model, data and "),
            (["--config", "model.zip"], "model.zip: expected YAML: 'utf-8' codec"),
            (["--config", "open.yaml"], "open.yaml: expected YAML: while parsing"),
            (  # logs of a run that never was
                ["--trainer.logger", "true", "--data.train", "none.csv"],
                "none.csv: no such file or folder",
            ),
            (["--config", "none.yaml"], "none.yaml"),
            (
                ["--model.network", "no_layers.yaml"],
                "no_layers.yaml: $: expected layers, of a builder's words, or DL4J's "
                "confs or vertices; there is seed, layerz",
            ),
            (["--data.train", "none.csv"], "none.csv: no such file or folder"),
            (["--data.read.labels", "specie"], "did you mean 'species'"),
            (["--data.reed.labels", "a"], "unrecognized arguments: --data.reed"),
            (["--trainer.max_epochs", "x"], "trainer.max_epochs"),
            (
                ["--model.network", "iris.csv"],
                "iris.csv: expected a zip of DL4J's, a Lightning",
            ),
            (
                ["--trainer.logger", "true", "--trainer.default_root_dir", "iris.csv"],
                "cannot write to iris.csv/lightning_logs/version_0: ",
            ),
            (  # where permissions say that root may
                ["--trainer.logger", "true", "--trainer.default_root_dir", "/proc/x"],
                "cannot write to /proc/x/lightning_logs/version_0: /proc is no folder",
            ),
        ],
    )
    def test_bad_input_is_one_line_and_writes_nothing(self, here, capsys, words, says):
        (here / "open.yaml").write_text("model: [")
        (here / "no_layers.yaml").write_text("seed: 3\nlayerz: []\n")
        before = sorted(here.rglob("*"))
        command = ["fit", "--config", "conf.yaml", "--out", "new.zip"]
        assert says in refused(capsys, *command, *words)
        assert sorted(here.rglob("*")) == before

    def test_help_names_what_yaml_may_hold(self, here, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert "--data.train" in out and "--trainer.max_epochs" in out


class TestEvaluate:
    def test_prints_dl4js_table(self, here, capsys):
        assert main(["evaluate", "model.zip", "iris.csv", "--labels", "species"]) == 0
        out = capsys.readouterr().out
        x, y = data.read("iris.csv", labels="species").batch(torch.arange(150))
        expected = dl4py.Evaluation(labels=list(data.IRIS_CLASSES))
        expected.update(dl4py.restore("model.zip").predict(x), y)
        assert out.strip() == expected.stats().strip()

    @pytest.mark.parametrize(
        "metric", ["ROCMultiClass", "evaluation_binary", "regression_evaluation"]
    )
    def test_another_metric_in_json(self, here, capsys, metric):
        words = ["--config", "conf.yaml", "--metric", metric, "--json"]
        assert main(["evaluate", "model.zip", "iris.csv", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["metric"].lower() == metric.replace("_", "").lower()
        assert found["result"]

    def test_classes_have_their_names_in_every_table(self, here, capsys):
        words = ["evaluate", "model.zip", "iris.csv", "--config", "conf.yaml"]
        for metric in ("ROCMultiClass", "ROCBinary", "EvaluationBinary"):
            assert main([*words, "--metric", metric]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert [line.split()[0] for line in lines[1:4]] == [*data.IRIS_CLASSES]
        assert main([*words, "--metric", "EvaluationCalibration"]) == 0
        evaluation = dl4py.evaluation.EvaluationCalibration()
        x, y = data.iris()
        evaluation.update(dl4py.restore("model.zip").predict(x), y)
        text = f"calibration error (class-wise): {evaluation.compute():.4f}"
        assert text in capsys.readouterr().out

    def test_one_class_of_three(self, here, capsys):
        lines = (here / "iris.csv").read_text().splitlines()
        (here / "few.csv").write_text("\n".join(lines[:4]))
        words = ["few.csv", "--labels", "species"]
        assert main(["evaluate", "model.zip", *words]) == 0  # it knows their names
        assert " 3 0 0 | 0 = setosa" in capsys.readouterr().out
        line = refused(capsys, "evaluate", "conf.yaml", *words)
        assert "few.csv: labels: 'setosa' is the only class that is there" in line
        line = refused(capsys, "evaluate", "model.zip", *words, "--classes", 3)
        assert "row 2, column 'species': expected the number of a class" in line
        assert "give the classes' names in place of their number" in line

    @pytest.mark.parametrize(
        "words, says",
        [
            ([], "iris.csv: row 2, column 'species': expected a number, got 'setosa'"),
            (["--features", "0,1,2,3"], "iris.csv: no labels to compare with; name"),
            (
                ["--labels", "4", "--features", "0,1"],
                "iris.csv: Standard: expected an array [n, 4, ...]",
            ),
            (["--labels", "4", "--metric", "ROK"], "--metric: unknown 'ROK'"),
            (
                ["--labels", "species", "--classes", "setosa,rose"],
                "iris.csv: row 52, column 'species': expected one of the classes "
                "setosa, rose, got 'versicolor'",
            ),
        ],
    )
    def test_bad_input(self, here, capsys, words, says):
        line = refused(capsys, "evaluate", "model.zip", "iris.csv", *words)
        assert line.startswith(f"dl4py evaluate: {says}")

    def test_without_rows(self, here, capsys, tmp_path):
        empty = tmp_path / "a.csv"
        empty.write_text("a,b,c,d,species\n")
        line = refused(capsys, "evaluate", "model.zip", empty, "--labels", 4)
        assert "a.csv: " in line


class TestPredict:
    def test_classes_and_probabilities_of_raw_rows(self, here, capsys):
        words = ["--config", "conf.yaml", "--out", "p.csv"]
        assert main(["predict", "model.zip", "iris.csv", *words]) == 0
        with open("p.csv", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["class", *data.IRIS_CLASSES] and len(rows) == 150
        x, _ = data.iris()
        p = dl4py.restore("model.zip").predict(x)
        assert torch.equal(torch.tensor([[*map(float, r[1:])] for r in rows]), p)
        assert [r[0] for r in rows] == [data.IRIS_CLASSES[i] for i in p.argmax(1)]
        capsys.readouterr()
        line = refused(capsys, "predict", "model.zip", "iris.csv", *words)
        assert "p.csv exists; --force replaces it" in line
        assert main(["predict", "model.zip", "iris.csv", *words, "--force"]) == 0

    def test_a_failure_leaves_nothing_and_keeps_what_was_there(self, here, capsys):
        lines = (here / "iris.csv").read_text().splitlines()
        (here / "bad.csv").write_text("\n".join([*lines, "1,2,x,4,setosa"]))
        (here / "kept.csv").write_text("old")
        for out, more in (("q.csv", []), ("kept.csv", ["--force"])):
            words = ["--labels", "species", "--out", out, *more]
            line = refused(capsys, "predict", "model.zip", "bad.csv", *words)
            assert (
                "bad.csv: row 152, column 'petal_length': expected a number, got 'x'"
                in line
            )
        assert not (here / "q.csv").exists() and not list(here.glob(".dl4py*"))
        assert (here / "kept.csv").read_text() == "old"

    def test_where_nothing_is_known_there_is_no_class(self, here, capsys):
        (here / "gaps.csv").write_text("a,b,c,d\n5,3,1,0.2\nnan,3,1,2\n1,2,nan,4\n")
        words = ["gaps.csv", "--classes", "x,y,z", "--out", "g.csv", "--batch-size", 2]
        command = ["predict", "model.zip", *map(str, words)]
        with pytest.warns(UserWarning, match=r"2 of 3 examples .* \(counted .* 1, 2\)"):
            assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["unknown"] == 2
        rows = (here / "g.csv").read_text().splitlines()
        assert rows[1][0] == "x" and rows[2:] == [",nan,nan,nan"] * 2
        (here / "gaps.csv").write_text("a,b,c,d,k\n5,3,1,0.2,0\nnan,3,1,2,1\n")
        words = ["gaps.csv", "--labels", "k", "--classes", 3]
        line = refused(capsys, "evaluate", "model.zip", *words)
        assert "gaps.csv: layer1: predictions must not hold NaN" in line

    def test_names_of_other_classes_are_refused(self, here, capsys):
        words = ["--features", "0,1,2,3", "--classes", "a,b", "--out", "n.csv"]
        line = refused(capsys, "predict", "model.zip", "iris.csv", *words)
        assert "classes: expected 3 names" in line and "got 2: a, b" in line
        assert not (here / "n.csv").exists()

    def test_another_width_names_the_normalizer(self, here, capsys):
        words = ["--features", "0,1,2", "--out", "q.csv"]
        line = refused(capsys, "predict", "model.zip", "iris.csv", *words)
        assert "iris.csv: " in line and "4" in line and "3" in line


def test_sequences_are_rows_of_steps(tmp_path, monkeypatch, capsys):
    from dl4py.config import LSTM, InputType, NeuralNetConfiguration, RnnOutput

    monkeypatch.chdir(tmp_path)
    chain = NeuralNetConfiguration.builder().seed(1).input_type(InputType.recurrent(2))
    chain.layer(LSTM(n_out=3, activation="tanh"))
    last = RnnOutput(n_out=1, loss="mse", activation="identity")
    net = chain.layer(last).build().module(dl4j_exact=True)
    dl4py.save(net, "m.zip")
    (tmp_path / "x").mkdir()
    for i, length in enumerate((2, 3)):
        (tmp_path / "x" / f"{i}.csv").write_text("1,2,0.5\n" * length)
    words = ["--per-file", "--labels", "2"]
    assert main(["predict", "m.zip", "x", *words, "--out", "p.csv"]) == 0
    with open("p.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["example", "step", "2"]
    assert [r[:2] for r in rows] == [
        ["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"], ["1", "2"]
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", "m.zip", "x", *words]) == 0
    assert "MSE" in capsys.readouterr().out


class TestSummary:
    def test_of_a_configuration_before_it_is_trained(self, capsys):
        assert main(["summary", str(EXAMPLE), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["parameters"] == 83 and found["iteration"] == 0

    def test_a_fault_names_file_and_place(self, capsys, tmp_path):
        (tmp_path / "a.yaml").write_text("layers: [{dens: {n_in: 2}}]")
        line = refused(capsys, "summary", tmp_path / "a.yaml")
        assert "a.yaml: layers[0]: unknown layer 'dens': did you mean" in line


def test_images_from_fit_to_predictions(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for i in range(12):
        kind = ("dark", "light")[i % 2]
        (tmp_path / "pictures" / kind).mkdir(parents=True, exist_ok=True)
        colour = (i % 2 * 200 + i, 20, 30)
        Image.new("RGB", (9, 7), colour).save(f"pictures/{kind}/{i}.png")
    (tmp_path / "a.yaml").write_text("""
model:
  dl4j_exact: true
  network:
    seed: 1
    updater: {adam: {lr: 0.02}}
    input_type: {convolutional: [6, 6, 3]}
    layers:
      - convolution2d: {n_out: 2, kernel_size: 3, activation: tanh}
      - output: {n_out: 2, loss: mcxent, activation: softmax}
data:
  train: pictures
  read: {height: 6, width: 6, classes: [dark, light]}
  normalizer: image_scaler
  batch_size: 4
trainer: {max_epochs: 5, accelerator: cpu, logger: false, enable_checkpointing: false}
""")
    assert main(["fit", "--config", "a.yaml", "--out", "m.zip"]) == 0
    capsys.readouterr()
    words = ["m.zip", "pictures", "--config", "a.yaml"]
    assert main(["evaluate", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["accuracy"] == 1
    assert main(["predict", *words, "--out", "p.csv", "--batch-size", "5"]) == 0
    with open("p.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "class", "dark", "light"] and len(rows) == 12
    assert all(Path(row[0]).parent.name == row[1] for row in rows)
