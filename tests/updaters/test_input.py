"""What updaters refuse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Fixed
from tests.updating import make_params, same, state_of, train, values


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
