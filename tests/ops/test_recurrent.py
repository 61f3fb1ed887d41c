"""Steps of recurrent layers by one kernel equal the loop over the layer's own cell."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dl4py import activations, layers
from dl4py.layers.recurrent import step_kernel
from dl4py.ops.library import compiled
from dl4py.registry import ACTIVATIONS

pytestmark = [
    pytest.mark.skipif(not compiled("cpu"), reason="no compiled kernels"),
    # torch loads its own forward-mode decompositions by the deprecated torch.jit.script
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]
KINDS = [layers.GravesLSTM, layers.LSTM, layers.SimpleRnn]
N, SIZE, UNITS, TIME = 4, 3, 5, 6
X = torch.zeros(1, dtype=torch.float64)
WITH_KERNEL = [
    key
    for key in ACTIVATIONS
    if key != "prelu" and step_kernel(activations.get(key), X)
]


def masks() -> list[Tensor | None]:
    """None, zeros and ones with holes, and what lies between."""
    g = torch.Generator().manual_seed(1)
    part = torch.rand(N, TIME, generator=g, dtype=torch.float64)
    return [None, (part > 0.4).double(), part]


def made(kind: Any, activation: str, gate: str, dtype: torch.dtype, **more: Any) -> Any:
    torch.manual_seed(0)
    gates = {} if kind is layers.SimpleRnn else {"gate_activation": gate}
    return kind(SIZE, UNITS, activation=activation, **gates, **more).to(dtype)


def batch(layer: Any, scale: float = 0.3) -> tuple[Tensor, tuple[Tensor, ...]]:
    dtype = next(layer.parameters()).dtype
    x = torch.randn(N, SIZE, TIME).mul(scale).to(dtype).requires_grad_()
    state = [torch.randn(N, UNITS).mul(scale).to(dtype) for _ in layer.states]
    return x, tuple(s.requires_grad_() for s in state)


def everything(layer: Any, x: Tensor, state: Any, mask: Tensor | None) -> list[Tensor]:
    """Values, states and all gradients, where each output counts differently."""
    # not layer(...), which in exact mode lets no gradient through to a given state
    used = {name: layer.param(name) for name in layer.uses}
    y, after = layer.run(x.permute(2, 0, 1), layer.seen(mask), state, used)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    score = (y * weights).sum() + sum((s * s).sum() for s in after)
    inputs = [x, *state, *layer.parameters()]
    return [y, *after, *torch.autograd.grad(score, inputs)]


def compare(layer: Any, mask: Tensor | None, tol: float) -> None:
    x, state = batch(layer)
    mask = None if mask is None else mask.to(x.dtype)
    ours = everything(layer, x, state, mask)
    layer.fused = lambda *_: None
    theirs = everything(layer, x, state, mask)
    del layer.fused
    for a, b in zip(ours, theirs, strict=True):
        scale = b.abs().max().clamp(min=1e-30)
        assert (a - b).abs().max() <= tol * scale


@pytest.mark.parametrize("activation", WITH_KERNEL)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loop(kind: Any, activation: str) -> None:
    for mask in masks():
        for exact in (False, True):
            more = {"dl4j_exact": exact}
            compare(
                made(kind, activation, "sigmoid", torch.float64, **more), mask, 1e-12
            )
    compare(made(kind, activation, "sigmoid", torch.float32), masks()[1], 2e-5)


@pytest.mark.parametrize(
    "kind, twice", [(layers.LSTM, False), *((layers.GravesLSTM, b) for b in (0, 1))]
)
def test_masks_as_dl4j_sees_them(kind: Any, twice: bool) -> None:
    """Behind wrappers; errors of gates are masked in both directions together."""
    for activation, mask in itertools.product(("softsign", "elu"), masks()):
        layer = made(kind, activation, "sigmoid", torch.float64, dl4j_exact=True)
        layer.sees_mask, layer.masks_errors = True, bool(twice)
        compare(layer, mask, 1e-12)


def rows(activation: str, normed: bool, dtype: torch.dtype, **more: Any) -> Any:
    """A plain layer with a gain that differs from unit to unit."""
    more.update(has_layer_norm=normed)
    layer = made(layers.SimpleRnn, activation, "", dtype, **more)
    if normed:
        nn.init.normal_(layer.gain)
    return layer


@pytest.mark.parametrize(
    "activation, normed", [("softmax", False), *((a, True) for a in ("softmax", "elu"))]
)
def test_what_looks_at_whole_rows(activation: str, normed: bool) -> None:
    """Softmax over the units, layer normalisation of h·RW: SimpleRnn's alone."""
    for mask, exact in itertools.product(masks(), (False, True)):
        layer = rows(activation, normed, torch.float64, dl4j_exact=exact)
        compare(layer, mask, 1e-12)
    compare(rows(activation, normed, torch.float32), masks()[1], 2e-5)
    layer = rows(activation, normed, torch.float64)
    layer.loop = None
    layer(torch.randn(2, SIZE, TIME, dtype=torch.float64))
    with torch.no_grad():  # gone, but everywhere alike
        del layer.loop
        layer.recurrent_weight.zero_()
    compare(layer, None, 1e-12)


