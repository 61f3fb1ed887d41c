"""One registration for all ops: schema, formula, autograd, vmap, fake, fast entry.

A formula ``name(x, order, *params)`` written with torch ops becomes

- the public op ``dl4py::name(x, scale, order, *params)`` = scale · f⁽ᵒʳᵈᵉʳ⁾(x). Its
  derivative is itself one order up, so x and scale are all that is ever saved;
- two raw twins without an autograd kernel: ``_name`` = f(x), ``_name_d`` = g · f'(x);
- the entry ``name(x, *params)``, which modules call: about 1.4 times ``F.relu`` for a
  small tensor, where a call of the public op costs 2.4 times.

The formula serves every device. A compiled library may override one, at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.overrides import handle_torch_function

from dl4py.ops import library, sharding

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
Active = Callable[[Tensor], Tensor]
Modes = tuple[bool, bool] | None  # whether gradients and tangents are on

# All that dl4py uses of torch's private parts; a test looks each one up.
PRIVATE = (
    "torch._C._AutoDispatchBelowAutograd",
    "torch._C._are_functorch_transforms_active",
    "torch._C._functorch.get_single_level_autograd_function_allowed",
    "torch._C._functorch.set_single_level_autograd_function_allowed",
    "torch._C._is_fwd_grad_enabled",
    "torch._C._is_tracing",
    "torch._C._set_grad_enabled",
    "torch._VF._unpack_dual",
    "torch._disable_dynamo",
    "torch._ops.OpOverload._op",
    "torch.autograd.forward_ad._current_level",
    "torch.autograd.forward_ad._set_fwd_grad_enabled",
    "torch.library.Library._destroy",
)

MAX_ORDER = 2  # order 2's own derivative is autograd of its formula
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

if "_lib" in globals():  # importlib.reload: a namespace is defined once per process
    globals()["_lib"]._destroy()
_library: Any = torch.library  # untyped in part
_lib = _library.Library("dl4py", "DEF")

_functorch = torch._C._functorch
_transforms = torch._C._are_functorch_transforms_active
set_grad_enabled: Any = torch._C._set_grad_enabled  # what torch.no_grad() calls
_below_autograd = torch._C._AutoDispatchBelowAutograd
_forward_mode_on = torch._C._is_fwd_grad_enabled
_set_forward_mode: Any = forward_ad._set_fwd_grad_enabled
_compiling, _grad_on = torch.compiler.is_compiling, torch.is_grad_enabled
_tracing = torch._C._is_tracing  # torch.jit.trace


@dataclasses.dataclass(frozen=True)
class Op:
    """A registered op: its formula, its overloads, its fast entry."""

    name: str
    params: tuple[str, ...]
    formula: Callable[..., Tensor]  # (x, scale, order, *params) in torch ops
    op: Any
    raw: Any
    raw_d: Any
    entry: Callable[..., Tensor]


OPS: dict[str, Op] = {}


def op(
    *, fuse: bool = False, active: Active | None = None
) -> Callable[
    [Callable[Concatenate[Tensor, int, P], Tensor]],
    Callable[Concatenate[Tensor, P], Tensor],
]:
    """Register the decorated formula and replace it by its fast entry.

    The formula is written with differentiable torch ops for orders 0 to 2. A parameter
    called ``seed`` is an int64 tensor: 0-d, or (as vmap makes it) one seed per leading
    index of x; all others are floats.

    Args:
        fuse: ``torch.compile`` sees the formula instead of the op, so that Inductor
            fuses it. Its derivative is then autograd's: for formulas without kinks.
        active: where it is false the result is 0 whatever the scale is, NaN included.
    """

    def decorate(
        formula: Callable[Concatenate[Tensor, int, P], Tensor],
    ) -> Callable[Concatenate[Tensor, P], Tensor]:
        made = _make(formula, fuse, active)
        OPS[made.name] = made
        return made.entry

    return decorate


def define(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any] | None = None,
    split: Callable[[Any], sharding.Rule] | None = None,
) -> Any:
    """An op that computes by ``kernel`` until a library brings a faster one.

    The device is that of the first tensor. Without ``fake`` the kernel itself says what
    comes out. ``split`` makes of the op how ranks share its work, if they may.
    """

    def first(*args: Any) -> Any:
        x = args[0] if isinstance(args[0], Tensor) else args[0][0]
        # true once per device, and then a kernel of the library answers
        return overload(*args) if library.load(x.device.type) else kernel(*args)

    name = schema.partition("(")[0]
    _lib.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _lib.impl(name, first, "CompositeExplicitAutograd")
    torch.library.register_fake(f"dl4py::{name}", fake or kernel, lib=_lib)
    overload = getattr(torch.ops.dl4py, name).default
    if split is not None:
        sharding.later(overload, split(overload))
    return overload


def transforming() -> bool:
    """Whether a function transform or forward mode is at work."""
    return _transforms() or forward_ad._current_level >= 0


def in_plain_eager_mode() -> bool:
    """Neither compiled, traced nor transformed."""
    return not (
        _compiling() or _tracing() or _transforms() or forward_ad._current_level >= 0
    )


def exporting() -> bool:
    """Whether a graph is made for programs without dl4py: torch.export's or ONNX."""
    return torch.compiler.is_exporting() or for_onnx()


