"""What a closure does to gradients after ``backward()``: honoured or refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl4py.solvers import LBFGS, HessianFree, LineGradientDescent
from tests.solving import EVERY, SOLVERS, quadratic

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(3)).double()
Y = torch.arange(24) % 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def closure_of(solver, net, after=None):
    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(net(X), Y)
        loss.backward()
        if after is not None:
            after(net)
        return loss

    return closure


def mask_of(net):
    """Of the first weight: half of it stays."""
    g = torch.Generator().manual_seed(5)
    return (torch.rand(net[0].weight.shape, generator=g) < 0.5).double()


def multiplied(p, mask):
    p.grad.mul_(mask)


def multiplied_data(p, mask):
    p.grad.data.mul_(mask)


def filled(p, mask):
    p.grad[mask == 0] = 0


def replaced(p, mask):
    p.grad = p.grad * mask


def through_numpy(p, mask):
    p.grad.numpy()[mask.numpy() == 0] = 0.0


WAYS = [multiplied, multiplied_data, filled, replaced, through_numpy]


@pytest.fixture(params=list(EVERY))
def make(request):
    return EVERY[request.param]


def pruned(make, way, before=0, **options):
    """A net with a mask, some steps after others without; its solver."""
    net = network()
    solver = make(net.parameters(), **options)
    for _ in range(before):
        solver.step(closure_of(solver, net))
    mask = mask_of(net)
    net[0].weight.data.mul_(mask)
    closure = closure_of(solver, net, lambda n: way(n[0].weight, mask))
    losses = [solver.step(closure).item() for _ in range(4)]
    losses.append(closure().item())
    return net, mask, losses, closure


class TestMask:
    @pytest.mark.parametrize("before", [0, 3])
    def test_pruned_weights_stay_pruned(self, make, before):
        net, mask, losses, _ = pruned(make, multiplied, before)
        weight = net[0].weight.detach()
        assert not weight[mask == 0].any() and weight[mask == 1].all()
        assert all(b < a for a, b in zip(losses, losses[1:], strict=False))

    @pytest.mark.parametrize("way", WAYS[1:])
    def test_however_it_is_done(self, way):
        ours, _, losses, _ = pruned(LBFGS, way)
        theirs, _, again, _ = pruned(LBFGS, multiplied)
        assert losses == again
        assert torch.equal(ours[0].weight, theirs[0].weight)

    @pytest.mark.parametrize("name", [n for n in EVERY if n != "empirical"])
    def test_is_the_problem_of_the_others(self, name):
        """As if what is masked were no parameter."""
        loss, _, _ = quadratic()
        free = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0, 1, 1]).double()
        start = torch.linspace(-1, 1, 10).double()

        def run(masked):
            w = nn.Parameter(start.clone() if masked else start[free == 1].clone())
            options = {} if name == "exact" else {"l2": 0.3}
            if name == "ConjugateGradient":  # whose scale is of all numbers
                options["preconditioner"] = None
            solver = EVERY[name]([w], **options)

            def closure():
                solver.zero_grad()
                x = w if masked else start.clone().masked_scatter(free == 1, w)
                # a Gauss-Newton matrix of rank 10
                value = F.mse_loss(root @ (x - minimum), torch.zeros(10).double())
                value.backward()
                if masked:
                    w.grad.mul_(free)
                return value

            for _ in range(6):
                solver.step(closure)
            return w.detach()[free == 1] if masked else w.detach(), w.detach()

        _, minimum, a = quadratic()
        root = torch.linalg.cholesky(a).T
        (ours, whole), (theirs, _) = run(True), run(False)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
        assert torch.equal(whole[free == 0], start[free == 0])
        assert not (ours == start[free == 1]).any()

    @pytest.mark.parametrize("name", list(EVERY))
    def test_rows_that_a_batch_does_not_show(self, name):
        """Their gradient is 0 before the mask too."""
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(8, 3), nn.Linear(3, 3)).double()
        solver = EVERY[name](net.parameters())
        held = torch.tensor([1, 6])
        options = {}
        masked = False

        def closure_on(rows):
            def closure():
                solver.zero_grad()
                loss = F.cross_entropy(net(rows), rows % 3)
                loss.backward()
                if masked:
                    net[0].weight.grad[held] = 0
                return loss

            return closure

        batches = [torch.arange(8), torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 4])]
        for i in range(9):
            masked = i >= 3
            if i == 3:
                before = net[0].weight.detach()[held].clone()
            if isinstance(solver, HessianFree):
                options = {"curvature_closure": closure_on(batches[0])}
            solver.step(closure_on(batches[i % 3]), **options)
        assert torch.equal(net[0].weight.detach()[held], before)

    def test_what_is_held_does_not_decay(self):
        w = nn.Parameter(torch.tensor([2.0, 3.0]))
        solver = LBFGS([w], l2=0.5)

        def closure():
            solver.zero_grad()
            loss = (w - 1).square().sum()
            loss.backward()
            w.grad[1] = 0
            return loss

        for _ in range(9):
            solver.step(closure)
        # (w - 1)² + w²/4
        torch.testing.assert_close(w.data, torch.tensor([0.8, 3.0]))

    def test_ends(self):
        net, mask, _, _ = pruned(LBFGS, multiplied)
        solver = LBFGS(net.parameters())
        held = closure_of(solver, net, lambda n: multiplied(n[0].weight, mask))
        solver.step(held)
        assert solver.mask.sum() > 5
        solver.step(closure_of(solver, net))
        assert solver.mask is None and net[0].weight.detach()[mask == 0].any()

    def test_goes_on_from_a_file(self, make):
        net, mask, _, closure = pruned(make, multiplied)
        solver = closure.__closure__[2].cell_contents
        twin = copy.deepcopy(net)
        other = make(twin.parameters())
        other.load_state_dict(copy.deepcopy(solver.state_dict()))
        for s, n in ((solver, net), (other, twin)):
            s.step(closure_of(s, n, lambda m: multiplied(m[0].weight, mask)))
        assert torch.equal(net[0].weight, twin[0].weight)

    def test_micro_batches(self):
        net, mask = network(), mask_of(network())
        solver = HessianFree(net.parameters(), micro_batches=2)
        net[0].weight.data.mul_(mask)

        def closure(i):
            solver.zero_grad()
            loss = F.cross_entropy(net(X[i::2]), Y[i::2])
            loss.backward()
            net[0].weight.grad.mul_(mask)
            return loss

        losses = [solver.step(closure).item() for _ in range(5)]
        assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]
        assert not net[0].weight.detach()[mask == 0].any()


def nothing(net):
    for p in net.parameters():
        assert p.grad.isfinite().all()


def by_norm(net):
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)


def by_value(net):
    nn.utils.clip_grad_value_(net.parameters(), 1e-2)


class TestClipping:
    @pytest.mark.parametrize("after", [nothing, by_norm, by_value])
    @pytest.mark.parametrize("make", [LBFGS, HessianFree])
    def test_changes_nothing(self, make, after):
        ends = []
        for call in (None, after):
            net = network()
            solver = make(net.parameters())
            for _ in range(3):
                solver.step(closure_of(solver, net, call))
            ends.append(nn.utils.parameters_to_vector(net.parameters()))
        assert torch.equal(*ends) and solver.mask is None

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_is_known_in_low_precision(self, dtype):
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(500).to(dtype))
        for clip in (nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_):
            solver = LBFGS([w])

            def closure(clip=clip, solver=solver):
                solver.zero_grad()
                loss = (w.float() - 3).pow(4).mean()
                loss.backward()
                clip([w], 1e-3)
                return loss

            before = solver.step(closure).item()
            assert closure().item() < before

    def test_numbers_that_vanish_are_no_mask(self):
        w = nn.Parameter(torch.tensor([1.0, 1.0]))
        solver, left = LBFGS([w]), []

        def closure():
            solver.zero_grad()
            loss = w[0] * 1e-42 + w[1].square() * 1e5
            loss.backward()
            nn.utils.clip_grad_norm_([w], 1e-3)
            left.append(w.grad.tolist())
            return loss

        solver.step(closure)
        assert left[0][0] == 0 != left[0][1] and solver.mask is None

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_and_a_mask(self, solver):
        net, mask = network(), mask_of(network())
        net[0].weight.data.mul_(mask)
        optimizer = solver(net.parameters())

        def after(net):
            net[0].weight.grad.mul_(mask)
            by_norm(net)

        for _ in range(3):
            optimizer.step(closure_of(optimizer, net, after))
        assert not net[0].weight.detach()[mask == 0].any()

    def test_bounds_a_step_without_search(self):
        w = nn.Parameter(torch.tensor([3.0, 4.0]))
        solver = LineGradientDescent([w], lr=1.0, line_search="fixed")

        def closure():
            solver.zero_grad()
            loss = 0.5 * w.square().sum()
            loss.backward()
            nn.utils.clip_grad_norm_([w], 1.0)
            return loss

        solver.step(closure)
        torch.testing.assert_close(w.data, torch.tensor([2.4, 3.2]))


def noise(net):
    net[0].weight.grad.add_(1e-3)


def penalty(net):
    for p in net.parameters():
        p.grad.add_(p.data, alpha=0.1)


def one_layer(net):
    net[0].weight.grad.mul_(0.1)


def sign(net):
    for p in net.parameters():
        p.grad.neg_()


class TestRefused:
    @pytest.mark.parametrize("after", [noise, penalty, one_layer, sign])
    @pytest.mark.parametrize("make", [LBFGS, HessianFree])
    def test_other_gradients(self, make, after):
        net = network()
        solver = make(net.parameters())
        before = net[0].weight.detach().clone()
        with pytest.raises(ValueError, match="neither to 0 nor by clipping"):
            solver.step(closure_of(solver, net, after))
        assert torch.equal(net[0].weight, before) and solver.memory == {}

    def test_cleared_afterwards(self, make):
        net = network()
        solver = make(net.parameters())
        closure = closure_of(solver, net, lambda n: n.zero_grad())
        with pytest.raises(ValueError, match="clear them before it"):
            solver.step(closure)
