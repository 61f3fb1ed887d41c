"""Losses with their activation, forward and backward, against torch's.

``torch`` is F.cross_entropy with probabilities or F.bce_with_logits, ``index`` is
F.cross_entropy with class indices. ``ours`` goes through ``dl4py.losses.get``. All
losses that are sums, with their activations, are timed against what they are without a
kernel (``composed``), at [32, 10] those of torch against their nearest there: what a
call costs that computes nearly nothing. All run with memory that stays warm (``WARM``),
as kernels.md measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dl4py import losses
from dl4py.registry import LOSSES
from tests.benchmarks.harness import WARM, Call, Case, Floor, Row, Table

SIZES = ((4096, 10), (4096, 1000), (1024, 32000))
SMALL = (32, 10)
Function = Callable[[Tensor, Tensor], Tensor]


def softmax(z: Tensor, y: Tensor) -> Tensor:
    return -(y * torch.log_softmax(z, 1)).sum() / z.shape[0]


def sigmoid(z: Tensor, y: Tensor) -> Tensor:
    a = torch.sigmoid(z)
    return -(y * a.log() + (1 - y) * (1 - a).log()).sum() / z.shape[0]


def bce(z: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, y, reduction="sum") / z.shape[0]


def training(f: Function, z: Tensor, y: Tensor) -> Call:
    return lambda: torch.autograd.grad(f(z, y), z)


def cases(quick: bool) -> Iterator[Case]:
    mcxent = losses.get("mcxent", "softmax")
    xent = losses.get("xent", "sigmoid")
    sparse = losses.get("sparse_mcxent", "softmax")
    for n, k in SIZES[: 2 if quick else 3]:
        z = torch.randn(n, k, requires_grad=True)
        index = torch.randint(k, (n,))
        soft = torch.randn(n, k).softmax(1)
        torch.compiler.reset()
        peers = {
            "torch": training(F.cross_entropy, z, soft),
            "index": training(F.cross_entropy, z, index),
            "eager": training(softmax, z, soft),
        }
        if not quick:
            compiled = torch.compile(softmax, fullgraph=True)
            peers["compile"] = training(compiled, z, soft)
        label = f"[{n}, {k}]"
        yield Case("softmax+MCXENT", n * k, label, training(mcxent, z, soft), peers)
        yield Case(
            "softmax+SPARSE_MCXENT", n * k, label, training(sparse, z, index),
            {"index": peers["index"]},
        )  # fmt: skip
        y = (soft > 0.5).float()
        peers = {"torch": training(bce, z, y), "eager": training(sigmoid, z, y)}
        if not quick:
            compiled = torch.compile(bce, fullgraph=True)
            peers["compile"] = training(compiled, z, y)
        yield Case("sigmoid+XENT", n * k, label, training(xent, z, y), peers)
    yield from sums(*SIZES[1], quick)
    yield from calls(*SMALL)


def calls(n: int, k: int) -> Iterator[Case]:
    z = torch.randn(n, k, requires_grad=True)
    index, soft = torch.randint(k, (n,)), torch.randn(n, k).softmax(1)
    hard = (soft > 0.1).float()
    for name, f, y, peer in (
        ("MCXENT", "softmax", soft, F.cross_entropy),
        ("SPARSE_MCXENT", "softmax", index, F.cross_entropy),
        ("XENT", "sigmoid", hard, F.binary_cross_entropy_with_logits),
        ("MSE", "identity", soft, F.mse_loss),
    ):
        ours = training(losses.get(name, f), z, y)
        peers = {"torch": training(peer, z, y)}
        yield Case(f"a call of {name}", n * k, f"[{n}, {k}]", ours, peers)


def sums(n: int, k: int, quick: bool) -> Iterator[Case]:
    z, y = torch.rand(n, k, requires_grad=True), torch.rand(n, k)
    for key in LOSSES:
        if "summand" not in vars(LOSSES[key]):
            continue
        for f in ("tanh",) if quick else ("identity", "tanh", "sigmoid"):
            loss = losses.get(key, f, dl4j_exact=key in ("xent", "kld"))

            def composed(z: Tensor, y: Tensor, loss: losses.Loss = loss) -> Tensor:
                return loss._terms(z, y, None).sum() / z.shape[0]

            yield Case(
                f"{key.upper()} of {f}", n * k, f"[{n}, {k}]", training(loss, z, y),
                {"composed": training(composed, z, y)},
            )  # fmt: skip


def at(name: str, shape: tuple[int, int]) -> Callable[[Row], bool]:
    return lambda row: (row.name, row.size) == (name, shape[0] * shape[1])


FLOORS = (
    Floor("composed", 1.3, lambda row: True),
    *(
        Floor("torch", least, at(name, shape))
        for name, floors in (
            ("softmax+MCXENT", (5, 1.8, 2)),
            ("sigmoid+XENT", (1.1, 2, 2.4)),
        )
        for shape, least in zip(SIZES, floors, strict=True)
    ),
    *(
        Floor("torch", 1 / most, at(f"a call of {name}", SMALL))
        for name, most in (
            ("MCXENT", 1.05),
            ("SPARSE_MCXENT", 1.25),
            ("XENT", 1.25),
            ("MSE", 1.25),
        )
    ),
)
TABLE = Table(
    "Losses, forward and backward", cases, FLOORS, environment=WARM, computes=True
)
