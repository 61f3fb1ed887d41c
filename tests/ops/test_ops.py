"""Every op of ``dl4py.ops``: numbers, layouts, dtypes, random slopes, devices."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import pathlib
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import vmap

import dl4py.ops
from dl4py.ops import OPS, library, philox, register
from tests.ops_cases import (
    SMOOTH,
    VALUES,
    Case,
    Module,
    close,
    derivative,
    every,
    every_op,
)
from tests.references import ops as references

GRID = torch.tensor(
    [0, 1e-4, 0.03, 0.2, 0.5, 0.7, 1, 1.3, 2.5, 4, 9, 30, 300, 1e4],
    dtype=torch.float64,
)
GRID = torch.cat([-GRID.flip(0), GRID, torch.linspace(-6, 6, 401, dtype=torch.float64)])
ENDS = [math.inf, 0.0, 88.5, 800, 1e13, 1e19, 1e30, 3e38]
SPECIAL = torch.tensor([math.nan, *ENDS, *(-end for end in ENDS)])


@every_op
class TestNumbers:
    @pytest.mark.parametrize("order", [0, 1, 2])
    @pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
    @pytest.mark.parametrize("how", ["kernel", "formula"])
    def test_equals_reference(
        self, f: Case, dtype: torch.dtype, order: int, how: str
    ) -> None:
        x = GRID.to(dtype)
        with torch.no_grad():  # else order 2 is the formula either way
            y = (f.op if how == "kernel" else f.formula)(x, None, order)
        expected = f.reference(x)[order]
        finite = expected.abs() < torch.finfo(dtype).max
        rtol = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype)
        rtol = rtol or torch.finfo(dtype).eps
        # what is lost where terms cancel: at roots inside (-6, 6)
        atol = 4 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        atol = max(atol if order else atol / 4, torch.finfo(dtype).tiny)
        assert y.dtype == dtype
        y, expected = y.double()[finite], expected[finite]
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)

    def test_tails_keep_relative_precision(self, f: Case) -> None:
        x = torch.tensor([-25.0, -9, -4, -1e-4, -1e-9, 1e-9, 1e-4, 4, 9, 25]).double()
        with torch.no_grad():
            for order, expected in enumerate(f.reference(x)):
                y = f.op(x, None, order)
                np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-300)

    @pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
    def test_kernel_equals_formula_at_the_ends(
        self, f: Case, dtype: torch.dtype
    ) -> None:
        x = SPECIAL.to(dtype)
        with torch.no_grad():
            for order, g in itertools.product(range(3), (None, torch.ones_like(x))):
                a, b = f.op(x, g, order), f.formula(x, g, order)
                torch.testing.assert_close(a, b, equal_nan=True)
                assert a.isnan().tolist()[1:] == [False] * (len(x) - 1)

    def test_nan_stays_nan(self, f: Case) -> None:
        assert f(torch.tensor([math.nan, 1.0])).isnan().tolist() == [True, False]

    def test_the_formula_lets_nothing_be_lost_in_half_precision(self, f: Case) -> None:
        x = torch.linspace(-3, 3, 50, dtype=torch.bfloat16)
        torch.testing.assert_close(f(x), f(x.float()).bfloat16())


class TestSelection:
    """Where an op's derivative selects, a bad gradient does not come through."""

    def test_rectifiedtanh_selects(self) -> None:
        x, g = torch.tensor([-1.0, 0.0, 1.0]), torch.full((3,), math.nan)
        assert derivative(OPS["rectifiedtanh"].entry, x, g).isnan().tolist() == [
            False,
            False,
            True,
        ]
        zero = derivative(OPS["rectifiedtanh"].entry, x, torch.full((3,), math.inf))
        assert zero[:2].tolist() == [0, 0]

    def test_hardsigmoid_multiplies(self) -> None:
        x, g = torch.tensor([-4.0]), torch.tensor([math.inf])
        assert derivative(lambda x: dl4py.ops.hardsigmoid(x, 0.2), x, g).isnan().all()

    def test_plain_rectifier_is_flat_at_zero(self) -> None:
        x = torch.tensor([-math.inf, -1.0, 0.0, 1.0])

        def relu(x: Tensor) -> Tensor:
            return dl4py.ops.rectifier(x, math.inf, 0.0, 0.0)

        def leaky(x: Tensor) -> Tensor:
            return dl4py.ops.rectifier(x, math.inf, 0.0, 0.5)

        assert relu(x).tolist() == [0, 0, 0, 1]
        assert derivative(relu, x).tolist() == [0, 0, 0, 1]
        assert leaky(x).tolist() == [-math.inf, -0.5, 0, 1]
        assert derivative(leaky, x).tolist() == [0.5, 0.5, 1, 1]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 2),
    "strided": lambda x: x[..., ::2],
    "offset": lambda x: x.flatten()[1:],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "expanded": lambda x: x[:, :1].expand_as(x),
    "empty": lambda x: x[:0],
    "0-d": lambda x: x[0, 0, 0, 0],
}


