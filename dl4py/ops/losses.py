"""Losses fused with their activation: one number per row of pre-activations.

z is ``[n, K]`` in float32 or float64; labels y are ``[n, K]`` in its dtype; weights w
``[K]`` and a mask m ``[n]`` may be None. A row whose mask is 0 has score 0 and gradient
0 whatever is in it. All sums go over the classes j; where a label is 0 its logarithm
counts nothing, were it infinite.

The gradient with respect to z is one kernel and the only array of z's size that is
made. What is rarer (gradients of labels, second derivatives, function transforms)
is computed by torch from the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from dl4py.ops import register, sharding
from dl4py.ops.register import below_autograd, for_onnx, in_plain_eager_mode

Maybe = Tensor | None
Rest = tuple[Any, ...]  # weights, mask and numbers of a call
grad_on = torch.is_grad_enabled


def _labels(z: Tensor, y: Tensor) -> Tensor:
    """Labels as values; a class that does not exist is a row of zeros."""
    if y.dim() == z.dim():
        return y
    return (y.unsqueeze(1) == torch.arange(z.shape[1], device=z.device)).to(z.dtype)


def _times(t: Tensor, w: Maybe) -> Tensor:
    return t if w is None else t * w


def _total(scores: Tensor, summed: bool) -> Tensor:
    return scores.sum() if summed else scores


def _blank(t: Tensor, m: Maybe) -> Tensor:
    """Zeros in place of the rows that do not count."""
    return t if m is None else t.masked_fill((m == 0).unsqueeze(1), 0)


def _targets(z: Tensor, y: Tensor, w: Maybe, m: Maybe) -> Tensor:
    return _blank(_times(_labels(z, y), w), m)


def _log_softmax(z: Tensor, t: Tensor) -> Tensor:
    log = torch.log_softmax(z, 1)
    return log.masked_fill((t == 0) & (log == -math.inf), 0)  # 0·∞


@torch.no_grad()
def _kept(z: Tensor, t: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    """max z, and what multiplies exp(z - max z) in the gradient.

    ln Σ exp z is never formed: at large z it has lost what z - max z still has.
    """
    if not z.shape[1]:
        return z.new_zeros(z.shape[:1]), z.new_zeros(z.shape[:1])
    big = z.amax(1)
    total = torch.ones_like(big) if unit else t.sum(1)
    return big, total / torch.exp(z - big.unsqueeze(1)).sum(1)


def _softmax_parts(
    z: Tensor,
    y: Tensor,
    w: Maybe,
    m: Maybe,
    low: float,
    high: float,
    unit: bool,
    by: float,
    summed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    z, t = _blank(z, m), _targets(z, y, w, m)
    big, part = _kept(z, t, unit)
    log = _log_softmax(z, t)
    score = -(t * log).sum(1)
    if low > -math.inf:
        value = -(t * log.clamp(low, high)).sum(1)
        score = score + (value - score).detach()
    if unit:
        near = z - big.unsqueeze(1)
        lse = torch.logsumexp(near, 1)
        minus_log = lse.detach().unsqueeze(1) - near.masked_fill(t == 0, 0)
        source = lse + (t * minus_log).sum(1)
        score = source + (score - source).detach()
    return _total(by * _times(score, m), summed), big, part


def _softmax_value(
    z: Tensor,
    y: Tensor,
    w: Maybe,
    m: Maybe,
    low: float,
    high: float,
    unit: bool,
    by: float,
    summed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        z, t = _blank(z, m), _targets(z, y, w, m)
        log = _log_softmax(z, t).clamp(low, high)
        score = by * _times(-(t * log).sum(1), m)
        return _total(score, summed), *_kept(z, t, unit)


def _softmax_gradient(
    z: Tensor,
    y: Tensor,
    w: Maybe,
    m: Maybe,
    big: Tensor,
    part: Tensor,
    g: Tensor,
    scale: float,
) -> Tensor:
    p = torch.exp(_blank(z, m) - big.unsqueeze(1)) * part.unsqueeze(1)
    return (p - _targets(z, y, w, m)) * _by_rows(g, scale, m)


def _softmax_slope(
    z: Tensor, y: Tensor, w: Maybe, m: Maybe, unit: bool, g: Tensor, scale: float
) -> Tensor:
    """The same as a function of z that has derivatives itself."""
    p, t = torch.softmax(_blank(z, m), 1), _targets(z, y, w, m)
    p = p if unit else p * t.sum(1, keepdim=True)
    return (p - t) * _by_rows(g, scale, m)


def _sigmoid_formula(
    z: Tensor, y: Tensor, w: Maybe, m: Maybe, by: float, summed: bool
) -> Tensor:
    z, y = _blank(z, m), _blank(y, m)
    yes = -torch.nn.functional.logsigmoid(z)
    no = -torch.nn.functional.logsigmoid(-z)
    yes = yes.masked_fill((y == 0) & (z == -math.inf), 0)
    no = no.masked_fill((y == 1) & (z == math.inf), 0)
    score = _times(_times(y * yes + (1 - y) * no, w).sum(1), m)
    return _total(by * score, summed)


def _sigmoid_gradient(
    z: Tensor, y: Tensor, w: Maybe, m: Maybe, g: Tensor, scale: float
) -> Tensor:
    slope = torch.sigmoid(_blank(z, m)) - _blank(y, m)
    return _times(slope, w) * _by_rows(g, scale, m)


INPUTS = "Tensor z, Tensor y, Tensor? w, Tensor? m"
_MORE = "float by, bool summed"


def empty_scores(z: Tensor, *rest: Any) -> Tensor:
    """What an op returns; the last argument is ``summed``."""
    return z.new_empty(() if rest[-1] else z.shape[:1])


_softmax_op = register.define(
    f"softmax_xent({INPUTS}, float low, float high, bool unit, {_MORE})"
    " -> (Tensor, Tensor, Tensor)",
    _softmax_value,
    lambda z, *rest: (
        empty_scores(z, *rest),
        empty_scores(z, False),
        empty_scores(z, False),
    ),
    sharding.rows,
)
_softmax_d_op = register.define(
    f"softmax_xent_d({INPUTS}, Tensor big, Tensor part, Tensor g, float scale)"
    " -> Tensor",
    lambda *inputs: _softmax_gradient(*inputs).contiguous(),
    lambda z, *_: torch.empty_like(z, memory_format=torch.contiguous_format),
    sharding.rows,
)
_sigmoid_op = register.define(
    f"sigmoid_xent({INPUTS}, {_MORE}) -> Tensor",
    _sigmoid_formula,
    empty_scores,
    sharding.rows,
)
_sigmoid_d_op = register.define(
    f"sigmoid_xent_d({INPUTS}, Tensor g, float scale) -> Tensor",
    lambda *inputs: _sigmoid_gradient(*inputs).contiguous(),
    lambda z, *_: torch.empty_like(z, memory_format=torch.contiguous_format),
    sharding.rows,
)

# OpOverload._op: without one more call in Python
_softmax_raw, _softmax_d_raw = _softmax_op._op, _softmax_d_op._op
_sigmoid_raw, _sigmoid_d_raw = _sigmoid_op._op, _sigmoid_d_op._op


def _by_rows(g: Tensor, scale: float, m: Maybe) -> Tensor:
    """The factor of each row's gradient, ``[n, 1]`` or ``[1, 1]``."""
    return _times(g * scale, m).reshape(-1, 1)


