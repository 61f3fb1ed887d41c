"""Every updater as a torch optimizer: closures, groups, states, schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Exponential, Map, Poly, Step
from dl4py.updaters import Updater
from tests.updating import (
    BIASED,
    OTHER,
    gradients,
    hyper,
    make_params,
    resumed,
    run,
    same,
    train,
    values,
)


class TestOptimizer:
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
        other = resumed(whole, how, **arguments)
        assert (other.iteration, other.epoch) == (5, 3)
        train(whole, 3, first=5)
        train(other, 3, first=5)
        assert same(values(whole), values(other))

    def test_refuses_other_states(self, cls):
        updater = cls(make_params())
        foreign = torch.optim.Adagrad(make_params()).state_dict()
        with pytest.raises(ValueError, match=r"param_groups\[0\] lacks .*dl4j_exact"):
            updater.load_state_dict(foreign)
        if "lr" in parameters(cls):
            scheduled = cls(make_params(), lr=Exponential(0.3, 0.8)).state_dict()
            with pytest.raises(ValueError, match="saved with a schedule for lr"):
                updater.load_state_dict(scheduled)

    def test_refuses_another_updaters_state_that_does_not_say_whose(self, cls):
        """Old files do not name their updater; Adam's and Nadam's are the same then."""
        for key in UPDATERS:
            other = UPDATERS[key]
            if not issubclass(other, Updater):
                continue
            maker = other(make_params())
            train(maker, 1)
            saved = maker.state_dict()
            for group in saved["param_groups"]:
                del group["optimizer"]
            updater = cls(make_params())
            facts = [({*parameters(c), "lr"}, c.state_names) for c in (cls, other)]
            if facts[0] == facts[1]:  # as those of Sgd and NoOp
                updater.load_state_dict(saved)
                continue
            with pytest.raises(ValueError, match=r"^state_dict: "):
                updater.load_state_dict(saved)

    def test_schedule_by_iteration(self, cls):
        if "lr" not in parameters(cls):
            pytest.skip("has no learning rate")
        schedule = Step(0.2, 0.5, 2)
        scheduled = cls(make_params(), lr=schedule)
        by_hand = cls(make_params(), lr=1.0)
        for step in range(5):
            by_hand.param_groups[0]["lr"] = schedule(step)
            assert scheduled.param_groups[0]["lr"] == schedule(step)
            train(scheduled, 1, first=step)
            train(by_hand, 1, first=step)
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
        train(default, 5)
        train(exact, 5)
        assert default.param_groups[0]["lr"] == pytest.approx(0.05)
        assert exact.param_groups[0]["lr"] == pytest.approx(0.15)
        assert poly.differs() in (default.differs(), exact.differs())
