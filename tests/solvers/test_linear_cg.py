"""Linear conjugate gradients of the Hessian-free method."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dl4py.solvers import linear_cg


class Reads(TorchDispatchMode):
    """Counts what brings a number to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def system(size=12, spread=1.0):
    g = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))
    a = q @ torch.diag(torch.logspace(0, spread, size, dtype=torch.float64)) @ q.T
    return (a + a.T) / 2, torch.randn(size, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_solves_in_as_many_steps_as_dimensions(preconditioned, warm):
    a, b = system()
    start = torch.ones_like(b) if warm else torch.zeros_like(b)
    scale = a.diag() if preconditioned else None
    found = linear_cg.solve(a.mv, b, start, scale, max_iter=12, tolerance=0.0)
    torch.testing.assert_close(found.x, torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)
    assert start.unique().numel() == 1


def test_the_stop_does_not_depend_on_when_the_host_looks():
    a, b = system(400, 5.0)
    runs = [
        linear_cg.solve(a.mv, b, torch.zeros_like(b), max_iter=300, chunk=chunk)
        for chunk in (1, 7, 10, 50)
    ]
    assert 10 < runs[0].stopped < 300
    for run in runs[1:]:
        assert run.stopped == runs[0].stopped and torch.equal(run.x, runs[0].x)
        assert [i for i, _ in run.iterates] == [i for i, _ in runs[0].iterates]


def test_reads_of_the_host():
    a, b = system(400, 5.0)

    asked = []

    def read(t):  # tolist() is not seen below
        asked.append(t)
        return t.tolist()

    start = torch.zeros_like(b)
    with Reads() as reads:
        linear_cg.solve(a.mv, b, start, max_iter=100, tolerance=0.0, read=read)
    assert 0 < len(asked) <= 10 and reads.count == 0


@pytest.mark.parametrize("chunk", [1, 10])
def test_few_products_are_wasted(chunk):
    a, b = system(400, 5.0)
    products = []

    def product(v):
        products.append(v)
        return a.mv(v)

    plain = linear_cg.solve(a.mv, b, torch.zeros_like(b), max_iter=300, chunk=300)
    found = linear_cg.solve(product, b, torch.zeros_like(b), max_iter=300, chunk=chunk)
    assert torch.equal(found.x, plain.x) and found.stopped == plain.stopped
    assert 30 < plain.stopped < 300
    # one more for the start, one to see that it has stopped
    assert len(products) - 2 - plain.stopped < chunk


def test_stops_before_negative_curvature():
    a = torch.diag(torch.tensor([1.0, -1.0]))
    found = linear_cg.solve(a.mv, torch.tensor([0.0, 1.0]), torch.zeros(2))
    assert found.stopped == 0 and not found.x.any()


def test_stored_iterates():
    a, b = system(60, 4.0)
    found = linear_cg.solve(a.mv, b, torch.zeros_like(b), max_iter=32, tolerance=0.0)
    assert [i for i, _ in found.iterates] == [5, 7, 9, 11, 15, 19, 25, 32]
    short = linear_cg.solve(a.mv, b, torch.zeros_like(b), max_iter=9, tolerance=0.0)
    assert torch.equal(found.iterates[2][1], short.x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_models_are_those_of_the_iterates(preconditioned, dtype):
    """They are summed up step by step, also from a warm start and past the solution."""
    a, b = (t.to(dtype) for t in system(60, 3.0))
    scale = a.diag() if preconditioned else None
    start = torch.linspace(-1, 1, 60, dtype=dtype)
    found = linear_cg.solve(a.mv, b, start, scale, max_iter=90, tolerance=0.0)

    def model(x):
        x = x.double()
        return 0.5 * x @ (a.double() @ x) - b.double() @ x

    # rounding is that of the largest of the numbers summed up
    atol = 64 * torch.finfo(dtype).eps * model(start).item()
    for (_, x), phi in zip(found.iterates, found.models, strict=True):
        torch.testing.assert_close(phi, model(x), rtol=0, atol=atol)
