"""Curvature of losses that are linear in what they judge: of the logits, or none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dl4py
from dl4py.solvers import HessianFree
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton
from dl4py.solvers.likelihoods import slopes
from tests.hessian_free import X, Y, flat, network

P = torch.rand(12, 3, generator=torch.Generator().manual_seed(4)).double().softmax(1)
SIGNS = (P > 1 / 3).double()

# as users write them → the same loss of logits
PAIRS = {
    "nll": (lambda z: F.nll_loss(F.log_softmax(z, 1), Y), F.cross_entropy),
    "nll_modules": (lambda z: nn.NLLLoss()(nn.LogSoftmax(-1)(z), Y), F.cross_entropy),
    "nll_by_name": (
        lambda z: F.nll_loss(input=torch.log_softmax(input=z, dim=1), target=Y),
        F.cross_entropy,
    ),
    "nll_places": (
        lambda z: F.nll_loss(z.view(3, 4, 3).log_softmax(-1).view(-1, 3), Y),
        F.cross_entropy,
    ),
    "nll_moved": (
        lambda z: F.nll_loss(
            z.view(3, 4, 3).log_softmax(2).transpose(1, 2).contiguous(), Y.view(3, 4)
        ),
        F.cross_entropy,
    ),
    "nll_twice": (
        lambda z: (
            0.3 * F.nll_loss(z.log_softmax(1), Y)
            + 0.7 * F.nll_loss(z.log_softmax(1), Y.flip(0))
        ),
        lambda z, y: 0.3 * F.cross_entropy(z, y) + 0.7 * F.cross_entropy(z, y.flip(0)),
    ),
    "kl": (
        lambda z: F.kl_div(F.log_softmax(z, 1), P, reduction="batchmean"),
        lambda z, _: F.cross_entropy(z, P),
    ),
    "kl_log": (
        lambda z: F.kl_div(z.log_softmax(1), P.log(), log_target=True, reduction="sum"),
        lambda z, _: F.cross_entropy(z, P, reduction="sum"),
    ),
}
ALONE = {
    "another_loss": lambda z, p: F.nll_loss(p, Y) + F.mse_loss(p, P),
    "logarithm": lambda z, p: F.nll_loss(z.softmax(1).log(), Y),
    "more": lambda z, p: F.nll_loss(p * 2, Y),
    "sigmoid": lambda z, p: F.binary_cross_entropy(z.sigmoid(), SIGNS),
    "squares": lambda z, p: F.mse_loss(p, P),
    "another_output": lambda z, p: (
        F.nll_loss(p, Y) + F.mse_loss(z.logsumexp(1), P[:, 0])
    ),
    "target": lambda z, p: F.kl_div(P.log(), p, None, None, "sum", True),
    "of_data": lambda z, p: F.nll_loss(z, Y),
}


def closure_of(solver, net, loss):
    def closure(i=None):
        solver.zero_grad()
        value = loss(net(X))
        value.backward()
        return value

    return closure


@pytest.mark.parametrize("name", PAIRS)
class TestPairs:
    def test_curvature_is_that_of_the_logits(self, name):
        ours, theirs = PAIRS[name]
        net = network()
        params = list(net.parameters())
        v = [torch.randn_like(p) for p in params]
        found = []
        for loss in (ours, lambda z: theirs(z, Y)):
            with Capture() as capture:
                loss(net(X)).backward()
            logits = {id(z): z for z in map(capture.behind, capture.outputs)}
            matrix = GaussNewton(capture.loss(), [*logits.values()], params)
            found.append(nn.utils.parameters_to_vector(matrix(v)))
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-12)
        assert found[0].norm() > 1e-2

    @pytest.mark.parametrize("preconditioner", [None, "monte_carlo"])
    def test_takes_the_steps_of_the_loss_of_logits(self, name, preconditioner):
        if preconditioner and name != "nll":
            pytest.skip("kl_div says nothing of how labels are drawn")
        ours, theirs = PAIRS[name]
        ends = []
        for loss in (ours, lambda z: theirs(z, Y)):
            net = network()
            solver = HessianFree(net.parameters(), preconditioner=preconditioner)
            before = flat(net)
            for _ in range(2):
                solver.step(closure_of(solver, net, loss))
            ends.append(flat(net) - before)
        torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)
        assert ends[0].norm() > 1e-2


@pytest.mark.parametrize("name", ALONE)
def test_others_are_taken_as_they_are(name):
    z = network()(X)
    with Capture() as capture:
        ALONE[name](z, z.log_softmax(1)).backward()
    for output in capture.outputs:
        assert capture.behind(output) is output


class TestNoCurvature:
    def losses(self):
        target = torch.zeros(12, 3).double()
        return {
            "l1_loss": lambda z: F.l1_loss(z, target),
            "nll_loss": lambda z: F.nll_loss(z, Y),
            "MAE": lambda z: dl4py.losses.get("MAE")(z, target),
        }

    @pytest.mark.parametrize("options", [{}, {"l2": 0.1}])
    @pytest.mark.parametrize("name", ["l1_loss", "nll_loss", "MAE"])
    def test_is_said(self, name, options):
        net = network()
        solver = HessianFree(net.parameters(), **options)
        before = flat(net)
        what = rf"no curvature along its gradient \({name}\).*'fisher'"
        with pytest.raises(ValueError, match=what):
            solver.step(closure_of(solver, net, self.losses()[name]))
        assert torch.equal(flat(net), before) and solver.memory == {}

    @pytest.mark.parametrize(
        "options", [{"damping": 1.0}, {"curvature": "fisher"}, {"curvature": "hessian"}]
    )
    def test_ways_out(self, options):
        net = network()
        solver = HessianFree(net.parameters(), **options)
        closure = closure_of(solver, net, self.losses()["l1_loss"])
        losses = [solver.step(closure).item() for _ in range(10)]
        assert losses == sorted(losses, reverse=True) and losses[-1] < 0.8 * losses[0]

    def test_laplace(self):
        """The mean of s·sᵀ is Fisher's matrix of |z - y|, the identity."""
        z = torch.randn(5, 2, requires_grad=True)
        with Capture() as capture:
            F.l1_loss(z, torch.zeros(5, 2)).backward()
        generator = torch.Generator().manual_seed(0)
        drawn = [
            slopes(capture.judged[0], capture.loss(), generator)[1].reshape(-1)
            for _ in range(2000)
        ]
        s = torch.stack(drawn)
        torch.testing.assert_close(s.T @ s / 200, torch.eye(10), rtol=0, atol=0.1)
