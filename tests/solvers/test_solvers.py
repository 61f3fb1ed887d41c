"""Every direction with every search: known minima, bad functions, what is read."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dl4py import updaters
from dl4py.registry import DIRECTIONS, SEARCHES
from dl4py.solvers import LBFGS, ConjugateGradient, LineGradientDescent, LineSolver
from dl4py.solvers.directions import LimitedMemory, Taken
from dl4py.solvers.problem import Problem
from dl4py.solvers.wolfe import StrongWolfe
from tests.solving import SOLVERS, quadratic, rosenbrock, solve

BETAS = ["pr", "fr", "hs", "dy", "hz"]
STRAIGHT = [n for n in SEARCHES if SEARCHES[n].straight]
BACKTRACKING = [n for n in SEARCHES if n not in STRAIGHT and not SEARCHES[n].blind]


class TestCombinations:
    @pytest.mark.parametrize("search", list(SEARCHES))
    @pytest.mark.parametrize("direction", list(DIRECTIONS))
    def test_quadratic(self, direction, search):
        if direction == "conjugate" and SEARCHES[search].blind:
            pytest.skip("conjugate directions need a search")
        loss, minimum, a = quadratic()
        chosen = DIRECTIONS[direction]()
        rate = 1.0
        if direction == "steepest" and SEARCHES[search].blind:
            rate = 2 / 31  # 2 / (smallest + largest eigenvalue)

        def make(params):
            return LineSolver(params, chosen, lr=rate, line_search=search)

        steps = 60 if direction == "lbfgs" else 300
        w, _, _ = solve(make, loss, [0.0] * 10, steps)
        torch.testing.assert_close(w, minimum, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize("search", STRAIGHT)
    def test_every_beta_on_rosenbrock(self, beta, search):
        def make(params):
            return ConjugateGradient(params, beta=beta, line_search=search, max_iter=20)

        w, _, _ = solve(make, rosenbrock, [-1.2, 1.0], 30)
        torch.testing.assert_close(w, torch.ones(2).double(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("search", [n for n in SEARCHES if n != "fixed"])
    def test_lbfgs_on_rosenbrock(self, search):
        def make(params):
            return LBFGS(params, line_search=search, max_iter=20)

        w, _, _ = solve(make, rosenbrock, [-1.2, 1.0], 5)
        assert rosenbrock(w) < 1e-20
        w, _, seen = solve(make, rosenbrock, [-1.2, 1.0] * 50, 40)
        assert min(seen) < 1e-16 and len(seen) < 1500

    def test_conjugate_gradients_end_after_n_steps(self):
        """On a quadratic with exact searches the n-th step meets the minimum."""
        loss, minimum, _ = quadratic(n=6)

        def make(params):
            exact = StrongWolfe(c2=1e-8)
            return ConjugateGradient(params, line_search=exact, preconditioner=None)

        w, _, _ = solve(make, loss, [0.0] * 6, 6)
        torch.testing.assert_close(w, minimum, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_names(self, solver):
        name = {"LBFGS": "LBFGS", "ConjugateGradient": "CONJUGATE_GRADIENT"}
        key = name.get(solver.__name__, "LINE_GRADIENT_DESCENT")
        assert updaters.get(key) is solver

    def test_the_contract(self):
        LBFGS(
            [nn.Parameter(torch.ones(1))],
            lr=1.0,
            history_size=4,
            line_search="dl4j",
            max_num_line_search_iterations=5,
            max_iter=1,
        )

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("name", ["armijo", "strong_wolfe"])
    def test_never_worse(self, solver, name):
        losses = []

        def make(params):
            return solver(params, line_search=name)

        def f(w):
            return torch.cos(3 * w).sum() + 0.1 * w.square().sum() + rosenbrock(w)

        _, _, seen = solve(make, lambda w: f(w), [0.3, -0.7, 2.0], 15)
        w = nn.Parameter(torch.tensor([0.3, -0.7, 2.0]).double())
        optimizer = make([w])

        def closure():
            optimizer.zero_grad()
            value = f(w)
            value.backward()
            return value

        for _ in range(15):
            losses.append(optimizer.step(closure).item())
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


class TestLimitedMemory:
    def dense(self, pairs):
        """H from the BFGS formula, pair by pair, in NumPy."""
        s, y = pairs[-1]
        n = len(s)
        h = (s @ y) / (y @ y) * np.eye(n)
        for s, y in pairs:
            rho = 1 / (s @ y)
            v = np.eye(n) - rho * np.outer(y, s)
            h = v.T @ h @ v + rho * np.outer(s, s)
        return h

    @pytest.mark.parametrize(
        ("history", "count"),
        [(4, n) for n in (1, 3, 4, 7, 12)] + [(20, n) for n in (8, 9, 17, 26, 40)],
    )
    def test_equals_bfgs(self, history, count):
        rng = np.random.default_rng(count)
        size = 2 * history + 1
        a = rng.normal(size=(size, size))
        a = a @ a.T + np.eye(size)
        pairs = [(s, a @ s) for s in rng.normal(size=(count, size))]
        direction, memory = LimitedMemory(history), {}
        g = torch.zeros(size).double()
        for s, y in pairs:
            s, y = torch.tensor(s), torch.tensor(y)
            direction.learn(
                Taken(s, 1.0, 1.0, s, g, y, (s @ y).item(), 0.0, 0.0), memory
            )
        g = torch.tensor(rng.normal(size=size))
        expected = -self.dense(pairs[-history:]) @ g.numpy()
        d = direction.at(g, 1.0, memory)
        np.testing.assert_allclose(d.numpy(), expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize(("before", "after"), [(20, 4), (4, 20), (3, 5)])
    def test_a_checkpoint_of_another_history(self, before, after):
        rng = np.random.default_rng(before)
        pairs = [(s, 2 * s + 0.1 * s[::-1]) for s in rng.normal(size=(60, 41))]
        g, memory = torch.tensor(rng.normal(size=41)), {}
        zero = torch.zeros(41).double()
        for i, (s, y) in enumerate(pairs):
            direction = LimitedMemory(before if i < 30 else after)
            s, y = torch.tensor(s), torch.tensor(y)
            taken = Taken(s, 1.0, 1.0, s, zero, y, (s @ y).item(), 0.0, 0.0)
            if i >= 30:
                known = min(after, before + i - 30)
                expected = -self.dense(pairs[i - known : i]) @ g.numpy()
                d = direction.at(g, 1.0, memory).numpy()
                np.testing.assert_allclose(d, expected, rtol=1e-10, atol=1e-12)
            direction.learn(taken, memory)

    def test_pairs_kept_by_default(self):
        direction, memory = LimitedMemory(), {}
        for i in range(130):
            s = torch.eye(140)[i]
            direction.learn(Taken(s, 1.0, 1.0, s, 0 * s, s, 1.0, 0.0, 0.0), memory)
        g = torch.ones(140)
        # on pairs of the identity H is the identity, off them γ = 1 too
        torch.testing.assert_close(direction.at(g, 140.0, memory), -g)
        assert memory["count"] == 130 and len(memory["pairs"]) == 125

    @pytest.mark.parametrize("history", [1, 4, 7, 100])
    def test_pairs_that_are_not_there_yet_take_no_memory(self, history):
        direction, memory = LimitedMemory(history), {}
        for i in range(30):
            s = torch.eye(50)[i]
            direction.learn(Taken(s, 1.0, 1.0, s, 0 * s, s, 1.0, 0.0, 0.0), memory)
            held = len(memory["pairs"])
            assert held <= max(8, 2 * (i + 1)) and held <= history + max(1, history / 4)

    def test_pairs_are_of_one_batch(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 1).double()
        solver = LBFGS(model.parameters())
        batches = [
            (torch.randn(8, 3).double(), torch.randn(8, 1).double()) for _ in "ab"
        ]

        def gradient(x, y):
            model.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            return torch.cat([p.grad.reshape(-1) for p in model.parameters()])

        def flat():
            return nn.utils.parameters_to_vector(model.parameters()).detach().clone()

        for i, (x, y) in enumerate(batches):

            def closure(x=x, y=y):
                solver.zero_grad()
                loss = nn.functional.mse_loss(model(x), y)
                loss.backward()
                return loss

            before, old = flat(), gradient(x, y)
            solver.step(closure)
            s, change = solver.memory["pairs"][i]
            torch.testing.assert_close(s, flat() - before)
            torch.testing.assert_close(change, gradient(x, y) - old)

    def test_negative_curvature_is_damped_or_left_out(self):
        torch.manual_seed(0)
        s = torch.randn(5).double()
        g = torch.randn(5).double()
        if s @ g > 0:
            s = -s
        good = Taken(
            s, 1.0, 1.0, s, g, g + 2 * s, (2 * s @ s).item(), (g @ s).item(), 0
        )
        bad = copy.copy(good)
        bad.new, bad.sy = g - s, -(s @ s).item()
        plain, memory = LimitedMemory(damping=0.0), {}
        plain.learn(bad, memory)
        assert memory == {}
        plain.learn(good, memory)
        plain.learn(bad, memory)
        assert memory["count"] == 1
        damped = LimitedMemory()
        damped.learn(bad, memory)
        s, y = memory["pairs"][1]
        torch.testing.assert_close(s @ y, -0.2 * g @ s)  # t = 1: sᵀBs = -g·s


class Reads(TorchDispatchMode):
    """Counts what waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


