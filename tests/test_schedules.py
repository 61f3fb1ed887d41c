"""Every schedule: its formula, DL4J's own values, and what it refuses."""

from __future__ import annotations

import copy
import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dl4py import schedules
from dl4py.registry import SCHEDULES, parameters
from tests import golden
from tests.references import schedules as reference

COMMON = {
    "value": 0.3,
    "initial_value": 0.1,
    "gamma": 0.7,
    "power": 1.5,
    "max_iter": 20,
    "step_size": 6,
    "decay_rate": 0.5,
    "step": 2.5,
    "values": {0: 0.1, 4: 0.05, 9: 0.01},
    "initial_learning_rate": 0.02,
    "max_learning_rate": 0.3,
    "cycle_length": 11,
    "annealing_length": 4,
    "annealing_decay": 0.2,
    "base_schedule": schedules.Exponential(0.2, 0.9),
    "num_iter": 5,
}
GOLDEN = golden.load("schedules")


def arguments(name):
    return {k: COMMON[k] for k in parameters(SCHEDULES[name]) if k != "by"}


def from_golden(text):
    """``Step(EPOCH,0.1,0.5,3)`` as one of ours."""
    name, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
    if name == "Ramp":
        base, n = inside.rsplit(",", 1)
        return schedules.Ramp(from_golden(base), int(n))
    if name == "Fixed":
        return schedules.Fixed(float(inside))
    by, rest = inside.split(",", 1)
    if name == "Map":
        pairs = (pair.split(":") for pair in rest.strip("{}").split(","))
        return schedules.Map({int(k): float(v) for k, v in pairs}, by=by)
    return SCHEDULES[name](*map(float, rest.split(",")), by=by)


@pytest.mark.parametrize("name", list(SCHEDULES))
class TestSchedule:
    def test_equals_reference(self, name):
        schedule = schedules.get(name, **arguments(name))
        formula = getattr(reference, name)
        ours = [schedule(i, i) for i in range(60)]
        theirs = [formula(i, **arguments(name)) for i in range(60)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)

    def test_exact_equals_reference(self, name):
        exact = schedules.get(name, dl4j_exact=True, **arguments(name))
        default = schedules.get(name, **arguments(name))
        formula = getattr(reference, f"exact_{name}", getattr(reference, name))
        ours = [exact(i, i) for i in range(60)]
        theirs = [formula(i, **arguments(name)) for i in range(60)]
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        same = ours == [default(i, i) for i in range(60)]
        assert same == (default.differs() is None)

    def test_counter(self, name):
        if "by" not in parameters(SCHEDULES[name]):
            pytest.skip("counts nothing of its own")
        for word in ("epoch", "EPOCH"):
            by_epoch = schedules.get(name, by=word, **arguments(name))
            by_iteration = schedules.get(name, **arguments(name))
            assert by_epoch.by == "EPOCH" and by_iteration.by == "ITERATION"
            values = {by_epoch(i, 7) for i in range(30)}
            assert values == {by_iteration(7, e) for e in range(30)}
            assert len(values) == 1

    def test_is_plain_data(self, name):
        schedule = schedules.get(name, **arguments(name))
        for twin in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
            assert twin == schedule and hash(twin) == hash(schedule)
        assert eval(repr(schedule), vars(schedules)) == schedule
        assert schedules.get(schedule) is schedule
        with pytest.raises(AttributeError):
            schedule.by = "EPOCH"

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, None, "0.1", True])
    def test_refuses(self, name, bad):
        for argument in arguments(name):
            if bad == -1.0 and (name, argument) == ("sigmoid", "gamma"):
                continue  # decays
            if bad is None and name == "cycle":
                continue  # the short form
            if argument == "base_schedule" and bad == "0.1":
                continue  # an unknown name, below
            args = {**arguments(name), argument: bad}
            with pytest.raises((ValueError, TypeError), match="expected|must be"):
                schedules.get(name, **args)


class TestGolden:
    @pytest.mark.parametrize("text", GOLDEN)
    def test_equals_dl4j(self, text):
        schedule = from_golden(text)
        ours = [schedule(i, e, dl4j_exact=True) for i, e, _ in GOLDEN[text]]
        np.testing.assert_allclose(ours, [v for _, _, v in GOLDEN[text]], rtol=1e-9)

    def test_all_are_used(self):
        assert len(GOLDEN) == 17 and all(len(rows) == 24 for rows in GOLDEN.values())
        assert {type(from_golden(text)) for text in GOLDEN} == {
            SCHEDULES[name] for name in SCHEDULES
        }


