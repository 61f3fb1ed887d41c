"""Losses that belong to ``log_softmax``: ``nll_loss(log_softmax(z))``.

They are linear in what they judge, so that all their curvature is that of
``log_softmax``, and has to be taken of z, as that of ``cross_entropy`` is.
``binary_cross_entropy(sigmoid(z))`` is none of them: it is bent by itself, and its
second derivative, which torch keeps finite by an ε, cancels that of the sigmoid badly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LINKS = {
    F.log_softmax,
    torch.log_softmax,
    Tensor.log_softmax,
    torch.special.log_softmax,
}
LINEAR = {F.nll_loss, F.kl_div}
# what only arranges numbers anew
_ARRANGES = {
    "AliasBackward0", "AsStridedBackward0", "CloneBackward0", "ExpandBackward0",
    "IndexBackward0", "IndexSelectBackward0", "MaskedSelectBackward0",
    "PermuteBackward0", "ReshapeAliasBackward0", "SelectBackward0", "SliceBackward0",
    "SqueezeBackward0", "SqueezeBackward1", "SqueezeBackward2", "TBackward0",
    "ToCopyBackward0", "TransposeBackward0", "UnsafeViewBackward0",
    "UnsqueezeBackward0", "ViewBackward0",
}  # fmt: skip


class Links:
    """The calls of ``log_softmax``, by what they gave."""

    def __init__(self) -> None:
        self._logits: dict[Any, Tensor] = {}

    def note(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Note a call, if it is one."""
        if func in LINKS and isinstance(result, Tensor) and result.requires_grad:
            self._logits[result.grad_fn] = args[0] if args else kwargs["input"]

    def behind(self, judged: Tensor, losses: list[Any]) -> Tensor:
        """z where ``judged`` is log_softmax(z) and ``losses`` are linear, else itself.

        What only arranges numbers anew may stand between.
        """
        node = judged.grad_fn
        while node is not None and node not in self._logits:
            if node.name() not in _ARRANGES:
                return judged
            node = node.next_functions[0][0]
        if node is None or not LINEAR.issuperset(losses):
            return judged
        return self._logits[node]
