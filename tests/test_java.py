"""Round trip through Java: DL4J opens what dl4py wrote, predicts and trains on."""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

import dl4py
from dl4py.config import (
    LSTM,
    BatchNormalization,
    Convolution2D,
    Dense,
    InputType,
    Output,
    RnnOutput,
    Subsampling,
)
from tests.golden import SHARED

ORACLE = SHARED / "oracle" / "oracle"


def mlp(chain):
    chain.l2(1e-3).layer(Dense(n_in=4, n_out=6, activation="tanh"))
    return chain.layer(BatchNormalization()).layer(Output(n_out=3)), (4,)


def cnn(chain):
    chain.input_type(InputType.convolutional(8, 8, 2)).activation("rationaltanh")
    chain.layer(Convolution2D(n_out=3, kernel_size=3, convolution_mode="Same"))
    chain.layer(Subsampling(kernel_size=2)).layer(Dense(n_out=5))
    return chain.layer(Output(n_out=3)), (2, 8, 8)


def rnn(chain):
    chain.layer(LSTM(n_in=4, n_out=5, activation="tanh"))
    return chain.layer(RnnOutput(n_out=3)), (4, 6)


def oracle(*arguments):
    if not ORACLE.exists() or shutil.which("java") is None:
        if os.environ.get("CI"):
            pytest.fail("DL4J must be at hand in CI: set DL4PY_SHARED and install Java")
        pytest.skip("DL4J itself is not at hand")
    command = [str(ORACLE), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("make", [mlp, cnn, rnn])
def test_java_predicts_and_trains_on(make, tmp_path):
    chain = dl4py.NeuralNetConfiguration.builder().seed(3).data_type("double")
    chain, shape = make(chain.updater("adam", lr=0.01))
    net = chain.build().module(dl4j_exact=True)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, *shape, generator=g, dtype=torch.float64)
    steps = shape[1:] if make is rnn else ()
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (5, *steps), generator=g)]
    y = y.movedim(-1, 1).contiguous()
    for _ in range(3):
        net.fit(x, y)
    model, inputs, labels = (tmp_path / n for n in ("m.zip", "x.npy", "y.npy"))
    dl4py.save(net, model)
    np.save(inputs, x.numpy())
    np.save(labels, y.numpy())

    oracle("output", model, tmp_path / "out", inputs)
    theirs = np.load(tmp_path / "out" / "out_0.npy")
    np.testing.assert_allclose(net.output(x).numpy(), theirs, rtol=0, atol=1e-12)

    oracle("fit", model, tmp_path / "fit", inputs, labels, 3)
    for _ in range(3):
        net.fit(x, y)
    theirs = np.load(tmp_path / "fit" / "params.npy").reshape(-1)
    np.testing.assert_allclose(net.params().numpy(), theirs, rtol=0, atol=1e-10)
    trained = dl4py.restore(tmp_path / "fit" / "trained.zip")
    np.testing.assert_allclose(
        net.updater_state().numpy(), trained.updater_state().numpy(), atol=1e-10
    )
