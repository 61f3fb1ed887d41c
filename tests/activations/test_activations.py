"""Every activation against its formula, its derivatives and DL4J's own numbers."""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import seed_everything
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from dl4py import activations, losses
from dl4py.noise import Noise
from dl4py.ops import library
from dl4py.registry import ACTIVATIONS
from tests import golden
from tests.references import activations as reference

TIGHT = {"rtol": 1e-6, "atol": 1e-8}  # the defaults let a 0.1 % error pass
ROWS = golden.load("activations")
ROWS_FLOAT = golden.load("activations_float")
GRID = torch.tensor(
    [-1e4, -30, -21, -6, -2.5, -1.2, -1, -0.3, -1e-4]
    + [0, 1e-4, 0.5, 0.7, 1, 2, 2.5, 6, 21, 30, 1e4],
    dtype=torch.float64,
)
ROUNDED = {"gelu": "1.702·x is rounded before the exponential"}
ENDS = torch.tensor([60, 89, 104, 745, 1e4, 1e13, 1e19, 1e30, 3e38, math.inf])


def parse(key: str) -> tuple[str, dict[str, Any]]:
    """``RELU(max=2,negativeSlope=0.1)`` as name and arguments; a bare word is True."""
    name, _, text = key.rstrip(")").partition("(")
    pairs = [part.partition("=") for part in text.split(",") if part]
    snake = {k: re.sub("[A-Z]", lambda m: "_" + m[0].lower(), k) for k, _, _ in pairs}
    args = {snake[k]: float(v) if v else True for k, _, v in pairs}
    args.pop("cutoff", None)  # RELU6(cutoff) is plain RELU6
    return name, args


OWN = [key for key in ACTIVATIONS if ACTIVATIONS[key].__module__.startswith("dl4py")]
CASES = {key: (key, {}) for key in OWN} | {
    key: parse(key) for key in ROWS if "(" in key
}


def make(case: str, **more: Any) -> nn.Module:
    """In evaluation mode, with every learned slope at the reference's value."""
    name, args = CASES.get(case) or parse(case)
    module = activations.get(name, **args, **more).eval()
    for parameter in module.parameters():
        parameter.data = torch.full(parameter.shape, reference.SLOPE).double()
    return module


def derivative(f: nn.Module, x: Tensor, grad: Tensor | None = None) -> Tensor:
    x = x.detach().requires_grad_()
    y = f(x)
    return torch.autograd.grad(y, x, torch.ones_like(y) if grad is None else grad)[0]


