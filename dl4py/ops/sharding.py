"""How ops act on tensors that are split over ranks: torch's DTensor.

Its module takes a while to import, and nobody has a DTensor without it. So each op says
how it may be split when it is defined, and torch is told when the first one turns up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Placements = list[Any]
# of an op's arguments, each tensor as its specification → (of results, of arguments)
Rule = Callable[..., Sequence[tuple[Placements, Placements]]]

_untold: list[tuple[Any, Rule]] = []


def later(op: Any, rule: Rule) -> None:
    """Tell torch ``rule`` of ``op`` when there are DTensors."""
    _untold.append((op, rule))


def tell() -> bool:
    """Tell torch all it does not know yet; whether there was something."""
    if not _untold or "torch.distributed.tensor" not in sys.modules:
        return False
    from torch.distributed.tensor.experimental import register_sharding

    while _untold:
        op, rule = _untold.pop()
        register_sharding(op)(rule)
    return True


def beside(t: Tensor, z: Tensor) -> Tensor:
    """``t``, equal on all ranks, as it may be computed with together with ``z``."""
    kind = _kind(z)
    if kind is None:
        return t
    found: Tensor = kind.from_local(t, z.device_mesh, run_check=False)  # type: ignore[attr-defined]
    return found


def gathered(t: Tensor) -> Tensor:
    """``t``, on every rank the whole of it."""
    whole: Tensor = t if _kind(t) is None else t.full_tensor()  # type: ignore[attr-defined]
    return whole


def _kind(t: Tensor) -> Any:
    """DTensor, if ``t`` is one."""
    module = None if type(t) is Tensor else sys.modules.get("torch.distributed.tensor")
    return module.DTensor if module and isinstance(t, module.DTensor) else None


def whole(*args: Any) -> tuple[Placements, Placements]:
    """Every rank has everything."""
    from torch.distributed.tensor import Replicate

    return [Replicate()], [Replicate() if _is_tensor(a) else None for a in args]


def pointwise(x: Any, *rest: Any) -> list[tuple[Placements, Placements]]:
    """The result is split as x is, and what is broadcast to x where it has its axis."""
    from torch.distributed.tensor import Replicate, Shard

    def of(t: Any, axis: int) -> Any:
        own = axis - x.ndim + t.ndim
        split = own >= 0 and t.shape[own] == x.shape[axis]
        return Shard(own) if split else Replicate()

    axes = [
        ([Shard(i)], [of(a, i) if _is_tensor(a) else None for a in (x, *rest)])
        for i in range(x.ndim)
    ]
    return [whole(x, *rest), *axes]


def everywhere(*args: Any) -> list[tuple[Placements, Placements]]:
    """What needs all of x, as who counts its elements."""
    return [whole(*args)]


def rows(op: Any) -> Rule:
    """A loss: rows are on their own, weights ``w`` are everyone's.

    Its last argument says whether the first result is summed over the rows.
    """
    names = [argument.name for argument in op._schema.arguments]
    more = len(op._schema.returns) - 1

    def rule(*args: Any) -> list[tuple[Placements, Placements]]:
        from torch.distributed.tensor import Partial, Replicate, Shard

        def of(name: str, a: Any) -> Any:
            if not _is_tensor(a):
                return None
            return Replicate() if name == "w" or a.ndim == 0 else Shard(0)

        inputs = [of(name, a) for name, a in zip(names, args, strict=True)]
        first = Partial() if args[-1] is True else Shard(0)
        (alone,), all_inputs = whole(*args)
        return [
            ([alone] * (1 + more), all_inputs),
            ([first] + [Shard(0)] * more, inputs),
        ]

    return rule


def _is_tensor(argument: Any) -> bool:
    return hasattr(argument, "placements")
