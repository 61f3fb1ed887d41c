"""On a GPU: networks, solvers and trainers, beside recorded numbers or the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py import losses, updaters
from dl4py.config import Convolution2D, Dense, InputType, NeuralNetConfiguration, Output
from dl4py.registry import UPDATERS
from dl4py.solvers.base import Solver
from dl4py.updaters import Adam
from tests import catalogue
from tests.models.test_catalogue import MISSING, configuration, reason

SOLVERS = [key for key in UPDATERS if issubclass(UPDATERS[key], Solver)]
PRECISIONS = {"32-true": 1e-4, "bf16-mixed": 5e-2}
SINGLE = 1e-5  # of the largest entry
FITS = 1e-4

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def off_by(ours: Tensor, theirs: np.ndarray[Any, Any]) -> float:
    """Largest error as a share of the largest entry."""
    error = np.abs(ours.double().cpu().numpy() - theirs).max(initial=0.0)
    return float(error / np.abs(theirs).max(initial=1e-30))


def recorded(name: str, device: str) -> dict[str, float]:
    """How far a network of the catalogue is from DL4J in float32, by what came out."""
    case = catalogue.load(name)
    file = case.file("model.zip")
    if file is None or configuration(case) is MISSING or case.meta["dtype"] == "HALF":
        return {}
    net = dl4py.restore(file, dtype=torch.float32).to(device)
    arrays = case.arrays

    def tensor(key: str) -> Tensor | None:
        if key not in arrays:
            return None
        return torch.from_numpy(np.array(arrays[key])).float().to(device)

    x, y = tensor("in_0"), tensor("labels_0")
    masks = tensor("fmask_0"), tensor("lmask_0")
    found: dict[str, float] = {}
    if "out_0" in arrays and not reason(name, "out"):
        found["out"] = off_by(net.output(x, *masks), arrays["out_0"])
    if "gradient" in arrays and not reason(name, "gradient"):
        gradient, score = net.gradient_and_score(x, y, *masks)
        found["gradient"] = off_by(gradient, arrays["gradient"])
        found["score"] = off_by(torch.tensor([score]), arrays["score"])
    if case.meta["trains"] and not reason(name, "steps"):
        for k in range(1, case.meta["fits"] + 1):
            batch = (x, y, *masks)
            net.fit([batch]) if case.meta["epochs"] else net.fit(*batch)
            if (key := f"params_after_{k}") in arrays:
                found[f"fit {k}"] = off_by(net.params(), arrays[key])
    return found


def wrong(name: str, device: str) -> Iterator[str]:
    """What is further off than in any network of the catalogue on the CPU."""
    for what, error in recorded(name, device).items():
        if not error <= (FITS if what.startswith("fit") else SINGLE):
            yield f"{name}: {what} off by {error:.1e}"


def test_recorded_numbers_are_compared() -> None:
    """The comparison itself, where it needs no GPU."""
    found = recorded("lstm", "cpu")
    assert set(found) >= {"out", "gradient", "score", "fit 1"}
    assert not list(wrong("lstm", "cpu"))
    assert off_by(torch.tensor([1.0, 2.0]), np.array([1.0, 4.0])) == 0.5


@needs_gpu
@pytest.mark.parametrize("part", range(8))
def test_networks_equal_recorded_numbers(part: int) -> None:
    names = catalogue.names()[part::8]
    found = [line for name in names for line in wrong(name, "cuda")]
    assert not found, "\n".join(found)


def regression(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2)).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype) / 3)
    x = torch.randn(40, 6, generator=generator, dtype=dtype)
    return net, x, torch.stack([x.sum(1).sin(), x[:, 0] * x[:, 1]], 1)


def solved(key: str, device: str, steps: int = 4) -> list[float]:
    """Losses before, and after some steps of a solver."""
    net, x, y = regression()
    net, x, y = net.to(device), x.to(device), y.to(device)
    solver = updaters.get(key)(net.parameters())

    def closure() -> Tensor:
        solver.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        return loss

    seen = [closure().item()]
    for _ in range(steps):
        solver.step(closure)
        seen.append(closure().item())
    return seen


def test_every_solver_falls() -> None:
    assert len(SOLVERS) >= 4
    for key in SOLVERS:
        seen = solved(key, "cpu")
        assert seen[-1] < seen[0], key


@needs_gpu
@pytest.mark.parametrize("key", SOLVERS)
def test_solvers_go_the_way_they_go_on_the_cpu(key: str) -> None:
    np.testing.assert_allclose(solved(key, "cuda"), solved(key, "cpu"), rtol=1e-6)


def trained(accelerator: str, precision: Any, updater: str = "adam") -> dict[str, Any]:
    """A convolutional network after two epochs under a Trainer."""
    chain = NeuralNetConfiguration.builder().seed(7).updater(updater)
    chain.input_type(InputType.convolutional(8, 8, 1))
    chain.layer(Convolution2D(kernel_size=3, n_out=4, activation="rationaltanh"))
    chain.layer(Dense(n_out=16, activation="elu"))
    model = chain.layer(Output(n_out=3)).build().lightning(package="lightning")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 1, 8, 8, generator=generator)
    y = torch.eye(3)[torch.randint(3, (64,), generator=generator)]
    before = model.network.score(x, y)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator=accelerator,
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=16))
    net = model.network.cpu()
    return {"before": before, "after": net.score(x, y), "params": net.params()}


@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_trainer_on_the_cpu(precision: str) -> None:
    found = trained("cpu", precision)
    assert found["after"] < found["before"]


@needs_gpu
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_trainer(precision: str) -> None:
    here, there = trained("cpu", "32-true"), trained("cuda", precision)
    assert there["after"] < there["before"]
    tolerance = PRECISIONS[precision]
    torch.testing.assert_close(
        there["params"], here["params"], rtol=tolerance, atol=tolerance
    )


@needs_gpu
@pytest.mark.filterwarnings("ignore:GPU available but not used")
@pytest.mark.parametrize("key", SOLVERS)
def test_solvers_under_a_trainer(key: str) -> None:
    found = trained("cuda", "32-true", key)
    assert found["after"] < found["before"]


@needs_gpu
def test_a_whole_step_in_a_cuda_graph() -> None:
    def step(
        net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
    ) -> None:
        optimizer.zero_grad()
        loss(net(x), y).backward()
        optimizer.step()

    loss = losses.get("mcxent", activation="softmax")
    activation = dl4py.activations.get("rationaltanh")
    eager = nn.Sequential(nn.Linear(6, 32), activation, nn.Linear(32, 4)).cuda()
    captured = copy.deepcopy(eager)
    x = torch.randn(50, 6, device="cuda")
    y = torch.eye(4, device="cuda")[torch.randint(4, (50,), device="cuda")]
    other = Adam(eager.parameters(), capturable=True)
    optimizer = Adam(captured.parameters(), capturable=True)
    for _ in range(8):
        step(eager, other, x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as torch wants it: warm first
        for _ in range(3):
            step(captured, optimizer, x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(captured, optimizer, x, y)
    for _ in range(5):
        graph.replay()
    torch.testing.assert_close(captured.state_dict(), eager.state_dict())