def share(reduction: str, z: Tensor) -> float:
    """The factor of a row's score in the ``"mean"``, the ``"sum"`` or by itself."""
    return 1 / (z.size(0) or 1) if reduction == "mean" else 1.0


class _SoftmaxXent(Function):
    """Scores, or with ``whole`` all that the op returns.

    What needs no gradient comes in one tuple: each argument costs its part of a us.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, rest: Rest, whole: bool) -> Any:
        with below_autograd():
            scores, big, part = _softmax_raw(z, y, *rest)
        w, m, _, _, ctx.unit, ctx.by, _ = rest
        ctx.save_for_backward(z, y, w, m, big, part)
        if not whole:
            return scores
        ctx.mark_non_differentiable(big, part)
        return scores, big, part

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> Any:
        z, y, w, m, big, part = ctx.saved_tensors
        needed = ctx.needs_input_grad
        dz = dy = None
        if grad_on():
            dz = _softmax_slope(z, y, w, m, ctx.unit, g, ctx.by)
        elif needed[0]:
            with below_autograd():
                dz = _softmax_d_raw(z, y, w, m, big, part, g, ctx.by)
        if needed[1]:
            slope = _times(-torch.log_softmax(_blank(z, m), 1), w)
            dy = slope * _by_rows(g, ctx.by, m)
        return dz, dy, None, None


class _SigmoidXent(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, rest: Rest) -> Any:
        w, m, ctx.by, _ = rest
        ctx.save_for_backward(z, y, w, m)
        with below_autograd():
            return _sigmoid_raw(z, y, *rest)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        z, y, w, m = ctx.saved_tensors
        needed = ctx.needs_input_grad
        dz = dy = None
        if grad_on():
            dz = _sigmoid_gradient(z, y, w, m, g, ctx.by)
        elif needed[0]:
            with below_autograd():
                dz = _sigmoid_d_raw(z, y, w, m, g, ctx.by)
        if needed[1]:
            dy = _times(_blank(-z, m), w) * _by_rows(g, ctx.by, m)
        return dz, dy, None


def constant(*tensors: Maybe) -> bool:
    for t in tensors:
        if t is not None and t.requires_grad:
            return False
    return True


def _softmax_autograd(z: Tensor, y: Tensor, w: Maybe, m: Maybe, *p: Any) -> Any:
    if register.composing() or not constant(w, m):
        return _softmax_parts(z, y, w, m, *p)
    return _fast_softmax(z, y, (w, m, *p), True)


def _sigmoid_autograd(z: Tensor, y: Tensor, w: Maybe, m: Maybe, *p: Any) -> Any:
    if register.composing() or not constant(w, m):
        return _sigmoid_formula(z, y, w, m, *p)
    return _fast_sigmoid(z, y, (w, m, *p))


def _differentiable_gradient(formula: Callable[..., Tensor], op: Any) -> Any:
    def autograd(*args: Any) -> Any:
        tensors = [a for a in args if isinstance(a, Tensor)]
        if register.composing() or not constant(*tensors):
            return formula(*args)
        with below_autograd():
            return op(*args)

    return autograd


# what Function.apply is without torch's look at the signature
_fast_softmax: Any = super(Function, _SoftmaxXent).apply
_fast_sigmoid: Any = super(Function, _SigmoidXent).apply
register.set_autograd("softmax_xent", _softmax_autograd)
register.set_autograd("sigmoid_xent", _sigmoid_autograd)
register.set_autograd(
    "softmax_xent_d", _differentiable_gradient(_softmax_gradient, _softmax_d_op)
)
register.set_autograd(
    "sigmoid_xent_d", _differentiable_gradient(_sigmoid_gradient, _sigmoid_d_op)
)


def _vmap_rule(
    op: Any, rows: tuple[int, ...], scores: bool = False
) -> Callable[..., Any]:
    """A batch is more rows; ``rows`` says which arguments have some.

    ``scores``: the op returns these, and its last argument is ``summed``.
    """

    def rule(info: Any, dims: Any, *args: Any) -> Any:
        n = info.batch_size

        def batched(i: int) -> Tensor:
            t: Tensor = args[i]
            t = t.expand(n, *t.shape) if dims[i] is None else t.movedim(dims[i], 0)
            return t.flatten(0, 1)

        given = list(args)
        if dims[2] is not None:
            raise NotImplementedError(
                "vmap over the weights of a loss: multiply the labels by them"
            )
        for i in rows:
            if args[i] is not None:
                given[i] = batched(i)
        summed = scores and given[-1]
        given[-1] = given[-1] and not summed
        result = op(*given)
        whole = result if isinstance(result, tuple) else (result,)
        made = [t.unflatten(0, (n, t.shape[0] // max(n, 1))) for t in whole]
        made[0] = made[0].sum(1) if summed else made[0]
        return (tuple(made), (0,) * len(made)) if len(made) > 1 else (made[0], 0)

    return rule


register.set_vmap("softmax_xent", _vmap_rule(_softmax_op, (0, 1, 3), True))
register.set_vmap("softmax_xent_d", _vmap_rule(_softmax_d_op, (0, 1, 3, 4, 5, 6)))
register.set_vmap("sigmoid_xent", _vmap_rule(_sigmoid_op, (0, 1, 3), True))
register.set_vmap("sigmoid_xent_d", _vmap_rule(_sigmoid_d_op, (0, 1, 3, 4)))


def softmax_xent(
    z: Tensor,
    y: Tensor,
    w: Tensor | None = None,
    m: Tensor | None = None,
    low: float = -math.inf,
    high: float = math.inf,
    unit: bool = False,
    reduction: str = "none",
) -> Tensor:
    """m·Σⱼ -wⱼ·yⱼ·ln softmax(z)ⱼ of each row.

    Args:
        y: also int64 classes ``[n]``; one outside 0 … K - 1 means no label.
        low, high: bounds of the logarithm, in the value only.
        unit: the gradient is m·(softmax(z) - w·y) even if Σ w·y is not 1.
        reduction: ``"mean"`` or ``"sum"`` over the rows instead.

    Shape:
        ``[n]``, or none with ``reduction``

    >>> softmax_xent(torch.zeros(2, 4), torch.tensor([0, 3]))
    tensor([1.3863, 1.3863])
    """
    if type(z) is not Tensor:
        sharding.tell()
    rest = (w, m, low, high, unit, share(reduction, z), reduction != "none")
    if not in_plain_eager_mode() or not constant(w, m):
        call = _softmax_autograd if for_onnx() else _softmax_op
        scores: Tensor = call(z, y, *rest)[0]
    elif grad_on() and (z.requires_grad or y.requires_grad):
        scores = _fast_softmax(z, y, rest, False)
    else:
        with below_autograd():
            scores = _softmax_raw(z, y, *rest)[0]
    return scores


def sigmoid_xent(
    z: Tensor,
    y: Tensor,
    w: Tensor | None = None,
    m: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """m·Σⱼ -wⱼ·(yⱼ·ln σ(zⱼ) + (1 - yⱼ)·ln(1 - σ(zⱼ))) of each row.

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the rows instead.

    Shape:
        ``[n]``, or none with ``reduction``

    >>> sigmoid_xent(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))
    tensor([1.3863])
    """
    if type(z) is not Tensor:
        sharding.tell()
    rest = (w, m, share(reduction, z), reduction != "none")
    if not in_plain_eager_mode() or not constant(w, m):
        call = _sigmoid_autograd if for_onnx() else _sigmoid_op
        scores: Tensor = call(z, y, *rest)
    elif grad_on() and (z.requires_grad or y.requires_grad):
        scores = _fast_sigmoid(z, y, rest)
    else:
        with below_autograd():
            scores = _sigmoid_raw(z, y, *rest)
    return scores
