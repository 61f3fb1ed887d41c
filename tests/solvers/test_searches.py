"""What line searches promise of the points that they accept, and what they cost."""

import pytest
import torch

from dl4py.solvers import ConjugateGradient
from dl4py.solvers.searches import Armijo
from dl4py.solvers.wolfe import HagerZhang, StrongWolfe
from tests.solving import quadratic, rosenbrock, solve


class TestConditions:
    def accepted(self, cls, **arguments):
        seen = []

        class Seen(cls):
            def accepts(self, line, point):
                good = super().accepts(line, point)
                if good:
                    seen.append((line.loss, line.slope, point))
                return good

        def make(params):
            return ConjugateGradient(params, line_search=Seen(**arguments))

        solve(make, rosenbrock, [-1.2, 1.0, 0.5, -2.0], 40)
        assert len(seen) == 40
        return seen

    @pytest.mark.parametrize("probe", [False, True])
    @pytest.mark.parametrize("c2", [0.1, 0.9])
    def test_strong_wolfe(self, c2, probe):
        for loss, slope, point in self.accepted(StrongWolfe, c2=c2, probe=probe):
            assert point.loss <= loss + 1e-4 * point.step * slope
            assert abs(point.slope) <= c2 * abs(slope)

    def test_hager_zhang(self):
        for loss, slope, point in self.accepted(HagerZhang, sigma=0.3):
            assert point.slope >= 0.3 * slope
            fell = point.loss <= loss + 0.1 * point.step * slope
            flat = point.loss <= loss * (1 + 1e-6) and point.slope <= -0.8 * slope
            assert fell or flat

    def test_armijo(self):
        for loss, slope, point in self.accepted(Armijo, c1=0.3):
            assert point.loss <= loss + 0.3 * point.step * slope


class TestProbe:
    """A value before the first gradient of a line."""

    def run(self, loss, start, steps, dtype=torch.float64):
        """The solution; w and whether a gradient was wanted, at every evaluation."""
        seen = []

        def watched(w):
            seen.append((w.detach().clone(), torch.is_grad_enabled()))
            return loss(w)

        def make(params):
            return ConjugateGradient(params, preconditioner=None)

        w, _, _ = solve(make, watched, start, steps, dtype)
        return w, seen

    def test_a_value_and_a_gradient_meet_the_minimum_of_a_parabola(self):
        loss, minimum, _ = quadratic(n=6)
        w, seen = self.run(loss, [0.0] * 6, 6)
        torch.testing.assert_close(w, minimum, rtol=0, atol=1e-6)
        assert [gradient for _, gradient in seen] == [True, False, True] * 6

    def test_a_line_that_leaves_the_domain(self):
        """100·w - log(w): the first step is 1 long, to where there is no logarithm."""
        w, seen = self.run(lambda w: (100 * w - w.log()).sum(), [0.5], 12)
        assert seen[1][0] < 0 and not seen[1][1]
        torch.testing.assert_close(w, torch.full_like(w, 0.01), rtol=1e-6, atol=0)

    def test_a_line_that_only_falls(self):
        w, seen = self.run(lambda w: -w.square().sum(), [0.1], 1)
        assert w.item() == max(w.item() for w, _ in seen) > 1e3

    def test_rounding_is_no_parabola(self):
        """The loss is 1e6 to the last digit: the first gradient is at 1 as well."""

        def loss(w):
            return 1e6 + 1e-3 * (w - 1).square().sum()

        _, seen = self.run(loss, [3.0, -1.0], 1, torch.float32)
        assert len(seen) >= 3 and torch.equal(seen[1][0], seen[2][0])
