"""Sums of a loss over the outputs, fused with an activation: all but cross entropies.

Kernels only: the formula is the loss's own (``compose``), which also serves what is
rare, as gradients of labels, second derivatives and function transforms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from dl4py.ops import library, register, sharding
from dl4py.ops.losses import INPUTS, Rest, constant, empty_scores, grad_on, share
from dl4py.ops.register import below_autograd, in_plain_eager_mode


def _no_kernel(*_: Any) -> Any:
    # sum_loss asks for kernels first; this meets who calls the op by itself
    raise NotImplementedError("sums of losses have compiled kernels only")


_MORE = "str loss, str f, float p"
_sum_op = register.define(
    f"sum_loss({INPUTS}, {_MORE}, float by, bool summed) -> Tensor",
    _no_kernel,
    empty_scores,
    sharding.rows,
)
_sum_d_op = register.define(
    f"sum_loss_d({INPUTS}, {_MORE}, Tensor g, float scale) -> Tensor",
    _no_kernel,
    lambda z, *_: torch.empty_like(z, memory_format=torch.contiguous_format),
    sharding.rows,
)
_sum_raw, _sum_d_raw = _sum_op._op, _sum_d_op._op


class _SumLoss(Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        y: Tensor,
        rest: Rest,
        share: float,
        compose: Callable[[Tensor, Tensor], Tensor],
    ) -> Any:
        w, m, *ctx.names, ctx.by, _ = rest
        ctx.save_for_backward(z, y, w, m)
        ctx.share, ctx.compose = share, compose
        with below_autograd():
            return _sum_raw(z, y, *rest)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        z, y, w, m = ctx.saved_tensors
        dy = None
        if grad_on() or ctx.needs_input_grad[1]:
            dz, dy = _composed_gradients(ctx, g, z, y)
        else:
            with below_autograd():
                dz = _sum_d_raw(z, y, w, m, *ctx.names, g, ctx.by)
        return dz, dy, None, None, None


def _composed_gradients(ctx: Any, g: Tensor, z: Tensor, y: Tensor) -> Any:
    recorded, needed = grad_on(), ctx.needs_input_grad[:2]
    with torch.enable_grad():
        # views: labels computed from the output do not count twice
        pairs = zip((z, y), needed, strict=True)
        inputs = [t.view_as(t) if n else t for t, n in pairs]
        score = ctx.compose(*inputs)
    found = iter(
        torch.autograd.grad(
            score,
            [t for t, n in zip(inputs, needed, strict=True) if n],
            (g * ctx.share).expand_as(score),
            create_graph=recorded,
            allow_unused=True,
        )
    )
    return [next(found) if n else None for n in needed]


_fast_sum: Any = super(Function, _SumLoss).apply


def sum_loss(
    loss: str,
    f: str,
    z: Tensor,
    y: Tensor,
    w: Tensor | None,
    m: Tensor | None,
    compose: Callable[[Tensor, Tensor], Tensor],
    p: float = 0.0,
    by: float = 1.0,
    reduction: str = "none",
) -> Tensor | None:
    """by·m·Σⱼ wⱼ·s(f(zⱼ), yⱼ) of each row, or None where no kernel computes it now.

    Args:
        loss: s, a name in ``csrc/sums.inl``.
        f: an activation there, or ``"identity"``.
        compose: the same of (z, y) in differentiable torch ops.
        p: the loss's own number.
        reduction: ``"mean"`` or ``"sum"`` over the rows instead.

    Shape:
        ``[n]``, or none with ``reduction``

    >>> z, y = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)
    >>> scores = sum_loss("squared", "identity", z, y, None, None, lambda z, y: z)
    >>> scores is None or scores.item() == 5
    True
    """
    if not (
        in_plain_eager_mode() and constant(w, m) and library.compiled(z.device.type)
    ):
        return None
    if type(z) is not Tensor:
        sharding.tell()
    part = share(reduction, z)
    rest = (w, m, loss, f, p, by * part, reduction != "none")
    if grad_on() and (z.requires_grad or y.requires_grad):
        return _fast_sum(z, y, rest, part, compose)  # type: ignore[no-any-return]
    with below_autograd():
        return _sum_raw(z, y, *rest)  # type: ignore[no-any-return]
