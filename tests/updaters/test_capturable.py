"""Updaters whose iteration is counted on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dl4py import updaters
from dl4py.ops import steps
from dl4py.schedules import Exponential
from tests.updating import hyper, make_params, resumed, train, values

DTYPES = [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("dtype, rtol", DTYPES)
def test_is_the_same_updater(
    cls: Any,
    dtype: torch.dtype,
    rtol: float,
    exact: bool,
    kernels: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = (
        cls(make_params(dtype), dl4j_exact=exact, capturable=c, **hyper(cls))
        for c in (False, True)
    )
    train(one, 4)
    monkeypatch.setattr(steps, "_compiling", lambda: not kernels)
    train(other, 4)
    torch.testing.assert_close(values(other), values(one), rtol=rtol, atol=rtol)
    assert isinstance(other.param_groups[0]["iteration"], torch.Tensor)
    assert other.iteration == 4


@pytest.mark.parametrize("how", ["file", "pickle", "deepcopy"])
def test_resumes(cls: Any, how: str) -> None:
    whole = cls(make_params(), capturable=True, **hyper(cls))
    train(whole, 3)
    whole.epoch = 2
    other = resumed(whole, how, capturable=True, **hyper(cls))
    assert (other.iteration, other.epoch) == (3, 2)
    train(whole, 2, first=3)
    assert other.iteration == 3, "a counter of its own"
    train(other, 2, first=3)
    assert all(map(torch.equal, values(whole), values(other)))


def test_states_are_exchanged_with_the_others(cls: Any) -> None:
    plain, captured = (
        cls(make_params(), capturable=c, **hyper(cls)) for c in (False, True)
    )
    train(plain, 3)
    saved = plain.state_dict()
    for group in saved["param_groups"]:
        del group["capturable"]  # of before there was such a switch
    captured.load_state_dict(saved)
    assert captured.iteration == 3
    assert type(captured.state_dict()["param_groups"][0]["iteration"]) is int
    plain.load_state_dict(captured.state_dict())
    assert plain.param_groups[0]["iteration"] == 3
    assert not plain.param_groups[0]["capturable"]
    captured.iteration = 7
    captured.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert [int(g["iteration"]) for g in captured.param_groups] == [7, 7]
    train(captured, 1, first=7)
    assert [int(g["iteration"]) for g in captured.param_groups] == [8, 8]


def test_schedules_are_the_hosts() -> None:
    with pytest.raises(ValueError, match=r"Adam\(capturable=...\) must be False with"):
        updaters.Adam(make_params(), lr=Exponential(0.3, 0.8), capturable=True)


def test_a_graph_of_another_updater_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("is_initialized", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    updater = updaters.Adam(make_params())
    with pytest.raises(RuntimeError, match="construct it with capturable=True"):
        train(updater, 1)
    train(updaters.Adam(make_params(), capturable=True), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graph(cls: Any) -> None:
    def fresh() -> Any:
        params = [nn.Parameter(p.detach().cuda()) for p in make_params(torch.float32)]
        for p in params:
            p.grad = torch.ones_like(p)
        return cls(params, capturable=True, **hyper(cls))

    eager, graphed = fresh(), fresh()
    for _ in range(6):
        eager.step()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as torch wants it: warm first
        graphed.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        graphed.step()
    for _ in range(5):
        graph.replay()
    torch.cuda.synchronize()
    assert graphed.iteration == 6
    torch.testing.assert_close(values(graphed), values(eager))
