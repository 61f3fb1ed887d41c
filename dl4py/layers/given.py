"""Whether an array is what a layer takes, and what to say where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dl4py.config.inputs import Shape


def fits(found: Sequence[int], shapes: Sequence[Shape]) -> bool:
    """Whether an array of shape ``found`` is one of ``shapes``; of none: any is.

    >>> fits((2, 3, 7), (("n", 3, "time"),)), fits((2, 4, 7), (("n", 3, "time"),))
    (True, False)
    """
    rank = len(found)
    for shape in shapes:  # plain loops: every call of a layer goes through them
        if len(shape) != rank:
            continue
        for axis, size in enumerate(shape):
            if not isinstance(size, str) and size != found[axis]:
                break
        else:
            return True
    return not shapes


def misfit(who: str, x: Tensor, shapes: Sequence[Shape]) -> ValueError:
    """What to say of an ``x`` that ``who`` does not take."""
    wanted = " or ".join(f"[{', '.join(map(str, shape))}]" for shape in shapes)
    return ValueError(
        f"x: {who} expects {wanted}, got {list(x.shape)}{_way_out(x, shapes)}"
    )


def check_numbers(who: str, x: Any) -> None:
    """Refuse what is no tensor of floating-point numbers."""
    if isinstance(x, torch.fx.Proxy):
        return  # it stands for one
    if not isinstance(x, Tensor):
        kind = type(x)
        raise TypeError(
            f"x: {who} expects a torch.Tensor, got {kind.__module__}.{kind.__name__}; "
            "make it one with torch.as_tensor(...)"
        )
    if not x.is_floating_point():
        raise ValueError(
            f"x: {who} computes in floating point, got {x.dtype}; convert with "
            "x.to(torch.get_default_dtype())"
        )


def _way_out(x: Tensor, shapes: Sequence[Shape]) -> str:
    if x.dim() == 0:
        return ""
    n, *rest = x.shape
    moves: Iterator[tuple[str, list[int]]] = iter(
        (
            ("one example is a batch of one: x.unsqueeze(0)", [1, n, *rest]),
            (
                "the features stand elsewhere: x.movedim(1, -1)",
                [n, *rest[1:], *rest[:1]],
            ),
            (
                "the features stand elsewhere: x.movedim(-1, 1)",
                [n, *rest[-1:], *rest[:-1]],
            ),
        )
    )
    for word, found in moves:
        if fits(found, shapes):
            return f"; {word}"
    return ""
