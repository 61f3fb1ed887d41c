"""The solvers' long benchmarks: what was killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from dl4py.solvers import LBFGS, HessianFree
from examples.autoencoder import curves, sparse
from tests.benchmarks.solvers import addition, autoencoder, contestants, problems
from tests.benchmarks.solvers.loose import conjugate_gradients, loose


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


CONTESTANTS = {
    "Adam": autoencoder.Contestant(lambda p: torch.optim.Adam(p, lr=1e-3), 16),
    "LBFGS": autoencoder.Contestant(lambda p: LBFGS(p, history_size=5)),
    "HessianFree": autoencoder.Contestant(
        lambda p: HessianFree(p, preconditioner="empirical", cg_max_iter=8), chunks=4
    ),
}


@pytest.mark.parametrize("name", list(CONTESTANTS))
def test_a_run_that_was_cut_off_ends_the_same(
    name: str, tmp_path: pathlib.Path
) -> None:
    x, sizes = curves(40), [784, 20, 4]

    def run(file: str) -> autoencoder.Run:
        return autoencoder.Run(tmp_path / file, x, sizes, CONTESTANTS[name], seed=3)

    whole = run("whole.pt")
    whole.train(1e9, steps=5)
    run("cut.pt").train(1e9, steps=2)
    run("cut.pt").train(1e9, steps=3)
    cut = run("cut.pt")
    cut.train(1e9, steps=5)
    assert [p[1:] for p in cut.curve] == [p[1:] for p in whole.curve]
    assert [p[1] for p in cut.curve] == [0, 1, 2, 3, 4, 5]
    assert cut.curve[-1][0] > 0 and cut.curve[-1][3] < cut.curve[0][3]


def test_killed_amid_a_run(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.solvers.addition", "4"]
    command += ["--rows", "60", "--units", "20", "--out"]

    def start(folder: str, steps: int) -> subprocess.Popen[bytes]:
        limit = ["--steps", str(steps)]
        return subprocess.Popen(
            [*command, str(tmp_path / folder), *limit], stdout=subprocess.DEVNULL
        )

    def curve(folder: str) -> list[list[float]]:
        written = json.loads((tmp_path / folder / "addition.json").read_text())
        return written["4/0"]["curve"]

    first = start("cut", 10**6)
    while not (tmp_path / "cut" / "addition.json").exists():
        assert first.poll() is None
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    steps = len(torch.load(tmp_path / "cut/addition/4-0.pt")["curve"]) + 3
    assert start("cut", steps).wait() == 0
    assert start("whole", steps).wait() == 0
    assert [p[1:] for p in curve("cut")] == [p[1:] for p in curve("whole")]
    assert len(curve("cut")) == steps


def test_curves_and_sums() -> None:
    images = curves(30, seed=1)
    assert images.shape == (30, 784) and images.min() == 0 and images.max() <= 1
    assert torch.equal(images, curves(30, seed=1))
    inked = (images > 0).float().mean(1)
    assert (inked > 0.01).all() and (inked < 0.5).all()
    grey = (images > 0) & (images < 1)
    assert (grey.float().mean(1) > 0.005).all()  # no staircase
    x, y = addition.sequences(500, 20, torch.Generator().manual_seed(0))
    assert torch.equal(x[:, :, 1].sum(0), torch.full((500,), 2.0))
    torch.testing.assert_close((x[:, :, 0] * x[:, :, 1]).sum(0), y[:, 0])
    assert x[:2, :, 1].sum() == x[2:10, :, 1].sum() == 500


def test_sparse_start() -> None:
    net = sparse([784, 40, 6], seed=0)
    sizes = [(p.shape[1], p.shape[0]) for p in net.parameters() if p.dim() == 2]
    assert sizes == [(784, 40), (40, 6), (6, 40), (40, 784)]
    for p in net.parameters():
        assert p.dim() == 2 or not p.any()
        if p.dim() == 2:
            assert torch.equal(
                p.ne(0).sum(1), torch.full(p.shape[:1], min(15, p.shape[1]))
            )


def test_the_stand_in_solves_and_keeps_martens_iterates() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(30, 30, dtype=torch.float64, generator=random)
    a = a @ a.T / 30 + torch.eye(30, dtype=torch.float64)
    b = torch.randn(30, dtype=torch.float64, generator=random)
    kept = conjugate_gradients(lambda v: a @ v, b, torch.zeros_like(b))
    x, model = kept[-1]
    assert (a @ x - b).norm() < 1e-3
    assert model == pytest.approx(float(0.5 * x @ a @ x - b @ x), rel=1e-9)
    torch.manual_seed(0)
    params, loss = problems.rosenbrock()
    watch = contestants.Watch(loss, 0.3)
    with pytest.raises(contestants.Ended):
        loose(params, watch)
    assert watch.curve[-1][1] < 0.1 * watch.curve[0][1]