@every_op
class TestTensors:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
    def test_layouts(self, f: Case, layout: str, dtype: torch.dtype) -> None:
        x = LAYOUTS[layout](torch.randn(3, 4, 5, 6).to(dtype))
        scales = [
            None,
            torch.tensor(1.5, dtype=dtype),
            torch.ones((), dtype=dtype).expand(x.shape),
            torch.randn(x.shape).to(dtype),
            torch.randn_like(x),
            torch.randn(x.shape[-1:]).to(dtype),
        ]
        with torch.no_grad():
            for order, scale in itertools.product(range(3), scales):
                y = f.op(x, scale, order)
                assert (y.dtype, y.shape) == (dtype, x.shape)
                assert y.stride() == torch.empty_like(x).stride()
                expected = f.formula(x.contiguous(), scale, order)
                torch.testing.assert_close(y, expected)

    def test_gradients_of_any_layout(self, f: Case) -> None:
        whole = torch.randn(4, 6, dtype=torch.float64)
        for x in (whole, whole.t(), whole[:, ::2]):
            slope = derivative(f, x.contiguous())
            row = torch.randn(x.shape[1], dtype=torch.float64)
            for g in (
                torch.tensor(3.0).double(),
                row,
                torch.randn_like(x).t().clone().t(),
            ):
                close(derivative(f, x, g.expand_as(x)), slope * g)

    def test_more_than_one_thread_and_block(self, f: Case) -> None:
        x = torch.randn(3 * 32768 + 77, dtype=torch.float64)
        threads = torch.get_num_threads()
        with torch.no_grad():
            try:
                torch.set_num_threads(3)
                y = f(x)
            finally:
                torch.set_num_threads(threads)
            close(y, f(x), 1e-14)
            close(y, f.formula(x))

    @pytest.mark.skipif(
        os.environ.get("DL4PY_LARGE") != "1",
        reason="needs 9 GiB and a minute: DL4PY_LARGE=1",
    )
    def test_more_elements_than_32_bits_count(self, f: Case) -> None:
        x = torch.full((2**31 + 8,), -0.5, dtype=torch.bfloat16)
        x[-3:] = 0.75
        with torch.no_grad():
            y = f(x)
        if "seed" not in f.made.params:
            assert torch.equal(y[-8:], f(x[-8:].clone()))
            assert torch.equal(y[:8], y[2**31 - 8 : 2**31])
        assert (y[-3:] != y[0]).all()

    def test_autocast_keeps_the_dtype(self, f: Case) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            for dtype in register.DTYPES:
                assert f(SMOOTH.to(dtype)).dtype == dtype
        x = SMOOTH.float().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            h = torch.nn.functional.linear(x, torch.eye(3))
            y = f(h)
        assert h.dtype == y.dtype == torch.bfloat16
        y.sum().backward()
        assert x.grad is not None and x.grad.dtype == torch.float32

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_other_dtypes_are_refused(self, f: Case, dtype: torch.dtype) -> None:
        x = torch.ones(3).to(dtype)
        message = (
            rf"{f.made.name}\(x\): x must be a floating point tensor .* got {dtype}"
        )
        for size in (3, 0):
            with pytest.raises(TypeError, match=message):
                f(x[:size])
        with pytest.raises((TypeError, RuntimeError), match="floating point tensor"):
            f.op(x)

    def test_what_is_no_tensor_is_refused(self, f: Case) -> None:
        with pytest.raises(TypeError, match=r"x must be a tensor, got list"):
            f([1.0])  # type: ignore[arg-type]

    @pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
    def test_any_offset_in_bytes(self, f: Case, dtype: torch.dtype) -> None:
        x = torch.randn(100).to(dtype)
        content = bytes(1) + x.view(torch.uint8).numpy().tobytes()
        odd = torch.frombuffer(bytearray(content), dtype=dtype, offset=1)
        with torch.no_grad():
            for scale in (None, odd, odd[:1]):
                even = None if scale is None else scale.clone()
                torch.testing.assert_close(f.op(odd, scale, 1), f.op(x, even, 1))

    def test_one_device_for_all(self, f: Case) -> None:
        scale = torch.ones(2, 3, dtype=torch.float64, device="meta")
        with pytest.raises(RuntimeError, match="must be on the device of x"):
            f.op(SMOOTH, scale, 1)

    def test_inference_mode(self, f: Case) -> None:
        with torch.inference_mode():
            y = f(SMOOTH.clone())
        assert y.is_inference()
        close(y.clone(), f(SMOOTH))

    def test_pickles(self, f: Case) -> None:
        assert pickle.loads(pickle.dumps(f.made.entry)) is f.made.entry
        module = pickle.loads(pickle.dumps(Module(f)))
        close(module(SMOOTH), f(SMOOTH))