class TestItems:
    def test_poly_falls_and_exact_poly_rises(self):
        poly = schedules.Poly(0.1, 2.0, 10)
        falling = [poly(i) for i in range(11)]
        rising = [poly(i, dl4j_exact=True) for i in range(10)]
        assert falling == sorted(falling, reverse=True) and falling[-1] == 0
        assert rising == sorted(rising) and poly(10, dl4j_exact=True) == 0

    def test_ramp_passes_exactness_on(self):
        ramp = schedules.Ramp(schedules.Poly(0.1, 1.0, 10), 2)
        assert ramp(5, dl4j_exact=True) == pytest.approx(0.15)
        assert ramp(5) == pytest.approx(0.05)
        assert ramp.differs() == ramp.base_schedule.differs()

    def test_ramp_of_a_function(self):
        assert schedules.Ramp(lambda i, e: 1.0 + e, 4)(1, 3) == 2.0

    @given(st.floats(-50, 50), st.integers(0, 10**6), st.integers(0, 1000))
    def test_sigmoid_never_overflows(self, gamma, i, middle):
        assert 0 <= schedules.Sigmoid(0.1, gamma, middle)(i) <= 0.1

    def test_growth_without_bound(self):
        assert schedules.Exponential(1.0, 2.0)(10_000) == math.inf

    def test_cycle_short_form(self):
        short = schedules.Cycle(max_learning_rate=0.5, cycle_length=25)
        assert short == schedules.Cycle(0.05, 0.5, 25, 3, 0.1)  # 2.5 rounds up
        assert short.json_extra() == {"increment": 0.45 / 11, "stepSize": 11}

    def test_map_reads_json_keys(self):
        read = schedules.Map({"10": 0.1, "0": 1, "9": 0.5})
        assert list(read.values.items()) == [(0, 1.0), (9, 0.5), (10, 0.1)]

    @pytest.mark.parametrize(
        "make, message",
        [
            (lambda: schedules.Cycle(0.1, 0.2, 5, 4), "annealing_length=.*at most"),
            (
                lambda: schedules.Cycle(cycle_length=5),
                "max_learning_rate=.*must be given",
            ),
            (lambda: schedules.Map({}), "the first of them 0"),
            (lambda: schedules.Map({1: 0.1}), "the first of them 0"),
            (lambda: schedules.Map({0: 0.1, 1.5: 0.1}), "whole counts"),
            (lambda: schedules.Map({0: 0.1, -1: 0.1}), "whole counts"),
            (lambda: schedules.Map({0: math.nan}), "finite"),
            (lambda: schedules.Step(0.1, 0.5, 0), r"Step\(step=...\) must be .* > 0"),
            (lambda: schedules.Poly(0.1, 2, 0), "max_iter=.*whole number >= 1"),
            (lambda: schedules.Poly(0.1, 2, 1.5), "whole number"),
            (lambda: schedules.Ramp(), "base_schedule=.*must be given"),
            (lambda: schedules.Ramp("ramps", 3), "did you mean 'ramp'"),
            (lambda: schedules.Fixed(0.1)(by=1), "by"),
            (
                lambda: schedules.Exponential(0.1, 0.9, by="steps"),
                r"Exponential\(by=...\) must be 'iteration' or 'epoch', got 'steps'",
            ),
            (lambda: schedules.get("exponentail"), "did you mean 'exponential'"),
            (
                lambda: schedules.get("inverse", initial_value=1, gama=1, power=1),
                "did you mean 'gamma'",
            ),
            (lambda: schedules.get(schedules.Fixed(1), value=2), "need a name"),
            (lambda: schedules.get(None), "expected a schedule"),
        ],
    )
    def test_errors_name_the_argument(self, make, message):
        with pytest.raises((ValueError, TypeError), match=message):
            make()

    def test_get_takes_what_stands_for_a_schedule(self):
        assert schedules.get(0.1) == schedules.Fixed(0.1)

        def function(iteration, epoch):
            return 0.5

        assert schedules.get(function) is function
        assert schedules.get("ExponentialSchedule", initial_value=1, gamma=1)() == 1
