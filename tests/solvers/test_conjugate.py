"""What conjugate directions make of gradients: β, the preconditioner, the length."""

import pytest
import torch

from dl4py.solvers import ConjugateGradient, LineSolver
from dl4py.solvers.directions import Conjugate
from tests.solving import quadratic, rosenbrock, solve


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class TestBeta:
    def test_written_out(self):
        """Every β of one g, g₊ and d, from the formulas in numbers."""
        g, new, d = (torch.tensor(v) for v in ([3.0, -1.0], [1.0, 3.0], [-2.0, 0.5]))
        # y = (-2, 4), d·y = 6, g·g = 10, g₊·g₊ = 10, g₊·y = 10, y·y = 20, d·g₊ = -0.5
        known = {"pr": 1.0, "fr": 1.0, "hs": 10 / 6, "dy": 10 / 6}
        known["hz"] = (10 - 2 * 20 * -0.5 / 6) / 6
        for beta, value in known.items():
            assert Conjugate(beta)._beta(g, new, d, None).item() == pytest.approx(value)

    @pytest.mark.parametrize("beta", Conjugate.betas)
    def test_a_preconditioner_is_a_change_of_variables(self, beta):
        """With z = P^(-1/2)·x the gradients are P^½·g and directions P^(-1/2)·d."""
        direction = Conjugate(beta, powell=0.5)
        values = []
        for seed in range(20):
            torch.manual_seed(seed)
            g, new, d, p = normal(9), normal(9), normal(9), normal(9).exp()
            got = direction._beta(g, new, d, p)
            root = p.sqrt()
            same = direction._beta(root * g, root * new, d / root, None)
            torch.testing.assert_close(got, same, rtol=1e-12, atol=1e-12)
            values.append(got.item())
        assert len(set(values)) > 5

    def test_hager_zhang_is_bounded_below(self):
        """By 0.4·(g·d)/(d·d)."""
        g, d = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 3.0])
        new = torch.tensor([-0.5, 0.1])
        # y = (-1.5, 0.1), d·y = 1.8, y·y = 2.26, y·g₊ = 0.76, d·g₊ = 0.8
        assert (0.76 - 2 * 2.26 * 0.8 / 1.8) / 1.8 < -0.4 / 10
        assert Conjugate("hz")._beta(g, new, d, None).item() == pytest.approx(-0.04)


class TestPreconditioner:
    def test_is_the_root_of_a_running_mean_of_squares(self):
        ends = []

        class Seen(Conjugate):
            def learn(self, taken, memory):
                ends.append(taken.new)
                super().learn(taken, memory)

        def make(params):
            return LineSolver(params, Seen(preconditioner="rms", decay=0.75))

        _, solver, _ = solve(make, rosenbrock, [-1.2, 1.0, 0.5], 4)
        assert len(ends) == 4
        v = ends[0] ** 2
        for g in ends[1:]:
            v = 0.75 * v + 0.25 * g**2
        expected = 1 / (v.sqrt() + 1e-3 * v.sqrt().mean())
        torch.testing.assert_close(solver.memory["p"], expected, rtol=1e-12, atol=0)

    def test_it_evens_out_scales(self):
        """Squares and quartics of 50 parameters, curvatures over four orders."""
        scale = torch.logspace(-2, 2, 50).double()

        def loss(w):
            return (scale * ((w - 1) ** 2 + (w - 1) ** 4)).sum()

        def evaluations(preconditioner):
            def make(params):
                return ConjugateGradient(
                    params, preconditioner=preconditioner, max_iter=20
                )

            _, _, seen = solve(make, loss, [3.0] * 50, 40)
            return next(i for i, value in enumerate(seen) if value < 1e-6)

        assert 10 * evaluations("rms") < evaluations(None)

    @pytest.mark.parametrize("factor", [1e-4, 1e12])
    def test_any_unit_of_the_loss(self, factor):
        loss, minimum, _ = quadratic(n=6)

        def make(params):
            return ConjugateGradient(params, max_iter=20)

        start = [0.0] * 6
        w, _, _ = solve(make, lambda w: factor * loss(w), start, 40, torch.float32)
        torch.testing.assert_close(w, minimum.float(), rtol=0, atol=2e-3)

    @pytest.mark.parametrize("size", [1e-30, 1e-20, 1e15])
    def test_squares_that_are_no_float32(self, size):
        memory = {}
        Conjugate()._rescale(torch.tensor([size, 0.0, -2 * size]), memory)
        assert memory["p"].isfinite().all() and (memory["p"] > 0).all()

    @pytest.mark.parametrize("before, after", [(None, "rms"), ("rms", None)])
    def test_a_checkpoint_of_the_other_kind(self, before, after):
        def make(preconditioner):
            return lambda params: ConjugateGradient(
                params, preconditioner=preconditioner, max_iter=5
            )

        w, solver, _ = solve(make(before), rosenbrock, [-1.2, 1.0], 1)
        state = solver.state_dict()

        def resumed(params):
            other = make(after)(params)
            other.load_state_dict(state)
            return other

        w, _, seen = solve(resumed, rosenbrock, w.tolist(), 20)
        assert rosenbrock(w) < 1e-12 and seen[0] > 1e-3

    def test_decay_is_a_share(self):
        with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1.0"):
            Conjugate(preconditioner="rms", decay=1.0)

    def test_parameters_that_nothing_depends_on(self):
        def make(params):
            return ConjugateGradient(params, max_iter=20)

        w, _, _ = solve(make, lambda w: rosenbrock(w[:2]), [-1.2, 1.0, 7.0], 20)
        assert w[2] == 7.0
        torch.testing.assert_close(w[:2], torch.ones(2).double(), rtol=0, atol=1e-6)


def test_the_length_of_a_step_recovers():
    """d was long and is short again: the next step may be as long as the last one."""
    direction = Conjugate("hz")
    g = torch.tensor([0.0, 1.0])
    memory = {
        "d": torch.tensor([0.0, -1000.0]),
        "beta": torch.tensor(0.0),
        "length": torch.tensor(1e-3),
        "slope": torch.tensor(-1000.0),
    }
    assert direction.at(g, 1.0, memory).tolist() == pytest.approx([0.0, -1.0])
    memory["slope"] *= 1e4
    assert direction.at(g, 1.0, memory).tolist() == pytest.approx([0.0, -2.0])
