"""A step of HessianFree as a transaction: replay, host reads, failures, copies."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from dl4py.solvers import HessianFree, hessian_free
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton
from dl4py.solvers.problem import Problem
from examples.autoencoder import curves, sparse
from tests.hessian_free import X, Y, closure_of, flat, network


class TestReplay:
    def test_dropout_and_statistics_count_once(self):
        net = network(nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Tanh())
        once = copy.deepcopy(net)
        torch.manual_seed(7)
        once(X)
        expected = torch.rand(3)
        seen = []
        solver = HessianFree(net.parameters())
        torch.manual_seed(7)
        solver.step(closure_of(solver, net, seen=seen))
        assert torch.equal(torch.rand(3), expected) and len(seen) > 2
        for ours, theirs in zip(net.buffers(), once.buffers(), strict=True):
            assert torch.equal(ours, theirs)

    def test_every_trial_has_the_first_evaluations_masks(self):
        net = network(nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Tanh())
        again = copy.deepcopy(net)
        seen = []
        solver = HessianFree(net.parameters())
        torch.manual_seed(7)
        solver.step(closure_of(solver, net, seen=seen))
        for loss, params in seen:
            for p, value in zip(again.parameters(), params, strict=True):
                p.data.copy_(value)
            torch.manual_seed(7)
            assert F.cross_entropy(again(X), Y).item() == loss
        # and the model that the step minimised is theirs too
        assert solver.memory["rho"] > 0


class TestMatrix:
    def matrix(self, net, loss):
        params = list(net.parameters())
        with Capture() as capture:
            loss(net).backward()
        return GaussNewton(capture.loss(), capture.outputs, params), params

    def dense(self, matrix, params):
        sizes = [p.numel() for p in params]
        columns = []
        for e in torch.eye(sum(sizes)).double():
            v = [a.view_as(p) for a, p in zip(e.split(sizes), params, strict=True)]
            columns.append(nn.utils.parameters_to_vector(matrix(v)))
        return torch.stack(columns, 1)

    def test_symmetric_and_positive_semidefinite(self):
        g = self.dense(*self.matrix(network(), lambda n: F.cross_entropy(n(X), Y)))
        torch.testing.assert_close(g, g.T, rtol=0, atol=1e-15)
        values = torch.linalg.eigvalsh(g)
        assert values[0] > -1e-14 and values[-1] > 1e-2

    def test_shared_weights(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.layer = nn.Linear(4, 4).double()

            def forward(self, x):
                return self.layer(torch.tanh(self.layer(x)))

        net = Shared()
        g = self.dense(*self.matrix(net, lambda n: F.mse_loss(n(X), X)))
        rows = []
        for z in net(X).reshape(-1):
            row = torch.autograd.grad(z, list(net.parameters()), retain_graph=True)
            rows.append(nn.utils.parameters_to_vector(row))
        j = torch.stack(rows)
        torch.testing.assert_close(g, 2 / X.numel() * j.T @ j, rtol=0, atol=1e-12)


@pytest.mark.parametrize("waits", [True, False])
def test_reads_of_the_host_in_a_step(waits, monkeypatch):
    """At most one for 10 iterations of CG, and one for an evaluation.

    Where no read waits, CG looks by itself, and at every iteration.
    """
    net = network()
    solver = HessianFree(net.parameters(), cg_max_iter=100, cg_tol=0.0)
    seen, reads, looks = [], [], []
    plain, read, solve = closure_of(solver, net), Problem.read, hessian_free.solve

    def closure():
        seen.append(1)
        return plain()

    def counted(self, *numbers):
        reads.append(1)
        return read(self, *numbers)

    def solved(*args, **options):
        looks.append((options["chunk"], options["read"]))
        return solve(*args, **options)

    monkeypatch.setattr(Problem, "waits", waits)
    monkeypatch.setattr(Problem, "read", counted)
    monkeypatch.setattr(hessian_free, "solve", solved)
    solver.step(closure)
    for found in (seen, reads, looks):
        found.clear()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        solver.step(closure)
    # tolist() is no such event, hence the count of reads
    scalars = sum(e.name == "aten::_local_scalar_dense" for e in profiler.events())
    of_cg = 100 // 10 if waits else 0
    assert of_cg < len(reads) + scalars <= of_cg + len(seen) + 2
    [(chunk, reader)] = looks
    assert (chunk, reader is None) == ((10, False) if waits else (1, True))


def test_the_step_is_the_same_however_often_the_host_looks(monkeypatch):
    ends = []
    for waits in (True, False):
        monkeypatch.setattr(Problem, "waits", waits)
        net = network()
        solver = HessianFree(net.parameters())
        for _ in range(4):
            solver.step(closure_of(solver, net))
        ends.append(flat(net))
    assert torch.equal(*ends)


def test_a_read_waits_for_devices_and_ranks():
    problem = Problem(HessianFree([nn.Parameter(torch.ones(2))]), lambda: None)
    assert not problem.waits
    problem.ranks.count = 2
    assert problem.waits
    problem.ranks.count = 1
    problem.device = torch.device("meta")
    assert problem.waits


class TestRate:
    @pytest.mark.parametrize("rate", [0.01, 1e-5])
    def test_a_small_one_is_a_short_step(self, rate):
        moves = []
        for lr in (1.0, rate):
            net = network()
            solver, start = HessianFree(net.parameters(), lr=lr), flat(net)
            closure = closure_of(solver, net)
            before = solver.step(closure)
            moves.append(flat(net) - start)
        torch.testing.assert_close(moves[1], rate * moves[0], rtol=0, atol=1e-14)
        assert closure() < before

    def test_groups(self):
        net = network()
        groups = [{"params": net[0].parameters(), "lr": 1e-3},
                  {"params": net[2].parameters(), "lr": 0.0}]  # fmt: skip
        solver, last = HessianFree(groups), flat(net[2])
        losses = [solver.step(closure_of(solver, net)).item() for _ in range(5)]
        assert all(b < a for a, b in zip(losses, losses[1:], strict=False))
        assert torch.equal(flat(net[2]), last)

    def test_none_costs_no_search(self):
        net, seen = network(), []
        solver = HessianFree(net.parameters(), lr=0.0)
        before = flat(net)
        solver.step(closure_of(solver, net, seen=seen))
        assert torch.equal(flat(net), before) and len(seen) < 30


class TestFailures:
    @pytest.mark.parametrize("call", [1, 2, 3, 4])
    def test_an_interrupt_in_any_phase_leaves_the_start(self, call):
        net = network()
        solver = HessianFree(net.parameters())
        solver.step(closure_of(solver, net))
        before, memory = flat(net), copy.deepcopy(solver.memory)
        calls, plain = 0, closure_of(solver, net)

        def closure():
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return plain()

        with pytest.raises(KeyboardInterrupt):
            for _ in range(4):
                before, memory = flat(net), copy.deepcopy(solver.memory)
                solver.step(closure)
        assert torch.equal(flat(net), before)
        assert memory["steps"] == solver.memory["steps"]
        assert torch.equal(memory["solution"], solver.memory["solution"])

    def test_an_interrupt_during_conjugate_gradients(self, monkeypatch):
        net = network()
        solver = HessianFree(net.parameters())
        before = flat(net)
        products = []

        def product(self, v, structural=0.0, original=GaussNewton.__call__):
            products.append(1)
            if len(products) == 5:
                raise KeyboardInterrupt
            return original(self, v, structural)

        monkeypatch.setattr(GaussNewton, "__call__", product)
        with pytest.raises(KeyboardInterrupt):
            solver.step(closure_of(solver, net))
        assert torch.equal(flat(net), before) and solver.memory == {}

    def test_a_trial_that_is_not_finite_is_not_taken(self):
        w = nn.Parameter(torch.tensor([3.0]).double())
        solver = HessianFree([w], damping=1e-6)

        def closure():
            solver.zero_grad()
            # the full step from 3 leads below 0, where there is no logarithm
            loss = F.mse_loss(w.log(), torch.tensor([-2.0]).double())
            loss.backward()
            return loss

        losses = [solver.step(closure).item() for _ in range(30)]
        assert losses == sorted(losses, reverse=True)
        assert w.item() == pytest.approx(math.exp(-2), rel=1e-4)

    def test_loss_not_finite_at_first(self):
        net = network()
        net[0].weight.data[0, 0] = math.nan
        solver = HessianFree(net.parameters())
        with pytest.raises(ValueError, match="loss is nan before the step"):
            solver.step(closure_of(solver, net))

    def test_zero_gradient_is_no_step(self):
        w = nn.Parameter(torch.zeros(3))
        solver = HessianFree([w])

        def closure():
            solver.zero_grad()
            loss = F.mse_loss(w, torch.zeros(3))
            loss.backward()
            return loss

        solver.step(closure)
        assert w.tolist() == [0, 0, 0] and solver.memory == {}

    def test_a_flat_direction_stays(self):
        """The loss knows only the sum of two parameters."""
        w = nn.Parameter(torch.tensor([1.0, 3.0]).double())
        solver = HessianFree([w], damping=1e-4)

        def closure():
            solver.zero_grad()
            loss = F.mse_loss(w.sum(), torch.tensor(0.0).double())
            loss.backward()
            return loss

        for _ in range(4):
            solver.step(closure)
        assert abs(w.sum().item()) < 1e-4
        assert (w[1] - w[0]).item() == pytest.approx(2.0)


class TestCopies:
    @pytest.mark.parametrize(
        "copied",
        [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
        ids=["deepcopy", "pickle"],
    )
    def test_go_on_alike(self, copied):
        net = network()
        solver = HessianFree(net.parameters(), preconditioner="empirical")
        solver.step(closure_of(solver, net))
        other_net, other = copied((net, solver))
        for n, s in ((net, solver), (other_net, other)):
            for _ in range(2):
                s.step(closure_of(s, n))
        assert torch.equal(flat(net), flat(other_net))

    def test_schedule(self):
        net = network()
        solver = HessianFree(net.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.StepLR(solver, 1, 0.0)
        solver.step(closure_of(solver, net))
        schedule.step()
        before = flat(net)
        solver.step(closure_of(solver, net))
        assert torch.equal(flat(net), before) and solver.memory["steps"] == 2


def test_deep_autoencoder(monkeypatch):
    """Where another implementation freezes at 107 to 167."""
    x = curves(100, seed=1)
    net = sparse([784, 100, 50, 25, 6], seed=1)
    solver = HessianFree(net.parameters(), preconditioner="empirical")
    products = 0

    def product(self, v, structural=0.0, original=GaussNewton.__call__):
        nonlocal products
        products += 1
        return original(self, v, structural)

    monkeypatch.setattr(GaussNewton, "__call__", product)

    def closure():
        solver.zero_grad()
        z = net(x)
        loss = F.binary_cross_entropy_with_logits(z, x, reduction="sum") / len(x)
        loss.backward()
        return loss

    first = solver.step(closure).item()
    while products < 2000:
        last = solver.step(closure).item()
        assert math.isfinite(last)
    assert last < 60 < 300 < first