def orders(f: nn.Module, x: Tensor) -> list[Tensor]:
    """Value, slope (alone and on the way to more) and second derivative."""
    x = x.detach().requires_grad_()
    y = f(x)
    one = torch.ones_like(y)
    (alone,) = torch.autograd.grad(y, x, one, retain_graph=True)
    (slope,) = torch.autograd.grad(y, x, one, create_graph=True)
    found = [y.detach(), alone, slope.detach()]
    if slope.requires_grad:
        found += torch.autograd.grad(slope, x, one, materialize_grads=True)
    return found


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestActivation:
    @pytest.mark.parametrize(
        "dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-6)]
    )
    def test_equals_reference(self, case: str, dtype: torch.dtype, rtol: float) -> None:
        name, args = CASES[case]
        x = GRID.to(dtype)
        y = make(case).to(dtype)(x).detach().double().numpy()
        formula = getattr(reference, ACTIVATIONS.entry(name).key)
        x = x.double().numpy()
        atol = torch.finfo(dtype).tiny  # below it numbers lose digits
        if case in ROUNDED:
            atol = torch.finfo(dtype).eps * np.abs(x)
        error = np.abs(y - formula(x, **args))
        assert (error <= rtol * np.abs(formula(x, **args)) + atol).all()

    def test_derivatives(self, case: str) -> None:
        f = make(case)
        x = GRID[GRID.abs() < 10]
        for kink in f.kinks:
            x = x[(x - kink).abs() > 1e-3]
        x = x.requires_grad_()
        inputs = (x, *f.parameters())
        assert gradcheck(lambda x, *_: f(x), inputs, **TIGHT)
        assert gradgradcheck(lambda x, *_: f(x), inputs, **TIGHT)

    def test_derivatives_are_finite_everywhere(self, case: str) -> None:
        for dtype in (torch.float64, torch.float32):
            f = make(case).to(dtype)
            assert derivative(f, GRID.to(dtype)).isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_keeps_dtype_and_shape(self, case: str, dtype: torch.dtype) -> None:
        wide = torch.linspace(-3, 3, 24, dtype=dtype).reshape(4, 6)
        f = make(case).to(dtype)
        double = make(case)
        for x in (wide, wide.T, wide[:, ::2], wide[:0], wide[:1].expand(3, 6)):
            y = f(x)
            assert (y.dtype, y.shape) == (x.dtype, x.shape)
            rtol = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(
                y.double(), double(x.double()), rtol=rtol, atol=rtol
            )

    def test_zero_dimensions(self, case: str) -> None:
        x = torch.tensor(0.5, dtype=torch.float64)
        y = make(case)(x.reshape(1))
        torch.testing.assert_close(make(case)(x), y.reshape(()), rtol=0, atol=0)

    @pytest.mark.filterwarnings(
        "ignore:<class 'torch.autograd:DeprecationWarning"
    )  # Dynamo's
    @pytest.mark.parametrize("exact", [False, True])
    def test_compile(self, case: str, exact: bool) -> None:
        f = make(case, dl4j_exact=exact)
        torch._dynamo.reset()
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")

        def f_prime(x: Tensor) -> Tensor:
            return derivative(f, x)

        x = torch.cat([GRID[2:-2], ENDS.double(), -ENDS.double()])
        for h, k in ((compiled, f), (lambda x: derivative(compiled, x), f_prime)):
            torch.testing.assert_close(h(x), k(x), equal_nan=case == "softmax")

    @pytest.mark.filterwarnings(
        "ignore:.torch.jit.script:DeprecationWarning"
    )  # torch's own
    @pytest.mark.parametrize("exact", [False, True])
    def test_transforms(self, case: str, exact: bool) -> None:
        f = make(case, dl4j_exact=exact)
        x = GRID[2:-2].reshape(2, -1)
        torch.testing.assert_close(torch.func.vmap(f)(x), f(x), rtol=1e-14, atol=0)
        _, forward = torch.func.jvp(f, (x,), (torch.ones_like(x),))
        jacobian = torch.func.jacrev(f)(x)
        torch.testing.assert_close(
            forward, jacobian.sum((2, 3)), rtol=1e-12, atol=1e-15
        )

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_large_tensors(self, case: str, dtype: torch.dtype) -> None:
        # which may have kernels that small ones have not
        f, double = make(case).to(dtype), make(case)
        x = torch.linspace(-9, 9, 5001, dtype=dtype).reshape(-1, 3)
        rtol = 8 * torch.finfo(dtype).eps
        for h, exact in (
            (f, double),
            (lambda x: derivative(f, x), lambda x: derivative(double, x)),
        ):
            parts = [exact(part) for part in x.double().split(100)]
            y = h(x).detach().double()
            # torch's GELU forms 1 + tanh, which cancels, times up to 9
            torch.testing.assert_close(y, torch.cat(parts), rtol=rtol, atol=4 * rtol)

    @pytest.mark.parametrize(
        "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    )
    @pytest.mark.parametrize("exact", [False, True])
    def test_the_ends(self, case: str, dtype: torch.dtype, exact: bool) -> None:
        if case == "softmax":
            pytest.skip("not elementwise: test_softmax_sums_to_one_and_ignores_shifts")
        f = make(case, dl4j_exact=exact)
        x = torch.cat([ENDS, -ENDS]).to(dtype)
        expected = orders(f, x.double().clamp(-1e60, 1e60))
        rtol = 8 * torch.finfo(dtype).eps
        for y, exactly in zip(orders(f.to(dtype), x), expected, strict=True):
            infinite = x.isinf() & (exactly.abs() > 1e40)
            exactly = torch.where(infinite, exactly * math.inf, exactly)
            torch.testing.assert_close(y, exactly.to(dtype), atol=1e-28, rtol=rtol)

    def test_a_batch_of_one_equals_the_batch(self, case: str) -> None:
        if not library.compiled("cpu"):
            pytest.skip("torch's own operations round by the place")
        x = torch.cat([torch.randn(40, 5) * size for size in (0.3, 3, 30)])
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            f, given = make(case).to(dtype), x.to(dtype)
            together = orders(f, given)
            many = orders(f, given.repeat(30, 1))
            alone = zip(*(orders(f, row[None]) for row in given), strict=True)
            for y, of_many, rows in zip(together, many, alone, strict=True):
                same = {"rtol": 0, "atol": 0}
                torch.testing.assert_close(torch.cat(rows), y, **same)
                torch.testing.assert_close(of_many[: len(x)], y, **same)

    def test_copies(self, case: str) -> None:
        f = make(case, dl4j_exact=True)
        for twin in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
            assert repr(twin) == repr(f)
            torch.testing.assert_close(twin(GRID), f(GRID), rtol=0, atol=0)

    def test_repr_makes_it_again(self, case: str) -> None:
        f = make(case, dl4j_exact=True)
        twin = eval(repr(f), vars(activations)).eval()
        assert repr(twin) == repr(f)
        assert "dl4j_exact=True" in repr(f) and "dl4j_exact" not in repr(make(case))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_differs_says_the_truth(self, case: str, dtype: torch.dtype) -> None:
        plain, exact = make(case).to(dtype), make(case, dl4j_exact=True).to(dtype)
        x = GRID[2:-2].to(dtype)
        same = torch.equal(plain(x), exact(x))
        same = same and torch.equal(derivative(plain, x), derivative(exact, x))
        note = plain.differs(dtype)
        assert (note is None) == same
        assert note is None or "\n" not in note

    def test_arguments_are_checked(self, case: str) -> None:
        name, _ = CASES[case]
        for arg, default in activations.base.parameters(ACTIVATIONS[name]).items():
            if isinstance(default, (float, type(None))):
                with pytest.raises(
                    ValueError, match=rf"\({arg}=.*finite number, got nan"
                ):
                    activations.get(name, **{arg: math.nan})


def test_every_enum_entry_is_registered() -> None:
    assert {parse(key)[0].lower() for key in ROWS} <= set(OWN)
    assert len({parse(key)[0] for key in ROWS}) == 21
    for key, row in ROWS.items():
        entry = ACTIVATIONS.entry(parse(key)[0])
        assert entry.java == f"org.nd4j.linalg.activations.impl.{row['class']}"


# DL4J's numbers

PAIRS = (
    ("input", "epsilon", "output", "backprop"),
    ("input2d", "epsilon2d", "output2d", "backprop2d"),
    ("input", math.nan, None, "backprop_of_nan"),
    ("input", math.inf, None, "backprop_of_inf"),
)
TRAIN = {"train_alpha", "train_output", "train_backprop", "test_output_after_train"}
NOT_COMPARED = {
    "class": "the Java class, see test_every_enum_entry_is_registered",
    "train_seed": "of ND4J's generator; train_alpha holds what it drew",
    "backprop_without_training_forward": "DL4J's NullPointerException",
    "backprop_after_test_forward": "DL4J's NullPointerException",
    "train_backprop_other_length": "DL4J's IllegalStateException",
}


def check(ours: Tensor, row: list[Any], x: Tensor, scale: Tensor, rtol: float) -> int:
    """Compares where DL4J's number is finite; returns how many it compared.

    DL4J's kernels form 1 ± eˣ and 1 - tanh² x before they cancel: below one rounding
    unit of that (times |x|, times the incoming gradient) their numbers are noise.
    """
    theirs = torch.tensor(row, dtype=torch.float64)
    z, ours = x.double().abs(), ours.double()
    relative = torch.where(z > 20, max(rtol, 1e-6), rtol)
    noise = (
        torch.finfo(x.dtype).eps * z.clamp(min=1) * scale.double().abs().clamp(min=1)
    )
    known = theirs.isfinite()
    assert ours[known].isfinite().all()
    error = (ours - theirs).abs()
    assert (error <= relative * theirs.abs() + noise)[known].all()
    return int(known.sum())


def compare(
    case: str, row: dict[str, Any], dtype: torch.dtype, rtol: float
) -> set[str]:
    used: set[str] = set()
    for input, gradient, output, backprop in PAIRS:
        if input not in row:
            continue
        f = make(case, dl4j_exact=True)
        x = torch.tensor(row[input], dtype=dtype)
        one = torch.ones_like(x)
        if output is not None:
            assert check(f(x), row[output], x, one, rtol)
            used |= {input, output}
        if backprop in row:
            given = isinstance(gradient, str)
            e = torch.tensor(row[gradient], dtype=dtype) if given else gradient * one
            check(derivative(f, x, e), row[backprop], x, e if given else one, rtol)
            used |= {backprop} | ({gradient} if given else set())
    return used


class Recorded(Noise):
    """Slopes that were drawn elsewhere."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def uniform(self, like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        assert low <= float(self.numbers.min()) and float(self.numbers.max()) <= high
        return self.numbers.reshape(like.shape)


class TestGolden:
    @pytest.mark.parametrize("key", ROWS)
    def test_double(self, key: str) -> None:
        row = ROWS[key]
        used = compare(key, row, torch.float64, 1e-9)
        if "train_alpha" in row:
            used |= TRAIN | {"epsilon"}
            self.compare_training(key, row)
        assert set(row) == used | (set(row) & set(NOT_COMPARED))

    def compare_training(self, key: str, row: dict[str, Any]) -> None:
        f = make(key, dl4j_exact=True).train()
        f.noise = Recorded(torch.tensor(row["train_alpha"], dtype=torch.float64))
        x, e = (torch.tensor(row[k], dtype=torch.float64) for k in ("input", "epsilon"))
        assert check(f(x), row["train_output"], x, torch.ones_like(x), 1e-9) == 37
        assert check(derivative(f, x, e), row["train_backprop"], x, e, 1e-9) == 37
        assert check(f.eval()(x), row["test_output_after_train"], x, e, 1e-9) == 37

    @pytest.mark.parametrize("key", ROWS_FLOAT)
    def test_float(self, key: str) -> None:
        used = compare(key, ROWS_FLOAT[key], torch.float32, 1e-5)
        assert set(ROWS_FLOAT[key]) == used

    def test_every_row_is_there(self) -> None:
        assert (len(ROWS), len(ROWS_FLOAT)) == (33, 20)


class TestGet:
    @pytest.mark.parametrize("key", OWN)
    def test_by_java_class_and_alias(self, key: str) -> None:
        entry = ACTIVATIONS.entry(key)
        for name in (*entry.names, entry.java, key.upper()):
            found = ACTIVATIONS.by_java(name) or ACTIVATIONS.entry(name)
            assert found is entry

    def test_named(self) -> None:
        named = ACTIVATIONS.named("leakyrelu", alpha=0.2)
        assert repr(activations.get(named, dl4j_exact=True)) == (
            "LeakyReLU(alpha=0.2, dl4j_exact=True)"
        )

    def test_modules_classes_functions(self) -> None:
        module = nn.Hardswish()
        assert activations.get(module) is module
        assert isinstance(
            activations.get(nn.LeakyReLU, negative_slope=0.5), nn.LeakyReLU
        )
        doubled = activations.get(torch.clamp, min=0.0)
        assert doubled(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
        assert repr(doubled) == "Custom(clamp)"
        assert repr(pickle.loads(pickle.dumps(activations.get(torch.tanh)))) == (
            "Custom(tanh)"
        )

    @pytest.mark.parametrize(
        "wrong, args, error, message",
        [
            ("softsing", {}, ValueError, "did you mean 'softsign'"),
            ("cube", {"alpha": 1.0}, ValueError, "unknown argument 'alpha'"),
            (nn.ReLU(), {"alpha": 1.0}, ValueError, "its constructor"),
            (3, {}, TypeError, "must be a name, a torch.nn.Module, or a function"),
            (int, {}, TypeError, "must be a name, a torch.nn.Module, or a function"),
            ("rrelu", {"l": 0.5, "u": 0.1}, ValueError, "l <= u, got 0.5 > 0.1"),
            ("gelu", {"precise": "yes"}, ValueError, "True or False, got 'yes'"),
            ("elu", {"alpha": "1"}, ValueError, "finite number, got '1'"),
            ("prelu", {"shape": (0,)}, ValueError, "positive sizes"),
        ],
    )
    def test_one_clear_error(
        self, wrong: Any, args: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=re.escape(message)):
            activations.get(wrong, **args)


class TestRReLU:
    def test_slopes_are_uniform_and_are_the_gradient(self) -> None:
        f = activations.RReLU(l=0.2, u=0.6)
        f.noise = Noise(torch.Generator().manual_seed(1))
        x = -torch.ones(20_000, dtype=torch.float64, requires_grad=True)
        y = f(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(y, slope * x)
        assert 0.2 <= slope.min() < 0.201 and 0.599 < slope.max() <= 0.6
        assert abs(float(slope.mean()) - 0.4) < 4 * 0.4 / math.sqrt(12 * 20_000)

    @pytest.mark.parametrize("training", [False, True])
    def test_dl4j_gradient_is_one_everywhere(self, training: bool) -> None:
        f = activations.RReLU(dl4j_exact=True).train(training)
        assert torch.equal(derivative(f, GRID), torch.ones_like(GRID))

    @pytest.mark.parametrize("exact", [False, True])
    def test_equal_seeds_equal_slopes(self, exact: bool) -> None:
        f = activations.RReLU(dl4j_exact=exact)
        x = -torch.ones(100)
        draws = []
        for seed in (1, 1, 2):
            f.noise = Noise(torch.Generator().manual_seed(seed))
            draws.append(f(x))
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
        assert not torch.equal(f(x), draws[2])

    @pytest.mark.parametrize("seed", [torch.manual_seed, seed_everything])
    def test_seeds_of_torch_and_lightning_rule(
        self, seed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # Lightning sets them
            monkeypatch.setenv(name, "0")
        f, x = activations.RReLU(), -torch.ones(100)
        draws = []
        for number in (7, 7, 8):
            seed(number)
            draws.append([f(x), f(x)])
        first, again, other = draws
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[0], other[0])

    def test_keeps_its_input_and_a_seed_only(self) -> None:
        x = torch.ones(100, requires_grad=True)
        node = activations.RReLU()(x).grad_fn
        assert node is not None
        kept = [t.shape for t in node.saved_tensors]  # type: ignore[attr-defined]
        assert kept == [(100,), ()]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6), st.floats(-100, 100))
def test_softmax_sums_to_one_and_ignores_shifts(values: list[float], c: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    p = activations.get("softmax")(x)
    assert abs(float(p.sum()) - 1) < 1e-14
    torch.testing.assert_close(
        activations.get("softmax")(x + c), p, rtol=1e-12, atol=1e-14
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 30))
def test_odd_functions(value: float) -> None:
    x = torch.tensor([value], dtype=torch.float64)
    for name in ("cube", "hardtanh", "rationaltanh", "softsign", "tanh"):
        f = activations.get(name)
        assert torch.equal(f(-x), -f(x))


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_dl4j_computes_slopes_from_rounded_values(name: str) -> None:
    """So that they are 0 where f is rounded to 1, in losses too."""
    x = torch.tensor([[18.5, 36.5, 40.0]], dtype=torch.float64)
    a = activations.get(name)(x)
    slope = a * (1 - a) if name == "sigmoid" else 1 - a * a
    f = activations.get(name, dl4j_exact=True)
    one_ulp = {"rtol": 0, "atol": 2.3e-16}  # of 1; torch may or may not round t²
    torch.testing.assert_close(derivative(f, x), slope, **one_ulp)
    assert derivative(f, x)[0, 2] == 0
    assert derivative(activations.get(name), x)[0, 2] > 0
    z = x.clone().requires_grad_()
    losses.get("l2", activation=name, dl4j_exact=True)(
        z, torch.zeros_like(x)
    ).backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 2 * a * derivative(f, x), rtol=1e-15, atol=0)
