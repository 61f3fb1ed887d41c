"""``dl4py inspect`` and ``dl4py verify``; the demo is in test_package.py."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import dl4py
from dl4py.commands.cli import main
from dl4py.commands.found import Found, answer, progress
from dl4py.config import Convolution2D, Dense, InputType, Output
from dl4py.table import Table
from tests.resources import MLP, changed


@pytest.fixture
def model(tmp_path):
    chain = dl4py.NeuralNetConfiguration.builder().seed(1).data_type("double")
    chain.updater("adam", lr=0.01).input_type(InputType.convolutional(6, 6, 1))
    chain.layer(Convolution2D(kernel_size=3, n_out=2, activation="tanh"))
    net = chain.layer(Dense(n_out=5)).layer(Output(n_out=3)).build().module()
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    net.fit(x, torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]])
    with pytest.warns(UserWarning, match="DL4J's gradient takes labels to sum to 1"):
        dl4py.save(net, tmp_path / "model.zip")
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", net.output(x).numpy())
    return tmp_path


def test_inspect_prints_a_table(model, capsys):
    assert main(["inspect", str(model / "model.zip")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Convolution2D" in lines[2] and "b 2, W 2×1×3×3" in lines[2]
    assert "Dense" in lines[3] and "32 → 5" in lines[3] and "165" in lines[3]
    assert "adam(" in lines[3]
    assert lines[5:] == [
        "203 parameters (DOUBLE), 406 numbers of updater state, iteration 1, epoch 0",
        "",
        "written by DL4J 1.0.0-beta7 to M2.1: $.confs[0].layer has a layer with "
        "'@class'; $.confs[0].layer has 'weightInitFn'; layers state their data format",
        "coefficients.bin: MIXED_DATA_TYPES DOUBLE [203]",
        "updaterState.bin: MIXED_DATA_TYPES DOUBLE [406]",
    ]


def test_inspect_names_the_era_of_an_old_file(tmp_path, capsys):
    def change(content):
        content["confs"][0].update(learningRatePolicy="Step", lrPolicyDecayRate=0.5)
        content["confs"][0].update(lrPolicySteps=10)

    file = changed(MLP, change, **{"updater.bin": b"\xac\xed"})
    (tmp_path / "old.zip").write_bytes(file.getvalue())
    with pytest.warns(UserWarning, match=r"left out: updater.bin \(training goes on"):
        assert main(["inspect", str(tmp_path / "old.zip")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5].startswith("written by DL4J 0.8.0: $.confs[0].layer has a layer")
    assert lines[-4] == "coefficients.bin: JAVACPP FLOAT [1, 41]"
    assert "learning-rate policy 'Step' became a schedule" in lines[-2]
    assert lines[-1] == "updater.bin: left out, training goes on with a new updater"
    assert "lr=Step(" in lines[2]


def test_inspect_as_json(model, capsys):
    assert main(["inspect", "--json", str(model / "model.zip")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 203 == sum(x["count"] for x in found["layers"])
    assert found["layers"][1]["preprocessor"] == "CnnToFeedForward"
    assert found["layers"][2]["loss"].startswith("mcxent")


def test_verify(model, capsys):
    paths = [str(model / name) for name in ("model.zip", "x.npy", "y.npy")]
    command = ["verify", paths[0], "--inputs", paths[1], "--outputs", paths[2]]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("ok: off by")
    y = np.load(paths[2])
    np.save(paths[2], y + 1e-8)
    assert main(command) == 1
    assert capsys.readouterr().out.startswith("DIFFERS: off by 1.0e-08")
    np.save(paths[2], y[:, :2])
    assert main(command) == 2
    assert "outputs: the network gives (4, 3)" in capsys.readouterr().err


def test_files_that_are_no_models(tmp_path, capsys):
    (tmp_path / "a.zip").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "a.zip")]) == 2
    assert "a.zip: expected a zip of DL4J's, a Lightning ch" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "b.zip")]) == 2
    assert "b.zip" in capsys.readouterr().err


def test_arrays_are_never_unpickled(model, capsys):
    np.save(model / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    command = ["verify", str(model / "model.zip"), "--inputs", str(model / "x.npy")]
    assert main([*command, "--outputs", str(model / "y.npy")]) == 2
    assert "expected numbers of NumPy's" in capsys.readouterr().err


@pytest.mark.parametrize(
    "x, status, says",
    [
        (np.zeros((4, 1, 6, 6), ">f8"), 1, "DIFFERS"),
        (np.zeros((4, 1, 6, 6), int), 1, "DIFFERS"),
        (np.zeros((4, 2, 6, 6)), 2, "does not fit the network"),
        (np.zeros((4, 1, 6, 6), complex), 2, "one array of real numbers"),
        (np.array(["a"]), 2, "one array of real numbers"),
        (np.float64(3), 2, "expected a batch"),
    ],
)
def test_inputs_of_all_kinds(model, capsys, x, status, says):
    np.save(model / "x.npy", x)
    words = ["verify", model / "model.zip", "--inputs", model / "x.npy"]
    assert main([*map(str, words), "--outputs", str(model / "y.npy")]) == status
    assert says in "".join(capsys.readouterr())


def test_env_says_what_is_here_and_builds_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("MAX_JOBS", "3")
    monkeypatch.delenv("DL4PY_OPS", raising=False)
    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["dl4py"] == dl4py.__version__
    assert found["variables"]["MAX_JOBS"] == "3"
    assert set(found["kernels"]) == set(found["compilers"]) == {"cpu", "cuda"}
    for state in found["kernels"].values():
        assert bool(state["path"]) != (state["state"] == "formulas")
        assert state["needs"] or state["made"]
    assert found["cache"].startswith(str(tmp_path)) and not list(tmp_path.iterdir())
    assert main(["env"]) == 0
    lines = dict(x.split("  ", 1) for x in capsys.readouterr().out.splitlines())
    assert lines["torch"].strip() == torch.__version__
    assert found["kernels"]["cpu"]["state"] in lines["cpu kernels"]


class TestEveryCommand:
    """``--json``, ``--debug`` and a terminal's tables are one mechanism for all."""

    def test_json_is_all_that_goes_to_standard_output(self, model, capsys):
        paths = [str(model / name) for name in ("model.zip", "x.npy", "y.npy")]
        check = ["verify", "--json", paths[0], "--inputs", paths[1]]
        assert main([*check, "--outputs", paths[2]]) == 0
        assert json.loads(capsys.readouterr().out)["fits"] is True
        assert main(["summary", "--json", paths[0]]) == 0
        assert json.loads(capsys.readouterr().out)["parameters"] == 203

    def test_what_a_command_prints_goes_elsewhere_under_json(self, capsys):
        def run():
            print("epoch 1")
            return Found({"a": 1, "b": [float("nan")]}, ["never shown"])

        assert answer(run, "some", as_json=True, debug=False) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"a": 1, "b": [None]} and err == "epoch 1\n"

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("error", [ValueError("a\nb"), KeyError("a"), OSError("a")])
    def test_an_error_is_one_line_and_debug_adds_its_trace(self, error, debug, capsys):
        def run():
            raise error

        assert answer(run, "some", as_json=False, debug=debug) == 2
        *trace, line = capsys.readouterr().err.splitlines()
        assert line.startswith("dl4py some: ") and "a" in line
        assert bool(trace) == debug and ("in run" in "".join(trace)) == debug

    def test_a_terminal_gets_a_drawn_table_without_markup(self, monkeypatch, capsys):
        table = Table([["[red]x", "1"]], ["name", "n"], "title", ["a note"])
        found = Found({}, [table, "text"])
        found.show(False)
        assert capsys.readouterr().out.splitlines() == [
            "title", "-----", "name    n", "---------", "[red]x  1", "a note", "",
            "text",
        ]  # fmt: skip
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        found.show(False)
        drawn = capsys.readouterr().out
        assert "[red]x" in drawn and "a note" in drawn and "│" in drawn

    def test_unknown_arguments_are_refused(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["env", "--loud"])
        assert stop.value.code == 2 and "--loud" in capsys.readouterr().err

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_bar_changes_no_batch(self, terminal, monkeypatch, capsys):
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
        assert list(progress(iter(range(5)), "predict")) == [0, 1, 2, 3, 4]
        assert bool(capsys.readouterr().err) == terminal

    def test_a_warning_is_one_line_without_code(self, capsys):
        """In a process of its own: pytest takes warnings before they are shown."""
        code = (
            "import warnings\nfrom dl4py.commands.found import Found, answer\n"
            "run = lambda: Found({}, [str(warnings.warn('mind the gap'))])\n"
            "answer(run, 'some', as_json=False, debug=False)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        assert done.stderr == "dl4py some: mind the gap\n"
