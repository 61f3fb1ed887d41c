"""Adam and its relatives: an average of the gradient over an average of its size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dl4py.ops.steps import Tensors, step
from dl4py.registry import UPDATERS
from dl4py.schedules import Fixed, Map
from dl4py.updaters.base import Updater
from dl4py.updaters.batch import Batch, Number, Rate

PRIVATE = ("_fused_adam_",)  # torch names without a public twin; without them: formulas


def _ema_(average: Tensors, x: Tensors, beta: float) -> None:
    """a ← β·a + (1 - β)·x"""
    torch._foreach_lerp_(average, x, 1 - beta)


def _ema_of_square_(average: Tensors, x: Tensors, beta: float) -> None:
    """a ← β·a + (1 - β)·x²"""
    torch._foreach_mul_(average, beta)
    torch._foreach_addcmul_(average, x, x, 1 - beta)


def _descend_(p: Tensors, m: Tensors, v: Tensors, eps: float, rate: Number) -> None:
    """p ← p - rate·m / (√v + ε)"""
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, eps)
    torch._foreach_addcdiv_(p, m, root, -rate)


def _fused_adam_(
    p: Tensors, g: Tensors, m: Tensors, v: Tensors, v_hat: Tensors,
    rate: Number, beta1: float, beta2: float, eps: float,
) -> bool:  # fmt: skip
    """Adam by torch's kernel, where it can do it and ours is missing.

    A step count of ∞ switches torch's bias corrections off, so that the kernel computes
    DL4J's formula: rate·m / (√v + ε).
    """
    kernel: Any = getattr(torch, PRIVATE[0], None)
    device = p[0].device
    if torch.compiler.is_compiling():  # it cannot be made functional
        return False
    if kernel is None or device.type not in ("cpu", "cuda"):
        return False
    if not all(x.is_contiguous() for x in (*p, *g, *m, *v, *v_hat)):
        return False
    steps = [torch.full((), math.inf, device=device)] * len(p)
    kernel(
        p, g, m, v, v_hat, steps, lr=rate, beta1=beta1, beta2=beta2, weight_decay=0.0,
        eps=eps, amsgrad=bool(v_hat), maximize=False,
    )  # fmt: skip
    return True


@step
def adam_(
    p: Tensors, g: Tensors, m: Tensors, v: Tensors,
    rate: Number, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    if not _fused_adam_(p, g, m, v, [], rate, beta1, beta2, eps):
        _ema_(m, g, beta1)
        _ema_of_square_(v, g, beta2)
        _descend_(p, m, v, eps, rate)


@step
def amsgrad_(
    p: Tensors, g: Tensors, m: Tensors, v: Tensors, v_hat: Tensors,
    rate: Number, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    if not _fused_adam_(p, g, m, v, v_hat, rate, beta1, beta2, eps):
        _ema_(m, g, beta1)
        _ema_of_square_(v, g, beta2)
        torch._foreach_maximum_(v_hat, v)
        _descend_(p, m, v_hat, eps, rate)


@step
def adamax_(
    p: Tensors, g: Tensors, m: Tensors, q: Tensors,
    rate: Number, beta1: float, beta2: float,
) -> None:  # fmt: skip
    _ema_(m, g, beta1)
    torch._foreach_mul_(q, beta2)
    torch._foreach_maximum_(q, torch._foreach_abs(g))
    torch._foreach_add_(q, 1e-32)
    torch._foreach_addcdiv_(p, m, q, -rate)


@step
def nadam_(
    p: Tensors, g: Tensors, m: Tensors, v: Tensors,
    rate: Number, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    _ema_(m, g, beta1)
    _ema_of_square_(v, g, beta2)
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, eps)
    torch._foreach_addcdiv_(p, m, root, -rate * beta1)
    torch._foreach_addcdiv_(p, g, root, -rate * (1 - beta1))


@step
def adabelief_(
    p: Tensors, g: Tensors, m: Tensors, s: Tensors,
    rate: Number, beta1: float, beta2: float, eps: float,
) -> None:  # fmt: skip
    _ema_(m, g, beta1)
    _ema_of_square_(s, list(torch._foreach_sub(g, m)), beta2)
    torch._foreach_add_(s, eps)
    _descend_(p, m, s, eps, rate)


def _step_size(batch: Batch) -> Number:
    """η_t = η·√(1 - β₂^(t+1)) / (1 - β₁^(t+1))"""
    h, square = batch.hyper, batch.correction(batch.hyper["beta2"])
    root = square.sqrt() if isinstance(square, Tensor) else math.sqrt(square)
    return _divided(h["lr"] * root, batch.correction(h["beta1"]), batch)


def _divided(step: Number, correction: Number, batch: Batch) -> Number:
    """A step size; DL4J replaces one of 0 or ∞ by ε, so that η = 0 does not freeze."""
    epsilon = batch.hyper["epsilon"]
    if isinstance(correction, Tensor):
        rates = step / correction
        odd = (rates == 0) | rates.isinf()
        return torch.where(odd, epsilon, rates) if batch.dl4j_exact else rates
    rate = step / correction if correction else math.inf
    return epsilon if batch.dl4j_exact and (rate == 0 or rate == math.inf) else rate


def _zero_rate(hyper: Mapping[str, Rate]) -> str | None:
    lr = hyper["lr"]
    values = lr.values.values() if isinstance(lr, Map) else [lr]
    if any((v.value if isinstance(v, Fixed) else v) == 0 for v in values):
        return "DL4J steps by epsilon where the learning rate is 0"
    return None


class _AdamArguments(Updater):
    """What Adam and its relatives share: the constructor, and the fault of most."""

    steps_by_epsilon: ClassVar[bool] = True  # DL4J, where the step size is 0

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 1e-3,
        dl4j_exact: bool = False,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Any,
    ) -> None:
        hyper = {"lr": lr, "beta1": beta1, "beta2": beta2, "epsilon": epsilon}
        super().__init__(params, hyper, dl4j_exact, **options)

    @classmethod
    def difference(cls, hyper: Mapping[str, Rate]) -> str | None:
        line = _zero_rate(hyper) if cls.steps_by_epsilon else None
        return line or super().difference(hyper)


@UPDATERS.add(
    "adam",
    java="Adam",
    near={
        "adamw": "write weight_decay=...; its ε is outside the bias correction",
    },
)
class Adam(_AdamArguments):
    """Adaptive moments, ε outside the bias correction.

    m ← β₁·m + (1 - β₁)·g,  v ← β₂·v + (1 - β₂)·g²
    u = η·√(1 - β₂^(t+1)) / (1 - β₁^(t+1)) · m / (√v + ε)

    torch's Adam with ε/√(1 - β₂^(t+1)) in place of ε.

    Args:
        lr: η >= 0, or a schedule.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> Adam([w], lr=0.1).step()
        >>> w.data
        tensor([-0.1000])

    Reference: Kingma & Ba, arXiv:1412.6980

    DL4J: org.nd4j.linalg.learning.config.Adam
    """

    state_names = ("m", "v")

    @classmethod
    def update_(cls, batch: Batch) -> None:
        p, g, h = batch.params, batch.grads, batch.hyper
        m, v, rate = batch.state["m"], batch.state["v"], _step_size(batch)
        adam_(p, g, m, v, rate, h["beta1"], h["beta2"], h["epsilon"])


@UPDATERS.add("amsgrad", java="AMSGrad")
class AMSGrad(_AdamArguments):
    """Adam with a second moment that never falls.

    m ← β₁·m + (1 - β₁)·g,  v ← β₂·v + (1 - β₂)·g²,  v̂ ← max(v̂, v)
    u = η·√(1 - β₂^(t+1)) / (1 - β₁^(t+1)) · m / (√v̂ + ε)

    Args:
        lr: η >= 0, or a schedule.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> AMSGrad([w], lr=0.1).step()
        >>> w.data
        tensor([-0.1000])

    Reference: Reddi et al., arXiv:1904.09237

    DL4J: org.nd4j.linalg.learning.config.AMSGrad
    """

    state_names = ("m", "v", "v_hat")

    @classmethod
    def update_(cls, batch: Batch) -> None:
        p, g, h, rate = batch.params, batch.grads, batch.hyper, _step_size(batch)
        m, v, v_hat = batch.state["m"], batch.state["v"], batch.state["v_hat"]
        amsgrad_(p, g, m, v, v_hat, rate, h["beta1"], h["beta2"], h["epsilon"])


@UPDATERS.add("adamax", java="AdaMax")
class AdaMax(_AdamArguments):
    """Adam with the largest recent gradient in place of the second moment.

    m ← β₁·m + (1 - β₁)·g,  q ← max(β₂·q, |g|) + 1e-32
    u = η / (1 - β₁^(t+1)) · m / q

    Args:
        lr: η >= 0, or a schedule.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        epsilon: DL4J's step size where η is 0, in exact mode only.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> AdaMax([w], lr=0.1).step()
        >>> w.data
        tensor([-0.1000])

    Reference: Kingma & Ba, arXiv:1412.6980, section 7

    DL4J: org.nd4j.linalg.learning.config.AdaMax
    """

    state_names = ("m", "q")

    @classmethod
    def update_(cls, batch: Batch) -> None:
        p, g, h = batch.params, batch.grads, batch.hyper
        m, q = batch.state["m"], batch.state["q"]
        rate = _divided(h["lr"], batch.correction(h["beta1"]), batch)
        adamax_(p, g, m, q, rate, h["beta1"], h["beta2"])


@UPDATERS.add("nadam", java="Nadam")
class Nadam(_AdamArguments):
    """Adam with Nesterov's look-ahead; its second moment is not bias-corrected.

    m ← β₁·m + (1 - β₁)·g,  v ← β₂·v + (1 - β₂)·g²
    u = η·(β₁·m + (1 - β₁)·g) / (1 - β₁^(t+1)) / (√v + ε)

    Args:
        lr: η >= 0, or a schedule.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> Nadam([w], lr=0.1, beta1=0.5, beta2=0.75).step()
        >>> w.data
        tensor([-0.3000])

    Reference: Dozat, ICLR 2016 workshop

    DL4J: org.nd4j.linalg.learning.config.Nadam
    """

    state_names = ("m", "v")
    steps_by_epsilon = False

    @classmethod
    def update_(cls, batch: Batch) -> None:
        p, g, h = batch.params, batch.grads, batch.hyper
        m, v, beta1 = batch.state["m"], batch.state["v"], h["beta1"]
        rate = h["lr"] / batch.correction(beta1)
        nadam_(p, g, m, v, rate, beta1, h["beta2"], h["epsilon"])


@UPDATERS.add("adabelief", java="AdaBelief")
class AdaBelief(_AdamArguments):
    """Adam with the spread of the gradient around its average as second moment.

    m ← β₁·m + (1 - β₁)·g,  s ← β₂·s + (1 - β₂)·(g - m)² + ε
    u = η·√(1 - β₂^(t+1)) / (1 - β₁^(t+1)) · m / (√s + ε)

    Args:
        lr: η >= 0, or a schedule.
        beta1: β₁ in [0, 1).
        beta2: β₂ in [0, 1).
        epsilon: ε >= 0.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> w.grad = torch.tensor([4.0])
        >>> AdaBelief([w], lr=0.1, beta1=0.5).step()
        >>> w.data
        tensor([-0.2000])

    Reference: Zhuang et al., arXiv:2010.07468

    DL4J: org.nd4j.linalg.learning.config.AdaBelief
    """

    state_names = ("m", "s")
    java_state = False  # DL4J fails on a file with state: ArrayIndexOutOfBounds

    def __init__(
        self,
        params: ParamsT,
        lr: Rate = 1e-3,
        dl4j_exact: bool = False,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-14,
        **options: Any,
    ) -> None:
        hyper = {"lr": lr, "beta1": beta1, "beta2": beta2, "epsilon": epsilon}
        Updater.__init__(self, params, hyper, dl4j_exact, **options)

    @classmethod
    def update_(cls, batch: Batch) -> None:
        p, g, h = batch.params, batch.grads, batch.hyper
        m, s, rate = batch.state["m"], batch.state["s"], _step_size(batch)
        adabelief_(p, g, m, s, rate, h["beta1"], h["beta2"], h["epsilon"])
