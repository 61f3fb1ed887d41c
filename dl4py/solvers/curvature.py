"""Products with the curvature of a loss, on the graph of an ordinary forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GaussNewton:
    """v → Jᵀ·H·J·v, with J = ∂z/∂θ and H the Hessian of the loss in z.

    The graph of Jᵀ·u is built once; its derivative in u gives J·v. No z may be
    computed from another. Parameters outside of the graph have zeros.

    Args:
        loss: of one number, its graph alive.
        outputs: what enters the loss, z.
        params: θ.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> z = 3 * w
        >>> GaussNewton(z.square().sum(), [z], [w])([torch.ones(2)])[0]
        tensor([18., 18.])

    Source: Schraudolph, Fast curvature matrix-vector products, 2002.
    """

    @torch.enable_grad()
    def __init__(
        self, loss: Tensor, outputs: Sequence[Tensor], params: Sequence[Tensor]
    ) -> None:
        self.outputs = list(outputs)
        self.params = list(params)
        self.slopes = torch.autograd.grad(loss, self.outputs, create_graph=True)
        self.u = [torch.zeros_like(z).requires_grad_() for z in self.outputs]
        self.pulled = self._pull(self.u, create_graph=True)

    def __call__(self, v: Sequence[Tensor]) -> list[Tensor]:
        """The product with ``v``, tensors of the parameters' shapes."""
        pairs = [(p, t) for p, t in zip(self.pulled, v, strict=True) if p.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in self.params]
        pushed = _grad([p for p, _ in pairs], self.u, [t for _, t in pairs])
        curved = [(s, t) for s, t in zip(self.slopes, pushed, strict=True)]
        curved = [(s, t) for s, t in curved if s.requires_grad]
        if not curved:  # a loss linear in z
            return [torch.zeros_like(p) for p in self.params]
        weighed = _grad([s for s, _ in curved], self.outputs, [t for _, t in curved])
        return self._pull(weighed)

    def _pull(self, u: list[Tensor], create_graph: bool = False) -> list[Tensor]:
        return _grad(self.outputs, self.params, u, create_graph)


def _grad(
    of: list[Tensor], by: list[Tensor], weights: list[Tensor], create: bool = False
) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            of,
            by,
            weights,
            retain_graph=True,
            create_graph=create,
            allow_unused=True,
            materialize_grads=True,
        )
    )
