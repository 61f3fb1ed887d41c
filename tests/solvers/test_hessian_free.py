"""HessianFree: products against explicit matrices, CG, damping, frameworks, resume."""

import io
import math

import lightning
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import dl4py
from dl4py import updaters
from dl4py.config import Dense, NeuralNetConfiguration, Output
from dl4py.solvers import HessianFree
from dl4py.solvers.capture import Capture
from dl4py.solvers.curvature import GaussNewton, Hessian

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(12) % 3
T = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)).double()


def network(*middle):
    torch.manual_seed(0)
    middle = middle or (nn.Tanh(),)
    return nn.Sequential(nn.Linear(4, 5), *middle, nn.Linear(5, 3)).double()


LOSSES = {
    "mse": lambda z: F.mse_loss(z, T),
    "cross_entropy": lambda z: F.cross_entropy(
        z,
        torch.where(torch.arange(12) < 2, -100, Y),
        weight=torch.tensor([1.0, 2.0, 0.5]).double(),
        label_smoothing=0.1,
    ),
    "two": lambda z: F.mse_loss(z, T) + 0.3 * F.cross_entropy(z, Y),
    "bce": lambda z: F.binary_cross_entropy_with_logits(z, T.sigmoid()),
    "dl4py": lambda z: dl4py.losses.get("MCXENT", activation="softmax")(
        z, F.one_hot(Y, 3).double()
    ),
}
MIDDLES = {
    "tanh": lambda: (nn.Tanh(),),
    "norm": lambda: (nn.BatchNorm1d(5), nn.Sigmoid()),
    "dropout": lambda: (nn.Dropout(0.3), nn.Tanh()),
}


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("middle", list(MIDDLES))
def test_product_is_that_of_the_explicit_matrix(loss, middle):
    net = network(*MIDDLES[middle]())
    params = list(net.parameters())
    sizes = [p.numel() for p in params]
    torch.manual_seed(5)
    with Capture() as capture:
        z = net(X)
        LOSSES[loss](z).backward()
    assert [o is z for o in capture.outputs] == [True]
    matrix = GaussNewton(capture.loss(), capture.outputs, params)

    rows = []
    for e in torch.eye(z.numel()).double():
        row = torch.autograd.grad(z, params, e.view_as(z), retain_graph=True)
        rows.append(torch.cat([r.reshape(-1) for r in row]))
    j = torch.stack(rows)
    h = torch.autograd.functional.hessian(LOSSES[loss], z.detach())
    expected = j.T @ h.reshape(z.numel(), -1) @ j
    columns = []
    for e in torch.eye(sum(sizes)).double():
        v = [a.view_as(p) for a, p in zip(e.split(sizes), params, strict=True)]
        columns.append(torch.cat([c.reshape(-1) for c in matrix(v)]))
    torch.testing.assert_close(torch.stack(columns, 1), expected, rtol=0, atol=1e-10)


def test_hessian_product():
    w = nn.Parameter(torch.tensor([1.0, 2.0, -1.0]).double())

    def f(w):
        return (w.prod() + w**3).sum()

    v = torch.tensor([0.5, -1.0, 2.0]).double()
    expected = torch.autograd.functional.hessian(f, w.detach()) @ v
    torch.testing.assert_close(Hessian(f(w), [w])([v])[0], expected)


def test_probes_have_martens_diagonal_as_their_mean():
    net = network()
    params = list(net.parameters())
    with Capture() as capture:
        F.cross_entropy(net(X), Y).backward()
    matrix = GaussNewton(capture.loss(), capture.outputs, params)
    expected = [torch.zeros_like(p) for p in params]
    for x, y in zip(X, Y, strict=True):
        one = torch.autograd.grad(F.cross_entropy(net(x[None]), y[None]), params)
        for total, g in zip(expected, one, strict=True):
            total += g**2 / len(X)
    generator = torch.Generator().manual_seed(0)
    means = [torch.zeros_like(p) for p in params]
    for _ in range(4096):
        for m, d in zip(means, matrix.probe(generator), strict=True):
            m += d / 4096
    for m, e in zip(means, expected, strict=True):
        torch.testing.assert_close(m, e, rtol=0.15, atol=1e-6)


