"""Every updater among what torch has around optimizers."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from dl4py import updaters
from dl4py.registry import parameters
from dl4py.schedules import Exponential, Map
from tests.updating import (
    gradients,
    group_of,
    hyper,
    make_params,
    resumed,
    run,
    same,
    train,
    values,
)


class TestRate:
    def test_multiplies_the_step(self, cls: Any) -> None:
        """Where DL4J has no rate, lr = 1 is DL4J's."""
        if "lr" in parameters(cls):
            pytest.skip("has a learning rate of its own")
        g = gradients(4)
        whole, states = run(cls, g, **hyper(cls))
        half, same_states = run(cls, g, lr=0.5, **hyper(cls))
        assert torch.equal(half, 0.5 * whole) and same(states, same_states)
        assert group_of(cls(make_params()))["lr"] == 1.0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_any_scheduler_drives_it(self, cls: Any, dtype: torch.dtype) -> None:
        driven, by_hand = (cls(make_params(dtype), **hyper(cls)) for _ in "ab")
        scheduler = lr_scheduler.LinearLR(driven, 0.25, 1.0, total_iters=3)
        start = group_of(by_hand)["lr"]
        for step, factor in enumerate((0.25, 0.5, 0.75, 1.0)):
            group_of(by_hand)["lr"] = factor * start
            train(driven, 1, first=step)
            train(by_hand, 1, first=step)
            scheduler.step()
        for p, q in zip(values(driven), values(by_hand), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("capturable", [False, True])
    def test_may_be_a_tensor(self, cls: Any, capturable: bool) -> None:
        number = {**hyper(cls), "lr": 0.25}
        plain = cls(make_params(), **number)
        rate = torch.tensor(0.25)
        tensor = cls(make_params(), **{**number, "lr": rate}, capturable=capturable)
        scheduler = lr_scheduler.StepLR(tensor, 2, gamma=0.5)  # fills it
        for step in range(4):
            train(tensor, 1, first=step)
            train(plain, 1, first=step)
            scheduler.step()
            group_of(plain)["lr"] = 0.25 if step == 0 else 0.125
        assert group_of(tensor)["lr"] is rate and rate == 0.0625
        for p, q in zip(values(tensor), values(plain), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
        other = resumed(tensor, "file", **number)
        assert group_of(other)["lr"] == 0.0625

    @pytest.mark.parametrize(
        "bad", [torch.tensor(-0.1), torch.ones(2), torch.tensor(1j)]
    )
    def test_refuses_other_tensors(self, cls: Any, bad: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=rf"{cls.__name__}\(lr=\.\.\.\) must be"):
            cls(make_params(), lr=bad)


class TestMomentum:
    @pytest.mark.parametrize("kind", ["one", "cyclic"])
    def test_is_cycled(self, cls: Any, kind: str) -> None:
        def cycle(updater: Any) -> Any:
            if kind == "one":
                return lr_scheduler.OneCycleLR(updater, max_lr=0.2, total_steps=8)
            return lr_scheduler.CyclicLR(updater, 0.01, 0.2, step_size_up=3)

        driven, by_hand = (cls(make_params(), **hyper(cls)) for _ in "ab")
        name = next((n for n in ("momentum", "beta1") if n in parameters(cls)), None)
        if name is None:
            with pytest.raises(ValueError, match="must support momentum or beta1"):
                cycle(driven)
            return
        twin = torch.optim.SGD(make_params(), lr=0.1, momentum=0.9)
        schedulers, seen = (cycle(driven), cycle(twin)), []
        for step in range(6):
            there = group_of(twin)
            group_of(by_hand).update({"lr": there["lr"], name: there["momentum"]})
            train(driven, 1, first=step)
            train(by_hand, 1, first=step)
            seen.append(group_of(driven)[name])
            assert seen[-1] == group_of(by_hand)[name]
            train(twin, 1, first=step)
            for scheduler in schedulers:
                scheduler.step()
        assert len(set(seen)) > 3 and same(values(driven), values(by_hand))

    def test_betas_are_beta1_and_beta2(self, cls: Any) -> None:
        if "beta1" not in parameters(cls):
            pytest.skip("has no betas")
        updater = cls(make_params(), beta1=0.5, beta2=0.75)
        group = group_of(updater)
        assert group["betas"] == (0.5, 0.75) and "betas" in updater.defaults
        group["beta1"] = 0.25
        train(updater, 1)
        assert group["betas"] == (0.25, 0.75)
        group["betas"] = (0.125, 0.5)
        other = resumed(updater, "file")  # saved between a scheduler and a step
        for one in (updater, other):
            train(one, 1, first=1)
            assert (group_of(one)["beta1"], group_of(one)["beta2"]) == (0.125, 0.5)
        assert same(values(updater), values(other))
        group["betas"] = (1.5, 0.5)
        with pytest.raises(ValueError, match=r"beta1=\.\.\.\) must be in \[0, 1\)"):
            train(updater, 1)

    def test_equals_torchs_adam(self) -> None:
        ours = updaters.Adam(make_params(), epsilon=0.0)
        theirs = torch.optim.Adam(make_params(), eps=0.0)
        schedulers = [
            lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=8)
            for o in (ours, theirs)
        ]
        for step in range(6):
            for optimizer, scheduler in zip((ours, theirs), schedulers, strict=True):
                train(optimizer, 1, first=step)
                scheduler.step()
        for p, q in zip(values(ours), values(theirs), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


class TestWeightDecay:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_is_decoupled(self, cls: Any, dtype: torch.dtype) -> None:
        """p ← p - η·λ·p - u; in half types rounded once."""
        p, g = gradients(1, dtype=dtype, seed=3)[0], gradients(1, dtype=dtype)[0]
        decayed, plain = (
            nn.Parameter(p.clone()),
            nn.Parameter(torch.zeros_like(p).float()),
        )
        plain = plain if dtype != torch.float64 else nn.Parameter(torch.zeros_like(p))
        for w, more in ((decayed, {"weight_decay": 0.3}), (plain, {})):
            w.grad = g.to(w.dtype)
            updater = cls([w], **{"lr": 0.5} | hyper(cls), **more)
            updater.step()
        rate = group_of(updater)["lr"]
        expected = p.to(plain.dtype) * (1 - rate * 0.3) + plain.detach()
        torch.testing.assert_close(
            decayed.detach(), expected.to(dtype), rtol=1e-14, atol=1e-15
        )

    def test_of_one_group(self, cls: Any) -> None:
        """The recipe: matrices decay, biases do not."""
        a, b = make_params(shapes=[(4,), (4,)])
        updater = cls([{"params": [a], "weight_decay": 0.1}, {"params": [b]}], lr=0.5)
        before = values(updater)
        a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
        updater.step()
        torch.testing.assert_close(a.detach(), 0.95 * before[0], rtol=1e-14, atol=0)
        assert torch.equal(b.detach(), before[1])
        for bad in (-0.1, math.nan, True, "0.1", None):
            with pytest.raises(ValueError, match=r"weight_decay=\.\.\.\) must be"):
                cls(make_params(), weight_decay=bad)

    def test_equals_torchs_adamw(self) -> None:
        ours = updaters.Adam(
            make_params(), epsilon=0.0, weight_decay=0.2, maximize=True
        )
        theirs = torch.optim.AdamW(
            make_params(), eps=0.0, weight_decay=0.2, maximize=True
        )
        train(ours, 5)
        train(theirs, 5)
        for p, q in zip(values(ours), values(theirs), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


class TestSchedules:
    def test_yield_to_a_scheduler(self, cls: Any) -> None:
        """With one warning; what the scheduler says is what is used, also resumed."""
        arguments = {**hyper(cls), "lr": Exponential(0.4, 0.9)}
        driven = cls(make_params(), **arguments)
        by_hand = cls(make_params(), **{**arguments, "lr": 0.4})
        scheduler = lr_scheduler.LambdaLR(driven, lambda step: 1 / (1 + step) ** 2)
        train(driven, 1)
        train(by_hand, 1)
        with pytest.warns(UserWarning, match=f"{cls.__name__}: lr of .* rests"):
            for step in range(1, 3):
                scheduler.step()
                group_of(by_hand)["lr"] = group_of(driven)["lr"]
                assert group_of(driven)["lr"] == 0.4 / (1 + step) ** 2
                train(driven, 1, first=step)
                train(by_hand, 1, first=step)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scheduler.step()
            group_of(by_hand)["lr"] = group_of(driven)["lr"]
            train(driven, 1, first=3)
            train(by_hand, 1, first=3)
        assert same(values(driven), values(by_hand))
        other = resumed(driven, "file", **arguments)
        with pytest.warns(UserWarning, match="rests"):
            train(other, 1, first=4)
        train(by_hand, 1, first=4)
        assert same(values(other), values(by_hand))

    def test_yield_to_ones_hand(self) -> None:
        updater = updaters.Nesterovs(make_params(), momentum=Map({0: 0.5, 2: 0.9}))
        train(updater, 1)
        group_of(updater)["momentum"] = 0.7
        with pytest.warns(UserWarning, match="momentum of a parameter group"):
            train(updater, 3)
        assert group_of(updater)["momentum"] == 0.7

    def test_groups_show_the_next_step(self, cls: Any) -> None:
        schedule = Map({0: 0.2, 2: 0.01}, by="epoch")
        updater = cls(make_params(), **{**hyper(cls), "lr": schedule})
        train(updater, 1)
        for epoch, rate in ((1, 0.2), (2, 0.01), (0, 0.2)):
            updater.epoch = epoch
            assert group_of(updater)["lr"] == rate
        by_count = cls(make_params(), lr=Exponential(0.4, 0.5))
        by_count.iteration = 3
        assert group_of(by_count)["lr"] == 0.4 * 0.5**3
        assert (
            group_of(resumed(by_count, "file", lr=Exponential(0.4, 0.5)))["lr"] == 0.05
        )

    def test_a_table_that_ends_may_end(self) -> None:
        """Nobody asks for a value after the last step."""
        table = [0.3, 0.2]
        updater = updaters.Sgd(
            make_params(), lr=lambda iteration, epoch: table[iteration]
        )
        train(updater, 2)
        with pytest.raises(IndexError):
            train(updater, 1)
        assert updater.iteration == 2


class TestFreezing:
    def test_frozen_and_thawed(self, cls: Any) -> None:
        """A frozen parameter stays, state and all, and goes on where it was."""
        a, b = make_params(shapes=[(3,), (3,)])
        alone = cls([nn.Parameter(b.detach().clone())], **hyper(cls))
        updater = cls([a, b], **hyper(cls))
        a.requires_grad_(False)
        start = a.detach().clone()

        def step(count: int) -> None:
            updater.zero_grad()
            w = alone.param_groups[0]["params"][0]
            for p, seed in ((a, 0), (b, 1), (w, 1)):
                if p.requires_grad:
                    p.grad = gradients(1, (3,), seed=seed + 10 * count)[0]
            updater.step()
            alone.step()

        for count in range(3):
            step(count)
        assert torch.equal(a, start) and a not in updater.state
        assert same([b.detach()], values(alone))
        saved = copy.deepcopy(updater.state_dict())
        a.requires_grad_()
        step(3)
        assert not torch.equal(a, start)
        other = cls(make_params(shapes=[(3,), (3,)]), **hyper(cls))
        other.load_state_dict(saved)  # one parameter has no state
        train(other, 1)

    def test_late_groups(self, cls: Any) -> None:
        updater = cls(make_params(shapes=[(3,)]), **hyper(cls))
        train(updater, 2)
        late = make_params(shapes=[(2,)])
        updater.add_param_group({"params": late, "lr": 0.5, "name": "late"})
        train(updater, 2)
        assert not same([late[0].detach()], make_params(shapes=[(2,)]))
        groups = [{"params": p} for p in make_params(shapes=[(3,), (2,)])]
        other = cls(groups, **hyper(cls))
        other.load_state_dict(copy.deepcopy(updater.state_dict()))
        for p, value in zip(
            [g["params"][0] for g in other.param_groups], values(updater), strict=True
        ):
            p.data.copy_(value)
        train(updater, 1, first=9)
        train(other, 1, first=9)
        assert same(values(updater), values(other))

    def test_a_group_that_is_refused_does_not_join(self, cls: Any) -> None:
        updater = cls(make_params(), capturable=True)
        schedule = {"lr": Exponential(0.1, 0.9)}
        for bad in ({"maximize": 1}, {"dl4j_exact": None}, schedule):
            with pytest.raises((TypeError, ValueError), match=r"=\.\.\.\) must be"):
                updater.add_param_group({"params": make_params(), **bad})
        assert len(updater.param_groups) == 1


def test_compiled(cls: Any) -> None:
    """``torch.compile`` leaves a step alone: nothing to recompile for a new t."""
    from torch._dynamo.utils import counters

    counters.clear()
    arguments = {**hyper(cls), "lr": Exponential(0.3, 0.8)}
    eager, compiled = (cls(make_params(), **arguments) for _ in "ab")
    step = torch.compile(compiled.step, backend="aot_eager")
    for count in range(3):
        train(eager, 1, first=count)
        for i, p in enumerate(group_of(compiled)["params"]):
            p.grad = gradients(1, tuple(p.shape), seed=100 * count + i)[0]
        step()
    assert same(values(eager), values(compiled)) and compiled.iteration == 3
    assert not counters["stats"].get("unique_graphs")


def test_compiled_formulas(cls: Any) -> None:
    """What others call inside of compiled code compiles whole."""
    p, g = make_params(shapes=[(3,)])[0].detach(), torch.ones(3, dtype=torch.float64)
    numbers = hyper(cls)
    state = {k: [v] for k, v in cls.initial_state(p, numbers).items()}
    twin = p.clone()
    twins = {k: [v[0].clone()] for k, v in state.items()}
    cls.apply_([p], [g], state, numbers)
    apply = torch.compile(
        lambda: cls.apply_([twin], [g], twins, numbers), backend="aot_eager"
    )
    apply()
    torch.testing.assert_close(twin, p, rtol=1e-12, atol=0)
