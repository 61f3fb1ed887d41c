"""Every updater: its formula, its kernels, and what only some of them have."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dl4py import updaters
from dl4py.ops import steps
from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Exponential, Map
from dl4py.solvers import Solver
from dl4py.updaters import adam
from tests.references import updaters as reference
from tests.updating import (
    OTHER,
    SHAPES,
    assert_near,
    gradients,
    hyper,
    make_params,
    run,
    same,
    train,
    values,
)


@pytest.fixture
def formula(cls):
    return getattr(reference, UPDATERS.entry_of(cls).key)


class TestUpdater:
    @pytest.mark.parametrize("layout", ["dense", "strided"])
    @pytest.mark.parametrize(
        "dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-6)]
    )
    def test_equals_reference(self, cls, formula, dtype, rtol, layout):
        g = gradients(12, dtype=dtype)
        ours, state = run(cls, g, layout=layout, **hyper(cls))
        theirs, their_state = formula(g.double().numpy(), **hyper(cls))
        for u, expected in zip(ours, theirs, strict=True):
            assert_near(u, expected, rtol)
        for s, expected in zip(state, their_state, strict=True):
            assert s.dtype == dtype and s.shape == g[0].shape
            assert_near(s, expected, rtol)

    @pytest.mark.parametrize("private", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_kernels_equal_formulas(self, cls, monkeypatch, dtype, private):
        """On tensors of all sizes at once, in more than one step and thread."""
        shapes = [*SHAPES, (257,), (3, 40_000), (1, 1), (100, 100)]
        kernels, formulas = (
            cls(make_params(dtype, shapes), **hyper(cls)) for _ in "kf"
        )
        train(kernels, 3)
        with monkeypatch.context() as patch:
            patch.setattr(steps, "_compiling", lambda: True)
            if not private:
                patch.setattr(adam, "PRIVATE", ("_no_such_kernel_",))
            train(formulas, 3)
        rtol = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 2**-7)
        for a, b in zip(values(kernels), values(formulas), strict=True):
            # the parameters are of size 1: a few roundings of that where they cancel
            torch.testing.assert_close(a, b, rtol=rtol, atol=min(rtol, 5e-7))
        for p, q in zip(kernels.state, formulas.state, strict=True):
            for name in cls.state_names:
                s, t = kernels.state[p][name], formulas.state[q][name]
                assert s.dtype == t.dtype == steps.state_dtype(p)
                torch.testing.assert_close(s, t, rtol=2e-6, atol=2e-6)

    def test_layouts_that_differ(self, cls):
        """Gradients and states need not lie in memory as their parameter does."""
        shape, results = (3, 4, 5, 6), []
        last = torch.channels_last
        for of_p, of_g in ((None, None), (last, last), (last, None), (None, last)):
            start, g = gradients(1, shape)[0], gradients(1, shape, seed=1)[0]
            p = nn.Parameter(start.contiguous(memory_format=of_p) if of_p else start)
            p.grad = g.contiguous(memory_format=of_g) if of_g else g
            updater = cls([p], **hyper(cls))
            for _ in range(2):
                updater.step()
            assert of_p is None or p.is_contiguous(memory_format=of_p)
            results.append(p.detach().contiguous())
        row = nn.Parameter(gradients(1, shape)[0])
        row.grad = gradients(1, (6,), seed=1)[0].expand(shape)
        cls([row], **hyper(cls)).step()
        whole = nn.Parameter(gradients(1, shape)[0])
        whole.grad = row.grad.clone()
        cls([whole], **hyper(cls)).step()
        assert torch.equal(row, whole)
        for other in results[1:]:
            torch.testing.assert_close(other, results[0], rtol=1e-14, atol=1e-15)

    def test_half_parameters_keep_float32_states(self, cls):
        whole = cls(make_params(torch.bfloat16), **hyper(cls))
        train(whole, 3)
        copied = [nn.Parameter(p.detach().clone()) for p in whole.state]
        if not copied:
            copied = [nn.Parameter(p) for p in values(whole)]
        resumed = cls(copied, **hyper(cls))
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        for p, q in zip(whole.state, resumed.state, strict=True):
            for name in cls.state_names:
                assert whole.state[p][name].dtype == torch.float32
                assert torch.equal(whole.state[p][name], resumed.state[q][name])

    def test_default_arguments_differ_from_the_tested_ones(self, cls):
        assert all(parameters(cls)[name] != OTHER[name] for name in parameters(cls))

    def test_many_parameters(self, cls):
        """All parameters at once, of mixed dtypes, move as each alone."""
        mixed = [
            *make_params(),
            *make_params(torch.float32),
            *make_params(torch.bfloat16),
        ]
        alone = copy.deepcopy(mixed)
        together = cls(mixed, **hyper(cls))
        train(together, 4)
        for i, p in enumerate(alone):
            single = cls([p], **hyper(cls))
            for step in range(4):
                g = gradients(1, tuple(p.shape), p.dtype, 100 * step + i)[0]
                p.grad = g.to(p.device)
                single.step()
        for p, q in zip(values(together), alone, strict=True):
            assert torch.equal(p, q.detach()) and p.dtype == q.dtype


class TestItems:
    def test_private_kernels_exist(self):
        assert all(callable(getattr(torch, name)) for name in adam.PRIVATE)

    @pytest.mark.parametrize("steps", [1, 2, 7])
    def test_exact_float32_rounds_as_dl4j(self, steps):
        """DL4J computes β^(t+1) in float32, which moves 1 - β₂^(t+1) by 1e-5."""
        g = gradients(steps, (50,), torch.float32)
        exact, state = run(updaters.Adam, g, dl4j_exact=True)
        _, plain = run(updaters.Adam, g)
        one, b1, b2 = np.float64(1), np.float32(0.9), np.float32(0.999)
        powers = [np.float32(np.float64(b) ** steps) for b in (b1, b2)]
        rate = np.float32(1e-3) * np.sqrt(one - powers[1]) / (one - powers[0])
        m, v = (s.double().numpy() for s in state)
        expected = rate * m / (np.sqrt(v) + np.float32(1e-8))
        np.testing.assert_allclose(exact[-1].double().numpy(), expected, rtol=1e-6)
        rounded = reference.adam(g.double().numpy(), 1e-3, float(b1), float(b2), 1e-8)
        np.testing.assert_allclose(v, rounded[1][1], rtol=1e-6)
        assert not torch.allclose(state[1], plain[1], rtol=5e-6, atol=0)

    def test_momentum_schedule(self):
        moved = updaters.Nesterovs(make_params(), momentum=Map({0: 0.5, 2: 0.9}))
        by_hand = updaters.Nesterovs(make_params(), momentum=0.5)
        train(moved, 2)
        train(by_hand, 2)
        by_hand.param_groups[0]["momentum"] = 0.9
        train(moved, 2, first=2)
        train(by_hand, 2, first=2)
        assert same(values(moved), values(by_hand))

    def test_zero_in_a_map_differs_too(self):
        frozen_first = updaters.Adam(make_params(), lr=Map({0: 0.0, 5: 0.1}))
        assert "epsilon" in frozen_first.differs()
        assert updaters.Adam(make_params(), lr=Exponential(0.1, 0.9)).differs() is None

    def test_one_group_may_be_exact(self):
        a, b = make_params(shapes=[(3,), (3,)])
        groups = [{"params": [a], "dl4j_exact": True}, {"params": [b]}]
        updater = updaters.Adam(groups, lr=0.0)
        before = values(updater)
        train(updater, 1)
        after = values(updater)
        assert not torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])

    def test_named_parameters(self):
        model = nn.Linear(3, 2)
        updater = updaters.Adam(model.named_parameters(), lr=0.1)
        train(updater, 2)
        names = updater.state_dict()["param_groups"][0]["param_names"]
        assert names == ["weight", "bias"]

    def test_apply_is_the_step(self):
        """What a network's own optimizer calls."""
        p, g = torch.zeros(3), torch.ones(3)
        numbers = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
        state = {k: [v] for k, v in updaters.Adam.initial_state(p, numbers).items()}
        updaters.Adam.apply_([p], [g], state, numbers, iteration=0)
        torch.testing.assert_close(p, torch.full((3,), -0.1), rtol=1e-5, atol=0)

    @pytest.mark.parametrize(
        "name, cls",
        [
            ("NONE", updaters.NoOp),
            ("NO_OP", updaters.NoOp),
            ("RMSPROP", updaters.RmsProp),
            ("ams_grad", updaters.AMSGrad),
            ("org.nd4j.linalg.learning.config.Adam".rpartition(".")[2], updaters.Adam),
            (torch.optim.RAdam, torch.optim.RAdam),
            (updaters.Adam, updaters.Adam),
        ],
    )
    def test_get(self, name, cls):
        assert updaters.get(name) is cls

    def test_get_keeps_arguments(self):
        factory = functools.partial(torch.optim.SGD, lr=0.1)
        assert updaters.get(factory) is factory

    @pytest.mark.parametrize(
        "name", ["CONJUGATE_GRADIENT", "LBFGS", "LineGradientDescent"]
    )
    def test_solvers_have_names_here_too(self, name):
        assert issubclass(updaters.get(name), Solver)

    def test_get_refuses(self):
        with pytest.raises(ValueError, match="did you mean 'nesterovs'"):
            updaters.get("nestorovs")
        for bad in (0.1, nn.Linear, Tensor.add_):
            with pytest.raises(TypeError, match="an updater's name or an optimizer"):
                updaters.get(bad)
