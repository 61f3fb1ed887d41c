"""NativeRandom draws every number that ND4J drew, and goes on where it was."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dl4py import config
from dl4py.clock import Clock
from dl4py.noise import NativeRandom, permutation
from dl4py.ops.native import draw as by_formula
from dl4py.ops.native import native_draw_op
from tests import golden

DTYPES = {"FLOAT": torch.float32, "DOUBLE": torch.float64}
Draw = Callable[[NativeRandom, torch.dtype], Tensor]


def filled(name: str, *args: float, size: Any = 64, order: str = "c") -> Draw:
    def draw(random: NativeRandom, dtype: torch.dtype) -> Tensor:
        like = torch.empty(size, dtype=dtype)
        found: Tensor = getattr(random, f"{name}_")(random.empty(like, order), *args)
        return found

    return draw


def dropped(p: float, size: Any = 64, order: str = "c", by: float = 1.0) -> Draw:
    draw = filled("keep", p, size=size, order=order)
    return lambda random, dtype: draw(random, dtype) / by


def disturbed(noise: Any, size: Any, order: str = "c") -> Draw:
    """What a layer's dropout makes of ones."""
    return lambda random, dtype: noise.apply(
        torch.ones(size, dtype=dtype), random.ordered(order), Clock()
    )


def alpha(random: NativeRandom, dtype: torch.dtype) -> Tensor:
    kept = random.keep(torch.empty(64, dtype=dtype), 0.8)
    a, b, other = (torch.tensor(v, dtype=dtype) for v in (0.9, 0.2, -1.7))
    return torch.where(kept > 0, a + b, a * other + b)


def chosen(random: NativeRandom, dtype: torch.dtype) -> Tensor:
    values = torch.arange(5, dtype=dtype)
    p = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15], dtype=dtype)
    return random.choice(values, p, torch.empty(64, dtype=dtype))


