"""Gradient descent: plain, with momentum, and with a rate for every parameter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.ops.steps import Tensors, state_dtype, step
from dl4py.registry import UPDATERS
from dl4py.updaters.base import Updater
from dl4py.updaters.batch import Batch, Hyper, Rate


@step
def sgd_(p: Tensors, g: Tensors, lr: float) -> None:
    torch._foreach_add_(p, g, alpha=-lr)


@step
def noop_(p: Tensors, g: Tensors) -> None:
    torch._foreach_sub_(p, g)


@step
def nesterovs_(p: Tensors, g: Tensors, v: Tensors, lr: float, mu: float) -> None:
    torch._foreach_mul_(v, mu)
    torch._foreach_add_(v, g, alpha=-lr)
    torch._foreach_add_(p, g, alpha=-lr)
    torch._foreach_add_(p, v, alpha=mu)


def _descend_(p: Tensors, g: Tensors, square: Tensors, lr: float, eps: float) -> None:
    """p ← p - η·g / (√square + ε)"""
    root = torch._foreach_sqrt(square)
    torch._foreach_add_(root, eps)
    torch._foreach_addcdiv_(p, g, root, -lr)


@step
def adagrad_(p: Tensors, g: Tensors, h: Tensors, lr: float, eps: float) -> None:
    torch._foreach_addcmul_(h, g, g)
    _descend_(p, g, h, lr, eps)


@step
def rmsprop_(
    p: Tensors, g: Tensors, s: Tensors, lr: float, rho: float, eps: float
) -> None:
    torch._foreach_mul_(s, rho)
    torch._foreach_addcmul_(s, g, g, 1 - rho)
    _descend_(p, g, s, lr, eps)


@step
def adadelta_(
    p: Tensors, g: Tensors, s: Tensors, x: Tensors, rho: float, eps: float
) -> None:
    torch._foreach_mul_(s, rho)
    torch._foreach_addcmul_(s, g, g, 1 - rho)
    u = torch._foreach_add(x, eps)
    torch._foreach_div_(u, torch._foreach_add(s, eps))
    torch._foreach_sqrt_(u)
    torch._foreach_mul_(u, g)
    torch._foreach_sub_(p, u)
    torch._foreach_mul_(x, rho)
    torch._foreach_addcmul_(x, u, u, 1 - rho)


@UPDATERS.add("sgd", java="Sgd")
class Sgd(Updater):
    """Gradient descent.

    u = η·g

    Args:
        lr: η >= 0, or a schedule.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> w.grad = torch.tensor([2.0])
        >>> Sgd([w], lr=0.25).step()
        >>> w.data
        tensor([0.5000])

    DL4J: org.nd4j.linalg.learning.config.Sgd
    """

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 1e-3,
        dl4j_exact: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, {"lr": lr}, dl4j_exact, **options)

    @classmethod
    def update_(cls, batch: Batch) -> None:
        sgd_(batch.params, batch.grads, batch.hyper["lr"])


@UPDATERS.add("noop", "none", java="NoOp")
class NoOp(Updater):
    """The gradient itself. It does not freeze parameters, neither does DL4J's.

    u = g

    Args:
        lr: what u is multiplied with, >= 0; 1 is DL4J's.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> w.grad = torch.tensor([2.0])
        >>> NoOp([w]).step()
        >>> w.data
        tensor([-1.])

    DL4J: org.nd4j.linalg.learning.config.NoOp
    """

    def __init__(
        self, params: ParamsT, dl4j_exact: bool = False, **options: Any
    ) -> None:
        super().__init__(params, {}, dl4j_exact, **options)

    @classmethod
    def update_(cls, batch: Batch) -> None:
        noop_(batch.params, batch.grads)


@UPDATERS.add(
    "nesterovs",
    java="Nesterovs",
    near={
        "momentum": "its momentum is Nesterov's",
    },
)
class Nesterovs(Updater):
    """Nesterov momentum.

    v' = μ·v - η·g,  u = μ·v - (1 + μ)·v' = η·g - μ·v'

    The rate is inside v, so that under a schedule this is not torch's
    ``SGD(nesterov=True)``; with a constant rate it is.

    Args:
        lr: η >= 0, or a schedule.
        momentum: μ in [0, 1), or a schedule.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.ones(1)
        >>> Nesterovs([w], lr=0.1, momentum=0.5).step()
        >>> w.data
        tensor([-0.1500])

    DL4J: org.nd4j.linalg.learning.config.Nesterovs
    """

    state_names = ("v",)

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 0.1,
        dl4j_exact: bool = False,
        *,
        momentum: Rate = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum}, dl4j_exact, **options
        )

    @classmethod
    def update_(cls, batch: Batch) -> None:
        lr, mu, g = batch.hyper["lr"], batch.hyper["momentum"], batch.grads
        if isinstance(lr, Tensor):  # on the device, and v holds it
            g = list(torch._foreach_mul(g, lr.to(state_dtype(g[0]))))
            lr = 1.0
        nesterovs_(batch.params, g, batch.state["v"], lr, mu)


@UPDATERS.add("adagrad", java="AdaGrad")
class AdaGrad(Updater):
    """A rate that falls with the squared gradients seen so far.

    h ← h + g²,  u = η·g / (√h + ε)

    h starts at 1e-6, whatever ε.

    Args:
        lr: η >= 0, or a schedule.
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> AdaGrad([w], lr=0.1).step()
        >>> w.data
        tensor([-0.1000])

    Reference: Duchi et al., JMLR 12 (2011)

    DL4J: org.nd4j.linalg.learning.config.AdaGrad
    """

    state_names = ("h",)

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 0.1,
        dl4j_exact: bool = False,
        *,
        epsilon: float = 1e-6,
        **options: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "epsilon": epsilon}, dl4j_exact, **options)

    @classmethod
    def initial_state(cls, p: Tensor, hyper: Hyper) -> dict[str, Tensor]:
        # DL4J: the class's default, not ε
        return {"h": torch.full_like(p, 1e-6, dtype=state_dtype(p))}

    @classmethod
    def update_(cls, batch: Batch) -> None:
        lr, eps = batch.hyper["lr"], batch.hyper["epsilon"]
        adagrad_(batch.params, batch.grads, batch.state["h"], lr, eps)


@UPDATERS.add("rmsprop", java="RmsProp")
class RmsProp(Updater):
    """A rate divided by the recent size of the gradient.

    s ← ρ·s + (1 - ρ)·g²,  u = η·g / (√s + ε)

    s starts at ε.

    Args:
        lr: η >= 0, or a schedule.
        rms_decay: ρ in [0, 1).
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> RmsProp([w], lr=0.1, rms_decay=0.75).step()
        >>> w.data
        tensor([-0.2000])

    Reference: Hinton, Neural Networks for Machine Learning, lecture 6e

    DL4J: org.nd4j.linalg.learning.config.RmsProp
    """

    state_names = ("s",)

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 0.1,
        dl4j_exact: bool = False,
        *,
        rms_decay: float = 0.95,
        epsilon: float = 1e-8,
        **options: Any,
    ) -> None:
        hyper = {"lr": lr, "rms_decay": rms_decay, "epsilon": epsilon}
        super().__init__(params, hyper, dl4j_exact, **options)

    @classmethod
    def initial_state(cls, p: Tensor, hyper: Hyper) -> dict[str, Tensor]:
        return {"s": torch.full_like(p, hyper["epsilon"], dtype=state_dtype(p))}

    @classmethod
    def update_(cls, batch: Batch) -> None:
        lr, eps = batch.hyper["lr"], batch.hyper["epsilon"]
        rho = batch.hyper["rms_decay"]
        rmsprop_(batch.params, batch.grads, batch.state["s"], lr, rho, eps)


@UPDATERS.add("adadelta", java="AdaDelta")
class AdaDelta(Updater):
    """The recent size of the updates over that of the gradients; no learning rate.

    s ← ρ·s + (1 - ρ)·g²,  u = g·√(x + ε) / √(s + ε),  x ← ρ·x + (1 - ρ)·u²

    Args:
        rho: ρ in [0, 1).
        epsilon: ε >= 0.
        lr: what p changes by, times u, >= 0; 1 is DL4J's. x is that of u itself.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> AdaDelta([w], rho=0.75, epsilon=0.01).step()
        >>> w.data
        tensor([-0.1998])

    Reference: Zeiler, arXiv:1212.5701

    DL4J: org.nd4j.linalg.learning.config.AdaDelta
    """

    state_names = ("s", "x")

    def __init__(
        self,
        params: ParamsT,
        dl4j_exact: bool = False,
        *,
        rho: float = 0.95,
        epsilon: float = 1e-6,
        **options: Any,
    ) -> None:
        super().__init__(
            params, {"rho": rho, "epsilon": epsilon}, dl4j_exact, **options
        )

    @classmethod
    def update_(cls, batch: Batch) -> None:
        rho, eps = batch.hyper["rho"], batch.hyper["epsilon"]
        s, x = batch.state["s"], batch.state["x"]
        adadelta_(batch.params, batch.grads, s, x, rho, eps)
