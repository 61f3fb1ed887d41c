"""Updaters beside DL4J's recorded updates and beside torch's of the same formula."""

import functools
import math
import re

import numpy as np
import pytest
import torch

from dl4py import updaters
from dl4py.registry import UPDATERS, parameters
from dl4py.schedules import Exponential, Step
from tests import golden
from tests.updating import NAMES, make_params, run, train, values

GOLDEN = golden.load("updaters")


def from_golden(text):
    """``Adam(0.01,0.8,0.95,1e-6)`` as a class and its arguments."""
    name, inside = re.fullmatch(r"(\w+)\((.*)\)", text).groups()
    cls = updaters.get(name)
    if text == "Nesterovs(schedule)":
        return cls, {"lr": Exponential(0.1, 0.9), "momentum": 0.9}
    if text == "Adam(schedule)":
        return cls, {"lr": Step(0.1, 0.5, 2)}
    numbers = [float(x) for x in inside.split(",") if x]
    return cls, dict(zip(parameters(cls), numbers, strict=False))


class TestGolden:
    @pytest.mark.parametrize("text", GOLDEN)
    def test_equals_dl4j(self, text):
        row = GOLDEN[text]
        cls, args = from_golden(text)
        g = torch.tensor(row["gradients"], dtype=torch.float64).reshape(6, -1)
        ours, state = run(cls, g, dl4j_exact=True, **args)
        theirs = np.array(row["updates"]).reshape(6, -1)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)
        assert row["stateSize"] == sum(s.numel() for s in state)
        if state:
            theirs = np.array(row["state"]).ravel()
            np.testing.assert_allclose(torch.cat(state).numpy(), theirs, rtol=1e-9)

    def test_all_are_used(self):
        assert len(GOLDEN) == 23
        assert {from_golden(text)[0] for text in GOLDEN} == {UPDATERS[n] for n in NAMES}
        for text in GOLDEN:
            given = [x for x in text[text.index("(") + 1 : -1].split(",") if x]
            expected = parameters(from_golden(text)[0]) if given else {}
            assert given == ["schedule"] or len(given) == len(expected)


class TestAgainstTorch:
    """Where DL4J's definition is torch's."""

    @pytest.mark.parametrize(
        "ours, theirs",
        [
            (
                functools.partial(updaters.Sgd, lr=0.1),
                functools.partial(torch.optim.SGD, lr=0.1),
            ),
            (
                functools.partial(updaters.Nesterovs, lr=0.1, momentum=0.8),
                functools.partial(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True),
            ),
            (
                functools.partial(updaters.AdaDelta, rho=0.9, epsilon=1e-5),
                functools.partial(torch.optim.Adadelta, lr=1.0, rho=0.9, eps=1e-5),
            ),
            (
                functools.partial(updaters.AdaGrad, lr=0.1, epsilon=1e-5),
                functools.partial(
                    torch.optim.Adagrad,
                    lr=0.1,
                    eps=1e-5,
                    initial_accumulator_value=1e-6,
                ),
            ),
        ],
        ids=["sgd", "nesterovs", "adadelta", "adagrad"],
    )
    def test_same_path(self, ours, theirs):
        a, b = ours(make_params()), theirs(make_params())
        train(a, 10)
        train(b, 10)
        for p, q in zip(values(a), values(b), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("name, amsgrad", [("adam", False), ("amsgrad", True)])
    def test_adam_with_moved_epsilon(self, name, amsgrad):
        ours = updaters.get(name)(make_params(), lr=0.1, epsilon=1e-3)
        theirs = torch.optim.Adam(make_params(), lr=0.1, amsgrad=amsgrad)
        for step in range(10):
            theirs.param_groups[0]["eps"] = 1e-3 / math.sqrt(1 - 0.999 ** (step + 1))
            train(ours, 1, first=step)
            train(theirs, 1, first=step)
        for p, q in zip(values(ours), values(theirs), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
