"""Solvers on two ranks: equal parameters everywhere, as one rank on all the data."""

import datetime
import functools
import time

import lightning
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from dl4py.solvers import (
    LBFGS,
    ConjugateGradient,
    HessianFree,
    LineGradientDescent,
    damp,
)

RANKS, STEPS = 2, 5
SEARCHES = ["dl4j", "armijo", "strong_wolfe", "hager_zhang"]
MAKERS = {
    f"{cls.__name__}-{search}": functools.partial(cls, line_search=search, max_iter=2)
    for cls in (LineGradientDescent, ConjugateGradient, LBFGS)
    for search in SEARCHES
}
# with a smaller λ the rounding of CG reaches 1e-5 of the parameters
MAKERS["HessianFree"] = functools.partial(HessianFree, damping=1.0)


# of HessianFree; whether two ranks do what one does with all rows
OPTIONS = {
    "auto": ({"damping": "auto"}, False),
    "micro_batches": ({"micro_batches": 2}, True),
    "curvature_closure": ({}, True),
    "structural": ({"structural_damping": 0.3}, True),
    "fisher": ({"curvature": "fisher"}, False),  # each rank draws its own labels
    "empirical": ({"preconditioner": "empirical"}, False),
    "monte_carlo": ({"preconditioner": "monte_carlo"}, False),
}


def batch(wild):
    """Rows of both ranks; with ``wild`` those of the second are far larger."""
    g = torch.Generator().manual_seed(7)
    x = torch.randn(40, 3, generator=g, dtype=torch.float64)
    y = x.prod(1, keepdim=True) + x.sum(1, keepdim=True).sin()
    if wild:
        y[20:] *= 300.0
    return x, y


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def steps(make, net, x, y):
    """Parameters after every step."""
    solver = make(net.parameters())

    def closure():
        solver.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        return loss

    seen = []
    for _ in range(STEPS):
        solver.step(closure)
        seen.append(nn.utils.parameters_to_vector(net.parameters()).detach().clone())
    return torch.stack(seen)


class Damped(nn.Module):
    """A network whose hidden states are named."""

    def __init__(self):
        super().__init__()
        self.body = model()

    def forward(self, x):
        return self.body[2](damp(self.body[1](self.body[0](x))))


def option_steps(name, net, x, y):
    """Parameters after every step of HessianFree with an option."""
    solver = HessianFree(net.parameters(), **{"damping": 1.0, **OPTIONS[name][0]})

    def closure(i=None, x=x, y=y):
        solver.zero_grad()
        if i is not None:
            x, y = x.chunk(2)[i], y.chunk(2)[i]
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        return loss

    few = functools.partial(closure, x=x[::2], y=y[::2])
    seen = []
    for _ in range(STEPS):
        solver.step(closure, few if name == "curvature_closure" else None)
        seen.append(nn.utils.parameters_to_vector(net.parameters()).detach().clone())
    return torch.stack(seen)


class Broken(Exception):
    """What only the second rank meets."""


# (solver, whether DistributedDataParallel is there too, where it breaks)
BREAKS = [
    (maker, ddp, place)
    for maker, ddp in (
        ("LBFGS-hager_zhang", False),
        ("LineGradientDescent-armijo", True),
        ("HessianFree", True),
    )
    for place in ("start", "trial", "end", "between")
]
# where DistributedDataParallel waits inside of it, no solver can know
BREAKS.append(("LBFGS-hager_zhang", False, "backward"))


def failing(rank, maker, ddp, place):
    """(error of a step in which a rank fails, its seconds, whether all go on)."""
    net = DistributedDataParallel(model()) if ddp else model()
    solver = MAKERS[maker](net.parameters())
    x, y = (t.chunk(RANKS)[rank] for t in batch(False))
    calls, broken = 0, True

    def breaks(here):
        if rank and broken and here == place:
            raise Broken(here)

    def closure():
        nonlocal calls
        calls += 1
        if calls == 1:
            breaks("start")
        elif solver.is_trial:
            breaks("trial")
        solver.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        if loss.requires_grad:
            loss.register_hook(lambda _: breaks("backward"))
        loss.backward()
        breaks("end")
        return loss

    def advance(problem, plain=solver.advance):
        breaks("between")
        return plain(problem)

    solver.advance = advance
    before = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    start = time.monotonic()
    try:
        solver.step(closure)
        error = None
    except (Broken, RuntimeError) as e:
        error = f"{type(e).__name__}: {e}"
    seconds = time.monotonic() - start
    broken = False
    after = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    for _ in range(2):
        solver.step(closure)
    end = nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    return error, seconds, torch.equal(before, after) and not solver.is_trial, end


def changed_steps(net, x, y, change):
    """Parameters after every step with gradients that are changed by hand."""
    solver = LBFGS(net.parameters())

    def closure():
        solver.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        change(net)
        return loss

    seen = []
    for _ in range(STEPS):
        solver.step(closure)
        seen.append(nn.utils.parameters_to_vector(net.parameters()).detach().clone())
    return torch.stack(seen)


def average(net):
    if dist.is_initialized():
        for p in net.parameters():
            dist.all_reduce(p.grad)
            p.grad /= RANKS


def mask(net):
    net[0].weight.grad[::2] = 0


def noise(net):
    for p in net.parameters():
        p.grad += dist.get_rank() * 1e-3


