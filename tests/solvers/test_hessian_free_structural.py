"""Structural damping: against an explicit matrix, in a step, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl4py.solvers import LBFGS, HessianFree, damp
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton
from tests.hessian_free import resumes

X = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(1)).double()
T = torch.randn(6, 1, generator=torch.Generator().manual_seed(2)).double()


class Recurrent(nn.Module):
    """Its states are damped step by step, or all at once."""

    def __init__(self, activation="tanh", at_once=False):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.RNN(2, 3, batch_first=True).double()
        self.last = nn.Linear(3, 1).double()
        self.activation = activation
        self.at_once = at_once

    def states(self, x):
        return self.rnn(x)[0]

    def forward(self, x):
        if self.at_once:
            return self.last(damp(self.states(x), self.activation)[:, -1])
        h = x.new_zeros(len(x), 3)
        w, u, b, c = self.rnn.parameters()
        for now in x.unbind(1):
            h = damp(torch.tanh(now @ w.T + h @ u.T + b + c), self.activation)
        return self.last(h)


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_product_is_that_of_the_explicit_matrix(activation, at_once):
    net = Recurrent(activation, at_once)
    params = list(net.parameters())
    with Capture() as capture:
        F.mse_loss(net(X), T).backward()
    matrix = GaussNewton(capture.loss(), capture.outputs, params, capture.damped)
    plain = GaussNewton(capture.loss(), capture.outputs, params)

    states = net.states(X).reshape(-1)
    rows = [
        flat(torch.autograd.grad(s, params, retain_graph=True, materialize_grads=True))
        for s in states
    ]
    j = torch.stack(rows)
    if activation is None:
        w = torch.ones(len(states)).double()
    else:  # f′ of the pre-activation a, with j = f′·∂a
        w = 1 / (1 - states.detach() ** 2)
    expected = 0.7 * j.T @ (w[:, None] * j) / len(X)
    v = [torch.randn_like(p) for p in params]
    ours = flat(matrix(v, 0.7)) - flat(plain(v))
    torch.testing.assert_close(ours, expected @ flat(v), rtol=0, atol=1e-10)
    torch.testing.assert_close(matrix(v), plain(v), rtol=0, atol=0)


def test_sigmoid_and_saturated_units():
    a = torch.tensor([[0.3, 50.0, -800.0]]).double().requires_grad_()
    v = torch.ones(1, 3).double()
    with Capture() as capture:
        h = damp(a.sigmoid(), "sigmoid")
        F.mse_loss(h, torch.zeros(1, 3).double()).backward()
    matrix = GaussNewton(capture.loss(), capture.outputs, [a], capture.damped)
    plain = GaussNewton(capture.loss(), capture.outputs, [a])
    ours = matrix([v], 1.0)[0] - plain([v])[0]
    expected = a.sigmoid() * (1 - a.sigmoid())
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-10, atol=1e-30)


def test_rows_along_another_dimension():
    net = Recurrent()
    with Capture() as capture:
        damp(net.states(X).transpose(0, 1), dim=1).sum().backward()
        damp(net.states(X)).sum().backward()
    first, second = (d.weight() for d in capture.damped)
    assert first == second == 1 / len(X)


def closure_of(solver, net):
    def closure():
        solver.zero_grad()
        loss = F.mse_loss(net(X), T)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_step_solves_the_damped_system(mu):
    """λ·(1 + μ·S) is added to the curvature, and none of it to the model of ρ."""
    net, damping = Recurrent(), 0.1
    params = list(net.parameters())
    start = flat([p.detach() for p in params])
    with Capture() as capture:
        F.mse_loss(net(X), T).backward()
    matrix = GaussNewton(capture.loss(), capture.outputs, params, capture.damped)
    sizes = [p.numel() for p in params]

    def dense(structural):
        columns = []
        for e in torch.eye(sum(sizes)).double().split(1):
            v = [a.view_as(p) for a, p in zip(e[0].split(sizes), params, strict=True)]
            columns.append(flat(matrix(v, structural)))
        return torch.stack(columns, 1)

    g = flat([p.grad for p in params])
    plain = dense(0.0)
    system = dense(mu * damping) + damping * torch.eye(len(g)).double()
    p = torch.linalg.solve(system, -g)
    solver = HessianFree(
        params, damping=damping, structural_damping=mu, cg_max_iter=200, cg_tol=0.0
    )
    before = solver.step(closure_of(solver, net)).item()
    torch.testing.assert_close(flat(params).detach() - start, p, rtol=1e-6, atol=1e-9)
    after = closure_of(solver, net)().item()
    fall = (g @ p + 0.5 * p @ plain @ p).item()
    assert solver.memory["rho"] == pytest.approx((after - before) / fall, rel=1e-6)


def test_maximize_is_the_same_step():
    ends = []
    for sign in (1.0, -1.0):
        net = Recurrent()
        solver = HessianFree(
            net.parameters(), structural_damping=0.5, maximize=sign < 0
        )

        def closure(net=net, solver=solver, sign=sign):
            solver.zero_grad()
            loss = sign * F.mse_loss(net(X), T)
            loss.backward()
            return loss

        for _ in range(3):
            solver.step(closure)
        ends.append(flat(net.parameters()).detach())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


def test_resumes_to_the_bit():
    def make():
        net = Recurrent()
        solver = HessianFree(net.parameters(), structural_damping=0.3)
        return net, solver, closure_of(solver, net)

    assert resumes(make)


def test_other_solvers_do_not_mind():
    net = Recurrent()
    solver = LBFGS(net.parameters())
    before = solver.step(closure_of(solver, net))
    assert solver.step(closure_of(solver, net)) < before
    assert damp(X) is X


class TestRefused:
    def test_nothing_named(self):
        net = nn.Sequential(nn.Flatten(), nn.Linear(8, 1)).double()
        solver = HessianFree(net.parameters(), structural_damping=0.1)
        with pytest.raises(ValueError, match=r"structural_damping=\.\.\.\).*damp\(h\)"):
            solver.step(closure_of(solver, net))
        assert not solver.memory

    def test_arguments(self):
        with pytest.raises(ValueError, match=r"activation=\.\.\.\).*got 'relu'"):
            damp(X, "relu")
        with pytest.raises(ValueError, match=r"dim=\.\.\.\).*got 3 for shape"):
            damp(X, dim=3)
        with pytest.raises(TypeError, match=r"got tuple; of what torch\.nn\.RNN"):
            damp(nn.RNN(2, 3).double()(X))
        params = Recurrent().parameters
        with pytest.raises(ValueError, match=r"structural_damping=\.\.\.\) must be a"):
            HessianFree(params(), structural_damping=-0.1)
        with pytest.raises(ValueError, match="must be 0 with curvature='hessian'"):
            HessianFree(params(), structural_damping=0.1, curvature="hessian")