class TestCost:
    @pytest.mark.parametrize("search", list(SEARCHES))
    @pytest.mark.parametrize("solver", SOLVERS)
    def test_one_read_for_an_evaluation(self, solver, search, monkeypatch):
        if solver is ConjugateGradient and search == "fixed":
            pytest.skip("conjugate directions need a search")
        w = nn.Parameter(torch.tensor([-1.2, 1.0] * 5))
        optimizer = solver([w], lr=1e-3 if search == "fixed" else 1.0,
                           line_search=search, max_iter=7)  # fmt: skip
        calls = reads = 0
        original = Problem.read

        def read(self, *numbers):
            nonlocal reads
            reads += 1
            return original(self, *numbers)

        monkeypatch.setattr(Problem, "read", read)

        def closure():
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = rosenbrock(w)
            loss.backward()
            return loss

        with Reads() as scalars:
            for _ in range(3):
                optimizer.step(closure)
        assert calls > 10
        assert reads + scalars.count <= calls

    @pytest.mark.parametrize("search", BACKTRACKING)
    def test_trials_of_descent_have_no_gradient(self, search):
        w = nn.Parameter(torch.tensor([-1.2, 1.0]))
        optimizer = LineGradientDescent([w], line_search=search)
        graphs = []

        def closure():
            optimizer.zero_grad()
            loss = rosenbrock(w)
            graphs.append(loss.requires_grad)
            loss.backward()
            return loss

        optimizer.step(closure)
        assert len(graphs) > 3 and graphs.count(True) == 1

    @pytest.mark.parametrize("name", [n for n in SEARCHES if n != "fixed"])
    def test_iterations_are_a_limit(self, name):
        def make(params):
            return LBFGS(params, line_search=name, max_num_line_search_iterations=2)

        _, _, seen = solve(make, rosenbrock, [-1.2, 1.0], 1)
        assert len(seen) <= 1 + 2 + 1  # the last one for the gradient of a pair