_alone = False


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Graphs that are recorded inside hold torch's own operations only.

    Programs of ``torch.export`` then run in processes without dl4py.
    """
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def for_onnx() -> bool:
    """Whether what is recorded is for those who know only torch's own operations.

    That is torch.onnx, and :func:`alone`.
    """
    if torch.compiler.is_dynamo_compiling():
        return False
    if _alone:
        return True
    onnx = sys.modules.get("torch.onnx")  # slow to import
    return onnx is not None and onnx.is_in_onnx_export()


def composing() -> bool:
    """Whether an op shall be seen as what it is composed of."""
    return transforming() or for_onnx()


def uncompiled(function: F) -> F:
    """``function`` as it is under ``torch.compile``, which goes on around it.

    ``torch.compiler.disable`` would import all of the compiler already here.
    """
    disable: Callable[[F], F] = getattr(
        torch, "_disable_dynamo", torch.compiler.disable
    )
    return disable(function)


below_autograd: Any = _below_autograd  # a context: ops are computed and not recorded


def set_autograd(name: str, kernel: Callable[..., Any]) -> None:
    """How the op ``name`` is recorded."""
    _lib.impl(name, kernel, "Autograd")


def recorded(apply: Any, *args: Any) -> Any:
    """A Function's ``apply(*args, modes)``, under all transforms and as one of them."""
    if not _transforms():
        return apply(*args, None)
    allowed = _functorch.get_single_level_autograd_function_allowed()
    _functorch.set_single_level_autograd_function_allowed(True)
    try:
        return apply(*args, (_grad_on(), _forward_mode_on()))
    finally:
        _functorch.set_single_level_autograd_function_allowed(allowed)


def below(modes: Modes, op: Any, *args: Any) -> Any:
    """What such a Function's ``forward`` computes, by the op itself.

    It goes on to functorch's next level with the gradient modes that apply() has
    switched off: else func.grad(func.grad(f)) is silently zero.
    """
    if modes is None:
        with _below_autograd():
            return op(*args)
    grad, forward = torch.set_grad_enabled(modes[0]), _set_forward_mode(modes[1])
    with grad, forward, _below_autograd():
        return op(*args)


def set_vmap(name: str, rule: Callable[..., Any]) -> None:
    """How the op ``name`` is batched; see ``torch.library.register_vmap``."""
    torch.library.register_vmap(f"dl4py::{name}", rule, lib=_lib)


