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
    floats. The formula uses torch's ``_foreach`` functions; it never changes g.
    """
    name = written.__name__
    parameters = inspect.signature(written).parameters.values()
    lists = [q.name for q in parameters if q.annotation == "Tensors"]
    changed = [n for n in lists if n != "g"]
    types = {n: f"Tensor({chr(97 + i)}!)[]" for i, n in enumerate(changed)}
    types["g"] = "Tensor[]"
    arguments = ", ".join(f"{types.get(q.name, 'float')} {q.name}" for q in parameters)

    def formula(p: Tensors, g: Tensors, *rest: Any) -> None:
        if not p or p[0].dtype == state_dtype(p[0]):
            written(p, g, *rest)  # type: ignore[arg-type, call-arg]
            return
        wide = [t.float() for t in p]
        written(wide, [t.float() for t in g], *rest)  # type: ignore[arg-type, call-arg]
        torch._foreach_copy_(p, wide)

    op = define(f"{name}({arguments}) -> ()", formula, lambda *_: None)

    def entry(*args: P.args, **kwargs: P.kwargs) -> None:
        if _compiling():  # torch fuses the formula itself
            formula(*args, **kwargs)  # type: ignore[arg-type]
        else:
            op(*args, **kwargs)

    STEPS[name] = formula
    entry.__name__ = entry.__qualname__ = name
    entry.__module__, entry.__doc__ = written.__module__, written.__doc__
    return entry
