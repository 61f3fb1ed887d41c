"""Solvers within bounds, and their settings: groups, copies, files, bad values."""

import io

import pytest
import torch
from torch import nn

from dl4py.solvers import LBFGS, ConjugateGradient
from tests.solving import EVERY, SOLVERS, quadratic, solve


class TestBounds:
    def test_minimum_within_a_box(self):
        loss, _, a = quadratic()
        low, high = -0.3, 0.4

        def make(params):
            return LBFGS(params, bounds=(low, high), line_search="armijo", max_iter=20)

        w, _, _ = solve(make, loss, [0.0] * 10, 20)
        v = w.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(v), v)
        inside = (w > low) & (w < high)
        assert 0 < inside.sum() < 10
        assert g[inside].abs().max() < 1e-6
        assert (g[w == low] >= 0).all() and (g[w == high] <= 0).all()
        assert w.min() == low and w.max() == high

    def test_tensors(self):
        w = nn.Parameter(torch.zeros(2))
        bounds = [torch.tensor([-1.0, -9.0])], [torch.tensor([9.0, 2.0])]
        solver = LBFGS([w], bounds=bounds, line_search="dl4j")

        def closure():
            solver.zero_grad()
            loss = (w - torch.tensor([-5.0, 5.0])).square().sum()
            loss.backward()
            return loss

        for _ in range(5):
            solver.step(closure)
        assert w.tolist() == [-1.0, 2.0]

    def test_errors(self):
        w = nn.Parameter(torch.zeros(2))
        with pytest.raises(ValueError, match="'armijo' or 'dl4j' with bounds"):
            LBFGS([w], bounds=(0, 1))
        with pytest.raises(ValueError, match=r"bounds=...\) must be a pair"):
            LBFGS([w], bounds=3.0, line_search="armijo")

        def closure():
            w.grad = None
            loss = w.sum()
            loss.backward()
            return loss

        for bounds, what in (
            ((1.0, 2.0), "outside of their bounds"),
            ((2.0, 1.0), "must be a pair"),
            ((torch.zeros(3), 1.0), "shapes"),
        ):
            with pytest.raises(ValueError, match=what):
                LBFGS([w], bounds=bounds, line_search="armijo").step(closure)
        assert w.tolist() == [0, 0]


class TestSettings:
    def test_maximize(self):
        loss, minimum, _ = quadratic()

        def make(params):
            return LBFGS(params, maximize=True)

        w, _, _ = solve(make, lambda w: -loss(w), [0.0] * 10, 60)
        torch.testing.assert_close(w, minimum, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_groups(self, solver):
        a, b, c = (nn.Parameter(torch.full((2,), 3.0)) for _ in "abc")
        groups = [
            {"params": [a]},
            {"params": [b], "lr": 0.0},
            {"params": [c], "l2": 2.0, "lr": 0.5},
        ]
        optimizer = solver(groups)

        def closure():
            optimizer.zero_grad()
            loss = (a - 1).square().sum() + b.square().sum() + (c - 1).square().sum()
            loss.backward()
            return loss

        for _ in range(40):
            optimizer.step(closure)
        assert b.tolist() == [3, 3]
        torch.testing.assert_close(a.data, torch.ones(2), rtol=0, atol=1e-3)
        # (c - 1)² + c² has its minimum at 1/2
        torch.testing.assert_close(c.data, torch.full((2,), 0.5), rtol=0, atol=1e-3)

    @pytest.mark.parametrize("solver", EVERY.values(), ids=EVERY)
    def test_decay_beside_the_step_is_refused(self, solver):
        """A penalty belongs to the function; torch's word means something else."""
        w = nn.Parameter(torch.ones(2))
        with pytest.raises(TypeError, match=r"weight_decay=.*write l2="):
            solver([w], weight_decay=0.1)
        with pytest.raises(TypeError, match=r"weight_decay=.* group.*write l2="):
            solver([{"params": [w], "weight_decay": 0.1}])
        optimizer = solver([w])
        state = optimizer.state_dict()
        state["param_groups"][0]["weight_decay"] = 0.1
        with pytest.raises(TypeError, match=r"weight_decay=.* group.*write l2="):
            optimizer.load_state_dict(state)
        with pytest.raises(TypeError, match="momentum"):
            solver([w], momentum=0.9)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_tolerances_end_a_step(self, solver):
        loss, _, _ = quadratic()

        def calls(**tolerance):
            def make(params):
                return solver(params, max_iter=100, **tolerance)

            return len(solve(make, loss, [0.0] * 10, 1)[2])

        all_of_them = calls()
        assert calls(tolerance_grad=1e-1) < all_of_them
        assert calls(tolerance_change=1e-2) < all_of_them

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_resumes_identically(self, solver):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(3, 4), nn.Dropout(0.2), nn.Tanh(), nn.Linear(4, 1)
        )
        batches = torch.randn(8, 16, 3)

        def train(model, optimizer, batches):
            for x in batches:

                def closure(x=x):
                    optimizer.zero_grad()
                    loss = (model(x)[:, 0] - x.prod(1)).square().mean()
                    loss.backward()
                    return loss

                optimizer.step(closure)

        optimizer = solver(model.parameters(), max_iter=2)
        train(model, optimizer, batches[:5])
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        numbers = torch.get_rng_state()
        train(model, optimizer, batches[5:])
        expected = [p.detach().clone() for p in model.parameters()]
        file.seek(0)
        parameters, state = torch.load(file, weights_only=True)
        model.load_state_dict(parameters)
        again = solver(model.parameters(), max_iter=2)
        again.load_state_dict(state)
        torch.set_rng_state(numbers)
        train(model, again, batches[5:])
        for p, q in zip(model.parameters(), expected, strict=True):
            assert torch.equal(p, q)

    @pytest.mark.parametrize(
        "arguments, what",
        [
            ({"history_size": 0}, r"history_size=...\) must be a whole number >= 1"),
            ({"damping": 1.0}, r"damping=...\) must be a number in \[0, 1\)"),
            ({"max_iter": 1.5}, r"max_iter=...\) must be a whole number"),
            ({"max_num_line_search_iterations": 0}, "max_num_line_search_iterations"),
            ({"line_search": "strong_wolf"}, "did you mean 'strong_wolfe'"),
            ({"tolerance_grad": -1.0}, r"tolerance_grad=...\) must be a number >= 0"),
            ({"maximize": 1}, r"maximize=...\) must be True or False"),
        ],
    )
    def test_errors(self, arguments, what):
        with pytest.raises(ValueError, match=what):
            LBFGS([nn.Parameter(torch.ones(2))], **arguments)
        with pytest.raises(ValueError, match=r"ConjugateGradient\(beta=...\) must be"):
            ConjugateGradient([nn.Parameter(torch.ones(2))], beta="prp")
        with pytest.raises(ValueError, match=r"preconditioner=...\) must be one of"):
            ConjugateGradient([nn.Parameter(torch.ones(2))], preconditioner="adam")
