"""HessianFree on slices of a batch, and with the curvature of another one."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl4py.solvers import HessianFree
from dl4py.solvers.curvature import GaussNewton
from tests.hessian_free import X, Y, closure_of, flat, network


class TestMicroBatches:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"curvature": "hessian"},
            {"l2": 0.01, "damping": 0.1},
            {"maximize": True, "damping": 1.0},
        ],
        ids=str,
    )
    def test_equal_to_the_whole_batch(self, options):
        ends = []
        for slices in (1, 3):
            net = network()
            # late iterations of CG magnify rounding
            solver = HessianFree(
                net.parameters(), micro_batches=slices, cg_max_iter=8, **options
            )
            losses = []
            for _ in range(4):
                losses.append(solver.step(closure_of(solver, net, slices)).item())
            ends.append((flat(net), torch.tensor(losses), solver.memory["damping"]))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-8, atol=1e-10)
        assert not torch.equal(ends[0][0], flat(network()))

    def test_holds_one_graph_at_a_time(self, monkeypatch):
        alive, most = set(), 0
        original = GaussNewton.__init__

        def init(self, *args):
            nonlocal most
            original(self, *args)
            alive.add(id(self))
            most = max(most, len(alive))

        monkeypatch.setattr(GaussNewton, "__init__", init)
        monkeypatch.setattr(
            GaussNewton, "__del__", lambda s: alive.discard(id(s)), raising=False
        )
        net = network()
        solver = HessianFree(net.parameters(), micro_batches=4)
        solver.step(closure_of(solver, net, 4))
        assert most == 2  # the next is built before the last is let go

    def test_dropout_and_statistics_count_once_a_slice(self):
        net = network(nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Tanh())
        once = copy.deepcopy(net)
        torch.manual_seed(7)
        for rows in X.chunk(3):
            once(rows)
        expected = torch.rand(3)
        solver = HessianFree(net.parameters(), micro_batches=3)
        torch.manual_seed(7)
        before = flat(net)
        solver.step(closure_of(solver, net, 3))
        assert torch.equal(torch.rand(3), expected)
        for ours, theirs in zip(net.buffers(), once.buffers(), strict=True):
            assert torch.equal(ours, theirs)
        assert not torch.equal(flat(net), before)
        # every product saw the same masks: the matrix is one matrix
        assert solver.memory["rho"] > 0.2

    def test_unseen_parameters_are_named(self):
        net = network()
        solver = HessianFree(net.named_parameters(), micro_batches=2)

        def closure(i):
            solver.zero_grad()
            loss = F.cross_entropy(net(X), Y) + net[2].bias.square().sum() * i
            loss.backward()
            return loss

        net[2].bias.data += 1.0
        with pytest.raises(ValueError, match=r"depends on 2\.bias in a way"):
            solver.step(closure)


class TestCurvatureClosure:
    def test_all_rows_are_the_same_step(self):
        ends = []
        for other in (False, True):
            net = network()
            solver = HessianFree(net.parameters())
            closure = closure_of(solver, net)
            for _ in range(3):
                solver.step(closure, closure if other else None)
            ends.append((flat(net), solver.memory["rho"]))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-12)

    def test_system_and_rho_of_some_rows(self):
        """Gradient of all rows, matrix and ρ of four."""
        net = nn.Linear(4, 3, bias=False).double()
        t, few = X[:, :3].sin(), 4
        start = net.weight.detach().clone()

        def closure(rows=12):
            net.zero_grad()
            loss = F.mse_loss(net(X[:rows]), t[:rows])
            loss.backward()
            return loss

        def value(w, rows):
            return F.mse_loss(X[:rows] @ w.T, t[:rows])

        closure()
        g, damping = net.weight.grad.clone(), 0.3
        a = X[:few].T @ X[:few] * 2 / (3 * few)
        p = torch.linalg.solve(a + damping * torch.eye(4).double(), -g.T).T
        fall = (g * p).sum() + 0.5 * torch.einsum("ij,jk,ik", p, a, p)
        solver = HessianFree([net.weight], damping=damping, cg_tol=0.0)
        solver.step(closure, lambda: closure(few))
        torch.testing.assert_close(net.weight.detach() - start, p, rtol=1e-6, atol=1e-9)
        rho = (value(start + p, few) - value(start, few)) / fall
        assert solver.memory["rho"] == pytest.approx(rho.item(), rel=1e-6)

    def test_leaves_no_trace(self):
        net = network(nn.BatchNorm1d(5), nn.Dropout(0.4), nn.Tanh())
        once = copy.deepcopy(net)
        torch.manual_seed(7)
        once(X)
        expected = torch.rand(3)
        solver = HessianFree(net.parameters())
        whole = closure_of(solver, net)
        trials = []

        def few():
            trials.append(solver.is_trial)
            solver.zero_grad()
            loss = F.cross_entropy(net(X[:5]), Y[:5])
            loss.backward()
            return loss

        torch.manual_seed(7)
        solver.step(whole, few)
        assert torch.equal(torch.rand(3), expected)
        for ours, theirs in zip(net.buffers(), once.buffers(), strict=True):
            assert torch.equal(ours, theirs)
        assert len(trials) == 3 and all(trials)

    def test_with_micro_batches(self):
        ends = []
        for slices in (1, 3):
            net = network()
            solver = HessianFree(net.parameters(), micro_batches=slices)
            plain = closure_of(solver, net)
            for _ in range(3):
                solver.step(closure_of(solver, net, slices), plain)
            ends.append(flat(net))
        torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-10)

    def test_resumes_to_the_bit(self):
        def run(steps, state=None):
            net = network()
            solver = HessianFree(net.parameters())
            if state is not None:
                net.load_state_dict(state[0])
                solver.load_state_dict(state[1])
            closure = closure_of(solver, net)

            def few():
                loss = F.cross_entropy(net(X[:5]), Y[:5])
                loss.backward()
                return loss

            for _ in range(steps):
                solver.step(closure, few)
            return copy.deepcopy((net.state_dict(), solver.state_dict()))

        whole, parts = run(4), run(2, run(2))
        for name, value in whole[0].items():
            assert torch.equal(value, parts[0][name])
