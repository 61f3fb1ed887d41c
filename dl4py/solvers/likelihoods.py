"""Labels drawn from what a network predicts, for the losses that are likelihoods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dl4py.ops.head import head


@dataclass(frozen=True)
class Judged:
    """A call of a loss function, and what it returned."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    @property
    def input(self) -> Any:
        """Its first argument."""
        return self.args[0] if self.args else self.kwargs.get("input")

    @property
    def name(self) -> str:
        """The function's name; of dl4py's own the class's."""
        func = self.args[0] if self.func is head else self.func
        own = getattr(func, "__self__", None)
        return type(own).__name__ if own is not None else str(func.__name__)


Arguments = Mapping[str, Any]
# → (weights of the terms, what a mean divides by, slopes of -log p of a draw)
Draw = Callable[[Tensor, Arguments, torch.Generator], tuple[Tensor, Tensor, Tensor]]


def slopes(
    judged: Judged, root: Tensor, generator: torch.Generator, sign: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(z, s): for every row s·sᵀ has Fisher's matrix of sign·``root`` as its mean.

    s = √c·∂(-log p(y|z))/∂z with y drawn from p(·|z), where the loss is Σ c·(-log p) of
    the labels at hand.

    Args:
        judged: the call of a loss that is a negative log-likelihood.
        root: the loss that was differentiated, with its graph.
        generator: on the CPU.
        sign: -1 where the solver maximizes ``root``.

    Raises:
        ValueError: the loss is none of ``DRAWS``, or its target is an output too.
    """
    name = judged.name
    if judged.func not in DRAWS:
        known = ", ".join(f.__name__ for f in DRAWS)
        raise ValueError(
            f"{name} says nothing of how labels are distributed, so that none can be "
            f"drawn; those that do are {known} of torch.nn.functional. For other "
            "losses use curvature='ggn' and preconditioner='empirical'"
        )
    bound = inspect.signature(judged.func).bind(*judged.args, **judged.kwargs)
    bound.apply_defaults()
    given = bound.arguments
    z, target = given["input"], given["target"]
    if isinstance(target, Tensor) and target.requires_grad:
        raise ValueError(
            f"{name}: a target that depends on parameters is not one that could have "
            "been drawn; detach it, or use curvature='ggn'"
        )
    if judged.func in _OF_CLASSES and z.dim() < 2:
        raise ValueError(
            f"{name}: labels are drawn for rows, expected an input [n, classes, ...], "
            f"got {list(z.shape)}; use input.unsqueeze(0)"
        )
    outer = None
    if judged.result.requires_grad:
        (outer,) = torch.autograd.grad(
            root, judged.result, retain_graph=True, allow_unused=True
        )
    if outer is None:  # computed to be looked at
        return z, torch.zeros_like(z)
    with torch.no_grad():
        weight, count, slope = DRAWS[judged.func](_wide(z), given, generator)
        if given["reduction"] == "mean":
            weight = weight / count
        if judged.func in _OF_CLASSES and outer.dim():
            outer = outer.unsqueeze(1)
        c = (sign * outer * weight).clamp(min=0)
        return z, (slope * c.sqrt()).to(z.dtype)


def carried(z: Tensor, to: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """(``to``, sᵀ·∂z/∂to): slopes at ``z`` as those at what it was computed from."""
    if to is z:
        return z, s
    return to, torch.autograd.grad(z, to, s, retain_graph=True)[0]


def _wide(z: Tensor) -> Tensor:
    return z.detach().to(torch.promote_types(z.dtype, torch.float32))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    return numbers.to(like.device, like.dtype)


def _times(like: Tensor, weight: Tensor | None) -> Tensor:
    ones = torch.ones_like(like)
    return ones if weight is None else ones * weight


def _classes(p: Tensor, generator: torch.Generator) -> Tensor:
    """One class of each position, one-hot along dimension 1."""
    u = _uniform(p[:, :1], generator)
    drawn = (p.cumsum(1) < u).sum(1, keepdim=True).clamp(max=p.shape[1] - 1)
    return torch.zeros_like(p).scatter_(1, drawn, 1.0)


def _class_weights(p: Tensor, given: Arguments) -> tuple[Tensor, Tensor]:
    """(weights [n, 1, …], what a mean divides by)."""
    target, classes = given["target"], p.shape[1]
    shape = (1, classes) + (1,) * (p.dim() - 2)
    w = torch.ones(classes, device=p.device, dtype=p.dtype)
    if given["weight"] is not None:
        w = given["weight"].to(p.dtype)
    w = w.view(shape)
    if target.is_floating_point():
        share, count = target.to(p.dtype), p.new_tensor(p.numel() / classes)
    else:
        valid = (target != given["ignore_index"]).unsqueeze(1)
        index = target.unsqueeze(1).where(valid, 0)
        share = torch.zeros_like(p).scatter_(1, index, 1.0) * valid
        count = (share * w).sum()
    smooth = given.get("label_smoothing", 0.0)
    total = share.sum(1, keepdim=True)
    share = (1 - smooth) * share + smooth / classes * total
    return (share * w).sum(1, keepdim=True), count


def _cross_entropy(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    p = z.softmax(1)
    weight, count = _class_weights(p, given)
    return weight, count, p - _classes(p, generator)


def _nll_loss(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    weight, count = _class_weights(z, given)
    return weight, count, -_classes(z.exp(), generator)


def _mse_loss(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    # (z - y)² is -log p of a normal distribution with variance ½
    noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    weight = _times(z, given.get("weight"))
    return weight, z.new_tensor(z.numel()), 2**0.5 * noise.to(z.device, z.dtype)


def _with_logits(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    p = z.sigmoid()
    weight = _times(z, given["weight"])
    if given["pos_weight"] is not None:
        weight = weight * (1 + (given["pos_weight"] - 1) * given["target"])
    drawn = (_uniform(p, generator) < p).to(p.dtype)
    return weight, z.new_tensor(z.numel()), p - drawn


def _binary(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    drawn = (_uniform(z, generator) < z).to(z.dtype)
    slope = (z - drawn) / (z * (1 - z)).clamp(min=1e-12)
    return _times(z, given["weight"]), z.new_tensor(z.numel()), slope


def _l1_loss(
    z: Tensor, given: Arguments, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    # |z - y| is -log p of Laplace's distribution
    sign = (_uniform(z, generator) < 0.5).to(z.dtype) * 2 - 1
    return _times(z, given.get("weight")), z.new_tensor(z.numel()), sign


_OF_CLASSES = (F.cross_entropy, F.nll_loss)
DRAWS: dict[Any, Draw] = {
    F.cross_entropy: _cross_entropy,
    F.nll_loss: _nll_loss,
    F.mse_loss: _mse_loss,
    F.l1_loss: _l1_loss,
    F.binary_cross_entropy_with_logits: _with_logits,
    F.binary_cross_entropy: _binary,
}
