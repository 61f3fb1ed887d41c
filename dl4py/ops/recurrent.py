"""All steps of a recurrent layer by one kernel, forwards and backwards.

Kernels only: the formula is the layer's own loop over its cell (``compose``), which
also serves what is rare, as second derivatives and function transforms. At each step
the kernel multiplies matrices once and goes over the gates once; what does not depend
on the step before (the input's product, the weights' gradients) is one product each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from dl4py.ops import library, register
from dl4py.ops.register import below_autograd, in_plain_eager_mode

Maybe = Tensor | None
Act = tuple[str, tuple[float, ...]]  # a name in csrc/recurrent.inl and its numbers
Compose = Callable[..., tuple[Tensor, ...]]


def _no_kernel(*_: Any) -> Any:
    # callers ask for kernels first; this meets who calls the op by itself
    raise NotImplementedError("steps of recurrent layers have compiled kernels only")


_ACT, _GATE = (
    "str act, float a, float b, float c",
    "str gate, float d, float e, float f",
)
_lstm_op = register.define(
    f"lstm_steps(Tensor z, Tensor h0, Tensor c0, Tensor rw, Tensor? mask, {_ACT}, "
    f"{_GATE}) -> (Tensor, Tensor, Tensor)",
    _no_kernel,
    lambda z, h0, *_: (
        z.new_empty(*z.shape[:2], h0.shape[1]),
        z.new_empty(*z.shape[:2], h0.shape[1]),
        torch.empty_like(z, memory_format=torch.contiguous_format),
    ),
)
_lstm_d_op = register.define(
    "lstm_steps_d(Tensor gh, Tensor gc, Tensor s, Tensor cells, Tensor c0, Tensor rw, "
    f"Tensor? mask, int errors, {_ACT}, {_GATE}) -> (Tensor, Tensor, Tensor)",
    _no_kernel,
    lambda gh, gc, s, cells, c0, *_: (
        torch.empty_like(s),
        torch.empty_like(c0),
        torch.empty_like(c0),
    ),
)
_rnn_op = register.define(
    "rnn_steps(Tensor z, Tensor h0, Tensor rw, Tensor? gain, Tensor? mask, "
    f"{_ACT}) -> (Tensor, Tensor, Tensor, Tensor)",
    _no_kernel,
    lambda z, h0, rw, gain, *_: (
        torch.empty_like(z, memory_format=torch.contiguous_format),
        torch.empty_like(z, memory_format=torch.contiguous_format),
        z.new_empty(0 if gain is None else z.shape[0], *z.shape[1:]),
        z.new_empty(0 if gain is None else z.shape[0], z.shape[1]),
    ),
)
_rnn_d_op = register.define(
    "rnn_steps_d(Tensor gh, Tensor s, Tensor u, Tensor scale, Tensor rw, "
    f"Tensor? gain, Tensor? mask, {_ACT}) -> (Tensor, Tensor, Tensor)",
    _no_kernel,
    lambda gh, s, u, *_: (
        torch.empty_like(s),
        torch.empty_like(u),
        torch.empty_like(s[0]),
    ),
)


class _Steps(Function):
    """What both kinds share: gradients by the kernel, or by autograd of the formula."""

    inputs: int  # how many of the saved tensors are inputs with a gradient

    @classmethod
    def slopes(cls, ctx: Any, saved: Any, *grads: Tensor) -> Any:
        """The gradients of the inputs."""
        raise NotImplementedError

    @classmethod
    def gradients(cls, ctx: Any, *grads: Tensor) -> Any:
        """The gradients of all arguments of ``forward``."""
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() or not in_plain_eager_mode():
            found = _composed(ctx, saved[: cls.inputs], grads)
        else:
            with below_autograd():
                found = cls.slopes(ctx, saved, *grads)
        return (*found, None, None, None)


def _composed(ctx: Any, given: tuple[Maybe, ...], grads: tuple[Tensor, ...]) -> Any:
    recorded, needed = torch.is_grad_enabled(), ctx.needs_input_grad[: len(given)]

    def own(t: Maybe, needed: bool) -> Maybe:
        if t is None:
            return None
        if recorded:
            return t.view_as(t) if needed else t.detach()
        return t.detach().requires_grad_(needed)

    with torch.enable_grad():
        inputs = [own(t, n) for t, n in zip(given, needed, strict=True)]
        outputs = ctx.compose(*inputs)
    found = iter(
        torch.autograd.grad(
            outputs,
            [t for t in inputs if t is not None and t.requires_grad],
            grads,
            create_graph=recorded,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    return [next(found) if n else None for n in needed]


def _before(first: Tensor, steps: Tensor) -> Tensor:
    """What each step starts from, as rows ``[time · n, units]``."""
    return torch.cat([first.unsqueeze(0), steps[:-1]]).flatten(0, 1)


class _Lstm(_Steps):
    inputs = 4

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        h0: Tensor,
        c0: Tensor,
        rw: Tensor,
        mask: Maybe,
        names: tuple[Any, ...],
        compose: Compose,
        errors: int,
    ) -> Any:
        with below_autograd():
            h, c, s = _lstm_op(z, h0, c0, rw, mask, *names)
        ctx.save_for_backward(z, h0, c0, rw, mask, h, c, s)
        ctx.names, ctx.compose, ctx.errors = names, compose, errors
        return h, _covered(c[-1], mask, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return *_Lstm.gradients(ctx, *grads), None

    @classmethod
    def slopes(cls, ctx: Any, saved: Any, *grads: Tensor) -> Any:
        z, h0, c0, rw, mask, h, c, s = saved
        errors = ctx.errors
        ds, dh, dc = _lstm_d_op(*grads, s, c, c0, rw, mask, errors, *ctx.names)
        drw = None
        if ctx.needs_input_grad[3]:
            flat = ds.view(-1, ds.shape[2])
            drw = flat.t() @ _before(h0, h)
            n = h0.shape[1]
            if len(rw) > 4 * n:
                covered = c if mask is None else c * mask.unsqueeze(2)
                seen = _before(c0, covered)
                f, o, i = (flat[:, k * n : (k + 1) * n] for k in (1, 2, 3))
                now = covered if errors == 1 else c
                pairs = (f, seen), (o, now.flatten(0, 1)), (i, seen)
                drw = torch.cat([drw, torch.stack([(d * x).sum(0) for d, x in pairs])])
        return ds, dh, dc, drw


class _Rnn(_Steps):
    inputs = 4

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        h0: Tensor,
        rw: Tensor,
        gain: Maybe,
        mask: Maybe,
        names: tuple[Any, ...],
        compose: Compose,
    ) -> Any:
        with below_autograd():
            h, *kept = _rnn_op(z, h0, rw, gain, mask, *names)
        ctx.save_for_backward(z, h0, rw, gain, mask, h, *kept)
        ctx.names, ctx.compose = names, compose
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Rnn.gradients(ctx, *grads)

    @classmethod
    def slopes(cls, ctx: Any, saved: Any, *grads: Tensor) -> Any:
        z, h0, rw, gain, mask, h, s, u, scale = saved
        ds, du, dh = _rnn_d_op(*grads, s, u, scale, rw, gain, mask, *ctx.names)
        _, _, of_rw, of_gain = ctx.needs_input_grad[:4]
        errors = ds if gain is None else du  # of h·RW
        flat = errors.view(-1, errors.shape[2])
        drw = flat.t() @ _before(h0, h) if of_rw else None
        return ds, dh, drw, (ds * u).sum((0, 1)) if of_gain else None


_lstm: Any = super(Function, _Lstm).apply
_rnn: Any = super(Function, _Rnn).apply


def _covered(t: Tensor, mask: Maybe, step: int) -> Tensor:
    return t.clone() if mask is None else t * mask[step].unsqueeze(1)


def _numbers(act: Act) -> tuple[Any, ...]:
    name, numbers = act
    return (name, *numbers, *(0.0,) * (3 - len(numbers)))


def serves(mask: Maybe, *tensors: Tensor) -> bool:
    """Whether a kernel takes these tensors and this mask now; z comes first."""
    z = tensors[0]
    alike = all(t.dtype == z.dtype and t.device == z.device for t in tensors)
    constant = mask is None or (not mask.requires_grad and mask.device == z.device)
    return (
        in_plain_eager_mode()
        and alike
        and constant
        and z.dtype in (torch.float32, torch.float64)
        and z.shape[0] > 0
        and library.compiled(z.device.type)
    )


def _by_time(mask: Maybe, z: Tensor) -> Maybe:
    return None if mask is None else mask.t().to(z.dtype).contiguous()


def lstm_steps(
    z: Tensor,
    h0: Tensor,
    c0: Tensor,
    rw: Tensor,
    mask: Maybe,
    act: Act,
    gate: Act,
    compose: Compose,
    errors: int = 0,
) -> tuple[Tensor, Tensor]:
    """(h of all steps, c of the last one), where a kernel :func:`serves`.

    Args:
        z: what the input adds to the gates, candidate, f, o and i beside each other.
        h0, c0: the state at the beginning.
        rw: the recurrent weight, with three more rows where f, o and i have peepholes.
        mask: one number per example and step, which h and c are multiplied by.
        act, gate: names in ``csrc/recurrent.inl`` with their numbers.
        compose: the same of (z, h0, c0, rw) in differentiable torch ops.
        errors: what a mask does to errors: 0 what it does to h and c; 1 nothing, as
            DL4J's; 2 it multiplies those of the gates, as in DL4J's two directions.

    Shape:
        z ``[time, n, 4·units]``, h0 and c0 ``[n, units]``, rw ``[4·units (+ 3),
        units]``, mask ``[n, time]`` → ``[time, n, units]``, ``[n, units]``
    """
    names = (*_numbers(act), *_numbers(gate))
    state = h0.contiguous(), c0.contiguous()
    found: tuple[Tensor, Tensor] = _lstm(
        z, *state, rw, _by_time(mask, z), names, compose, errors
    )
    return found


def rnn_steps(
    z: Tensor,
    h0: Tensor,
    rw: Tensor,
    gain: Maybe,
    mask: Maybe,
    act: Act,
    compose: Compose,
) -> Tensor:
    """h of all steps of a plain recurrent layer; as :func:`lstm_steps`.

    Args:
        gain: ``[units]``, what h·RW is multiplied by, normalised; None: it is not.
        act: it may be ``"softmax"`` here.
        compose: the same of (z, h0, rw, gain).
    """
    given = z, h0.contiguous(), rw, gain, _by_time(mask, z)
    h: Tensor = _rnn(*given, _numbers(act), compose)
    return h
