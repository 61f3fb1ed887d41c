"""Every op of ``dl4py.ops``: derivatives, function transforms, compiled graphs."""

from __future__ import annotations

import functools
import io
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

from dl4py.ops import sharding
from tests.ops_cases import (
    SMOOTH,
    VALUES,
    Case,
    Module,
    close,
    derivative,
    every,
    every_op,
    leaf,
)

TIGHT = {"rtol": 1e-6, "atol": 1e-8}  # the defaults let an error of 0.1 % pass

# torch loads its own forward-mode decompositions by the deprecated torch.jit.script
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


@every_op
class TestDerivatives:
    def test_gradcheck(self, f: Case) -> None:
        more = {"check_batched_grad": True, "check_batched_forward_grad": True}
        x = leaf(SMOOTH)
        assert gradcheck(f, x, check_forward_ad=True, **more, **TIGHT)
        assert gradgradcheck(
            f, x, check_fwd_over_rev=True, check_batched_grad=True, **TIGHT
        )

    @pytest.mark.parametrize("order", [0, 1, 2])
    @pytest.mark.parametrize("shape", [(2, 3), (3,), (2, 1), ()], ids=str)
    def test_gradcheck_with_scale(
        self, f: Case, order: int, shape: tuple[int, ...]
    ) -> None:
        def call(x: Tensor, s: Tensor) -> Tensor:
            return f.op(x, s, order)

        inputs = leaf(SMOOTH), leaf(torch.randn(shape, dtype=torch.float64))
        assert gradcheck(call, inputs, check_forward_ad=True, **TIGHT)
        assert gradgradcheck(call, inputs, check_fwd_over_rev=True, **TIGHT)

    def test_third_derivative(self, f: Case) -> None:
        x = leaf(SMOOTH)
        d = f(x)
        for _ in range(3):
            (d,) = torch.autograd.grad(d.sum(), x, create_graph=True)
        close(d, derivative(lambda x: f.formula(x, None, 2), SMOOTH), 1e-9)

    def test_only_the_input_is_saved(self, f: Case) -> None:
        saved: list[int] = []

        def pack(t: Tensor) -> Tensor:
            saved.append(t.data_ptr())
            return t

        x = leaf(SMOOTH)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            f(x)
        seeds = [p.data_ptr() for p in f.params if isinstance(p, Tensor)]
        assert saved == [x.data_ptr(), *seeds]

    def test_a_changed_input_is_noticed(self, f: Case) -> None:
        x = leaf(SMOOTH)
        y = f(x)
        with torch.no_grad():
            x.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_checkpoint(self, f: Case) -> None:
        again = functools.partial(checkpoint, f, use_reentrant=False)
        close(derivative(again, SMOOTH), derivative(f, SMOOTH))

    def test_checkpoint_where_dtensors_may_turn_up(
        self, f: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What ends a recomputation early is no reason to call an op again."""
        monkeypatch.setattr(sharding, "tell", lambda: True)
        self.test_checkpoint(f)

    def test_threads(self, f: Case) -> None:
        x = torch.randn(70000, dtype=torch.float64)
        expected, wrong = derivative(f, x), []

        def work() -> None:
            for _ in range(3):
                by_func = grad(lambda v: f(v).sum())(x)
                if not (torch.equal(derivative(f, x), expected)):
                    wrong.append("autograd")
                if not torch.allclose(by_func, expected):
                    wrong.append("func")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong


def by_vjp(h: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y, pull = vjp(h, x)
    return pull(torch.ones_like(y))[0]


# on elementwise functions each one is the derivative, or nothing
TRANSFORMS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "grad": lambda h: grad(lambda x: h(x).sum()),
    "vjp": lambda h: lambda x: by_vjp(h, x),
    "jvp": lambda h: lambda x: jvp(h, (x,), (torch.ones_like(x),))[1],
    "vmap": lambda h: vmap(h),
}


@every(upper=VALUES["lower"])  # one slope everywhere: vmap counts elements anew
class TestTransforms:
    X = torch.cat([SMOOTH.flatten(), SMOOTH.flatten() / 2, SMOOTH.flatten()[:4] / 3])
    X = X.reshape(2, 2, 2, 2)

    @pytest.fixture
    def orders(self, f: Case) -> list[Tensor]:
        third = derivative(lambda x: f.formula(x, None, 2), self.X)
        return [*f.reference(self.X), third]

    @pytest.mark.parametrize("outer", TRANSFORMS)
    def test_nested(self, f: Case, outer: str, orders: list[Tensor]) -> None:
        for nesting in itertools.product([outer], TRANSFORMS, TRANSFORMS):
            call: Callable[[Tensor], Tensor] = f
            for name in reversed(nesting):
                call = TRANSFORMS[name](call)
            order = 3 - nesting.count("vmap")
            close(call(self.X), orders[order], 1e-9)
            with torch.no_grad():
                close(call(self.X), orders[order], 1e-9)
            if order < 3:
                close(derivative(call, self.X), orders[order + 1], 1e-9)

    def test_no_grad_inside(self, f: Case, orders: list[Tensor]) -> None:
        def product(x: Tensor) -> Tensor:
            with torch.no_grad():
                constant = f(x)
            return (f(x) * constant).sum()

        close(grad(product)(self.X), orders[1] * orders[0], 1e-9)
        second = grad(lambda x: grad(product)(x).sum())(self.X)
        close(second, orders[2] * orders[0], 1e-9)

    def test_jacobians(self, f: Case, orders: list[Tensor]) -> None:
        x, flat = self.X.flatten(), [y.flatten() for y in orders]
        close(jacrev(f)(x), flat[1].diag(), 1e-9)
        close(jacfwd(f)(x), flat[1].diag(), 1e-9)
        close(hessian(lambda x: f(x).sum())(x), flat[2].diag(), 1e-9)
        for outer, inner in itertools.product((jacrev, jacfwd), repeat=2):
            twice = outer(inner(f))(x)
            close(twice.sum((1, 2)), flat[2], 1e-9)
        batched = torch.autograd.functional.jacobian(f, x, vectorize=True)
        close(batched, flat[1].diag(), 1e-9)

    def test_vmap_axes(self, f: Case, orders: list[Tensor]) -> None:
        close(vmap(f, in_dims=2, out_dims=2)(self.X), orders[0])
        close(vmap(lambda x: by_vjp(f, x), in_dims=1, out_dims=1)(self.X), orders[1])
        x, scales = self.X[0, 0, 0], torch.randn(3, 2).double()
        close(vmap(lambda s: f.op(x, s, 1))(scales), scales * orders[1][0, 0, 0])
        columns = vmap(lambda x, s: f.op(x, s, 0), in_dims=(0, 1))(self.X, scales[:2])
        expected = orders[0] * scales[:2].T[:, None, None]
        close(columns, expected)

    def test_duals(self, f: Case, orders: list[Tensor]) -> None:
        with forward_ad.dual_level():
            x = self.X.clone().requires_grad_()
            dual = forward_ad.make_dual(x, torch.full_like(x, 2))
            y = f(dual)
            close(forward_ad.unpack_dual(y).tangent, 2 * orders[1])
            (g,) = torch.autograd.grad(y.sum(), dual)
            close(forward_ad.unpack_dual(g).tangent, 2 * orders[2])


@pytest.fixture
def fresh_graphs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[None]:
    # compiled graphs are cached on disk under the op's name, not under what it does
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_graphs")
class TestGraphs:
    def check(self, f: Case, backend: str) -> None:
        compiled = torch.compile(f, fullgraph=True, backend=backend)
        close(compiled(SMOOTH), f(SMOOTH))
        close(derivative(compiled, SMOOTH), derivative(f, SMOOTH))

    @every_op
    def test_compile(self, f: Case) -> None:
        self.check(f, "aot_eager")
        flat = SMOOTH.flatten()
        for call in (
            lambda x: jvp(f, (x,), (torch.ones_like(x),))[1],
            lambda x: hessian(lambda x: f(x).pow(2).sum())(x),
        ):
            compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
            close(compiled(flat), call(flat))

    @pytest.mark.parametrize("name", ["cube", "rectifiedtanh", "rrelu"])
    def test_inductor(self, name: str) -> None:
        self.check(Case(name), "inductor")

    @every_op
    def test_dynamic_shapes_make_one_graph(self, f: Case) -> None:
        graphs = []

        def backend(graph: Any, inputs: Any) -> Any:
            graphs.append(graph)
            return graph

        compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=backend)
        for n in (3, 5, 8):
            x = SMOOTH.flatten().repeat(2)[:n]
            close(compiled(x), f(x))
        assert len(graphs) == 1

    @every_op
    def test_export(self, f: Case) -> None:
        module = Module(f)
        x = torch.cat([SMOOTH, SMOOTH])
        rows = {"x": {0: torch.export.Dim.DYNAMIC}}
        program = torch.export.export(module, (x,), dynamic_shapes=rows)
        assert f"dl4py.{f.made.name}.default" in program.graph_module.code
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        close(loaded(SMOOTH), f(SMOOTH))
        close(derivative(loaded, SMOOTH), derivative(f, SMOOTH))

    @every_op
    def test_opcheck(self, f: Case) -> None:
        x, g = leaf(SMOOTH), leaf(torch.randn_like(SMOOTH))
        row = leaf(torch.randn(3, dtype=torch.float64))
        for args in (
            (x, None, 0),
            (x, g, 1),
            (x, row, 2),
            (leaf(x.t()), None, 1),
            (
                leaf(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)),
                None,
                0,
            ),
        ):
            torch.library.opcheck(f.made.op, (*args, *f.params))
        torch.library.opcheck(f.made.raw, (SMOOTH, *f.params))
        torch.library.opcheck(f.made.raw_d, (SMOOTH, SMOOTH, *f.params))

    @every_op
    def test_meta_and_fake(self, f: Case) -> None:
        meta = torch.empty(3, 4, device="meta", requires_grad=True)
        f.on("meta")(meta).sum().backward()
        assert meta.grad is not None and meta.grad.shape == (3, 4)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = torch.empty(3, 4, requires_grad=True)
            f(fake).sum().backward()
            assert fake.grad is not None and fake.grad.shape == (3, 4)
