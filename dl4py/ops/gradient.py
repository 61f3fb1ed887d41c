"""One function's value with another one's gradient, as an op that every graph keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import handle_torch_function

from dl4py.ops import register, sharding


def _value(source: Tensor, value: Tensor) -> Tensor:
    return value.clone()


_op = register.define(
    "gradient_of(Tensor source, Tensor value) -> Tensor",
    _value,
    split=lambda op: sharding.pointwise,
)


class _GradientOf(Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, modes: Any) -> Any:
        return register.below(modes, _op, source, value)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        return tangent.clone()


_apply: Any = super(Function, _GradientOf).apply


def _autograd(source: Tensor, value: Tensor) -> Any:
    if register.for_onnx():
        return _value(source, value)
    return register.recorded(_apply, source, value)


register.set_autograd("gradient_of", _autograd)


def _vmap_rule(info: Any, dims: Any, source: Tensor, value: Tensor) -> Any:
    batched = (
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip((source, value), dims, strict=True)
    )
    return _op(*batched), 0


register.set_vmap("gradient_of", _vmap_rule)


def gradient_of(source: Tensor, value: Tensor) -> Tensor:
    """``value``, through which gradients flow as if it were ``source``.

    Args:
        source: a differentiable function of the input with DL4J's gradient.
        value: what DL4J computes, of the same shape.

    Example:
        >>> x = torch.tensor([-2.0, 3.0], requires_grad=True)
        >>> y = gradient_of(5 * x, x.relu())
        >>> y.detach(), torch.autograd.grad(y.sum(), x)[0]
        (tensor([0., 3.]), tensor([5., 5.]))
    """
    if not isinstance(source, Tensor):  # a proxy of torch.fx
        return handle_torch_function(gradient_of, (source,), source, value)
    value = value.detach()
    if register.in_plain_eager_mode():
        if not (torch.is_grad_enabled() and source.requires_grad):
            return value
    elif register.for_onnx():
        return value
    if type(source) is not Tensor:
        sharding.tell()
    result: Tensor = _op(source, value)
    return result