CPU_AND_CUDA = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@every(upper=VALUES["lower"])  # one slope everywhere: places choose it
@pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
@pytest.mark.parametrize("device", CPU_AND_CUDA)
def test_equal_inputs_have_equal_results_wherever_they_stand(
    f: Case, dtype: torch.dtype, device: str
) -> None:
    if not library.compiled(device):
        pytest.skip("torch's own operations round by the place")
    f, n = f.on(device), 270
    x = torch.cat([torch.randn(90) * size for size in (0.3, 3, 30)]).to(device, dtype)
    g = torch.randn(n).to(device, dtype)
    scales = [lambda i: None, lambda i: g[:1], lambda i: g[i]]
    with torch.no_grad():
        for order, scale in itertools.product(range(3), scales):
            together = f.op(x, scale(slice(n)), order)
            for width in (1, 7, 65):
                parts = [slice(i, i + width) for i in range(0, n, width)]
                alone = torch.cat([f.op(x[i], scale(i), order) for i in parts])
                torch.testing.assert_close(alone, together, rtol=0, atol=0)
            apart = [f.op(v, g[k], order) for k, v in enumerate(x)]  # each its scale
        torch.testing.assert_close(torch.stack(apart), together, rtol=0, atol=0)


class TestRandom:
    def test_known_answers(self) -> None:
        # of the authors' own test vectors, for all zeros and all ones
        assert references.philox_words((0,) * 4, (0,) * 2) == [
            0x6627E8D5,
            0xE169C58D,
            0xBC57AC4C,
            0x9B00DBD8,
        ]
        ones = 2**32 - 1
        assert references.philox_words((ones,) * 4, (ones,) * 2) == [
            0x408F276D,
            0x41C83B0E,
            0xA20BC7C6,
            0x6D5451FD,
        ]

    @pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, 2**63 - 1])
    def test_uniform(self, seed: int) -> None:
        u = philox.uniform(torch.tensor(seed), 1000)
        assert u.dtype == torch.float32
        np.testing.assert_array_equal(u, references.philox_uniform(seed, 1000))

    def test_slopes_do_not_depend_on_threads(self) -> None:
        x, seed = -torch.ones(300_001), torch.tensor(3)
        before, found = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(dl4py.ops.rrelu(x, seed, 0.0, 1.0))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])

    def test_slopes_do_not_depend_on_dtype_or_layout(self) -> None:
        x, seed = -torch.ones(40, 50, dtype=torch.float64), torch.tensor(99)
        slopes = -dl4py.ops.rrelu(x, seed, 0.0, 1.0)
        u = references.philox_uniform(99, 2000).reshape(40, 50)
        np.testing.assert_array_equal(slopes, u)
        for other in (x.float(), x.t().contiguous().t(), x[:, :1].expand(40, 50)):
            y = -dl4py.ops.rrelu(other, seed, 0.0, 1.0)
            torch.testing.assert_close(y.double(), slopes, rtol=1e-7, atol=0)

    def test_backward_draws_the_same(self) -> None:
        x, seed = -torch.ones(1000, dtype=torch.float64), torch.tensor(5)

        def rrelu(x: Tensor) -> Tensor:
            return dl4py.ops.rrelu(x, seed, 0.1, 0.9)

        close(derivative(rrelu, x), -rrelu(x))

    def test_vmap_means_each_example_alone(self) -> None:
        x, seeds = -torch.ones(3, 4, 100, dtype=torch.float64), torch.arange(3)

        def one(x: Tensor, seed: Tensor) -> Tensor:
            return dl4py.ops.rrelu(x, seed, 0.1, 0.9)

        for dims, given in ((0, seeds), (None, seeds[1])):
            expected = [
                one(x[i], given if dims is None else given[i]) for i in range(3)
            ]
            close(vmap(one, in_dims=(0, dims))(x, given), torch.stack(expected))
        nested = vmap(vmap(one, in_dims=(0, None)))(x, seeds)
        close(nested[2, 1], one(x[2, 1], seeds[2]))


