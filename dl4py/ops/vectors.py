"""Steps of conjugate gradients and L-BFGS: one pass over memory, sums in float64.

All vectors of a call have one shape, device and dtype (float32 or float64) and are
contiguous. The sum is a float64 tensor without dimensions on their device;
a kernel's does not depend on the number of threads. Nothing here is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dl4py.ops.register import define

DTYPES = (torch.float32, torch.float64)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x.double() * y.double()).sum()


def _axpy_dot_(y: Tensor, a: Tensor, x: Tensor, z: Tensor) -> Tensor:
    y.add_(a.to(x.dtype) * x)
    return _dot(y, z)


def _cg_step_(x: Tensor, r: Tensor, a: Tensor, p: Tensor, q: Tensor) -> Tensor:
    a = a.to(x.dtype)
    x.add_(a * p)
    r.sub_(a * q)
    return _dot(r, r)


# what is known of a run of conjugate gradients: whether it goes on, its iterations so
# far, r·y, two numbers on their way, and from there on φ₀, φ₁, …
GOES_ON, COUNT, SQUARE, MODELS = 0, 1, 2, 5


def _cg_iterate_(
    x: Tensor,
    r: Tensor,
    p: Tensor,
    q: Tensor,
    scale: Tensor | None,
    state: Tensor,
    i: int,
    window: int,
    tolerance: float,
) -> None:
    curvature, square, zero = _dot(p, q), state[SQUARE].clone(), state.new_zeros(())
    goes_on = (state[GOES_ON] != 0) & (curvature > 0)
    a = torch.where(goes_on, square / curvature, zero)
    state[COUNT] += goes_on
    # along p, where the slope -r·p is -r·y: only rounding in r adds up
    phi = state[MODELS + i - 1] - 0.5 * a * square
    state[MODELS + i] = phi
    _cg_step_(x, r, a, p, q)
    y = r if scale is None else r / scale
    state[SQUARE] = _dot(r, y)
    p.mul_(torch.where(goes_on, state[SQUARE] / square, zero).to(p.dtype)).add_(y)
    if window:
        before = state[MODELS + i - window]
        goes_on = goes_on & (phi * (1 - window * tolerance) <= before)
    state[GOES_ON] = goes_on


# without the checks, for callers that made the vectors themselves
dot_op = define("dot(Tensor x, Tensor y) -> Tensor", _dot)
axpy_dot_op = define(
    "axpy_dot_(Tensor(a!) y, Tensor a, Tensor x, Tensor z) -> Tensor", _axpy_dot_
)
cg_step_op = define(
    "cg_step_(Tensor(a!) x, Tensor(b!) r, Tensor a, Tensor p, Tensor q) -> Tensor",
    _cg_step_,
)

# Iteration i >= 1 of conjugate gradients, q = A·p, r = b - A·x, y = r / scale:
# a = r·y / p·q, x ← x + a·p, r ← r - a·q, φᵢ, p ← y + (new r·y / r·y)·p. From where it
# does not go on x stays: p·q <= 0, or φᵢ·(1 - window·tolerance) > φ of ``window`` ago.
cg_iterate_op = define(
    "cg_iterate_(Tensor(a!) x, Tensor(b!) r, Tensor(c!) p, Tensor q, Tensor? scale,"
    " Tensor(d!) state, int i, int window, float tolerance) -> ()",
    _cg_iterate_,
)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Σ x·y, products and sum in float64.

    >>> dot(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor(11., dtype=torch.float64)
    """
    _check("dot", x=x, y=y)
    result: Tensor = dot_op(x, y)
    return result


def axpy_dot_(y: Tensor, a: float | Tensor, x: Tensor, z: Tensor) -> Tensor:
    """y ← y + a·x, and Σ y·z of the new y: a step of L-BFGS's two loops.

    Args:
        y: changed; shares no memory with ``x`` and ``z``, but ``z`` may be ``y``.
        a: a number, or a tensor of one, which is not brought to the host.

    >>> y = torch.tensor([1.0, 2.0])
    >>> axpy_dot_(y, 2.0, torch.ones(2), torch.ones(2)), y
    (tensor(7., dtype=torch.float64), tensor([3., 4.]))
    """
    _check("axpy_dot_", y=y, x=x, z=z)
    _alone("axpy_dot_", "y", y, x=x, **({} if z is y else {"z": z}))
    result: Tensor = axpy_dot_op(y, _number("axpy_dot_", a, y), x, z)
    return result


def cg_step_(x: Tensor, r: Tensor, a: float | Tensor, p: Tensor, q: Tensor) -> Tensor:
    """x ← x + a·p,  r ← r - a·q, and Σ r² of the new r: a step of conjugate gradients.

    Args:
        x, r: changed; they share no memory with each other and with ``p`` and ``q``.
        a: a number, or a tensor of one, which is not brought to the host.

    >>> x, r = torch.zeros(2), torch.tensor([3.0, 4.0])
    >>> cg_step_(x, r, 1.0, torch.ones(2), torch.tensor([3.0, 2.0])), x, r
    (tensor(4., dtype=torch.float64), tensor([1., 1.]), tensor([0., 2.]))
    """
    _check("cg_step_", x=x, r=r, p=p, q=q)
    _alone("cg_step_", "x", x, r=r, p=p, q=q)
    _alone("cg_step_", "r", r, p=p, q=q)
    result: Tensor = cg_step_op(x, r, _number("cg_step_", a, x), p, q)
    return result


def _check(op: str, /, **vectors: Tensor) -> None:
    (first, x), *_ = vectors.items()
    for name, t in vectors.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}({name}): expected a tensor, got {type(t).__name__}")
        if t.dtype not in DTYPES:
            raise TypeError(
                f"{op}({name}): expected float32 or float64, got {t.dtype}; convert "
                f"it, e.g. with {name}.float()"
            )
        if not t.is_contiguous():
            raise ValueError(
                f"{op}({name}): expected a contiguous tensor, got strides "
                f"{t.stride()}; use {name}.contiguous()"
            )
        if t.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{op}({name}): not differentiable, but {name} requires grad; call it "
                f"under torch.no_grad() or with {name}.detach()"
            )
        if (t.shape, t.dtype, t.device) != (x.shape, x.dtype, x.device):
            raise ValueError(
                f"{op}({name}): expected shape, dtype and device of {first} "
                f"({tuple(x.shape)}, {x.dtype}, {x.device}), got ({tuple(t.shape)}, "
                f"{t.dtype}, {t.device})"
            )


def _alone(op: str, name: str, x: Tensor, /, **others: Tensor) -> None:
    if torch.compiler.is_compiling():  # there are no addresses yet
        return
    start, size = x.data_ptr(), x.numel() * x.itemsize
    for other, t in others.items():
        if abs(t.data_ptr() - start) < size:
            raise ValueError(
                f"{op}({name}): changed in place, but it shares memory with {other}; "
                f"use {other}.clone()"
            )


def _number(op: str, a: float | Tensor, x: Tensor) -> Tensor:
    if isinstance(a, Tensor):
        if a.numel() != 1 or a.device != x.device:
            raise ValueError(
                f"{op}(a): expected a number or a tensor of one on {x.device}, got "
                f"shape {tuple(a.shape)} on {a.device}"
            )
        return a.detach().to(torch.float64)
    return torch.tensor(float(a), dtype=torch.float64, device=x.device)
