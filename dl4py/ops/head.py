"""How a loss tells a solver which outputs it judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def head(judge: Callable[..., Tensor], z: Tensor, *rest: Any) -> Any:
    """``judge(z, *rest)``, in one piece to a ``TorchFunctionMode``.

    >>> head(torch.add, torch.ones(1), 2)
    tensor([3.])
    """
    if not torch.compiler.is_compiling() and has_torch_function_unary(z):
        return handle_torch_function(head, (z,), judge, z, *rest)
    return judge(z, *rest)
