"""Networks with noise everywhere draw what DL4J drew, in its order and places.

``tests/data/noise.json.xz`` holds what DL4J computed after ``setSeed(123)``: gradient,
score and the generator's last state, of networks with dropout, or DropConnect, in every
layer. They say in which order a layer's array lies in ND4J: its random numbers follow.
Graphs of AutoEncoders, which draw while errors come back, say how branches take turns.
Parameters, inputs and labels come from seeds here as they did there.
"""

from __future__ import annotations

import functools
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dl4py import (
    NativeRandom,
    NeuralNetConfiguration,
    config,
    restore,
    schedules,
    weight_init,
)
from tests import graphs
from tests.golden import HERE, SHARED


@functools.cache
def cases() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        lzma.decompress((HERE / "data" / "noise.json.xz").read_bytes())
    )
    return found


def drawn(case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.empty(case[key], dtype=torch.float64) for key in "xy")
    return NativeRandom(7).normal(x), NativeRandom(8).uniform(y)


@pytest.mark.parametrize("name", cases())
def test_draws_in_dl4js_order(name: str) -> None:
    case = cases()[name]
    conf = NeuralNetConfiguration.from_json(json.dumps(case["conf"]))
    net = conf.module(dl4j_exact=True, noise=NativeRandom(conf.seed))
    random = NativeRandom(123)
    net.set_noise(random)
    x, y = drawn(case)
    outputs = len(net.plan.outputs)
    gradient, score = net.gradient_and_score(x, y if outputs == 1 else (y,) * outputs)
    theirs = torch.tensor(case["gradient"], dtype=torch.float64)
    error = (gradient - theirs).abs().max() / theirs.abs().max()
    assert error < 1e-8  # the file has 9 digits
    assert score == pytest.approx(case["score"], rel=1e-10)
    assert random.node == case["node"]


@pytest.mark.skipif(not shutil.which("javac"), reason="needs a JDK")
@pytest.mark.usefixtures("oracle")
def test_the_file_is_what_dl4j_computes(tmp_path: Path) -> None:
    """``tests/java/Noise.java`` records them; here some of them once more."""
    names = ["dropout_Dense", "both_AutoEncoder", "dropout_Upsampling1D"]
    names += ["drop_connect_GravesBidirectionalLSTM", "autoencoders_tangled"]
    for name in names:
        (folder := tmp_path / name).mkdir()
        (folder / "conf.json").write_text(json.dumps(cases()[name]["conf"]))
        for key, t in zip(("in", "labels"), drawn(cases()[name]), strict=True):
            np.save(folder / f"{key}.npy", t.numpy())
    said = graphs.ask([tmp_path / name for name in names], tmp_path, "Noise")
    lines = [line.split() for line in said.splitlines() if line.startswith("CASE ")]
    assert [line[1] for line in lines] == names
    for _, name, score, node in lines:
        case, gradient = cases()[name], np.load(tmp_path / name / "gradient.npy")
        assert (float(score), int(node)) == (case["score"], case["node"])
        np.testing.assert_allclose(gradient.ravel(), case["gradient"], rtol=1e-8)


RECORDED = SHARED / "dl4j-test-resources" / "dl4j-integration-tests"


@pytest.mark.parametrize("name", ["MLPMoon", "Cnn3dSynthetic", "MLPMnist"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_parameters_of_april_2020(name: str) -> None:
    """From the configuration's seed: 98 of 100 numbers exact, the others by 2 ulp."""
    path = RECORDED / name / "Model_RANDOM_INIT_UNTRAINED.zip"
    if not path.exists():
        pytest.skip("the recorded runs of April 2020 are not at hand")
    net = restore(path)
    theirs, conf = net.params(), net.conf
    ours = conf.module(noise=NativeRandom(conf.seed, bits=32)).params()
    torch.testing.assert_close(ours, theirs, rtol=2.4e-7, atol=1e-10)
    assert (ours == theirs).double().mean() > 0.975  # its C library was another one


def step(initial: float, by: str) -> Any:
    """A schedule that falls by a tenth at each iteration or epoch."""
    rule = {"initial_value": initial, "decay_rate": 0.9, "step": 1.0}
    return schedules.get("step", **rule, by=by)


def drop_connect(p: Any, **settings: Any) -> Any:
    return {"weight_noise": config.DropConnect(p, **settings)}


def weight_noise(mean: float, **settings: Any) -> Any:
    drawn = weight_init.NormalDistribution(mean, 0.1)
    return {"weight_noise": config.WeightNoise(drawn, **settings)}


@pytest.mark.skipif(not shutil.which("javac"), reason="needs a JDK")
@pytest.mark.usefixtures("oracle")  # which unpacks what is compiled against
@pytest.mark.parametrize(
    "hidden",
    [
        [{"dropout": 0.7}, drop_connect(0.8)],
        [drop_connect(step(0.9, "iteration")), drop_connect(step(0.9, "epoch"))],
        [drop_connect(step(0.9, "iteration"), apply_to_biases=True)],
        [{"dropout": step(0.9, "iteration")}, {"dropout": step(0.9, "epoch")}],
        [weight_noise(0.0, apply_to_bias=True), weight_noise(1.0, additive=False)],
    ],
    ids=["numbers", "schedules", "biases", "dropout", "weight_noise"],
)
def test_a_run_from_its_seed_alone(hidden: Any, tmp_path: Path) -> None:
    """``init`` and three epochs with noise: DL4J's parameters at both ends."""
    chain = NeuralNetConfiguration.builder().seed(77).data_type("double")
    chain.updater("adam", lr=0.05).activation("tanh").weight_init("xavier")
    chain.layer(config.Dense(n_in=4, n_out=8))
    for noise in hidden:
        chain.layer(config.Dense(n_out=8, **noise))
    conf = chain.layer(config.Output(n_out=3, dropout=0.9)).build()
    x = torch.randn(12, 4, dtype=torch.float64, generator=torch.manual_seed(3))
    y = torch.eye(3, dtype=torch.float64)[torch.arange(12) % 3]
    (tmp_path / "conf.json").write_text(conf.to_json())
    for name, t in (("in", x), ("labels", y)):
        np.save(tmp_path / f"{name}.npy", t.numpy())
    graphs.ask([tmp_path, "4", "3"], tmp_path, "Seeded")
    first, last = (
        torch.from_numpy(np.load(tmp_path / f"{name}.npy")).view(-1)
        for name in ("first", "last")
    )
    net = conf.module(dl4j_exact=True, noise=NativeRandom(conf.seed))
    assert torch.equal(net.params(), first)
    net.fit(list(zip(x.split(4), y.split(4), strict=True)), epochs=3)
    torch.testing.assert_close(net.params(), last, rtol=1e-9, atol=1e-10)
    assert (last - first).abs().max() > 0.1