def _make(written: Callable[..., Tensor], fuse: bool, active: Active | None) -> Op:
    name = written.__name__
    params = tuple(inspect.signature(written).parameters)[2:]
    random = "seed" in params
    types = [f", {'Tensor' if p == 'seed' else 'float'} {p}" for p in params]

    def formula(x: Tensor, scale: Tensor | None, order: int, *p: Any) -> Tensor:
        # half types as in the kernels: computed in float32, rounded once
        half = x.dtype in (torch.float16, torch.bfloat16)
        y = written(x.float() if half else x, order, *p)
        y = y if scale is None else y * scale
        if active is not None:
            y = torch.where(active(x), y, 0.0)
        return y.to(x.dtype)

    def fallback(x: Tensor, scale: Tensor | None, order: int, *p: Any) -> Tensor:
        _check(name, x)
        y = formula(x, scale, order, *p)
        out = torch.empty_like(x)  # the strides that the fake kernel promises
        return y if y is not x and y.stride() == out.stride() else out.copy_(y)

    def fake(x: Tensor, *rest: Any) -> Tensor:
        _check(name, x)
        for t in rest:
            if isinstance(t, Tensor) and t.device != x.device:
                raise RuntimeError(
                    f"{name}: all tensors must be on the device of x ({x.device}), "
                    f"got one on {t.device}; move it, e.g. with .to(x.device)"
                )
        return torch.empty_like(x)

    rule = sharding.everywhere if random else sharding.pointwise

    def declare(n: str, arguments: str, kernel: Callable[..., Tensor]) -> Any:
        schema = f"{n}({arguments}{''.join(types)}) -> Tensor"
        return define(schema, kernel, fake, lambda op: rule)

    def f(x: Tensor, *p: Any) -> Tensor:
        return fallback(x, None, 0, *p)

    def df(x: Tensor, g: Tensor, *p: Any) -> Tensor:
        return fallback(x, g, 1, *p)

    op = declare(name, "Tensor x, Tensor? scale, int order", fallback)
    raw = declare(f"_{name}", "Tensor x", f)
    raw_d = declare(f"_{name}_d", "Tensor x, Tensor g", df)

    _lib.impl(name, _autograd_kernel(op, formula, random), "Autograd")
    torch.library.register_vmap(f"dl4py::{name}", _vmap_rule(op, random), lib=_lib)

    def other_modes(x: Tensor, *p: Any) -> Any:
        fusing = fuse and _compiling() and not torch.compiler.is_exporting()
        if fusing or for_onnx():
            return formula(x, None, 0, *p)
        return op(x, None, 0, *p)

    entry = _entry(name, params, random)(op, raw._op, raw_d._op, other_modes)
    entry.__module__, entry.__doc__ = written.__module__, written.__doc__
    return Op(name, params, formula, op, raw, raw_d, entry)


def _autograd_kernel(
    op: Any, formula: Callable[..., Tensor], random: bool
) -> Callable[..., Any]:
    class Differentiable(Function):
        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            scale: Tensor | None,
            order: int,
            p: tuple[Any, ...],
            modes: Modes,
        ) -> Any:
            seeds, ctx.p, ctx.order = p[:random], p[random:], order
            ctx.save_for_backward(x, scale, *seeds)
            ctx.save_for_forward(x, scale, *seeds)
            return below(modes, op, x, scale, order, *p)  # graphs are cached by names

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            x, scale, *seeds = ctx.saved_tensors
            dx = ds = None
            if ctx.needs_input_grad[0]:
                s = g if scale is None else g * scale
                dx = op(x, s, ctx.order + 1, *seeds, *ctx.p)
            if scale is not None and ctx.needs_input_grad[1]:
                ds = op(x, g, ctx.order, *seeds, *ctx.p).sum_to_size(scale.shape)
            return dx, ds, None, None, None

        @staticmethod
        def jvp(ctx: Any, tx: Tensor | None, ts: Tensor | None, *_: Any) -> Any:
            x, scale, *seeds = map(_primal, ctx.saved_tensors)
            t = None
            with _set_forward_mode(_transforms()):  # for outer levels of func.jvp
                if tx is not None:
                    s = tx if scale is None else tx * scale
                    t = op(x, s, ctx.order + 1, *seeds, *ctx.p)
                if ts is None:
                    return t
                s = op(x, ts, ctx.order, *seeds, *ctx.p)
                return s if t is None else t + s

    apply: Any = super(Function, Differentiable).apply  # skips inspect.signature

    def autograd(x: Tensor, scale: Tensor | None, order: int, *p: Any) -> Any:
        recording = _grad_on() or _transforms() or forward_ad._current_level >= 0
        if order >= MAX_ORDER and recording or for_onnx():
            return formula(x, scale, order, *p)  # torch ops know their derivatives
        return recorded(apply, x, scale, order, p)

    return autograd


