"""Steps of updaters as ops: all tensors of a parameter group in one pass over memory.

A formula ``name_(p, g, *states, *numbers)`` on lists of tensors becomes the op of the
same name and arguments, which changes p and the states in place. Half types are
computed in float32, with states in float32, and rounded once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from dl4py.ops.register import define

P = ParamSpec("P")
Tensors = list[Tensor]

STEPS: dict[str, Callable[..., None]] = {}  # the formulas
_compiling = torch.compiler.is_compiling


def state_dtype(p: Tensor) -> torch.dtype:
    """The dtype of a parameter's state: p's own, but at least float32."""
    return torch.promote_types(p.dtype, torch.float32)


def step(written: Callable[P, None]) -> Callable[P, None]:
    """Register the decorated formula and replace it by the entry of its op.

    Parameters annotated ``Tensors`` are lists (p, g, then the states), the others are
    floats; the first, a rate, may also be a 0-d float64 tensor on the device of p,
    where it is read. The formula uses torch's ``_foreach`` functions; it never changes
    g, and what it takes from p is proportional to such a rate and does not depend on p.
    """
    name = written.__name__
    parameters = list(inspect.signature(written).parameters.values())
    lists = [q.name for q in parameters if q.annotation == "Tensors"]
    changed = [n for n in lists if n != "g"]
    types = {n: f"Tensor({chr(97 + i)}!)[]" for i, n in enumerate(changed)}
    types["g"] = "Tensor[]"
    kinds = [f"{types[n]} {n}" for n in lists] + ["Tensor? by"]
    kinds += [f"float {q.name}" for q in parameters if q.annotation != "Tensors"]
    place = len(lists)

    call: Callable[..., None] = written

    def formula(*args: Any) -> None:
        p, g, *states = args[:place]
        by, numbers = args[place], args[place + 1 :]
        if not p or (by is None and p[0].dtype == state_dtype(p[0])):
            call(p, g, *states, *numbers)
            return
        kind = state_dtype(p[0])
        wide = [t.to(kind) for t in p]
        moved = wide if by is None else [torch.zeros_like(t) for t in wide]
        call(moved, [t.to(kind) for t in g], *states, *numbers)
        if by is not None:
            torch._foreach_mul_(moved, by.to(kind))
            torch._foreach_add_(wide, moved)
        torch._foreach_copy_(p, wide)

    op = define(f"{name}({', '.join(kinds)}) -> ()", formula, lambda *_: None)

    def entry(*args: P.args, **kwargs: P.kwargs) -> None:
        given: list[Any] = [*args, *kwargs.values()]
        by = given[place] if len(given) > place else None
        if isinstance(by, Tensor):
            given[place] = 1.0
        else:
            by = None
        given.insert(place, by)
        if _compiling():  # torch fuses the formula itself
            formula(*given)
        else:
            op(*given)

    STEPS[name] = formula
    entry.__name__ = entry.__qualname__ = name
    entry.__module__, entry.__doc__ = written.__module__, written.__doc__
    return entry