class TestBadFunctions:
    @pytest.mark.parametrize("search", [n for n in SEARCHES if n != "fixed"])
    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("rate, last", [(10.0, 8.0), (20.0, 20.0)])
    def test_not_finite_beyond(self, solver, search, rate, last):
        def barrier(w):  # NaN where w < 0, inf at 0, the minimum at 1
            return (w - w.log()).sum() * 40

        def make(params):
            return solver(params, lr=rate, line_search=search,
                          max_num_line_search_iterations=25)  # fmt: skip

        w, optimizer, seen = solve(make, barrier, [0.3, 3.0, last], 60)
        assert not np.isfinite(seen).all()
        torch.testing.assert_close(w, torch.ones(3).double(), rtol=0, atol=1e-4)
        for value in optimizer.memory.values():
            assert torch.as_tensor(value, dtype=torch.float64).isfinite().all()

    def test_a_blind_step_to_nowhere_teaches_nothing(self):
        def make(params):
            return LBFGS(params, lr=100.0, line_search="fixed")

        w, optimizer, _ = solve(make, lambda w: (w - w.log()).sum(), [0.3, 3.0], 1)
        assert "pairs" not in optimizer.memory

    @pytest.mark.parametrize("solver", [ConjugateGradient, LBFGS])
    @pytest.mark.parametrize("poison", [1e30, float("nan"), -1.0])
    def test_wrong_memory_is_dropped(self, solver, poison):
        loss, minimum, _ = quadratic()
        w = nn.Parameter(torch.zeros(10).double())
        optimizer = solver([w])

        def closure():
            optimizer.zero_grad()
            value = loss(w)
            value.backward()
            return value

        for _ in range(3):
            optimizer.step(closure)
        for value in optimizer.memory.values():
            if isinstance(value, torch.Tensor):
                value.mul_(poison)
        before = closure().item()
        optimizer.step(closure)
        assert closure().item() < before

    def test_plateau_and_saddle(self):
        w, _, seen = solve(
            LBFGS, lambda w: w[0] ** 2 - w[0].detach() ** 2 + 1, [2.0], 3
        )
        assert w.isfinite().all() and len(seen) < 200

    def test_slopes_where_rounding_hides_differences(self):
        """float32, φ ≈ 1e4: differences below 1e-3 are rounding."""
        _, minimum, a = quadratic(condition=10.0)

        def loss(w):
            e = w - minimum.float()
            return 1e4 + 0.5 * e @ a.float() @ e

        def error(search):
            def make(params):
                return LBFGS(params, line_search=search, max_iter=10)

            w, _, _ = solve(make, loss, [0.0] * 10, 5, torch.float32)
            return (w - minimum.float()).abs().max().item()

        assert error("hager_zhang") < 1e-5 < error("armijo")