@pytest.mark.parametrize("units", [1, 300])
def test_rows_of_all_lengths(units: int) -> None:
    layer = layers.SimpleRnn(2, units, activation="softmax", has_layer_norm=True)
    layer = layer.double()
    x = torch.randn(40, 2, 3).double().requires_grad_()
    state = [torch.randn(40, units).double().requires_grad_()]
    ours = everything(layer, x, state, None)
    layer.fused = lambda *_: None
    for a, b in zip(ours, everything(layer, x, state, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_what_is_not_a_number_spreads_over_its_row_alone() -> None:
    layer = layers.SimpleRnn(SIZE, UNITS, activation="softmax")
    x = torch.zeros(2, SIZE, TIME)
    for bad in (float("nan"), float("inf")):
        x[1, 0, 2] = bad
        y = layer(x)[0]
        assert y[1, :, 2:].isnan().all() and y[0].isfinite().all()
        assert y[1, :, :2].isfinite().all()


def test_gated_layers_leave_softmax_to_the_loop() -> None:
    layer = made(layers.LSTM, "softmax", "sigmoid", torch.float64)
    assert step_kernel(layer.activation, X) is None
    y = layer(torch.randn(N, SIZE, TIME, dtype=torch.float64))[0]
    assert (y > 0).all() and (y < 1).all()


@pytest.mark.parametrize("gate", WITH_KERNEL)
def test_gates(gate: str) -> None:
    # of a bias of 1, gates that are not bounded make c overflow
    more = {"forget_gate_bias_init": 0.0}
    layer = made(layers.GravesLSTM, "tanh", gate, torch.float64, **more)
    compare(layer, masks()[2], 1e-12)


@pytest.mark.parametrize("n, units", [(1, 1), (3, 300), (700, 7)])
def test_sizes(n: int, units: int) -> None:
    """More units than a row's piece, and more rows than one thread's share."""
    layer = layers.GravesLSTM(2, units, activation="softsign").double()
    x, mask = torch.randn(n, 2, 3).double(), (torch.rand(n, 3) > 0.3).double()
    state = [torch.randn(n, units).double().requires_grad_() for _ in range(2)]
    ours = everything(layer, x.requires_grad_(), state, mask)
    layer.fused = lambda *_: None
    for a, b in zip(ours, everything(layer, x, state, mask), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_is_what_runs(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loop(*_: Any) -> Any:
        raise AssertionError("the loop ran")

    monkeypatch.setattr(layers.GravesLSTM, "loop", no_loop)
    monkeypatch.setattr(layers.LSTM, "loop", no_loop)
    monkeypatch.setattr(layers.SimpleRnn, "loop", no_loop)
    for activation in WITH_KERNEL:
        layer = made(kind, activation, "sigmoid", torch.float32)
        everything(layer, *batch(layer, 0.1), masks()[1])
    exact = made(kind, "tanh", "sigmoid", torch.float32, dl4j_exact=True)
    exact.sees_mask = True
    everything(exact, *batch(exact, 0.1), masks()[1])


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_second_derivatives(kind: Any) -> None:
    if kind is None:
        layer = rows("softmax", True, torch.float64)
    else:
        layer = made(kind, "softsign", "sigmoid", torch.float64)
    x, state = batch(layer)
    mask = masks()[2][:2, :3]

    def f(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        y, after = layer(x, mask, rest[: len(layer.states)])
        return (y, *after)

    inputs = [
        t.detach().requires_grad_() for t in (x[:2, :, :3], *(s[:2] for s in state))
    ]
    inputs += list(layer.parameters())
    tight = {"rtol": 1e-6, "atol": 1e-8}
    assert torch.autograd.gradcheck(f, inputs, **tight)
    assert torch.autograd.gradgradcheck(f, inputs, **tight)


@pytest.mark.parametrize("kind", KINDS)
def test_function_transforms(kind: Any) -> None:
    layer = made(kind, "tanh", "hardsigmoid", torch.float64)
    x, mask = torch.randn(N, SIZE, TIME).double(), masks()[1]

    def f(x: Tensor) -> Tensor:
        return layer(x, mask)[0].square().sum()

    (g,) = torch.autograd.grad(f(x.requires_grad_()), x)
    torch.testing.assert_close(torch.func.grad(f)(x), g)
    _, t = torch.func.jvp(f, (x,), (x,))
    torch.testing.assert_close(t, (g * x).sum())
    each = torch.func.vmap(lambda x: layer(x[None])[0][0])(x)
    torch.testing.assert_close(each, layer(x)[0])
    y = layer(x, mask)[0]
    many = torch.stack([torch.ones_like(y), torch.zeros_like(y)])
    (batched,) = torch.autograd.grad(y, x, many, is_grads_batched=True)
    torch.testing.assert_close(
        batched[0], torch.autograd.grad(layer(x, mask)[0].sum(), x)[0]
    )
    assert not batched[1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_need_no_gradient(kind: Any) -> None:
    layer = made(kind, "hardtanh", "sigmoid", torch.float64)
    x, state = batch(layer)
    _, _, *whole = everything(layer, x, state, None)
    layer.requires_grad_(False)
    y, _ = layer(x, None, tuple(s.detach() for s in state))
    (g,) = torch.autograd.grad(y.sum(), x)
    layer.fused = lambda *_: None
    y, _ = layer(x, None, tuple(s.detach() for s in state))
    torch.testing.assert_close(g, torch.autograd.grad(y.sum(), x)[0])
    with torch.no_grad():
        assert not layer(x)[0].requires_grad


def test_a_changed_activation_is_heeded() -> None:
    class Bent(activations.Tanh):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) + 1

    assert step_kernel(Bent(), X) is None
    assert step_kernel(nn.Tanh(), X) is None
    hooked = activations.Tanh()
    assert step_kernel(hooked, X) == ("tanh", ())
    hooked.register_forward_hook(lambda module, given, y: y + 1)
    assert step_kernel(hooked, X) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name, args",
    [
        ("elu", {"alpha": 0.7}),
        ("leakyrelu", {"alpha": 0.7}),
        ("rrelu", {}),
        ("relu", {"max": 0.4, "threshold": 0.1, "negative_slope": 0.25}),
        ("thresholdedrelu", {"theta": 0.1}),
    ],
)
def test_arguments(kind: Any, name: str, args: dict[str, float]) -> None:
    """Exact slopes are of α = 1, or of a constant that was a float32 once."""
    given: Any = ACTIVATIONS.named(name, **args)
    for exact in (False, True)[: 1 + (name != "rrelu")]:
        more = {"dl4j_exact": exact}
        layer = made(kind, given, "sigmoid", torch.float64, **more).eval()
        assert step_kernel(layer.activation, X)
        compare(layer, masks()[2], 1e-12)


def test_where_exact_mode_has_a_gradient_of_its_own_the_loop_runs() -> None:
    exact = activations.get("relu", max=0.0, dl4j_exact=True)
    assert step_kernel(exact, X) is None


def test_an_empty_series_and_other_types() -> None:
    layer = layers.GravesLSTM(SIZE, UNITS)
    assert layer(torch.zeros(2, SIZE, 0))[0].shape == (2, UNITS, 0)
    assert layer(torch.zeros(0, SIZE, 4))[0].shape == (0, UNITS, 4)
    half = layer.bfloat16()
    assert half(torch.zeros(2, SIZE, 4).bfloat16())[0].dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(torch.zeros(2, SIZE, 4))[0].isfinite().all()


def test_one_clear_error() -> None:
    z, h, rw = torch.rand(3, 2, 8), torch.rand(2, 2), torch.rand(8, 2)
    numbers = ("tanh", 0.0, 0.0, 0.0, "sigmoid", 0.0, 0.0, 0.0)
    op = torch.ops.dl4py.lstm_steps
    op(z, h, h, rw, None, *numbers)
    with pytest.raises(RuntimeError, match="no steps with nothing"):
        op(z, h, h, rw, None, "nothing", *numbers[1:])
    with pytest.raises(RuntimeError, match="recurrent weight does not fit"):
        op(z, h, h, rw[:7], None, *numbers)
    with pytest.raises(RuntimeError, match="wrong state"):
        op(z, h[:1], h, rw, None, *numbers)
    with pytest.raises(RuntimeError, match="one dtype"):
        op(z, h.double(), h, rw, None, *numbers)
    with pytest.raises(RuntimeError, match=r"mask must be \[time, n\]"):
        op(z, h, h, rw, torch.ones(2, 3), *numbers)
    with pytest.raises(RuntimeError, match="float32 or float64"):
        op(z.half(), h.half(), h.half(), rw.half(), None, *numbers)
