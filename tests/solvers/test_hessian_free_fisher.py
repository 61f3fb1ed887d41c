"""Fisher's matrix of drawn labels, and the preconditioner that is its diagonal."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dl4py
from dl4py.solvers import HessianFree
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import Fisher, GaussNewton
from dl4py.solvers.likelihoods import DRAWS, slopes
from tests.hessian_free import resumes

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(6) % 3
T = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).double().sigmoid()
W = torch.tensor([1.0, 2.0, 0.5]).double()
IGNORED = torch.where(torch.arange(6) < 2, -100, Y)

# losses whose Gauss-Newton matrix is Fisher's
LOSSES = {
    "mse": lambda z: F.mse_loss(z, T),
    "mse_sum": lambda z: 0.1 * F.mse_loss(z, T, reduction="sum"),
    "classes": lambda z: F.cross_entropy(z, Y),
    "weights": lambda z: F.cross_entropy(z, IGNORED, weight=W),
    "smoothing": lambda z: F.cross_entropy(z, IGNORED, weight=W, label_smoothing=0.2),
    "soft": lambda z: F.cross_entropy(z, T, weight=W),
    "none": lambda z: (F.cross_entropy(z, Y, reduction="none") * X[:, 0].abs()).sum(),
    "bits": lambda z: F.binary_cross_entropy_with_logits(z, T, weight=W, pos_weight=W),
    "two": lambda z: 0.5 * F.mse_loss(z, T) + F.cross_entropy(z, Y),
    "places": lambda z: F.cross_entropy(z.view(2, 3, 3), Y.view(2, 3)),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3)).double()


def captured(loss):
    net = network()
    with Capture() as capture:
        loss(net(X)).backward()
    return capture, list(net.parameters())


def drawn(capture, generator):
    root = capture.loss()
    return [slopes(j, root, generator) for j in capture.judged]


@pytest.mark.parametrize("name", list(LOSSES))
def test_mean_over_draws_is_the_loss_hessian(name):
    """Row by row: Σ s·sᵀ against the Hessian with respect to the outputs."""
    capture, _ = captured(LOSSES[name])
    (z,) = capture.outputs
    n = len(z)
    h = torch.autograd.functional.hessian(LOSSES[name], z.detach())
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(n, z[0].numel(), z[0].numel()).double()
    rounds = 1000
    for _ in range(rounds):
        for where, s in drawn(capture, generator):
            assert where is z
            s = s.reshape(n, -1)
            mean += s.unsqueeze(2) * s.unsqueeze(1) / rounds
    mean = torch.block_diag(*mean)
    expected = h.reshape(z.numel(), -1)
    assert (mean - expected).norm() < 0.1 * expected.norm()


def test_probabilities_and_their_logarithms():
    """Through their link functions both are the losses of logits."""
    for a, b in (
        (lambda z: F.nll_loss(z.log_softmax(1), IGNORED, weight=W), LOSSES["weights"]),
        (
            lambda z: F.binary_cross_entropy(z.sigmoid(), T, weight=W),
            lambda z: F.binary_cross_entropy_with_logits(z, T, weight=W),
        ),
    ):
        pairs = []
        for loss in (a, b):
            capture, params = captured(loss)
            matrix = Fisher(
                capture.loss(),
                capture.outputs,
                params,
                drawn=drawn(capture, torch.Generator().manual_seed(3)),
            )
            v = [torch.ones_like(p) for p in params]
            pairs.append(nn.utils.parameters_to_vector(matrix(v)))
        torch.testing.assert_close(*pairs, rtol=1e-8, atol=1e-12)


def test_product_is_that_of_the_explicit_matrix():
    capture, params = captured(LOSSES["classes"])
    (z,) = capture.outputs
    ((_, s),) = pairs = drawn(capture, torch.Generator().manual_seed(3))
    expected = 0
    for i in range(len(z)):
        row = torch.autograd.grad(z[i] @ s[i], params, retain_graph=True)
        row = nn.utils.parameters_to_vector(row)
        expected = expected + torch.outer(row, row)
    matrix = Fisher(capture.loss(), capture.outputs, params, drawn=pairs)
    v = [torch.randn_like(p) for p in params]
    ours = nn.utils.parameters_to_vector(matrix(v))
    there = expected @ nn.utils.parameters_to_vector(v)
    torch.testing.assert_close(ours, there, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["weights", "mse"])
def test_probes_have_the_diagonal_as_their_mean(name):
    capture, params = captured(LOSSES[name])
    root = capture.loss()
    plain = GaussNewton(root, capture.outputs, params)
    sizes = [p.numel() for p in params]
    columns = []
    for e in torch.eye(sum(sizes)).double():
        v = [a.view_as(p) for a, p in zip(e.split(sizes), params, strict=True)]
        columns.append(nn.utils.parameters_to_vector(plain(v)))
    expected = torch.stack(columns).diagonal()
    generator = torch.Generator().manual_seed(0)
    mean, rounds = torch.zeros_like(expected), 2048
    for _ in range(rounds):
        matrix = GaussNewton(
            root, capture.outputs, params, drawn=drawn(capture, generator)
        )
        probe = matrix.sampled_probe(generator)
        mean += nn.utils.parameters_to_vector(probe) / rounds
    torch.testing.assert_close(mean, expected, rtol=0.15, atol=1e-4)


OPTIONS = [
    {"curvature": "fisher"},
    {"preconditioner": "monte_carlo"},
    {"curvature": "fisher", "preconditioner": "monte_carlo", "micro_batches": 2},
    {"curvature": "fisher", "preconditioner": "empirical"},
]


def closure_of(solver, net, loss=None):
    def closure(i=None):
        rows = slice(None) if i is None else slice(3 * i, 3 * i + 3)
        solver.zero_grad()
        z = net(X[rows])
        value = F.cross_entropy(z, Y[rows]) if loss is None else loss(z)
        value.backward()
        return value

    return closure


@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestSteps:
    def test_loss_falls(self, options):
        net = network()
        solver = HessianFree(net.parameters(), **options)
        closure = closure_of(solver, net)
        seen = [solver.step(closure).item() for _ in range(15)]
        assert all(b <= a for a, b in zip(seen, seen[1:], strict=False))
        assert seen[-1] < 0.6 * seen[0]

    def test_resumes_to_the_bit(self, options):
        def make():
            net = network()
            solver = HessianFree(net.parameters(), **options)
            return net, solver, closure_of(solver, net)

        assert resumes(make)

    def test_global_random_numbers_are_not_used(self, options):
        net = network()
        solver = HessianFree(net.parameters(), **options)
        before = torch.get_rng_state()
        solver.step(closure_of(solver, net))
        assert torch.equal(torch.get_rng_state(), before)


def test_maximize_is_the_same_step():
    ends = []
    for sign in (1, -1):
        net = network()
        solver = HessianFree(net.parameters(), curvature="fisher", maximize=sign < 0)
        closure = closure_of(solver, net, lambda z, sign=sign: sign * LOSSES["two"](z))
        for _ in range(3):
            solver.step(closure)
        ends.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-12)


class TestRefused:
    @pytest.mark.parametrize("option", [OPTIONS[0], OPTIONS[1]], ids=str)
    @pytest.mark.parametrize(
        ("loss", "what"),
        [
            (lambda z: F.huber_loss(z, T), "huber_loss says nothing of how labels"),
            (lambda z: F.mse_loss(z, z.roll(1, 0)), "a target that depends on"),
            (lambda z: F.cross_entropy(z[0], Y[0]), r"got \[3\]; use input.unsqueeze"),
            (
                lambda z: dl4py.losses.get("MSE")(z, T),
                "says nothing of how labels are distributed",
            ),
        ],
    )
    def test_losses(self, option, loss, what):
        net = network()
        solver = HessianFree(net.parameters(), **option)
        before = nn.utils.parameters_to_vector(net.parameters()).clone()
        with pytest.raises(ValueError, match=what):
            solver.step(closure_of(solver, net, loss))
        assert torch.equal(before, nn.utils.parameters_to_vector(net.parameters()))

    def test_with_the_hessian(self):
        with pytest.raises(ValueError, match="must be None with curvature='hessian'"):
            HessianFree(
                network().parameters(),
                curvature="hessian",
                preconditioner="monte_carlo",
            )


def test_what_can_be_drawn_is_seen():
    from dl4py.solvers.capture import HEADS

    assert set(DRAWS) <= set(HEADS)