def _primal(t: Tensor | None) -> Tensor | None:
    # forward_ad.unpack_dual leaves duals as they are while compiling: endless recursion
    return None if t is None else torch._VF._unpack_dual(t, level=0)[0]


def _vmap_rule(op: Any, random: bool) -> Callable[..., tuple[Tensor, int]]:
    def rule(
        info: Any, dims: Any, x: Tensor, scale: Tensor | None, order: int, *p: Any
    ) -> tuple[Tensor, int]:
        n = info.batch_size

        def batched(t: Tensor, dim: int | None) -> Tensor:
            return t.expand(n, *t.shape) if dim is None else t.movedim(dim, 0)

        x = batched(x, dims[0])
        if scale is not None and dims[1] is not None:
            scale = scale.movedim(dims[1], 0)
            ones = (1,) * (x.dim() - scale.dim())
            scale = scale.reshape(n, *ones, *scale.shape[1:])
        seeds = (batched(p[0], dims[3]),) if random else ()
        return op(x, scale, order, *seeds, *p[random:]), 0

    return rule


# Entry and Function are written out for each list of parameters (*p costs 1.5 us per
# forward and backward), as closures over this module's globals: Dynamo looks there.
_ENTRY = """
def build(op, raw, raw_d, other_modes):
    class Fast(Function):  # plain eager mode, order 0, no scale
        @staticmethod
        def forward(ctx, x{p}):
            ctx.save_for_backward(x{seed})
            {save}
            return raw(x{p})

        @staticmethod
        def backward(ctx, g):
            x{seed}, = ctx.saved_tensors
            {unpack}
            if _grad_on() or _transforms() or forward_ad._current_level >= 0:
                return op(x, g, 1{p}){nones}
            return raw_d(x, g{p}){nones}

    fast = super(Function, Fast).apply

    def {name}(x{p}):
        if (
            _compiling()
            or _transforms()
            or forward_ad._current_level >= 0
            or _tracing()
        ):
            return other_modes(x{p})
        try:
            if x.requires_grad and _grad_on():
                return fast(x{p})
            return raw(x{p})
        except Exception as error:
            return _recover({name}, error, x{p})

    {name}.__qualname__ = "{name}"  # pickles by reference
    return {name}
"""


def _entry(name: str, params: tuple[str, ...], random: bool) -> Callable[..., Any]:
    floats = ", ".join(params[random:])
    source = _ENTRY.format(
        name=name,
        p="".join(f", {p}" for p in params),
        seed=", seed" if random else "",
        save=f"ctx.p = {floats}," if floats else "",
        unpack=f"{floats}, = ctx.p" if floats else "",
        nones=", None" * len(params),
    )
    scope: dict[str, Any] = {}
    exec(source, globals(), scope)
    build: Callable[..., Any] = scope["build"]
    return build


def _check(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}(x): x must be a tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{name}(x): x must be a floating point tensor (float64, float32, float16 "
            f"or bfloat16), got {x.dtype}; convert it, e.g. with x.float()"
        )


def _recover(entry: Callable[..., Tensor], error: Exception, x: Any, *p: Any) -> Any:
    """What stands for a tensor, as a proxy or DTensor, or one clear error for x."""
    if hasattr(x, "__torch_function__") and not isinstance(x, Tensor):
        return handle_torch_function(entry, (x,), x, *p)
    if type(x) is not Tensor and sharding.tell():
        return entry(x, *p)
    try:
        _check(entry.__name__, x)
    except TypeError as clear:
        raise clear from None
    raise error
