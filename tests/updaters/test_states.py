"""State dicts of updaters: of before, of others, of other models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from dl4py import updaters
from dl4py.registry import parameters
from tests.updating import (
    NAMES,
    group_of,
    hyper,
    make_params,
    same,
    train,
    values,
)


class TestStates:
    def test_from_before_there_was_a_scheduler(self, cls: Any) -> None:
        """As ``Tuner.lr_find`` does."""
        updater, plain = (cls(make_params(), **hyper(cls)) for _ in "ab")
        train(updater, 2)
        train(plain, 2)
        saved = copy.deepcopy(updater.state_dict())
        before = values(updater)
        lr_scheduler.ExponentialLR(updater, 0.5)
        train(updater, 2)
        updater.load_state_dict(saved)
        for p, old in zip(group_of(updater)["params"], before, strict=True):
            p.data.copy_(old)
        train(updater, 2, first=2)
        train(plain, 2, first=2)
        assert same(values(updater), values(plain))

    def test_of_another_updater(self, cls: Any) -> None:
        updater = cls(make_params())
        train(updater, 1)
        before = copy.deepcopy(updater.state_dict())
        for name in NAMES:
            other = updaters.get(name)
            if other is cls:
                continue
            theirs = other(make_params())
            train(theirs, 2)
            saved = theirs.state_dict()
            pattern = rf"saved by {other.__name__}, not by {cls.__name__}"
            with pytest.raises(ValueError, match=pattern):
                updater.load_state_dict(saved)
            for group in saved["param_groups"]:
                del group["optimizer"]  # of before it was written there
            others = parameters(other).keys() ^ parameters(cls).keys()
            if others - {"lr"} or set(cls.state_names) - set(other.state_names):
                with pytest.raises(ValueError, match="state_dict: .* not "):
                    updater.load_state_dict(saved)
        assert str(updater.state_dict()) == str(before)

    def test_of_another_model(self, cls: Any) -> None:
        if not cls.state_names:
            pytest.skip("has no state")
        saved = cls(make_params(shapes=[(3,)]))
        train(saved, 1)
        with pytest.raises(
            ValueError, match=r"has shape \(3,\), its parameter \(2, 3\)"
        ):
            cls(make_params(shapes=[(2, 3)])).load_state_dict(saved.state_dict())

    def test_old_ones_are_completed(self, cls: Any) -> None:
        """Before there were betas, decay, a rate for all, and a name."""
        arguments = hyper(cls) | {"weight_decay": 0.25, "lr": 0.5}
        updater, other = (cls(make_params(), **arguments) for _ in "ab")
        train(updater, 2)
        saved = updater.state_dict()
        new = {"betas", "weight_decay", "written", "optimizer"}
        new |= {"lr"} - parameters(cls).keys()
        for group in saved["param_groups"]:
            for name in new & group.keys():
                del group[name]
        other.load_state_dict(saved)
        assert group_of(other).keys() == group_of(updater).keys()
        assert group_of(other)["weight_decay"] == 0.25

    def test_hooks_see_what_they_would_with_torch(self, cls: Any) -> None:
        """Pre-hooks before anything is looked at, post-hooks when all is done."""
        seen = []
        updater = cls(make_params(), **hyper(cls))
        train(updater, 3)
        updater.register_state_dict_post_hook(
            lambda _, state: seen.append(type(state["param_groups"][0]["schedules"]))
        )
        saved = updater.state_dict()
        damaged = copy.deepcopy(saved)
        damaged["param_groups"][0]["dl4j"] = damaged["param_groups"][0].pop(
            "dl4j_exact"
        )

        def mend(_: Any, state: dict[str, Any]) -> dict[str, Any]:
            group = dict(state["param_groups"][0])
            group["dl4j_exact"] = group.pop("dl4j")
            return {**state, "param_groups": [group]}

        other = cls(make_params(), **hyper(cls), capturable=True)
        other.register_load_state_dict_pre_hook(mend)
        other.register_load_state_dict_post_hook(
            lambda o: seen.append(type(group_of(o)["iteration"]))
        )
        other.load_state_dict(damaged)
        assert seen == [list, torch.Tensor]
        assert len(other._optimizer_load_state_dict_pre_hooks) == 1
