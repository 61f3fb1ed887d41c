"""Products of a curvature matrix with a vector, on the graph of the closure itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dl4py.solvers.structural import Damped


def _grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None,
    graph: bool = False,
) -> list[Tensor]:
    """``torch.autograd.grad`` that keeps the graph; 0 where there is no path."""
    pairs = [
        (o, None if weights is None else weights[i])
        for i, o in enumerate(outputs)
        if o.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(t) for t in inputs]
    found = torch.autograd.grad(
        [o for o, _ in pairs],
        list(inputs),
        None if weights is None else [w for _, w in pairs],
        retain_graph=True,
        create_graph=graph,
        allow_unused=True,
    )
    return [
        torch.zeros_like(t) if f is None else f
        for f, t in zip(found, inputs, strict=True)
    ]


class Hessian:
    """H·v by differentiating the gradient once more.

    Args:
        loss: one number, with its graph.
        params: where to differentiate.

    >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> Hessian((w**3).sum(), [w])([torch.ones(2)])
    [tensor([ 6., 12.])]
    """

    def __init__(self, loss: Tensor, params: Sequence[Tensor]) -> None:
        self.params = params
        with torch.enable_grad():
            self._gradient = _grad([loss], params, None, graph=True)

    def __call__(self, v: Sequence[Tensor], structural: float = 0.0) -> list[Tensor]:
        """H·v, in the parameters' shapes."""
        return _grad(self._gradient, self.params, v)


class GaussNewton:
    """Jᵀ·H·J·v: J of the outputs, H the Hessian of the loss with respect to them.

    J·v is the derivative of Jᵀ·u with respect to u, whose graph is built once.
    Dropout masks and batch statistics are those of the loss by construction. Structural
    damping is the same of hidden states, with a weight of their own in place of H.

    Args:
        loss: one number, with its graph.
        outputs: the loss's inputs; none of them computed from another.
        params: where to differentiate.
        damped: hidden states.
        drawn: (output, s) of :func:`dl4py.solvers.likelihoods.slopes`, where labels
            were drawn.

    >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> z = w**2
    >>> GaussNewton((z**2).sum(), [z], [w])([torch.ones(2)])
    [tensor([ 8., 32.])]
    """

    def __init__(
        self,
        loss: Tensor,
        outputs: Sequence[Tensor],
        params: Sequence[Tensor],
        damped: Sequence[Damped] = (),
        drawn: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        self.loss, self.params, self.outputs = loss, params, outputs
        numbers = {id(z): i for i, z in enumerate(outputs)}
        self._drawn = [(numbers[id(z)], s) for z, s in drawn]
        self._hidden = [d.hidden for d in damped]
        self._weights = [d.weight() for d in damped]
        judged = [*outputs, *self._hidden]
        with torch.enable_grad():
            self._slope = _grad([loss], outputs, None, graph=True)
            self._dummies = [torch.zeros_like(z, requires_grad=True) for z in judged]
            self._pulled = _grad(judged, params, self._dummies, graph=True)

    def __call__(self, v: Sequence[Tensor], structural: float = 0.0) -> list[Tensor]:
        """(G + structural·S)·v, in the parameters' shapes."""
        count = len(self.outputs)
        known = self._dummies if structural else self._dummies[:count]
        tangents = _grad(self._pulled, known, v)
        sources, u = self.sources(tangents[:count])
        sources = [*sources, *self._hidden[: len(tangents) - count]]
        for t, weight in zip(tangents[count:], self._weights, strict=False):
            u.append(t * (structural * weight))
        return _grad(sources, self.params, u)

    def sources(self, tangents: list[Tensor]) -> tuple[Sequence[Tensor], list[Tensor]]:
        """What to differentiate, and with which weights, for Jᵀ·H·t.

        ∂loss/∂outputs depends on parameters through the outputs only, so that its
        derivative is H·J: one pass does both.
        """
        return self._slope, tangents

    def pull(self, u: Sequence[Tensor]) -> list[Tensor]:
        """Jᵀ·u, of the outputs and, where ``u`` goes on, of the hidden states."""
        judged = [*self.outputs, *self._hidden]
        return _grad(judged[: len(u)], self.params, u)

    def gradient(self) -> list[Tensor]:
        """Jᵀ·∂loss/∂outputs: the gradient as far as it goes through the outputs."""
        return self.pull([s.detach() for s in self._slope])

    def whole_gradient(self) -> list[Tensor]:
        """The gradient, whatever way it takes."""
        return _grad([self.loss], self.params, None)

    def probe(self, generator: torch.Generator) -> list[Tensor]:
        """n·(Jᵀ·(ε·∂loss/∂outputs))², ε = ±1 for each of the n rows.

        Its mean is Martens' diagonal: the mean of the squared gradients of the rows,
        for a loss that is a mean over rows and outputs of one row each.
        """
        signed, rows = [], max((s.shape[0] for s in self._slope if s.dim()), default=1)
        signs: dict[int, Tensor] = {}
        for s in self._slope:
            n = s.shape[0] if s.dim() else 1
            if n not in signs:
                signs[n] = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
            sign = signs[n].to(s.device, s.dtype)
            shape = s.shape[:1] + (1,) * (s.dim() - 1)
            signed.append(s.detach() * sign.reshape(shape))
        return [rows * t.square() for t in self.pull(signed)]

    def sampled_probe(self, generator: torch.Generator) -> list[Tensor]:
        """(Jᵀ·(ε·s))², ε = ±1 for each row: its mean is the diagonal of Jᵀ·Σ s·sᵀ·J."""
        u = [torch.zeros_like(z) for z in self.outputs]
        for i, s in self._drawn:
            n = s.shape[0] if s.dim() else 1
            sign = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
            shape = s.shape[:1] + (1,) * (s.dim() - 1)
            u[i] = u[i] + s * sign.to(s.device, s.dtype).reshape(shape)
        return [t.square() for t in self.pull(u)]


class Fisher(GaussNewton):
    """Jᵀ·(±Σ s·sᵀ)·J: in place of H the squared slopes s of labels that were drawn.

    A row's s is all that belongs to one number of its first dimension.

    Attributes:
        sign: -1 where the loss is one to maximize.
    """

    sign = 1.0

    def sources(self, tangents: list[Tensor]) -> tuple[Sequence[Tensor], list[Tensor]]:
        u = [torch.zeros_like(z) for z in self.outputs]
        for i, s in self._drawn:
            along = s * tangents[i]
            if s.dim() > 1:
                along = along.sum(tuple(range(1, s.dim())), keepdim=True)
            u[i] = u[i] + s * (self.sign * along)
        return self.outputs, u
