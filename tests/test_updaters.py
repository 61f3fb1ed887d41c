"""Every updater: its formula, DL4J's own updates, and its life as a torch optimizer."""

from __future__ import annotations

import copy
import functools
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dl4py import updaters
from dl4py.ops import steps
from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Exponential, Fixed, Map, Poly, Step
from dl4py.solvers import Solver
from dl4py.updaters import adam
from tests import golden
from tests.references import updaters as reference

NAMES = [n for n in UPDATERS if UPDATERS[n].__module__.startswith("dl4py.updaters.")]
BIASED = ["adam", "amsgrad", "adamax", "adabelief"]  # step by ε where the rate is 0
SHAPES = [(5, 4), (3,), (), (2, 0), (2, 3, 2)]
OTHER = {"lr": 0.03, "momentum": 0.6, "beta1": 0.8, "beta2": 0.97, "rho": 0.9}
OTHER |= {"rms_decay": 0.85, "epsilon": 1e-4}
GOLDEN = golden.load("updaters")


def gradients(steps, shape=(5, 4), dtype=torch.float64, seed=0):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


def make_params(dtype=torch.float64, shapes=SHAPES, seed=5):
    return [
        nn.Parameter(gradients(1, s, dtype, seed + i)[0]) for i, s in enumerate(shapes)
    ]


def train(updater, steps, first=0):
    """``steps`` updates with gradients that depend on the step only."""
    for step in range(first, first + steps):
        for group in updater.param_groups:
            for i, p in enumerate(group["params"]):
                g = gradients(1, tuple(p.shape), p.dtype, 100 * step + i)[0]
                p.grad = g.to(p.device)
        updater.step()


def values(updater):
    return [p.detach().clone() for g in updater.param_groups for p in g["params"]]


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def state_of(updater):
    return {p: dict(s) for p, s in updater.state.items()}


def hyper(cls):
    return {name: OTHER[name] for name in parameters(cls)}


def run(cls, g, dl4j_exact=False, layout=None, **args):
    """The updates and the final state after the gradients ``g``."""
    p = nn.Parameter(torch.zeros_like(g[0]))
    if layout == "strided":
        p = nn.Parameter(torch.zeros(*g.shape[1:], 2, dtype=g.dtype)[..., 0])
    updater = cls([p], dl4j_exact=dl4j_exact, **args)
    updates = []
    for x in g:
        p.data.zero_()
        p.grad = x.clone()
        updater.step()
        assert torch.equal(p.grad, x)
        updates.append(-p.detach().clone())
    return torch.stack(updates), [updater.state[p][name] for name in cls.state_names]


def assert_near(ours, theirs, rtol):
    theirs = np.asarray(theirs)
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours.double().numpy(), theirs, rtol=0, atol=rtol * scale)


