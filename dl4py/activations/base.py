"""What all activations share, and how any function becomes one."""

from __future__ import annotations

import functools
import inspect
import math
import struct
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from dl4py.ops.gradient import gradient_of as gradient_of
from dl4py.registry import ACTIVATIONS, Named, parameters


class Activation(nn.Module):
    """Base of all activations: a formula in ``forward`` and what is known about it.

    Where f rounds to 0, 1 or -1 and losses take logarithms there, the class also has
    ``log(x)`` = ln f(x), ``log_below(x)`` = ln(1 - f(x)) or ``log_above(x)`` =
    ln(1 + f(x)), with derivatives that are finite where those of f underflow.

    Args:
        dl4j_exact: DL4J's own finite numbers also where design faults of DL4J (see
            ``differs``) make them differ from the mathematics.

    Attributes:
        kinks: points without a derivative.
        elementwise: each output depends on its own input only.
        json: constructor argument → key in DL4J's JSON, where it is not the camelCase.
        kernel: its name in ``csrc/sums.inl``, where losses compute it themselves.
        exact_kernel: the same in exact mode, where that is another; ``None`` where a
            class says so: losses compute it by ``forward`` then.
    """

    kinks: tuple[float, ...] = ()
    elementwise: ClassVar[bool] = True
    kernel: ClassVar[str | None] = None
    exact_kernel: ClassVar[str | None] = None
    json: ClassVar[dict[str, str]] = {}
    dl4j_exact: bool

    def __init__(self, *, dl4j_exact: bool = False) -> None:
        super().__init__()
        self.dl4j_exact = dl4j_exact

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Proxy):  # torch.fx keeps torch's own whole, too
            tracer: Any = args[0].tracer
            path = tracer.path_of_module(self)
            return tracer.create_proxy("call_module", path, args, kwargs)
        return super().__call__(*args, **kwargs)

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            f"torch.jit.script cannot compile {type(self).__name__}: use "
            "torch.jit.trace(model, inputs), torch.export or torch.compile"
        )

    def differs(self, dtype: torch.dtype = torch.float64) -> str | None:
        """What ``dl4j_exact`` changes for these arguments and dtype, in one line."""
        return None

    def in_steps(self, x: Tensor) -> tuple[str, tuple[float, ...]] | None:
        """Its name in ``csrc/recurrent.inl`` and its numbers there, if it has one."""
        kernel = (self.dl4j_exact and self.exact_kernel) or self.kernel
        return None if kernel is None else (kernel, ())

    def literal(self, value: float, x: Tensor) -> float:
        """A constant that DL4J's kernels hold in float32, as ``x`` meets it."""
        # kernels in float32 round it themselves: of a proxy nothing need be known
        known = isinstance(x, Tensor) and x.dtype != torch.float64
        return float32(value) if self.dl4j_exact and not known else value

    def extra_repr(self) -> str:
        return arguments(self)


def split(
    x: Tensor,
    at: float,
    below: Callable[[Tensor], Tensor],
    above: Callable[[Tensor], Tensor],
) -> Tensor:
    """One function below a point and another above, neither seen beyond it.

    Example:
        >>> x = torch.tensor([-1.0, 4.0])
        >>> split(x, 0.0, torch.neg, torch.sqrt)
        tensor([1., 2.])
    """
    return torch.where(x < at, below(x.clamp(max=at)), above(x.clamp(min=at)))


def float32(value: float) -> float:
    """``value`` rounded to float32.

    >>> float32(0.2)
    0.20000000298023224
    """
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def number(
    owner: object,
    name: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
) -> float:
    """``value`` as a finite float in ``[low, high]``, or one error that names it."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    real = real and math.isfinite(value)
    if not (real and low <= value <= high):
        expected = "a finite number"
        if low > -math.inf:
            expected = f"finite and >= {low:g}"
        if high < math.inf:
            expected = f"in [{low:g}, {high:g}]"
        raise ValueError(
            f"{type(owner).__name__}({name}=...) must be {expected}, got {value!r}"
        )
    return float(value)


def arguments(module: nn.Module) -> str:
    """The constructor's arguments that were given, for ``repr``."""
    shown = [
        f"{name}={getattr(module, name)!r}"
        for name, default in parameters(type(module)).items()
        if default is inspect.Parameter.empty or getattr(module, name) != default
    ]
    return ", ".join(shown + ["dl4j_exact=True"] * bool(module.dl4j_exact))


@functools.lru_cache(1024)  # a network asks for every layer
def _knows_exact(kind: Any) -> bool:
    return "dl4j_exact" in inspect.signature(kind).parameters


def get(name: Any, dl4j_exact: bool = False, **args: Any) -> nn.Module:
    """An activation by name, or whatever else computes a tensor from a tensor.

    Args:
        name: DL4J's name, :class:`~dl4py.registry.Named`, a module, a module class, or
            a function ``tensor -> tensor``.
        dl4j_exact: see :class:`Activation`.
        args: the activation's own arguments.

    Example:
        >>> get("LEAKYRELU", alpha=0.2)
        LeakyReLU(alpha=0.2)
        >>> get(torch.tanh)
        Custom(tanh)
        >>> get("softsing")
        Traceback (most recent call last):
        ValueError: unknown activation 'softsing': did you mean 'softsign'?
    """
    if isinstance(name, (str, Named)):
        named = ACTIVATIONS.named(name, **args)
        item, args = named.entry.item, named.kwargs
    else:
        item = name
    if isinstance(item, nn.Module):
        if args:
            raise ValueError(
                f"activation {type(item).__name__} is a module already: give its "
                f"arguments ({', '.join(args)}) to its constructor"
            )
        return item
    if inspect.isclass(item) and issubclass(item, nn.Module):
        if _knows_exact(item):  # type: ignore[arg-type]
            args["dl4j_exact"] = dl4j_exact
        module: nn.Module = item(**args)
        return module
    if not callable(item) or inspect.isclass(item):
        raise TypeError(
            "activation must be a name, a torch.nn.Module, or a function of one "
            f"tensor, got {name!r}"
        )
    return Custom(functools.partial(item, **args) if args else item)


class Custom(Activation):
    """A function ``tensor -> tensor`` as a module.

    Args:
        function: elementwise or not; what autograd makes of it is its gradient.
    """

    elementwise = False

    def __init__(
        self, function: Callable[[Tensor], Tensor], *, dl4j_exact: bool = False
    ) -> None:
        super().__init__(dl4j_exact=dl4j_exact)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        inner = getattr(self.function, "func", self.function)
        return str(getattr(inner, "__name__", inner))


def literal_note(value: float, dtype: torch.dtype, where: str = "") -> str | None:
    """The line of ``differs`` for :meth:`Activation.literal`."""
    if dtype != torch.float64 or float32(value) == value:
        return None
    return f"DL4J holds the constant {value:g} in float32{where}"