def picked(name: str, n: int) -> Draw:
    at = [0, 1, 2, 3, n // 4, n // 2 - 1, n // 2, n // 2 + 1, 3 * n // 4, n - 2, n - 1]
    return lambda random, dtype: filled(name, size=n)(random, dtype)[at]


def line(random: NativeRandom, dtype: torch.dtype) -> Tensor:
    random.advance(11)
    return torch.linspace(0, 10, 11, dtype=dtype)


places = " at 0,1,2,3,n/4,n/2-1,n/2,n/2+1,3n/4,n-2,n-1"
DRAWS: dict[str, Draw] = {
    "rand(64)": filled("uniform"),
    "rand(7)": filled("uniform", size=7),
    "rand(c,5,4)": filled("uniform", size=(5, 4)),
    "rand(f,5,4)": filled("uniform", size=(5, 4), order="f"),
    "randn(64)": filled("normal"),
    "randn(63)": filled("normal", size=63),
    "randn(1)": filled("normal", size=1),
    "randn(c,5,4)": filled("normal", size=(5, 4)),
    "randn(f,5,4)": filled("normal", size=(5, 4), order="f"),
    "uniform(-2,3)(64)": filled("uniform", -2, 3),
    "gaussian(1.5,0.5)(64)": filled("normal", 1.5, 0.5),
    "truncated(0,1)(64)": filled("truncated_normal"),
    "truncated(1,2)(63)": filled("truncated_normal", 1, 2, size=63),
    "truncated(0,1)(1001)": filled("truncated_normal", size=1001),
    "lognormal(0.3,0.7)(64)": filled("log_normal", 0.3, 0.7),
    "lognormal(0,1)(63)": filled("log_normal", size=63),
    "binomial(10,0.3)(64)": filled("binomial", 10, 0.3),
    "binomialEx(10,0.3)(64)": filled("binomial", 10, 0.3),
    "bernoulli(0.3)(64)": filled("bernoulli", 0.3),
    "dropout(0.8)(ones 64)": dropped(0.8),
    "dropoutInverted(0.8)(ones 64)": dropped(0.8, by=0.8),
    "dropoutInverted(0.5)(ones c 5x4)": dropped(0.5, (5, 4), by=0.5),
    "dropoutInverted(0.5)(ones f 5x4)": dropped(0.5, (5, 4), "f", by=0.5),
    "alphaDropout(0.8,a=0.9,a'=-1.7,b=0.2)(ones 64)": alpha,
    "layer Dropout(0.8)(ones 4x16)": disturbed(config.Dropout(0.8), (4, 16)),
    "layer Dropout(0.8)(ones f 4x16)": disturbed(config.Dropout(0.8), (4, 16), "f"),
    "layer AlphaDropout(0.8)(ones 4x16)": disturbed(config.AlphaDropout(0.8), (4, 16)),
    "layer GaussianDropout(0.2)(ones 4x16)": disturbed(
        config.GaussianDropout(0.2), (4, 16)
    ),
    "layer GaussianNoise(0.3)(ones 4x16)": disturbed(
        config.GaussianNoise(0.3), (4, 16)
    ),
    "layer SpatialDropout(0.7)(ones 2x8x3)": disturbed(
        config.SpatialDropout(0.7), (2, 8, 3)
    ),
    "orthogonal(gain=1)(6,4)": filled("orthogonal", 1, size=(6, 4)),
    "orthogonal(gain=2)(4,6)": filled("orthogonal", 2, size=(4, 6)),
    "orthogonal(gain=1)(4,4)": filled("orthogonal", 1, size=(4, 4)),
    "choice([0..4],[.1,.2,.3,.25,.15])(64)": chosen,
    f"rand(1000000){places}": picked("uniform", 10**6),
    f"randn(1000001){places}": picked("normal", 10**6 + 1),
    "linspace(0,10,11): advances the generator": line,
}
# neither repeats its first numbers in ND4J itself, nor advances the state
NO_STREAM = "exponential(2)(64)"
OTHERS = {"scalars", "shuffles", "networks", NO_STREAM}


def test_every_golden_draw_is_compared() -> None:
    assert set(golden.load("random")) == set(DRAWS) | OTHERS


@pytest.mark.parametrize("name", DRAWS)
def test_equals_nd4j(name: str) -> None:
    for row in golden.load("random")[name]:
        random, dtype = NativeRandom(row["seed"]), DTYPES[row["dtype"]]
        assert [random.root, random.node] == row["state0"]
        for values, state in (("first", "state1"), ("second", "state2")):
            ours = DRAWS[name](random, dtype)
            theirs = torch.tensor(row[values], dtype=dtype)
            assert [random.root, random.node] == row[state]
            if name.startswith("orthogonal"):
                assert_same_columns(ours, theirs)
            elif name.startswith(("layer", "dropoutI")):  # x / p, x · A + B
                torch.testing.assert_close(ours, theirs, rtol=2.5e-7, atol=0)
                assert torch.equal(ours == 0, theirs == 0)
            elif "log" in name and dtype == torch.float64:
                torch.testing.assert_close(ours, theirs, rtol=2.3e-16, atol=0)  # 1 ulp
            else:
                assert torch.equal(ours, theirs), (ours - theirs).abs().max()


def assert_same_columns(ours: Tensor, theirs: Tensor) -> None:
    """But for the sign of each column, or row where those are fewer."""
    rows, columns = ours.shape
    if rows < columns:  # the last ones are whatever completes a basis
        ours, theirs = ours[:, :rows], theirs[:, :rows]
    tolerance = 1e-12 if ours.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours.abs(), theirs.abs(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", ["42", "123", "12345"])
def test_scalars_equal_nd4j(seed: str) -> None:
    rows = golden.load("random")["scalars"][seed]
    single = {  # a float prints as the shortest that is one
        "nextInt": lambda r: r.next_int(),
        "nextInt(10)": lambda r: r.next_int(10),
        "nextInt(3,9)": lambda r: r.next_int(3, 9),
        "nextLong": lambda r: r.next_long(),
        "nextBoolean": lambda r: r.next_boolean(),
        "nextFloat": lambda r: r.next_float(),
        "nextDouble": lambda r: r.next_float(),
        "nextGaussian": lambda r: r.next_gaussian(),
    }
    assert {name for name in rows if not name.endswith(" state")} == set(single)
    for name, draw in single.items():
        random = NativeRandom(int(seed))
        drawn = [draw(random) for _ in range(16)]
        if name == "nextFloat":
            assert torch.equal(torch.tensor(drawn), torch.tensor(rows[name]))
        else:
            assert drawn == rows[name], name
        assert [random.root, random.node] == rows[f"{name} state"]


def test_shuffles_equal_nd4j() -> None:
    for name, rows in golden.load("random")["shuffles"].items():
        seed = int(
            name.partition("(")[2].partition(")")[0].removeprefix("a, new Random(")
        )
        if "twice" in name:
            first, second = (torch.tensor(r).long() for r in rows)
            order = permutation(len(first), seed)
            assert torch.equal(order[order], second)
        else:
            first = torch.tensor(rows).long().view(-1)
        assert torch.equal(NativeRandom(seed).permutation(len(first)), first)


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("bits", [23, 32])
@pytest.mark.parametrize(
    "kind", ["uniform", "normal", "truncated", "log_normal", "keep", "bernoulli"]
)
def test_formula_equals_kernel(kind: str, bits: int, dtype: torch.dtype) -> None:
    state = (42, -559038779, bits)
    kernel, formula = (
        torch.empty(100_001, dtype=dtype),
        torch.empty(100_001, dtype=dtype),
    )
    native_draw_op(kernel, *state, kind, 0.3, 0.7)
    by_formula(formula, *state, kind, 0.3, 0.7)
    if kind in ("uniform", "keep", "bernoulli"):
        assert torch.equal(kernel, formula)
    else:
        tolerance = 1e-12 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(kernel, formula, rtol=tolerance, atol=tolerance)


def test_threads_and_size_change_nothing() -> None:
    threads = torch.get_num_threads()
    many = NativeRandom(7).uniform(200_000)
    torch.set_num_threads(2)
    try:
        again = NativeRandom(7).uniform(200_000)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, again)
    assert torch.equal(NativeRandom(7).uniform(10), many[:10])


def test_bits_of_april_2020() -> None:
    whole, usual = NativeRandom(42, bits=32), NativeRandom(42)
    a, b = whole.uniform(1000).double(), usual.uniform(1000).double()
    assert (a != b).any() and ((a - b) * 2**23 <= 1).all() and (a >= b).all()
    assert whole.node == usual.node


def test_half_types_and_strides() -> None:
    drawn = NativeRandom(3).normal(torch.empty(4, 6))
    half = NativeRandom(3).normal(torch.empty(4, 6, dtype=torch.float16))
    torch.testing.assert_close(half, drawn.half(), rtol=0.02, atol=0.02)
    every_second = torch.zeros(4, 12)[:, ::2]
    NativeRandom(3).normal_(every_second)
    assert torch.equal(every_second, drawn)
    turned = NativeRandom(3).normal_(torch.empty(6, 4).t())
    assert torch.equal(turned.t().reshape(-1), drawn.reshape(-1))
    assert NativeRandom(3).normal(torch.empty(0)).shape == (0,)


def test_goes_on_from_its_state() -> None:
    random = NativeRandom(5, bits=32)
    random.uniform(10)
    random.next_gaussian()
    state = random.get_state()
    others = [
        NativeRandom.from_state(state),
        copy.deepcopy(random),
        pickle.loads(pickle.dumps(random)),
    ]
    for other in others:
        assert (other.root, other.node, other.bits) == (5, random.node, 32)
    sine, drawn = random.next_gaussian(), random.normal(7)
    for other in others:
        assert other.next_gaussian() == sine and torch.equal(other.normal(7), drawn)


def test_two_orders_are_one_stream() -> None:
    random, other = NativeRandom(5), NativeRandom(5)
    rows, columns = random.uniform((3, 2)), random.ordered("f").uniform((3, 2))
    assert torch.equal(rows, other.uniform((3, 2)))
    assert torch.equal(columns.t().reshape(-1), other.uniform(6))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: NativeRandom(0), "0 is the present time in ND4J, got 0"),
        (lambda: NativeRandom(1 << 64), "64 bits at most"),
        (lambda: NativeRandom(1.5), "expected a whole number, got 1.5"),
        (lambda: NativeRandom(True), "expected a whole number, got True"),
        (lambda: NativeRandom(1, bits=24), "expected 23, or 32 .* got 24"),
        (lambda: NativeRandom(1).set_state(torch.zeros(2)), "set_state.*int64"),
        (
            lambda: NativeRandom(1).choice(torch.ones(3), torch.ones(2), 4),
            r"one probability for each of \[k\] values",
        ),
        (
            lambda: permutation(-1, 2),
            r"permutation\(n=...\): expected a number of rows",
        ),
    ],
)
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_formulas_pass_the_same_tests() -> None:
    """Uniforms, masks and states without kernels; float32 normals round otherwise."""
    same = "scalars or shuffles or threads or bits or orders or uniform or binomial"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-p", "no:cacheprovider"]
        + ["-k", f"({same}) and not randn and not truncated"],
        env={**os.environ, "DL4PY_OPS": "off"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
