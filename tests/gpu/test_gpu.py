"""What only a GPU can show: one launch an op, no waiting, equal numbers, graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dl4py import layers, losses, ops, updaters
from dl4py.ops.vectors import cg_iterate_op
from dl4py.registry import LOSSES
from tests.losses.test_kernels import INNER, WITH_KERNEL
from tests.ops.test_recurrent import WITH_KERNEL as WITH_STEPS
from tests.updating import NAMES, hyper, make_params, train, values

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
Call = Callable[[], Any]
MANY = [(7, i % 5 + 1) for i in range(300)]  # shapes of a model's parameters


def launches(call: Call) -> list[str]:
    """Names of the kernels that a call starts, after one that builds and allocates."""
    call()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize()
    found = [e.name for e in profile.events() if "CUDA" in str(e.device_type)]
    return [n for n in found if not n.startswith(("Memset", "Memcpy", "cuda"))]


def ready(name: str, **args: Any) -> Any:
    """An updater of 300 parameters with gradients."""
    params = [nn.Parameter(p.detach().cuda()) for p in make_params(shapes=MANY)]
    for p in params:
        p.grad = torch.ones_like(p)
    cls = updaters.get(name)
    return cls(params, **args, **hyper(cls))


def calls() -> dict[str, Call]:
    x, y, z = (torch.randn(3000, 700, device="cuda") for _ in range(3))
    a = torch.tensor(0.5, dtype=torch.float64, device="cuda")
    v = [torch.randn(1 << 20, device="cuda") for _ in range(4)]
    seed = torch.tensor(1, device="cuda")
    found: dict[str, Call] = {
        "cube": lambda: ops.cube(x),
        "rrelu": lambda: ops.rrelu(x, seed, 0.1, 0.3),
        "dot": lambda: ops.dot(v[0], v[1]),
        "axpy_dot_": lambda: ops.axpy_dot_(v[0], a, v[1], v[2]),
        "cg_step_": lambda: ops.cg_step_(v[0], v[1], a, v[2], v[3]),
    }
    for name in NAMES:
        updater = ready(name)
        found[name] = updater.step
    labels = z.sigmoid()
    for key, f in (("mcxent", "softmax"), ("xent", "sigmoid"), ("mse", "tanh")):
        loss = losses.get(key, f)
        found[key] = functools.partial(loss.per_example, y, labels)
    return found


def test_one_launch_each() -> None:
    found = {name: launches(call) for name, call in calls().items()}
    assert {len(kernels) for kernels in found.values()} == {1}, found


def test_nothing_waits() -> None:
    v = [torch.randn(1000, device="cuda") for _ in range(4)]
    state = torch.zeros(20, dtype=torch.float64, device="cuda")
    iterate = functools.partial(cg_iterate_op, *v, None, state, 1, 0, 0.0)
    some = calls() | {"cg_iterate_": iterate}  # of several launches
    for call in some.values():
        call()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in some.values():
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("n", [1, 255, 257, 10**6 + 3])
def test_sums_do_not_depend_on_the_order_of_blocks(n: int) -> None:
    x, y = torch.randn(2, n, device="cuda")
    assert len({float(ops.dot(x, y)) for _ in range(50)}) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [5, 300, 1300])
@pytest.mark.parametrize("name", NAMES)
def test_updaters_equal_the_cpu(name: str, count: int, dtype: torch.dtype) -> None:
    cls = updaters.get(name)
    shapes = [(3, i % 4) for i in range(count)]
    here = cls(make_params(dtype, shapes), **hyper(cls))
    there = cls([nn.Parameter(p.cuda()) for p in values(here)], **hyper(cls))
    train(here, 3)
    train(there, 3)
    moved = [p.cpu() for p in values(there)]
    tol = {torch.bfloat16: 1e-2, torch.float32: 1e-5}.get(dtype, 1e-11)
    torch.testing.assert_close(moved, values(here), rtol=tol, atol=tol)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("key", WITH_KERNEL)
def test_fused_sums_equal_the_cpu(key: str, inner: str) -> None:
    loss = losses.get(key, inner, dl4j_exact=key == "xent")
    assert LOSSES[key] is type(loss)
    z, y = torch.rand(2, 70, 33) * 0.3 + 0.1
    results = []
    for device in ("cpu", "cuda"):
        leaf = z.to(device).requires_grad_()
        score = loss(leaf, y.to(device))
        results.append([score.cpu(), torch.autograd.grad(score, leaf)[0].cpu()])
    torch.testing.assert_close(*results, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("activation", WITH_STEPS)
@pytest.mark.parametrize("kind", [layers.GravesLSTM, layers.SimpleRnn])
def test_recurrent_steps_equal_the_cpu(
    kind: Any, activation: str, masked: bool
) -> None:
    layer = kind(3, 5, activation=activation).double()
    x = torch.rand(4, 3, 6, dtype=torch.float64) * 0.3
    mask = (torch.rand(4, 6, dtype=torch.float64) > 0.3).double() if masked else None
    results = []
    for device in ("cpu", "cuda"):
        there = layer.to(device)
        y, state = there(x.to(device), None if mask is None else mask.to(device))
        score = (y * y).sum() + sum((s * s).sum() for s in state)
        grads = torch.autograd.grad(score, list(there.parameters()))
        results.append([t.cpu() for t in (y, *state, *grads)])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("key, inner", [("mcxent", "softmax"), ("xent", "sigmoid")])
def test_losses_in_a_graph(key: str, inner: str) -> None:
    loss, y = losses.get(key, inner), torch.rand(64, 10, device="cuda")
    z = torch.randn(64, 10, device="cuda", requires_grad=True)
    loss(z, y).backward()  # builds outside of the capture
    z.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        score = loss(z, y)
        score.backward()
    graph.replay()
    expected = loss(z.detach(), y)
    torch.testing.assert_close(score.detach(), expected)