@pytest.fixture(params=NAMES)
def cls(request):
    return updaters.get(request.param)


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

    def test_without_gradient_nothing_happens(self, cls):
        with_grad, without = make_params(shapes=[(3,), (3,)])
        before = without.detach().clone()
        updater = cls([with_grad, without])
        with_grad.grad = torch.ones(3, dtype=torch.float64)
        updater.step()
        assert torch.equal(without.detach(), before) and without not in updater.state
        assert (with_grad in updater.state) == bool(cls.state_names)
        with_grad.grad = None
        updater.step()
        assert updater.iteration == 2

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_zero_gradients_move_nothing(self, cls, dtype):
        updates, state = run(cls, torch.zeros(3, 4, dtype=dtype))
        assert not updates.any()
        assert all(s.isfinite().all() for s in state)

    def test_maximize(self, cls):
        up, down = (cls(make_params(), maximize=m, **hyper(cls)) for m in (True, False))
        train(up, 3)
        for p in down.param_groups[0]["params"]:
            p.data.neg_()
        train(down, 3)
        # u is odd in g: uphill from p is the mirror image of downhill from -p
        for p, q in zip(values(up), values(down), strict=True):
            torch.testing.assert_close(p, -q, rtol=1e-12, atol=1e-15)

    def test_closure(self, cls):
        p = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
        q = nn.Parameter(p.detach().clone())
        by_closure, by_hand = cls([p]), cls([q])

        def closure():
            by_closure.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        for _ in range(3):
            expected = (q**2).sum()
            q.grad = 2 * q.detach()
            assert by_closure.step(closure) == expected
            assert by_hand.step() is None
            torch.testing.assert_close(p, q, rtol=1e-14, atol=0)
        assert p.requires_grad and by_closure.iteration == 3

    def test_groups(self, cls):
        if not parameters(cls):
            pytest.skip("has nothing that a group could set")
        name = next(iter(parameters(cls)))
        a, b = make_params(shapes=[(4,), (4,)])
        updater = cls([{"params": [a]}, {"params": b, name: OTHER[name]}])
        train(updater, 3)
        for p, seed, args in ((a, 5, {}), (b, 6, {name: OTHER[name]})):
            alone = cls([nn.Parameter(gradients(1, (4,), seed=seed)[0])], **args)
            train(alone, 3)
            assert torch.equal(values(alone)[0], p.detach())

    def test_added_group_joins_in(self, cls):
        updater = cls(make_params(shapes=[(3,)]))
        train(updater, 3)
        updater.epoch = 2
        late = make_params(shapes=[(2,)])[0]
        updater.add_param_group({"params": [late]})
        assert updater.param_groups[1]["iteration"] == 3
        assert updater.param_groups[1]["epoch"] == 2
        train(updater, 1)
        assert [g["iteration"] for g in updater.param_groups] == [4, 4]

    @pytest.mark.parametrize("how", ["file", "pickle", "deepcopy"])
    def test_resumes(self, cls, how):
        arguments = hyper(cls)
        if "lr" in arguments:
            arguments["lr"] = Exponential(0.3, 0.8)
        whole = cls(make_params(), **arguments)
        train(whole, 5)
        whole.epoch = 3
        if how == "file":
            file = io.BytesIO()
            torch.save(whole.state_dict(), file)
            file.seek(0)
            resumed = cls([nn.Parameter(p) for p in values(whole)], **arguments)
            resumed.load_state_dict(torch.load(file, weights_only=True))
        elif how == "pickle":
            resumed = pickle.loads(pickle.dumps(whole))
        else:
            resumed = copy.deepcopy(whole)
        assert (resumed.iteration, resumed.epoch) == (5, 3)
        train(whole, 3, first=5)
        train(resumed, 3, first=5)
        assert same(values(whole), values(resumed))

    def test_refuses_other_states(self, cls):
        updater = cls(make_params())
        foreign = torch.optim.Adagrad(make_params()).state_dict()
        with pytest.raises(ValueError, match=r"param_groups\[0\] lacks .*dl4j_exact"):
            updater.load_state_dict(foreign)
        if "lr" in parameters(cls):
            scheduled = cls(make_params(), lr=Exponential(0.3, 0.8)).state_dict()
            with pytest.raises(ValueError, match="saved with a schedule for lr"):
                updater.load_state_dict(scheduled)

    def test_schedule_by_iteration(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        schedule = Step(0.2, 0.5, 2)
        scheduled = cls(make_params(), lr=schedule)
        by_hand = cls(make_params(), lr=1.0)
        for step in range(5):
            by_hand.param_groups[0]["lr"] = schedule(step)
            train(scheduled, 1, first=step)
            train(by_hand, 1, first=step)
            assert scheduled.param_groups[0]["lr"] == schedule(step)
        assert same(values(scheduled), values(by_hand))

    def test_schedule_by_epoch(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        updater = cls(make_params(), lr=Map({0: 0.2, 2: 0.01}, by="epoch"))
        rates = []
        for epoch in range(4):
            updater.epoch = epoch
            train(updater, 2)
            rates.append(updater.param_groups[0]["lr"])
        assert rates == [0.2, 0.2, 0.01, 0.01]

    def test_torch_schedulers_drive_it(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        p, q = make_params(shapes=[(3,)])[0], make_params(shapes=[(3,)])[0]
        ours, theirs = cls([p], lr=Exponential(0.4, 0.5)), cls([q], lr=0.4)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
        for step in range(4):
            train(ours, 1, first=step)
            train(theirs, 1, first=step)
            scheduler.step()
        assert torch.equal(p.detach(), q.detach())

    def test_zero_rate_freezes_by_default_only(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        assert cls(make_params(), lr=0.1).differs() is None
        for exact in (False, True):
            updater = cls(make_params(), lr=0.0, dl4j_exact=exact)
            before = values(updater)
            train(updater, 2)
            moved = not same(before, values(updater))
            assert moved == (exact and updater.differs() is not None)
        assert (updater.differs() is not None) == (UPDATERS.entry_of(cls).key in BIASED)

    def test_schedule_faults_are_named(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        poly = Poly(0.1, 1.0, 10)
        default, exact = (
            cls(make_params(), lr=poly, dl4j_exact=e) for e in (False, True)
        )
        train(default, 6)
        train(exact, 6)
        assert default.param_groups[0]["lr"] == pytest.approx(0.05)
        assert exact.param_groups[0]["lr"] == pytest.approx(0.15)
        assert poly.differs() in (default.differs(), exact.differs())


class TestBadInput:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, "0.1", None, True])
    def test_hyper_parameters(self, cls, bad):
        for name in parameters(cls):
            with pytest.raises(ValueError, match=rf"{cls.__name__}\({name}=\.\.\.\)"):
                cls(make_params(), **{name: bad})
            with pytest.raises(ValueError, match=rf"{cls.__name__}\({name}=\.\.\.\)"):
                cls.check(**{name: bad})
            updater = cls(make_params())
            with pytest.raises(ValueError, match=name):
                updater.add_param_group({"params": make_params(), name: bad})
            assert len(updater.param_groups) == 1

    def test_rates_of_decay_end_below_one(self, cls):
        for name in parameters(cls).keys() - {"lr", "epsilon"}:
            with pytest.raises(ValueError, match=rf"{name}=...\) must be in \[0, 1\)"):
                cls(make_params(), **{name: 1.0})

    def test_schedules_where_dl4j_has_none(self, cls):
        for name in parameters(cls).keys() - {"lr", "momentum"}:
            with pytest.raises(ValueError, match="a number, not a schedule"):
                cls(make_params(), **{name: Fixed(0.5)})

    def test_number_in_place_of_parameters(self, cls):
        way = rf"write {cls.__name__}\(model\.parameters\(\)"
        with pytest.raises(TypeError, match=way) as error:
            cls(0.01)
        assert ("lr=0.01" in str(error.value)) == ("lr" in parameters(cls))
        assert f".updater('{UPDATERS.entry_of(cls).key}'" in str(error.value)
        with pytest.raises(TypeError, match="got Linear; " + way):
            cls(nn.Linear(2, 2))

    def test_no_parameters(self, cls):
        with pytest.raises(ValueError, match="empty parameter list"):
            cls([])

    def test_switches(self, cls):
        with pytest.raises(
            TypeError, match=r"dl4j_exact=\.\.\.\) must be True or False"
        ):
            cls(make_params(), dl4j_exact=0.9)
        with pytest.raises(TypeError, match=r"maximize=\.\.\.\) must be True or False"):
            cls(make_params(), maximize=1)
        with pytest.raises(TypeError, match="weight_decay"):
            cls(make_params(), weight_decay=0.1)

    def test_complex_parameters(self, cls):
        with pytest.raises(TypeError, match="real parameters, got a torch.complex64"):
            cls([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])

    def test_sparse_gradients(self, cls):
        first, second = make_params(shapes=[(3, 2), (3, 2)])
        first.grad = torch.ones_like(first)
        second.grad = torch.ones_like(second).to_sparse()
        updater = cls([{"params": [first]}, {"params": [second]}])
        before = values(updater)
        with pytest.raises(
            TypeError, match="needs dense gradients, got torch.sparse_coo"
        ):
            updater.step()
        assert same(before, values(updater))
        assert updater.iteration == 0 and not updater.state

    def test_schedule_that_leaves_its_range(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        updater = cls(make_params(), lr=lambda iteration, epoch: 0.1 - 0.05 * iteration)
        train(updater, 3)
        before, state = values(updater), copy.deepcopy(state_of(updater))
        with pytest.raises(ValueError, match="must be a number >= 0 at iteration 3"):
            train(updater, 1)
        assert same(before, values(updater))
        for old, new in zip(state.values(), updater.state.values(), strict=True):
            assert all(torch.equal(old[k], new[k]) for k in old)
        assert updater.iteration == 3


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