def closure_of(solver, net, loss):
    def closure():
        solver.zero_grad()
        value = loss(net(X))
        value.backward()
        return value

    return closure


def test_damping_falls_on_a_quadratic():
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    solver = HessianFree(net.parameters(), damping=0.1)
    closure = closure_of(solver, net, LOSSES["mse"])
    for i in range(3):
        # a bad start of CG has no part in ρ
        if i:
            solver.memory["solution"] = solver.memory["solution"] * 50.0
        solver.step(closure)
        assert solver.memory["damping"] == pytest.approx(0.1 * (2 / 3) ** (i + 1))
        assert solver.memory["rho"] > 0.75


@pytest.mark.parametrize("factor", [2 / 3, 0.5])
def test_damping_found_by_itself_falls_faster_until_the_model_is_off(factor):
    w = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    solver = HessianFree([w], damping_factor=factor, damping_bounds=(1e-300, 1e300))
    bent = False

    def closure():
        solver.zero_grad()
        z = w + w**3 / 5 if bent else w
        loss = F.mse_loss(z, torch.zeros(2, dtype=torch.float64))
        loss.backward()
        return loss

    # the Hessian is the identity: gᵀBg / gᵀg = 1
    for i in range(3):
        solver.step(closure)
        assert solver.memory["damping"] == pytest.approx(factor ** (4 * (i + 1)))
    bent = True
    with torch.no_grad():
        w.copy_(torch.tensor([1.0, 2.0]))
    seen = []
    for _ in range(12):
        before = solver.memory["damping"]
        solver.step(closure)
        rho, change = solver.memory["rho"], solver.memory["damping"] / before
        seen.append(rho)
        if any(r <= 0.95 for r in seen):
            usual = factor if rho > 0.75 else 1 / factor if rho < 0.25 else 1.0
            assert change == pytest.approx(usual)
    assert min(seen) <= 0.95 < seen[-1]  # once slow, for ever slow


@pytest.mark.parametrize("preconditioner", [None, "empirical"])
@pytest.mark.parametrize("loss", list(LOSSES))
def test_loss_falls(loss, preconditioner):
    net = network()
    solver = HessianFree(net.parameters(), preconditioner=preconditioner)
    closure = closure_of(solver, net, LOSSES[loss])
    seen = [solver.step(closure).item() for _ in range(8)]
    assert all(b < a for a, b in zip(seen, seen[1:], strict=False))


