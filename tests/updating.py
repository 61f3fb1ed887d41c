"""What tests of updaters share: every one of them, trained on gradients of a step."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import torch
from torch import nn

from dl4py.registry import UPDATERS, parameters

NAMES = [n for n in UPDATERS if UPDATERS[n].__module__.startswith("dl4py.updaters.")]
BIASED = ["adam", "amsgrad", "adamax", "adabelief"]  # step by ε where the rate is 0
SHAPES = [(5, 4), (3,), (), (2, 0), (2, 3, 2)]
OTHER = {"lr": 0.03, "momentum": 0.6, "beta1": 0.8, "beta2": 0.97, "rho": 0.9}
OTHER |= {"rms_decay": 0.85, "epsilon": 1e-4}


def gradients(steps, shape=(5, 4), dtype=torch.float64, seed=0):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    )


def make_params(dtype=torch.float64, shapes=SHAPES, seed=5):
    return [
        nn.Parameter(gradients(1, s, dtype, seed + i)[0]) for i, s in enumerate(shapes)
    ]


def train(updater, steps, first=0):
    """``steps`` updates with gradients that depend on the step only."""
    for step in range(first, first + steps):
        for group in updater.param_groups:
            for i, p in enumerate(group["params"]):
                g = gradients(1, tuple(p.shape), p.dtype, 100 * step + i)[0]
                p.grad = g.to(p.device)
        updater.step()


def values(updater):
    return [p.detach().clone() for g in updater.param_groups for p in g["params"]]


def same(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def state_of(updater):
    return {p: dict(s) for p, s in updater.state.items()}


def hyper(cls):
    return {name: OTHER[name] for name in parameters(cls)}


def run(cls, g, dl4j_exact=False, layout=None, **args):
    """The updates and the final state after the gradients ``g``."""
    p = nn.Parameter(torch.zeros_like(g[0]))
    if layout == "strided":
        p = nn.Parameter(torch.zeros(*g.shape[1:], 2, dtype=g.dtype)[..., 0])
    updater = cls([p], dl4j_exact=dl4j_exact, **args)
    updates = []
    for x in g:
        p.data.zero_()
        p.grad = x.clone()
        updater.step()
        assert torch.equal(p.grad, x)
        updates.append(-p.detach().clone())
    return torch.stack(updates), [updater.state[p][name] for name in cls.state_names]


def assert_near(ours, theirs, rtol):
    theirs = np.asarray(theirs)
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(ours.double().numpy(), theirs, rtol=0, atol=rtol * scale)


def resumed(updater, how, **arguments):
    """A second one that goes on from where ``updater`` is."""
    if how == "pickle":
        return pickle.loads(pickle.dumps(updater))
    if how == "deepcopy":
        return copy.deepcopy(updater)
    file = io.BytesIO()
    torch.save(updater.state_dict(), file)
    file.seek(0)
    other = type(updater)([nn.Parameter(p) for p in values(updater)], **arguments)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def group_of(updater: Any) -> dict[str, Any]:
    group: dict[str, Any] = updater.param_groups[0]
    return group
