"""Full float32 precision, whatever the process allows, forward and backward.

On CUDA cuDNN multiplies float32 numbers in TF32 unless told otherwise, and
``torch.set_float32_matmul_precision`` allows TF32 or bfloat16 for products, on CPUs
too. What is called exact cannot use them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from dl4py.ops.register import transforming

_lock = threading.RLock()
_inside = 0  # how many are in full_precision(): the first sets, the last restores
_undo = contextlib.ExitStack()
_torch: Any = torch.backends
_MATMUL = (_torch.cuda.matmul, _torch.mkldnn.matmul)
_CPU = (_torch.mkldnn.matmul, _torch.mkldnn.conv, _torch.mkldnn.rnn)
_CUDA = (_torch.cuda.matmul, _torch.cudnn.conv, _torch.cudnn.rnn)
_LEAVES = _CPU + _CUDA
_OF = {"cpu": _CPU, "cuda": _CUDA}  # of another device: all


def reduced(*flags: Any) -> bool:
    """Whether less than float32 is allowed by one of ``flags``; default: by any.

    >>> torch.set_float32_matmul_precision("high")
    >>> reduced(torch.backends.cuda.matmul)
    True
    >>> torch.set_float32_matmul_precision("highest")
    >>> reduced(torch.backends.cuda.matmul)
    False
    """
    return any(f.fp32_precision not in ("ieee", "none") for f in flags or _LEAVES)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in float32 inside, and the process's settings again afterwards.

    The settings are the process's, so they hold for all threads meanwhile.
    """
    global _inside
    with _lock:
        if _inside == 0 and reduced():
            try:
                _enter()
            except BaseException:
                _undo.close()
                raise
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _undo.close()


def _enter() -> None:
    """Close every way to less precision, outermost first, and note how to reopen it."""
    for flags in (_torch, _torch.cudnn, *_LEAVES):
        # what only follows an outer setting is full by then, and stays as it was
        if flags is _torch or reduced(flags):
            _undo.callback(setattr, flags, "fp32_precision", flags.fp32_precision)
            flags.fp32_precision = "ieee"
    word = torch.get_float32_matmul_precision()
    if word != "highest":  # torch wants its older setting to agree
        for flags in _MATMUL:
            _undo.callback(setattr, flags, "fp32_precision", flags.fp32_precision)
        _undo.callback(torch.set_float32_matmul_precision, word)
        torch.set_float32_matmul_precision("highest")


def precisely(f: Callable[..., Any], *tensors: Any) -> Any:
    """``f(*tensors)`` in full precision, and so its gradient, computed when it may be.

    ``f`` is one of torch's products: of float32 tensors, with tensors or a tuple of
    them as result. Derivatives of every order are protected; under autocast, in
    compiled and in exported code it is plain ``f``.

    >>> w = torch.ones(1, 2, requires_grad=True)
    >>> precisely(torch.nn.functional.linear, torch.ones(1, 2), w).item()
    2.0
    """
    x = tensors[0]
    if torch.compiler.is_compiling() or x.dtype != torch.float32:
        return f(*tensors)
    device = x.device.type
    if not (_inside or reduced(*_OF.get(device, _LEAVES))):
        return f(*tensors)
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return f(*tensors)
    tracked = torch.is_grad_enabled() and any(
        isinstance(t, Tensor) and t.requires_grad for t in tensors
    )
    if tracked and not transforming():
        return _Precisely.apply(f, *tensors)  # type: ignore[no-untyped-call]
    with full_precision():
        return f(*tensors)


class _Precisely(torch.autograd.Function):
    """A piece of a graph inside one node, which computes in full precision."""

    @staticmethod
    def forward(ctx: Any, f: Callable[..., Any], *tensors: Any) -> Any:
        ctx.set_materialize_grads(False)
        ctx.f = f
        ctx.save_for_backward(*tensors)
        ctx.inside = [
            t.detach().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
            for t in tensors
        ]
        with full_precision(), torch.enable_grad():
            found = f(*ctx.inside)
        ctx.outputs = found if isinstance(found, tuple) else (found,)
        plain = tuple(t.detach() for t in ctx.outputs)
        return plain if isinstance(found, tuple) else plain[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        places = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        known = [i for i, g in enumerate(grads) if g is not None]
        given = [g for g in grads if g is not None]
        if torch.is_grad_enabled():  # the gradient will be differentiated: one more
            slope = _slope(ctx.f, places, known, len(ctx.inside))
            back = _Precisely.apply(  # type: ignore[no-untyped-call]
                slope, *ctx.saved_tensors, *given
            )
        else:
            with full_precision():
                back = _back(ctx.outputs, ctx.inside, places, known, given, False)
        result: list[Tensor | None] = [None] * (len(ctx.inside) + 1)
        for i, g in zip(places, back, strict=True):
            result[i + 1] = g
        return tuple(result)


def _back(
    outputs: tuple[Tensor, ...],
    inputs: Any,
    places: list[int],
    known: list[int],
    grads: Any,
    twice: bool,
) -> tuple[Tensor, ...]:
    """Gradients of the inputs at ``places``, from those of the outputs ``known``."""
    pairs = [
        (outputs[i], g)
        for i, g in zip(known, grads, strict=True)
        if outputs[i].requires_grad
    ]
    if not pairs:
        return tuple(torch.zeros_like(inputs[i]) for i in places)
    return torch.autograd.grad(
        [y for y, _ in pairs],
        [inputs[i] for i in places],
        [g for _, g in pairs],
        retain_graph=True,
        create_graph=twice,
        materialize_grads=True,
    )


def _slope(
    f: Callable[..., Any], places: list[int], known: list[int], count: int
) -> Callable[..., tuple[Tensor, ...]]:
    """The gradient of ``f`` as a function of its ``count`` arguments and of grads."""

    def slope(*args: Any) -> tuple[Tensor, ...]:
        found = f(*args[:count])
        outputs = found if isinstance(found, tuple) else (found,)
        return _back(outputs, args[:count], places, known, args[count:], True)

    return slope