class TestRegistration:
    @every_op
    def test_entry_has_the_formulas_name_and_parameters(self, f: Case) -> None:
        entry = f.made.entry
        assert entry is getattr(dl4py.ops, f.made.name)
        parameters = inspect.signature(entry).parameters.values()
        assert [p.name for p in parameters] == ["x", *f.made.params]
        assert all(p.default is p.empty for p in parameters)
        assert (entry.__doc__ or "").startswith("f(x) = ")

    @pytest.mark.parametrize("name", register.PRIVATE)
    def test_private_names_of_torch_exist(self, name: str) -> None:
        there: Any = torch
        for part in name.split(".")[1:]:
            there = getattr(there, part) if part != "_op" else OPS["cube"].op._op

    def test_private_names_of_torch_are_used_in_one_place(self) -> None:
        word = r"(?:torch|forward_ad|_functorch|_lib|\w*raw\w*)\.(?:_\w+|\w+\._\w+)"
        parts = {part for name in register.PRIVATE for part in name.split(".")}
        root = pathlib.Path(dl4py.__file__).parent
        for path in root.rglob("*.py"):
            found = re.findall(word, path.read_text())
            names = {
                p
                for name in found
                for p in name.split(".")
                if re.match("_(?!_|foreach_)", p)
            }  # _foreach_ is documented
            if path.name == "register.py":
                assert names and names <= parts
            else:
                assert not names, f"{path}: {names}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestCuda:
    def test_kernels_are_there(self) -> None:
        assert library.origin("cuda").startswith(("prebuilt", "jit"))

    @every_op
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", register.DTYPES, ids=str)
    def test_equals_cpu(self, f: Case, layout: str, dtype: torch.dtype) -> None:
        x = LAYOUTS[layout](torch.randn(3, 4, 5, 6).to(dtype))
        on_gpu = f.on("cuda")
        with torch.no_grad():
            for order, g in itertools.product(range(3), (None, torch.randn_like(x))):
                there = x.cuda(), None if g is None else g.cuda()
                torch.testing.assert_close(
                    on_gpu.op(*there, order).cpu(), f.op(x, g, order)
                )
        close(derivative(on_gpu, x.cuda()).cpu(), derivative(f, x), 1e-2)

    def test_streams_and_graphs(self) -> None:
        seed, x = torch.tensor(1).cuda(), -torch.ones(1000).cuda()
        dl4py.ops.rrelu(x, seed, 0.1, 0.9)  # builds outside of the capture
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = dl4py.ops.rrelu(x, seed, 0.1, 0.9)
        for number in (2, 3):
            seed.fill_(number)
            graph.replay()
            assert torch.equal(y, dl4py.ops.rrelu(x, seed, 0.1, 0.9))
