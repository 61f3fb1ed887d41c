"""The fused losses of ``dl4py.ops``: numbers, gradients, transforms, memory, graphs."""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap

from dl4py import losses, ops
from dl4py.ops import library

TIGHT = {"rtol": 1e-6, "atol": 1e-8}
# about the widths at which kernels change their way: few classes, pieces, tails
SHAPES = [(1, 1), (3, 1), (5, 2), (70, 10), (130, 32), (7, 33), (3, 1000), (2, 3001)]
KINDS = ["soft", "one-hot", "sparse", "sigmoid"]
Case = tuple[Callable[..., Tensor], Tensor, Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def data(kind: str, n: int, k: int, dtype: torch.dtype = torch.float64) -> Case:
    generator = torch.Generator().manual_seed(n * k)
    z = 3 * torch.randn(n, k, generator=generator).to(dtype)
    index = torch.randint(k, (n,), generator=generator)
    y: Tensor = index
    if kind == "soft":
        y = torch.rand(n, k, generator=generator).to(dtype)
    elif kind == "one-hot":
        y = F.one_hot(index, k).to(dtype)
    elif kind == "sigmoid":
        y = (torch.rand(n, k, generator=generator) * 3 - 1).clamp(0, 1).to(dtype)
    return (ops.sigmoid_xent if kind == "sigmoid" else ops.softmax_xent), z, y


def extras(n: int, k: int, dtype: torch.dtype) -> list[tuple[Tensor | None, ...]]:
    w = torch.linspace(0.5, 2, k).to(dtype)
    m = (torch.arange(n) % 3).to(dtype) / 2
    return list(itertools.product((None, w), (None, m)))


def reference(
    kind: str, z: Any, y: Any, w: Any = None, m: Any = None
) -> tuple[Any, Any, Any]:
    """Scores, and their gradients with respect to z and y, in float64 NumPy."""
    z = z.detach().double().numpy()
    n, k = z.shape
    y = np.eye(k)[y.numpy()] if kind == "sparse" else y.detach().double().numpy()
    w = np.ones(k) if w is None else w.double().numpy()
    m = np.ones((n, 1)) if m is None else m.double().numpy()[:, None]
    if kind == "sigmoid":
        yes, no = np.logaddexp(0, -z), np.logaddexp(0, z)
        slope = np.exp(-np.logaddexp(0, -z)) - y
        return (
            (m * w * (y * yes + (1 - y) * no)).sum(1),
            m * w * slope,
            m * w * (yes - no),
        )
    big = z.max(1, keepdims=True)
    log = z - big - np.log(np.exp(z - big).sum(1, keepdims=True))
    t = w * y
    dz = m * (np.exp(log) * t.sum(1, keepdims=True) - t)
    return (-m * t * log).sum(1), dz, -m * w * log


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, k", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
class TestNumbers:
    def test_equals_reference(
        self, kind: str, n: int, k: int, dtype: torch.dtype
    ) -> None:
        f, z, y = data(kind, n, k, dtype)
        z.requires_grad_()
        if y.is_floating_point():
            y.requires_grad_()
        tol = 1e-12 if dtype == torch.float64 else 2e-6
        for w, m in extras(n, k, dtype):
            scores = f(z, y, w, m)
            expected, dz, dy = reference(kind, z, y, w, m)
            assert scores.dtype == dtype and scores.shape == (n,)
            np.testing.assert_allclose(scores.detach(), expected, tol, tol)
            inputs = (z, y) if y.requires_grad else (z,)
            g = torch.linspace(1, 2, n).to(dtype)
            by = torch.autograd.grad(scores, inputs, g)
            rows = g.double().numpy()[:, None]
            np.testing.assert_allclose(by[0], rows * dz, tol, tol * 10)
            if y.requires_grad:
                np.testing.assert_allclose(by[1], rows * dy, tol, tol * 10)

    def test_kernel_equals_formula(
        self, kind: str, n: int, k: int, dtype: torch.dtype
    ) -> None:
        f, z, y = data(kind, n, k, dtype)
        for w, m in extras(n, k, dtype):
            slope = grad(lambda z, w=w, m=m: f(z, y, w, m).sum())(z)
            leaf = z.clone().requires_grad_()
            ours = torch.autograd.grad(f(leaf, y, w, m).sum(), leaf)[0]
            tol = 1e-12 if dtype == torch.float64 else 2e-5
            torch.testing.assert_close(ours, slope, rtol=tol, atol=tol)


@pytest.mark.parametrize("kind", KINDS)
class TestDerivatives:
    def test_gradcheck(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        inputs = [z.requires_grad_()]
        if y.is_floating_point():
            inputs.append(y.clamp(0.1, 0.9).requires_grad_())
        for w, m in extras(4, 5, torch.float64):
            fixed = {"w": w, "m": m} | ({} if len(inputs) == 2 else {"y": y})
            call = functools.partial(f, **fixed)
            assert gradcheck(call, inputs, check_forward_ad=True, **TIGHT)
            assert gradgradcheck(call, inputs, **TIGHT)

    def test_the_mean_is_recorded_as_one(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        z.requires_grad_()
        for w, m in extras(4, 5, torch.float64):
            mean = functools.partial(f, y=y, w=w, m=m, reduction="mean")
            rows = f(z, y, w, m).mean()
            torch.testing.assert_close(mean(z), rows)
            assert mean(z).dtype == z.dtype and mean(z.detach()).shape == ()
            slopes = [torch.autograd.grad(s, z)[0] for s in (mean(z), rows)]
            torch.testing.assert_close(*slopes)
            torch.testing.assert_close(grad(mean)(z.detach()), slopes[0])
            assert gradgradcheck(mean, z, **TIGHT)
        if y.is_floating_point():
            y = y.clamp(0.1, 0.9).requires_grad_()
            assert gradcheck(lambda z, y: f(z, y, reduction="mean"), (z, y), **TIGHT)

    def test_weights_and_masks_have_gradients(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        w = torch.rand(5).double().requires_grad_()
        m = torch.rand(4).double().requires_grad_()
        assert gradcheck(lambda w, m: f(z, y, w, m), (w, m), **TIGHT)

    def test_transforms(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        m = torch.tensor([1.0, 0, 0.5, 2]).double()

        def score(z: Tensor) -> Tensor:
            return f(z, y, None, m).sum()

        leaf = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(score(leaf), leaf)
        torch.testing.assert_close(grad(score)(z), slope)
        torch.testing.assert_close(jvp(score, (z,), (z,))[1], (slope * z).sum())
        second = torch.autograd.functional.hessian(score, z)
        torch.testing.assert_close(hessian(score)(z), second)
        nested = grad(lambda z: (grad(score)(z) ** 2).sum())(z)
        expected = 2 * torch.einsum("abcd,ab->cd", second, slope)
        torch.testing.assert_close(nested, expected)

    def test_vmap(self, kind: str) -> None:
        f, z, y = data(kind, 6, 5)
        z, y = z.reshape(2, 3, 5), y.reshape(2, 3, *y.shape[1:])
        w = torch.linspace(0.5, 2, 5).double()
        m = torch.tensor([0.0, 1, 2]).double()

        def call(z: Tensor, y: Tensor, m: Tensor) -> Tensor:
            return f(z, y, w, m)

        def total(z: Tensor, y: Tensor) -> Tensor:
            return call(z, y, m).sum()

        expected = torch.stack([call(a, b, m) for a, b in zip(z, y, strict=True)])
        torch.testing.assert_close(vmap(call, (0, 0, None))(z, y, m), expected)
        turned = vmap(call, (1, 0, None))(z.movedim(0, 1), y, m)
        torch.testing.assert_close(turned, expected)
        slopes = torch.stack([grad(total)(a, b) for a, b in zip(z, y, strict=True)])
        torch.testing.assert_close(vmap(grad(total))(z, y), slopes)

    def test_graphs(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        torch.compiler.reset()
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        leaf = z.clone().requires_grad_()
        torch.testing.assert_close(compiled(leaf, y), f(z, y))
        one = torch.autograd.grad(compiled(leaf, y).sum(), leaf)[0]
        torch.testing.assert_close(one, torch.autograd.grad(f(leaf, y).sum(), leaf)[0])

        class Module(torch.nn.Module):
            def forward(self, z: Tensor, y: Tensor) -> Tensor:
                return f(z, y)

        program = torch.export.export(Module(), (z, y))
        assert f"dl4py.{f.__name__}.default" in program.graph_module.code
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        torch.testing.assert_close(loaded(z, y), f(z, y))

    def test_opcheck(self, kind: str) -> None:
        f, z, y = data(kind, 4, 5)
        op = getattr(torch.ops.dl4py, f.__name__)
        more = (
            (0.5, True)
            if kind == "sigmoid"
            else (-math.inf, math.inf, False, 0.5, True)
        )
        for w, m in extras(4, 5, torch.float64):
            torch.library.opcheck(op, (z.requires_grad_(), y, w, m, *more))
            g = torch.ones(4).double()
            sums = () if kind == "sigmoid" else (torch.logsumexp(z, 1).detach(), g)
            slope = getattr(torch.ops.dl4py, f"{f.__name__}_d")
            torch.library.opcheck(slope, (z.detach(), y, w, m, *sums, g, 0.5))


@pytest.mark.parametrize("k", [4, 40])
class TestEnds:
    def test_infinite_logits(self, k: int) -> None:
        z = torch.zeros(3, k).double()
        z[:, 0] = -math.inf
        y = torch.zeros(3, k).double()
        y[:, 1] = 1
        leaf = z.clone().requires_grad_()
        scores = ops.softmax_xent(leaf, y)
        torch.testing.assert_close(scores, torch.full((3,), math.log(k - 1)).double())
        slope = torch.autograd.grad(scores.sum(), leaf)[0]
        assert slope.isfinite().all() and (slope[:, 0] == 0).all()
        assert (
            (ops.softmax_xent(z, torch.eye(k).double()[:1].expand(3, k))).isinf().all()
        )
        z[0, 2] = math.inf
        assert ops.softmax_xent(z, y).isnan().tolist() == [True, False, False]
        ends = torch.tensor([[math.inf, -math.inf, math.inf, -math.inf]]).double()
        ends = F.pad(ends, (0, k - 4))
        right = F.pad(torch.tensor([[1.0, 0, 1, 0]]).double(), (0, k - 4), value=0.5)
        leaf = ends.clone().requires_grad_()
        scores = ops.sigmoid_xent(leaf, right)
        torch.testing.assert_close(scores.item(), (k - 4) * math.log(2))
        assert torch.autograd.grad(scores.sum(), leaf)[0].isfinite().all()
        assert ops.sigmoid_xent(ends, 1 - right).isinf().all()

    def test_large_logits(self, k: int) -> None:
        z = torch.full((2, k), 1e30)
        y = torch.full((2, k), 1 / k)
        torch.testing.assert_close(
            ops.softmax_xent(z, y), torch.full((2,), math.log(k))
        )
        assert ops.sigmoid_xent(torch.tensor([[1e30]]), torch.tensor([[0.0]])) == 1e30

    def test_nan_stays_in_its_row(self, k: int) -> None:
        z, y = torch.zeros(3, k), torch.full((3, k), 1 / k)
        z[1, k - 1] = math.nan
        for f in (ops.softmax_xent, ops.sigmoid_xent):
            leaf = z.clone().requires_grad_()
            scores = f(leaf, y)
            assert scores.isnan().tolist() == [False, True, False]
            slope = torch.autograd.grad(scores.sum(), leaf)[0]
            assert slope.isnan().any(1).tolist() == [False, True, False]

    def test_rows_that_do_not_count(self, k: int) -> None:
        z, y = torch.zeros(3, k), torch.full((3, k), 1 / k)
        z[1], y[1] = math.nan, math.nan
        m = torch.tensor([1.0, 0, 1])
        for f in (ops.softmax_xent, ops.sigmoid_xent):
            leaf, labels = z.clone().requires_grad_(), y.clone().requires_grad_()
            scores = f(leaf, labels, None, m)
            assert scores.isfinite().all() and scores[1] == 0
            for slope in torch.autograd.grad(scores.sum(), (leaf, labels)):
                assert slope.isfinite().all() and not slope[1].any()

    def test_classes_that_do_not_exist(self, k: int) -> None:
        z = torch.randn(4, k, requires_grad=True)
        index = torch.tensor([0, -1, k, 2**62])
        scores = ops.softmax_xent(z, index)
        assert scores[0] > 0 and not scores[1:].any()
        slope = torch.autograd.grad(scores.sum(), z)[0]
        assert slope[0].any() and not slope[1:].any()

    def test_layouts(self, k: int) -> None:
        z, y = torch.randn(5, k).double(), torch.rand(5, k).double()
        for f in (ops.softmax_xent, ops.sigmoid_xent):
            expected = f(z, y)
            for a, b in (
                (z.t().contiguous().t(), y),
                (z, y.t().contiguous().t()),
                (torch.stack([z, z], 2)[..., 0], torch.stack([y, y], 2)[..., 1]),
            ):
                torch.testing.assert_close(f(a, b), expected)
                leaf = a.detach().requires_grad_()
                slope = torch.autograd.grad(f(leaf, b).sum(), leaf)[0]
                again = z.clone().requires_grad_()
                one = torch.autograd.grad(f(again, y).sum(), again)[0]
                torch.testing.assert_close(slope, one)
            row = y[:1].expand(5, k)
            torch.testing.assert_close(f(z, row), f(z, row.clone()))

    def test_empty(self, k: int) -> None:
        for n, width in ((0, k), (3, 0)):
            z = torch.zeros(n, width, requires_grad=True)
            for f in (ops.softmax_xent, ops.sigmoid_xent):
                scores = f(z, torch.zeros(n, width))
                assert scores.tolist() == [0.0] * n
                scores.sum().backward()
                assert z.grad is not None and z.grad.shape == z.shape


def test_threads() -> None:
    for k in (10, 1000):
        f, z, y = data("soft", 3000, k, torch.float32)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            many = f(z, y)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(many, f(z, y))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_makes_no_second_array(kind: str) -> None:
    if library.origin("cpu").startswith("fallback"):
        pytest.skip("the formulas make arrays")
    f, z, y = data(kind, 8, 32000, torch.float32)
    z.requires_grad_()
    key = "xent" if kind == "sigmoid" else "mcxent"
    loss = losses.get("sparse_mcxent" if kind == "sparse" else key,
                      "sigmoid" if kind == "sigmoid" else "softmax")  # fmt: skip
    loss(z, y).backward()  # what is made once
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        torch.autograd.grad(loss(z, y), z)
    taken = [e.self_cpu_memory_usage for e in profile.events()]
    size = z.numel() * 4
    assert size <= sum(t for t in taken if t > 0) < 1.1 * size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n, k", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_cpu(kind: str, n: int, k: int) -> None:
    f, z, y = data(kind, n, k, torch.float32)
    for w, m in extras(n, k, torch.float32):
        results = []
        for device in ("cpu", "cuda"):
            leaf = z.detach().to(device).requires_grad_()
            given = [None if t is None else t.to(device) for t in (y, w, m)]
            scores = f(leaf, *given)
            results.append((scores, *torch.autograd.grad(scores.sum(), leaf)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b.cpu(), rtol=1e-5, atol=1e-5)