def work(rank, folder):
    """What one rank does; never waits for the other longer than a minute."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )
    results = {}
    for wild in (False, True):
        x, y = (t.chunk(RANKS)[rank] for t in batch(wild))
        for name, make in MAKERS.items():
            results[name, wild] = steps(make, DistributedDataParallel(model()), x, y)
    x, y = (t.chunk(RANKS)[rank] for t in batch(False))
    for name in OPTIONS:
        net = DistributedDataParallel(Damped())
        results["option", name] = option_steps(name, net, x, y)
    # without DistributedDataParallel the solver takes the mean itself
    results["plain"] = steps(LBFGS, model(), x, y)
    for case in BREAKS:
        results["break", case] = failing(rank, *case)
    for change in (average, mask):
        results[change.__name__] = changed_steps(model(), x, y, change)
    try:  # only the second rank's gradients are changed
        changed_steps(model(), x, y, noise)
    except ValueError as error:
        results["noise"] = str(error)
    try:  # one rank's loss is not finite: every rank must say so
        steps(LBFGS, model(), x, y * float("nan") if rank else y)
    except ValueError as error:
        results["error"] = str(error)
    split = model()
    fully_shard(split, mesh=init_device_mesh("cpu", (RANKS,)))
    try:
        LBFGS(split.parameters())
    except ValueError as error:
        results["fsdp2"] = str(error)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{r}.pt") for r in range(RANKS)]


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("name", list(MAKERS))
class TestTwoRanks:
    def test_parameters_are_equal_to_the_bit(self, name, wild, results):
        first, second = (r[name, wild] for r in results)
        assert first.isfinite().all() and torch.equal(first, second)

    def test_equal_to_one_rank_on_all_the_data(self, name, wild, results):
        alone, ours = steps(MAKERS[name], model(), *batch(wild)), results[0][name, wild]
        if wild:  # there rounding grows: rows in another order change as much
            alone, ours = alone[:1], ours[:1]
        torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)
        assert not torch.equal(results[0][name, wild][0], results[0][name, wild][-1])


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_hessian_free(name, results):
    first, second = (r["option", name] for r in results)
    assert first.isfinite().all() and torch.equal(first, second)
    alone = option_steps(name, Damped(), *batch(False))
    if OPTIONS[name][1]:
        torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)
    x, y = batch(False)
    losses = []
    for point in (first[0], first[-1]):
        net = Damped()
        nn.utils.vector_to_parameters(point, net.parameters())
        losses.append(float(nn.functional.mse_loss(net(x), y).detach()))
    assert losses[1] < losses[0]


def test_without_ddp(results):
    alone = steps(LBFGS, model(), *batch(False))
    assert torch.equal(*(r["plain"] for r in results))
    torch.testing.assert_close(results[0]["plain"], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", BREAKS, ids=str)
def test_ranks_fail_together(case, results):
    (waiting, seconds, restored, end), (failed, _, again, other) = (
        r["break", case] for r in results
    )
    assert failed.startswith("Broken:")
    assert "step(closure): rank 1 failed, whose own error says why" in waiting
    assert seconds < 20 and restored and again
    assert torch.equal(end, other) and end.isfinite().all()  # they went on


@pytest.mark.parametrize("change", [average, mask])
def test_gradients_changed_by_hand(change, results):
    first, second = (r[change.__name__] for r in results)
    assert torch.equal(first, second)
    alone = changed_steps(model(), *batch(False), change)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-5)
    if change is mask:
        start = nn.utils.parameters_to_vector(model()[0].weight).view(6, 3)[::2]
        assert torch.equal(first[-1][:18].view(6, 3)[::2], start.detach())
    else:
        assert torch.equal(first, results[0]["plain"])


def test_every_rank_refuses_the_gradient_of_one(results):
    for r in results:
        assert "neither to 0 nor by clipping" in r["noise"]


def test_every_rank_refuses_the_loss_of_one(results):
    for r in results:
        assert "the loss is nan before the step" in r["error"]


def test_fsdp2_is_refused(results):
    for r in results:
        assert "whole parameters on every rank, got a DTensor" in r["fsdp2"]
        assert "FSDP2" in r["fsdp2"] and "strategy='ddp'" in r["fsdp2"]


class Module(lightning.LightningModule):
    """As a user writes it; at the end every rank saves its parameters."""

    def __init__(self, folder):
        super().__init__()
        self.body = model()
        self.folder = folder

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self.body(x), y)

    def configure_optimizers(self):
        return LBFGS(self.parameters(), max_iter=2)

    def on_train_end(self):
        vector = nn.utils.parameters_to_vector(self.body.parameters())
        torch.save(vector.detach(), f"{self.folder}/trainer{self.global_rank}.pt")


def test_trainer(tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=DDPStrategy(start_method="spawn", process_group_backend="gloo"),
        max_epochs=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=True,
        default_root_dir=tmp_path,
    )
    x, y = batch(False)
    # rows in turn, as the sampler deals them out
    order = torch.stack(torch.arange(40).chunk(RANKS), 1).reshape(-1)
    data = TensorDataset(x[order], y[order])
    trainer.fit(Module(str(tmp_path)), DataLoader(data, batch_size=20))
    ends = [torch.load(tmp_path / f"trainer{r}.pt") for r in range(RANKS)]
    assert torch.equal(*ends)
    alone = steps(functools.partial(LBFGS, max_iter=2), model(), x, y)[-1]
    torch.testing.assert_close(ends[0], alone, rtol=1e-5, atol=1e-5)
