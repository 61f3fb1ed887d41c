"""Steps of conjugate gradients and L-BFGS against float64 NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dl4py import ops
from dl4py.ops import library
from dl4py.ops.vectors import _cg_iterate_, cg_iterate_op

DTYPES = (torch.float32, torch.float64)
SIZES = (0, 1, 15, 16, 511, 513, 16384, 16385, 100_003)  # about the ends of all blocks


def vectors(count: int, n: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(n, generator=generator).to(dtype) for _ in range(count)]


def close(ours: Tensor, expected: Any, dtype: torch.dtype) -> None:
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(ours.double().numpy(), expected, rtol, rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
class TestNumbers:
    def test_dot(self, n: int, dtype: torch.dtype) -> None:
        x, y = vectors(2, n, dtype)
        exact = math.fsum(x.double().numpy() * y.double().numpy())
        result = ops.dot(x, y)
        assert (result.dtype, result.shape) == (torch.float64, ())
        assert result.item() == pytest.approx(exact, rel=1e-12, abs=1e-11)

    def test_axpy_dot(self, n: int, dtype: torch.dtype) -> None:
        y, x, z = vectors(3, n, dtype)
        expected = y.double().numpy() + 0.3 * x.double().numpy()
        result = ops.axpy_dot_(y, 0.3, x, z)
        close(y, expected, dtype)
        # of the values as they were stored
        close(result, math.fsum(y.double().numpy() * z.double().numpy()), torch.float64)
        again = ops.axpy_dot_(y, torch.tensor(-0.3, dtype=torch.float64), x, y)
        close(y, expected - 0.3 * x.double().numpy(), dtype)
        close(again, math.fsum(y.double().numpy() ** 2), torch.float64)

    def test_cg_step(self, n: int, dtype: torch.dtype) -> None:
        x, r, p, q = vectors(4, n, dtype)
        before = [t.double().numpy().copy() for t in (x, r, p, q)]
        result = ops.cg_step_(x, r, 0.7, p, q)
        close(x, before[0] + 0.7 * before[2], dtype)
        close(r, before[1] - 0.7 * before[3], dtype)
        close(result, math.fsum(r.double().numpy() ** 2), torch.float64)
        assert (p.double().numpy() == before[2]).all()


def iterated(
    iterate: Callable[..., Any], n: int, dtype: torch.dtype, end: str, device: str
) -> list[Tensor]:
    """x, r, p and the state after 6 iterations on a diagonal matrix."""
    x, r, a, m = (v.to(device) for v in vectors(4, n, dtype))
    a, m = a.abs() + 1, m.abs() + 0.5
    if end == "curvature":
        a = -a
    scale = None if end == "plain" else m
    p = r / m if end != "plain" else r.clone()
    state = torch.zeros(20, dtype=torch.float64, device=device)
    state[0], state[2] = 1, ops.dot(r, p)
    for i in range(1, 7):
        window = 3 if end == "progress" and i > 3 else 0
        iterate(x, r, p, a * p, scale, state, i, window, 0.3)
    state[3:5] = 0  # on their way
    return [x, r, p, state]


ENDS = ("plain", "scaled", "curvature", "progress")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES[2:])  # one number is solved at once
def test_cg_iterate(n: int, dtype: torch.dtype, end: str) -> None:
    ours = iterated(cg_iterate_op, n, dtype, end, "cpu")
    expected = iterated(_cg_iterate_, n, dtype, end, "cpu")
    tol = 1e-10 if dtype == torch.float64 else 1e-4
    scale = max(float(t.abs().max()) for t in expected[:3])
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tol, atol=tol * scale)
    if n > 1:
        count = {"curvature": 0, "progress": 4}.get(end, 6)
    assert ours[3][:2].tolist() == [float(count == 6), float(count)]


def test_sums_do_not_depend_on_threads() -> None:
    if library.origin("cpu").startswith("fallback"):
        pytest.skip("torch's sums do")
    x, y = vectors(2, 200_000, torch.float32)
    threads, sums = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            sums.add(ops.dot(x, y).item())
    finally:
        torch.set_num_threads(threads)
    assert len(sums) == 1


def test_sums_of_large_float32_numbers() -> None:
    x = torch.full((3,), 1e30)
    assert ops.dot(x, x).item() == pytest.approx(3e60)
    assert ops.dot(x, torch.tensor([math.nan, 1, 1])).isnan()


def test_no_gradient_where_none_is_kept() -> None:
    x, y = vectors(2, 4, torch.float64)
    with torch.no_grad():
        assert not ops.dot(x.requires_grad_(), y).requires_grad


def test_compile() -> None:
    x, r, p, q = vectors(4, 40, torch.float64)

    def step(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return ops.cg_step_(x, r, 0.5, p, q), ops.dot(x, r)

    torch.compiler.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    a, b = (x.clone(), r.clone()), (x.clone(), r.clone())
    for one, other in zip((*compiled(*a), *a), (*step(*b), *b), strict=True):
        torch.testing.assert_close(one, other)


def test_opcheck() -> None:
    x, r, p, q = vectors(4, 40, torch.float64)
    a = torch.tensor(0.5, dtype=torch.float64)
    torch.library.opcheck(torch.ops.dl4py.dot, (x, p))
    torch.library.opcheck(torch.ops.dl4py.axpy_dot_, (x, a, p, q))
    torch.library.opcheck(torch.ops.dl4py.cg_step_, (x, r, a, p, q))
    state = torch.ones(20, dtype=torch.float64)
    for scale in (None, r.abs() + 1):
        inputs = (x, r, p, q, scale, state, 9, 3, 1e-3)
        torch.library.opcheck(torch.ops.dl4py.cg_iterate_, inputs)
    with pytest.raises((RuntimeError, IndexError), match="long enough|out of bounds"):
        cg_iterate_op(x, r, p, q, None, state, 15, 0, 0.0)


X = torch.zeros(4)
Call = Callable[[], Any]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ops.dot([1.0], X), "dot(x): expected a tensor, got list"),
        (lambda: ops.dot(X, X.half()), "dot(y): expected float32 or float64, got torc"),
        (lambda: ops.dot(X, X.double()), "dot(y): expected shape, dtype and device of"),
        (lambda: ops.dot(X, X[1:]), "got ((3,), torch.float32, cpu)"),
        (lambda: ops.dot(X, X.to("meta")), "got ((4,), torch.float32, meta)"),
        (lambda: ops.dot(torch.zeros(8)[::2], X), "use x.contiguous()"),
        (lambda: ops.dot(X.clone().requires_grad_(), X), "call it under"),
        (lambda: ops.axpy_dot_(X, 1.0, X, X), "axpy_dot_(y): changed in place, but it"),
        (lambda: ops.cg_step_(X, X, 1.0, X + 1, X + 1), "it shares memory with r; use"),
        (
            lambda: ops.cg_step_(X[:2], X.clone()[:2], 1.0, X[1:3], X.clone()[:2]),
            "cg_step_(x): changed in place, but it shares memory with p",
        ),
        (
            lambda: ops.axpy_dot_(X, torch.ones(2), X + 1, X),
            "axpy_dot_(a): expected a number or a tensor of one on cpu, got shape (2,)",
        ),
    ],
)
def test_one_clear_error(call: Call, message: str) -> None:
    with pytest.raises(
        (TypeError, ValueError, RuntimeError),
        match=re.escape(message),
    ):
        call()
    assert not X.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", SIZES)
def test_cuda_equals_cpu(n: int) -> None:
    here = vectors(4, n, torch.float32)
    there = [t.cuda() for t in here]
    for on in (here, there):
        on.append(ops.cg_step_(*on[:2], 0.5, *on[2:]))
        on.append(ops.axpy_dot_(on[0], 0.25, on[2], on[3]))
        on.append(ops.dot(on[0], on[1]))
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("n", SIZES[2:])
def test_iterations_equal_the_cpus(n: int, end: str) -> None:
    here = iterated(cg_iterate_op, n, torch.float64, end, "cpu")
    there = iterated(cg_iterate_op, n, torch.float64, end, "cuda")
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-9, atol=1e-9)
