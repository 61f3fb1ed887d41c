"""Structural damping: which hidden states a step of HessianFree may not change much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

# activation → the factor f′ of its values, whose inverse is the matching loss's weight
_SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
}


def damp(hidden: Tensor, activation: str | None = None, *, dim: int = 0) -> Tensor:
    """``hidden`` itself, noted for ``HessianFree(structural_damping=...)``.

    To be called in a module's forward pass with the hidden states of a recurrent
    network: of all time steps at once, or of one after the other. A step p then costs
    μ·λ·S(p) in the model of the loss, where S is the mean over rows of the sum over all
    noted states of ½·w·(∂h/∂x·p)². To any other optimizer it is ``hidden``.

    Args:
        hidden: the states, after their activation.
        activation: ``None``: w = 1, squared distance; ``"tanh"``, ``"sigmoid"``: w =
            1/f′, the cross entropy that matches this activation, so that saturated
            units are held as tightly as others.
        dim: which dimension numbers the rows: 1 for the output of
            ``torch.nn.RNN(batch_first=False)``.

    Raises:
        ValueError: unknown activation, or no such dimension.

    Example:
        >>> class Adder(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.rnn = torch.nn.RNN(2, 8, batch_first=True)
        ...         self.last = torch.nn.Linear(8, 1)
        ...
        ...     def forward(self, x):
        ...         hidden = damp(self.rnn(x)[0], "tanh")
        ...         return self.last(hidden[:, -1])
        >>> from dl4py.solvers import HessianFree
        >>> net, x = Adder(), torch.rand(16, 5, 2)
        >>> solver = HessianFree(net.parameters(), structural_damping=0.03)
        >>> def closure():
        ...     solver.zero_grad()
        ...     loss = torch.nn.functional.mse_loss(net(x), x[:, :2, :1].sum(1))
        ...     loss.backward()
        ...     return loss
        >>> bool(solver.step(closure) > closure())
        True

    Reference: Martens and Sutskever, Learning recurrent neural networks with
        Hessian-free optimization, 2011.
    """
    if torch.compiler.is_compiling():
        return hidden
    if has_torch_function_unary(hidden):
        result: Tensor = handle_torch_function(
            damp, (hidden,), hidden, activation, dim=dim
        )
        return result
    if not isinstance(hidden, Tensor):
        raise TypeError(
            f"damp(hidden): expected a tensor of states, got {type(hidden).__name__}; "
            "of what torch.nn.RNN returns take the first"
        )
    if activation is not None and activation not in _SLOPES:
        raise ValueError(
            f"damp(activation=...) must be one of {[None, *_SLOPES]}, got "
            f"{activation!r}"
        )
    if not -hidden.dim() <= dim < hidden.dim():
        raise ValueError(
            f"damp(dim=...) must be a dimension of hidden, got {dim} for shape "
            f"{tuple(hidden.shape)}"
        )
    return hidden


@dataclass(frozen=True)
class Damped:
    """Hidden states as :func:`damp` was given them."""

    hidden: Tensor
    activation: str | None = None
    dim: int = 0

    def weight(self) -> Tensor | float:
        """w over the number of rows."""
        rows = self.hidden.shape[self.dim]
        if self.activation is None:
            return 1 / rows
        slope = _SLOPES[self.activation](self.hidden.detach())
        # where f′ is 0 so is the tangent, and their quotient
        return 1 / (slope.clamp(min=torch.finfo(slope.dtype).tiny ** 0.5) * rows)
