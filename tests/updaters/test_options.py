"""What an updater and its parameter groups take, and what they refuse."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from dl4py import updaters
from dl4py.registry import parameters
from dl4py.schedules import Exponential
from dl4py.solvers import LBFGS
from dl4py.updaters import options
from tests.updating import (
    group_of,
    hyper,
    make_params,
    resumed,
    same,
    train,
    values,
)


class TestOptions:
    @pytest.mark.parametrize("name", ["betas", "eps", "nesterov", "history_size"])
    def test_of_others_are_refused(self, cls: Any, name: str) -> None:
        """As an argument and in a group, with what to use."""
        value = (0.8, 0.9) if name == "betas" else 3
        where = rf"{cls.__name__}\({name}=\.\.\.\)"
        with pytest.raises(TypeError, match=where + ": no such option; ") as argument:
            cls(make_params(), **{name: value})
        updater = cls(make_params())
        late = {"params": make_params(), name: value}
        with pytest.raises(TypeError, match=where + " in a parameter group: ") as group:
            updater.add_param_group(late)
        assert len(updater.param_groups) == 1
        with pytest.raises(TypeError, match=where + " in a parameter group: "):
            cls([late])
        for error in (argument, group):
            own = str(error.value).partition("(it takes ")[2][:-1].split(", ")
            assert {*parameters(cls), "lr", "weight_decay", "maximize"} <= set(own)
            if name == "betas" and "beta1" in parameters(cls):
                assert "write beta1=..., beta2=..." in str(error.value)
            if name == "nesterov":
                own_kind = cls is updaters.Nesterovs
                way = "so it is" if own_kind else "Nesterovs is an updater"
                assert way in str(error.value)
            if name == "history_size":
                assert "history_size is of LBFGS" in str(error.value)

    @pytest.mark.parametrize(
        "name, value, way",
        [
            ("momentum", 0.9, "momentum is of Nesterovs"),
            ("eps", 0.9, "epsilon is of Adam, "),
            ("amsgrad", True, "AMSGrad is an updater of its own"),
            ("foreach", True, "leave it out: a step is one pass"),
            ("fused", True, "leave it out: a step is one pass"),
            ("differentiable", True, "leave it out: autograd does not record"),
            ("learningRate", 0.9, "write lr=..."),
            ("rms_decay", 0.9, "rms_decay is of RmsProp"),
        ],
    )
    def test_the_way_out(self, name: str, value: Any, way: str) -> None:
        with pytest.raises(TypeError) as error:
            updaters.Sgd([{"params": make_params(), name: value}])
        assert way in str(error.value)

    def test_switches_of_torch_that_are_off(self, cls: Any) -> None:
        off: dict[str, Any] = {"foreach": None, "fused": False, "differentiable": False}
        updater = cls([{"params": make_params(), **off}], **off)
        plain = cls(make_params())
        train(updater, 2)
        train(plain, 2)
        assert same(values(updater), values(plain))
        with pytest.raises(TypeError, match="no such option"):
            cls(make_params(), no_word_of_any_optimizer=None)

    def test_keys_of_ones_own_are_carried(self, cls: Any) -> None:
        own = {"name": "head", "tags": ["a"], "model": "body", "outputs": 3}
        groups = [{"params": make_params(), **own}]
        updater = cls(groups, **hyper(cls))
        train(updater, 2)
        other = resumed(updater, "file", **hyper(cls))
        for one in (updater, other):
            assert {name: group_of(one)[name] for name in own} == own

    def test_groups_hold_plain_types(self, cls: Any) -> None:
        """Callbacks save them as they are, and read them back without pickle."""
        updater = cls(make_params(), **{**hyper(cls), "lr": Exponential(0.3, 0.8)})
        train(updater, 1)
        file = io.BytesIO()
        torch.save({k: v for k, v in group_of(updater).items() if k != "params"}, file)
        file.seek(0)
        read = torch.load(file, weights_only=True)
        assert read["lr"] == group_of(updater)["lr"]
        group_of(updater).update(read)  # as BaseFinetuning does
        train(updater, 1)
        assert group_of(updater)["lr"] == pytest.approx(0.3 * 0.8**2)

    def test_groups_of_an_updater_make_another(self, cls: Any) -> None:
        updater = cls(make_params(), **hyper(cls))
        train(updater, 3)
        group = {**group_of(updater), "params": make_params()}
        assert group_of(cls([group]))["lr"] == group_of(updater)["lr"]

    def test_solvers_refuse_what_they_would_ignore(self) -> None:
        w = make_params()
        with pytest.raises(TypeError, match=r"one for all groups; LBFGS\(params"):
            LBFGS([{"params": w, "history_size": 3}])
        with pytest.raises(
            TypeError, match=r"LBFGS\(betas=\.\.\.\) in a parameter group"
        ):
            LBFGS([{"params": w, "betas": (0.9, 0.99)}])
        with pytest.raises(TypeError, match="one for all groups; LBFGS"):
            LBFGS([{"params": w, "line_search": "armijo"}])
        assert LBFGS([{"params": w, "name": "all"}]).param_groups[0]["name"] == "all"

    def test_words_are_those_of_torchs_optimizers(self) -> None:
        words = {"betas", "eps", "weight_decay", "momentum", "dampening", "foreach"}
        assert options.foreign(dict.fromkeys(words, 1), ()) and not options.foreign(
            {"name": 1, "params": 1, "initial_lr": 1, "max_lr": 1, "swa_lr": 1}, ()
        )
        assert set(options.foreign(dict.fromkeys(words, 1), ())) == words
