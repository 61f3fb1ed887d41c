"""Who solves: dl4py's solvers, torch's L-BFGS, and three packages if installed.

ncg-optimizer and pytorch-minimize are on PyPI; PyTorchHessianFree is
``hessianfree @ git+https://github.com/ltatzel/PyTorchHessianFree`` and needs
backpack-for-pytorch.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dl4py.solvers import LBFGS, ConjugateGradient, HessianFree, LineGradientDescent
from dl4py.solvers.capture import Capture
from tests.benchmarks.solvers.loose import loose

Params = list[nn.Parameter]
Curve = list[tuple[float, float]]  # (seconds, lowest loss so far)


class Ended(Exception):
    """The time is over."""


class Watch:
    """The loss of a problem, its values and when they were computed."""

    def __init__(self, loss: Callable[[], Tensor], seconds: float) -> None:
        self.loss = loss
        self.seconds = seconds
        self.curve: Curve = []
        self.evaluations = 0
        # of the process: what other processes do does not count
        self.began = time.process_time()

    def __call__(self) -> Tensor:
        value = self.loss()
        self.evaluations += 1
        now, number = time.process_time() - self.began, float(value.detach())
        if now > self.seconds and self.curve:
            raise Ended  # too late to count
        # in this order NaN is never the lowest
        lowest = min(self.curve[-1][1], number) if self.curve else number
        self.curve.append((now, lowest))
        return value


def stepping(make: Callable[[Params], Any], params: Params, watch: Watch) -> None:
    """Ordinary closures until the time is over."""
    optimizer = make(params)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = watch()
        loss.backward()
        return loss

    while True:
        before = watch.evaluations
        optimizer.step(closure)
        if watch.evaluations == before:
            return  # it does nothing any more


def torchmin(method: str, params: Params, watch: Watch) -> None:
    """pytorch-minimize: calls backward() itself; begun anew where it ends."""
    from torchmin import Minimizer

    while True:
        before, low = watch.evaluations, watch.curve[-1][1] if watch.curve else None
        optimizer = Minimizer(params, method=method, max_iter=10**6)

        def closure(optimizer: Minimizer = optimizer) -> Tensor:
            optimizer.zero_grad()  # it adds to .grad
            return watch()

        optimizer.step(closure)
        if watch.evaluations - before < 3 or watch.curve[-1][1] == low:
            return


def ncg(params: Params, watch: Watch) -> None:
    """ncg-optimizer with its defaults; its closure must keep the graph."""
    from ncg_optimizer import BASIC

    optimizer = BASIC(params)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = watch()
        loss.backward(retain_graph=True)
        return loss

    while True:
        optimizer.step(closure)


def hessianfree(params: Params, watch: Watch) -> None:
    """PyTorchHessianFree with its defaults; it wants the outputs beside the loss."""
    from hessianfree.optimizer import HessianFree as Peer

    optimizer = Peer(params)

    def forward() -> tuple[Tensor, tuple[Tensor, ...]]:
        # trials are without grad, which a loss with derivatives of its own needs
        with torch.enable_grad(), Capture() as seen:
            loss = watch()
        return loss, tuple(seen.outputs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each step that does not gain
        while True:
            optimizer.step(forward)


torch_lbfgs = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=20)

lbfgs = partial(LBFGS, max_iter=20)

OURS = {
    "LBFGS": lbfgs,
    "LBFGS 4 pairs": partial(lbfgs, history_size=4),
    "LBFGS 20 pairs": partial(lbfgs, history_size=20),
    "LBFGS 100 pairs": partial(lbfgs, history_size=100),
    "LBFGS 100 pairs, strong_wolfe": partial(
        lbfgs, history_size=100, line_search="strong_wolfe"
    ),
    "ConjugateGradient": partial(ConjugateGradient, max_iter=20),
    "ConjugateGradient, no preconditioner": partial(
        ConjugateGradient, preconditioner=None, max_iter=20
    ),
    "HessianFree": HessianFree,
    "HessianFree, damping 1e-3": partial(
        HessianFree, damping=1e-3, damping_factor=0.5, cg_max_iter=250
    ),
    "LineGradientDescent": partial(LineGradientDescent, max_iter=20),
}
TORCH = {
    "torch LBFGS": torch_lbfgs,
    "torch LBFGS 20 pairs": partial(torch_lbfgs, history_size=20),
    "torch LBFGS, no tolerances": partial(
        torch_lbfgs, tolerance_grad=0.0, tolerance_change=0.0
    ),
}


PACKAGES: dict[str, tuple[str, dict[str, Callable[[Params, Watch], None]]]] = {
    "PyTorchHessianFree": ("hessianfree", {"PyTorchHessianFree": hessianfree}),
    "pytorch-minimize": (
        "torchmin",
        {
            "pytorch-minimize l-bfgs": partial(torchmin, "l-bfgs"),
            "pytorch-minimize cg": partial(torchmin, "cg"),
        },
    ),
    "ncg-optimizer": ("ncg_optimizer", {"ncg-optimizer": ncg}),
}


def everyone() -> dict[str, Callable[[Params, Watch], None]]:
    """Name → what runs it; packages that are not installed are left out."""
    found: dict[str, Callable[[Params, Watch], None]] = {
        name: partial(stepping, make) for name, make in {**OURS, **TORCH}.items()
    }
    found["PyTorchHessianFree's rules"] = loose
    for package, (module, contestants) in PACKAGES.items():
        if importlib.util.find_spec(module):
            found |= contestants
        else:
            print(f"{package} is not installed")
    return found
