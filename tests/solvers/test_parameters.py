"""Parameters that are frozen, thawed, added or converted while a solver is at work."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl4py.solvers import LBFGS, HessianFree
from tests.solving import EVERY

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3)).double()
Y = torch.arange(24) % 3


def network(width=5):
    torch.manual_seed(0)
    first, last = nn.Linear(4, width), nn.Linear(width, 3)
    return nn.Sequential(first, nn.Tanh(), last).double()


def closure_of(solver, net, penalty=0.0):
    def closure():
        solver.zero_grad()
        z = net(X.to(net[0].weight.dtype))
        loss = F.cross_entropy(z, Y) + penalty * net[2].weight.square().sum()
        loss.backward()
        return loss

    return closure


def steps(solver, net, count=3):
    """Losses before each step; they fall."""
    losses = [solver.step(closure_of(solver, net)).item() for _ in range(count)]
    losses.append(closure_of(solver, net)().item())
    assert all(b < a for a, b in zip(losses, losses[1:], strict=False)), losses
    return losses


def flat(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


@pytest.fixture(params=list(EVERY))
def make(request):
    return EVERY[request.param]


class TestSet:
    def test_frozen_and_thawed(self, make):
        net = network()
        solver = make(net.parameters())
        steps(solver, net)
        net[2].requires_grad_(False)
        kept = flat(net[2])
        steps(solver, net)
        assert torch.equal(flat(net[2]), kept)
        net[2].requires_grad_(True)
        steps(solver, net)
        assert not (flat(net[2]) == kept).any()

    def test_others_of_the_same_size(self, make):
        """Another vector, though no longer and no shorter."""
        net = network(4)
        net[2] = nn.Linear(4, 4).double()
        net[2].requires_grad_(False)
        solver = make(net.parameters())
        steps(solver, net)
        net[0].requires_grad_(False)
        net[2].requires_grad_(True)
        kept, twin = flat(net[0]), copy.deepcopy(net)
        steps(solver, net, 1)
        assert torch.equal(flat(net[0]), kept)
        if not isinstance(solver, HessianFree):  # whose λ goes on
            steps(make(twin.parameters()), twin, 1)
            assert torch.equal(flat(net), flat(twin))

    def test_added_later(self, make):
        net = network()
        solver = make(net[2].parameters())
        start = flat(net[0])
        steps(solver, net)
        assert torch.equal(flat(net[0]), start)
        solver.add_param_group({"params": net[0].parameters(), "lr": 0.5})
        steps(solver, net)
        assert not (flat(net[0]) == start).any()

    def test_a_file_of_another_width(self, make):
        old, net = network(7), network()
        before = make(old.parameters())
        steps(before, old)
        solver = make(net.parameters())
        solver.load_state_dict(before.state_dict())
        steps(solver, net)

    def test_a_failing_step_changes_nothing_known(self, make):
        net = network()
        solver = make(net.parameters())
        steps(solver, net)
        state = copy.deepcopy(solver.state_dict())
        net[2].requires_grad_(False)
        calls, plain = 0, closure_of(solver, net)

        def closure():
            nonlocal calls
            calls += 1
            if calls == 2:
                raise KeyboardInterrupt
            return plain()

        with pytest.raises(KeyboardInterrupt):
            solver.step(closure)
        assert solver.layout == state["layout"] == [20, 5, 15, 3]
        net[2].requires_grad_(True)
        steps(solver, net)


class TestHessianFree:
    def test_keeps_what_it_knows_of_the_others(self):
        net = network()
        solver = HessianFree(net.parameters(), preconditioner="empirical", damping=0.3)
        steps(solver, net)
        damping, solution = solver.memory["damping"], solver.memory["solution"]
        net[0].weight.requires_grad_(False)
        net[2].bias.requires_grad_(False)
        solver.cg_max_iter = 1
        seen = []

        def carried(problem, plain=solver.carried):
            seen.append(plain(problem))
            return seen[-1]

        solver.carried = carried
        steps(solver, net, 1)
        [known] = seen
        assert known["damping"] == damping and "diagonal" not in known
        assert torch.equal(known["solution"], solution[20:40])
        net[0].weight.requires_grad_(True)
        solution = solver.memory["solution"]
        steps(solver, net, 1)
        assert torch.equal(seen[1]["solution"][20:], solution)
        assert not seen[1]["solution"][:20].any()

    def test_looks_again_at_what_is_new(self):
        net = network()
        net[2].weight.requires_grad_(False)
        solver = HessianFree(net.named_parameters())
        solver.step(closure_of(solver, net, penalty=0.1))
        net[2].weight.requires_grad_(True)
        with pytest.raises(ValueError, match=r"depends on 2\.weight in a way"):
            solver.step(closure_of(solver, net, penalty=0.1))


class TestPrecision:
    @pytest.mark.parametrize("wide", [True, False])
    def test_a_file_of_another(self, make, wide):
        old, net = network(), network()
        net.to(torch.float32 if wide else torch.float64)
        old.to(torch.float64 if wide else torch.float32)
        before = make(old.parameters())
        steps(before, old)
        net.load_state_dict(old.state_dict())
        solver = make(net.parameters())
        solver.load_state_dict(before.state_dict())
        start = flat(net).double()
        steps(solver, net, 1)
        steps(before, old, 1)
        move, theirs = flat(net).double() - start, flat(old).double() - start
        torch.testing.assert_close(
            move, theirs, rtol=0, atol=1e-3 * float(theirs.norm())
        )

    def test_converted(self, make):
        net = network()
        solver = make(net.parameters())
        steps(solver, net)
        steps(solver, net.float())
        steps(solver, net.double())

    def test_what_dl4js_own_keeps_is_converted_too(self):
        net = network()
        solver = LBFGS(net.parameters(), dl4j_exact=True, lr=0.1)
        for dtype in (torch.float64, torch.float32):
            for _ in range(3):
                solver.step(closure_of(solver, net.to(dtype)))
            assert {t.dtype for t in solver.memory["s"]} == {dtype}

    def test_small_matrices_stay_wide(self):
        net = network()
        solver = LBFGS(net.parameters())
        steps(solver, net)
        steps(solver, net.float(), 1)
        types = {k: v.dtype for k, v in solver.memory.items() if hasattr(v, "dtype")}
        assert types["sy"] == types["yy"] == torch.float64
        assert types["pairs"] == torch.float32