def test_l2_is_a_penalty():
    """Its minimum is ridge regression's."""
    net = nn.Linear(4, 3, bias=False).double()
    solver = HessianFree(net.parameters(), l2=0.1, damping=1e-6)
    for _ in range(4):
        solver.step(closure_of(solver, net, LOSSES["mse"]))
    a = X.T @ X * 2 / 36 + 0.1 * torch.eye(4).double()
    expected = torch.linalg.solve(a, X.T @ T * 2 / 36)
    torch.testing.assert_close(net.weight.detach().T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("preconditioner", [None, "empirical"])
def test_resumes_to_the_bit(preconditioner):
    def run(steps, state=None):
        net = network(nn.Dropout(0.2), nn.Tanh())
        torch.manual_seed(9)
        solver = HessianFree(net.parameters(), preconditioner=preconditioner)
        if state is not None:
            net.load_state_dict(state["net"])
            solver.load_state_dict(state["solver"])
            torch.set_rng_state(state["rng"])
        for _ in range(steps):
            solver.step(closure_of(solver, net, LOSSES["cross_entropy"]))
        file = io.BytesIO()
        saved = {"net": net.state_dict(), "solver": solver.state_dict()}
        torch.save({**saved, "rng": torch.get_rng_state()}, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    whole, parts = run(5), run(3, run(2))
    for name, value in whole["net"].items():
        assert torch.equal(value, parts["net"][name])
    assert whole["solver"]["memory"]["damping"] == parts["solver"]["memory"]["damping"]


class TestRefused:
    def test_names_what_the_outputs_do_not_show(self):
        net = network()
        solver = HessianFree(net.named_parameters())
        before = net[2].weight.detach().clone()

        def loss(z):
            return F.mse_loss(z, T) + 0.1 * net[2].weight.square().sum()

        with pytest.raises(ValueError, match=r"depends on 2\.weight in a way") as e:
            solver.step(closure_of(solver, net, loss))
        assert "curvature='hessian'" in str(e.value) and "0.weight" not in str(e.value)
        assert torch.equal(before, net[2].weight) and not solver.memory

    def test_no_loss_function(self):
        net = network()
        solver = HessianFree(net.parameters())
        with pytest.raises(ValueError, match="saw no loss function"):
            solver.step(closure_of(solver, net, lambda z: z.square().sum()))

    def test_attention_without_double_backward(self):
        w = nn.Parameter(torch.randn(1, 2, 8, 4))
        solver = HessianFree([w])

        def closure():
            solver.zero_grad()
            z = F.scaled_dot_product_attention(w, w, w)
            loss = F.mse_loss(z, torch.ones_like(z))
            loss.backward()
            return loss

        with pytest.raises(ValueError, match=r"SDPBackend\.MATH"):
            solver.step(closure)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("damping", -1.0),
            ("damping", "large"),
            ("damping_factor", 1.0),
            ("damping_bounds", (1.0, 0.0)),
            ("curvature", "fisher_mc"),
            ("micro_batches", 0),
            ("cg_max_iter", 0),
            ("cg_tol", math.nan),
            ("cg_decay", 1.5),
            ("cg_chunk", True),
            ("preconditioner", "mc"),
            ("preconditioner_exponent", -0.1),
            ("max_num_line_search_iterations", 2.0),
        ],
    )
    def test_arguments(self, name, value):
        with pytest.raises(ValueError, match=rf"HessianFree\({name}=\.\.\.\) must be"):
            HessianFree(network().parameters(), **{name: value})


class Module(lightning.LightningModule):
    """As a user writes it."""

    def __init__(self):
        super().__init__()
        self.body = network().float()
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.body(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return HessianFree(self.parameters(), cg_max_iter=20)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning(precision, tmp_path):
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=6,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    module = Module()
    data = TensorDataset(X.float(), Y)
    trainer.fit(module, DataLoader(data, batch_size=12))
    assert trainer.global_step == 6
    assert module.losses[-1] < 0.8 * module.losses[0]


def test_by_name():
    assert updaters.get("HESSIAN_FREE") is HessianFree


def test_a_networks_penalties_are_curvature_too():
    """``l2`` of a configuration is what ``l2`` is to the optimizer."""

    def built(l2):
        chain = NeuralNetConfiguration.builder().seed(1).data_type("double").l2(l2)
        chain.optimization_algo("hessian_free").layer(Dense(n_in=4, n_out=5))
        return chain.layer(Output(n_out=3)).build().module()

    ours, twin = built(0.05), built(0.0)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64)[torch.randint(3, (30,), generator=g)]
    weights = [p for p in twin.parameters() if p.dim() == 2]
    biases = [p for p in twin.parameters() if p.dim() == 1]
    groups = [{"params": weights, "l2": 0.05}, {"params": biases}]
    solver = HessianFree(groups)

    def closure():
        solver.zero_grad()
        loss = twin.loss(x, y)
        loss.backward()
        return loss

    before = ours.score(x, y)
    for _ in range(3):
        ours.fit(x, y)
        solver.step(closure)
    assert ours.score(x, y) < before - 0.1
    torch.testing.assert_close(ours.params(), twin.params(), rtol=1e-6, atol=1e-8)
